"""Construct limbs and trunks of animals: smooth surfaces through a few stations with a radius at each."""

from collections.abc import Sequence

import numpy as np

from render.procedural.primitives.pattern import Floats
from render.procedural.primitives.surface import Points, SurfaceGrid, Vector, loft, tube


def through(values: Floats, count: int) -> Floats:
    """Return points [count, k] on the Catmull-Rom spline through the points `values` [n, k], including both ends.

    n is the number of points in `values`, and k the number of coordinates of a point.
    """
    padded = np.concatenate([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    place = np.linspace(0, len(values) - 1, count)
    start = np.minimum(place.astype(np.int64), len(values) - 2)
    t = (place - start)[:, None]
    a, b, c, d = (padded[start + k] for k in range(4))
    cubic = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return np.asarray(cubic / 2)


def path_through(control: Sequence[Vector], count: int = 16) -> Points:
    """Return points [count, 3] on a smooth path through all control points."""
    return through(np.asarray(control, dtype=np.float64), count)


def limb(stations: Sequence[tuple[float, float, float, float]], count: int = 18, sides: int = 20) -> SurfaceGrid:
    """Return a tube with round ends. `stations` are (x, y, z, radius) of the points on its center line.

    The tube has `count` rows between its round ends, and `sides` faces around it.
    """
    rows = through(np.asarray(stations, dtype=np.float64), count)
    return tube(rows[:, :3], rows[:, 3].clip(1e-3), sides)


def trunk(stations: Sequence[tuple[float, float, float, float]], count: int = 28, sides: int = 32) -> SurfaceGrid:
    """Return the body of an animal along the y axis, with round ends.

    `stations` are (y, z, half width, half height) of its cross-sections, from front to back, all at x = 0. The body has
    `count` rows between its round ends, and `sides` faces around it.
    """
    rows = through(np.asarray(stations, dtype=np.float64), count)
    angle = np.arange(sides) * (2 * np.pi / sides)
    across, up = np.sin(angle), np.cos(angle)
    first, last = rows[0], rows[-1]
    caps = np.sin(np.linspace(0, np.pi / 2, 6))[1:-1], np.cos(np.linspace(0, np.pi / 2, 6))[1:-1]
    front = [_capped(first, -1.0, s, c) for s, c in zip(*caps, strict=True)]
    back = [_capped(last, 1.0, s, c) for s, c in zip(*caps, strict=True)]
    rings = [
        np.stack([w * across, np.full(sides, y), z + h * up], axis=1) for y, z, w, h in [*front[::-1], *rows, *back]
    ]
    return loft(rings)


def _capped(station: Floats, direction: float, out: float, shrink: float) -> Floats:
    """Return a station moved outward by `out` times its half width, and scaled by `shrink`."""
    y, z, w, h = station
    return np.array([y + direction * out * min(w, h), z, w * shrink, h * shrink])
