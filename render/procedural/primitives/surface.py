"""Construct surfaces as grids of points in numpy.

A `SurfaceGrid` is an array [rows, columns, 3] of points in Blender's axes (z up, the front of an object faces -y). Each
row is a closed ring of points around the surface: its last point repeats its first point. Seen from the last row, each
ring runs counter-clockwise, so that faces point outwards. The first row consists of copies of one point, and so does
the last row. This closes the two ends of the surface. Every shape is a loft: a stack of closed rings.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SurfaceGrid = NDArray[np.float64]
Points = NDArray[np.float64]
Vector = tuple[float, float, float]


def loft(rings: Sequence[Points]) -> SurfaceGrid:
    """Return a closed surface through `rings` of n points, each [n, 3].

    Triangles to the center of the first ring close one end. Triangles to the center of the last ring close the other
    end.
    """
    first, last = (np.broadcast_to(ring.mean(axis=0), ring.shape) for ring in (rings[0], rings[-1]))
    rows = np.stack([first, *rings, last])
    return np.concatenate([rows, rows[:, :1]], axis=1)


def circle(sides: int) -> Points:
    """Return a unit circle in the xy plane, [sides, 2], counter-clockwise."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def at_height(outline: Points, z: float) -> Points:
    """Return a 2D outline [n, 2] as a ring [n, 3] at height z."""
    return np.concatenate([outline, np.full((len(outline), 1), z)], axis=1)


def lathe(profile: Sequence[tuple[float, float]], sides: int = 32) -> SurfaceGrid:
    """Revolve a profile of (radius, height) pairs about the z axis.

    The profile runs from the bottom upwards; for a vessel, it then continues down the inside.
    """
    return loft([at_height(circle(sides) * radius, z) for radius, z in profile])


def ellipsoid(center: Vector, radii: Vector, sides: int = 28, rows: int = 16) -> SurfaceGrid:
    """Return an ellipsoid with poles on the z axis."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows)[1:-1]
    unit = lathe([(float(np.cos(a)), float(np.sin(a))) for a in latitude], sides)
    unit[0], unit[-1] = (0, 0, -1), (0, 0, 1)
    return unit * radii + center


def rounded_rectangle(width: float, depth: float, radius: float, corner: int = 4) -> Points:
    """Return the outline [4 * (corner + 1), 2] of a rectangle about the origin with rounded corners.

    `radius` is the radius of the corners, and `corner` the number of segments per corner.
    """
    half = np.array([width, depth]) / 2 - radius
    arc = np.linspace(0, np.pi / 2, corner + 1)
    points: list[Points] = []
    for quarter, sign in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        angle = arc + quarter * np.pi / 2
        points.append(half * sign + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.concatenate(points)


def _bevelled(height: float, bevel: float, steps: int = 4) -> list[tuple[float, float]]:
    """Return (height, inset) pairs, bottom to top, of an upright wall with quarter-round edges, about the origin."""
    angle = np.linspace(0, np.pi / 2, steps)
    top = [(height / 2 - bevel * (1 - np.sin(a)), bevel * (1 - np.cos(a))) for a in angle]
    return [(-z, inset) for z, inset in reversed(top)] + top


def box(center: Vector, size: Vector, bevel: float = 0.02, taper: float = 1.0) -> SurfaceGrid:
    """Return a box with edges rounded by `bevel`; its top is `taper` times as wide and deep as its bottom."""
    width, depth, height = size
    bevel = min(bevel, 0.499 * min(size))
    rings = []
    for z, inset in _bevelled(height, bevel):
        outline = rounded_rectangle(width - 2 * inset, depth - 2 * inset, max(bevel - inset, bevel * 0.05))
        rings.append(at_height(outline * (1 + (taper - 1) * (z / height + 0.5)), z))
    return loft(rings) + center


def prism(outline: Points, depth: float, bevel: float = 0.01) -> SurfaceGrid:
    """Extrude a counter-clockwise outline [n, 2] along z, from -`depth` / 2 to `depth` / 2, with rounded edges.

    The outline must be star-shaped about the mean of its points.
    """
    center = outline.mean(axis=0)
    reach = float(np.linalg.norm(outline - center, axis=1).mean())
    bevel = min(bevel, 0.499 * depth, 0.5 * reach)
    rings = [at_height(center + (outline - center) * (1 - inset / reach), z) for z, inset in _bevelled(depth, bevel, 3)]
    return loft(rings)


def curve(control: Sequence[Vector], count: int = 12) -> Points:
    """Return points [count, 3] on the Bezier curve of the points `control`, by de Casteljau's algorithm."""
    t: Points = np.linspace(0, 1, count)[:, None]
    level: list[Points] = [np.asarray(point, dtype=np.float64)[None] for point in control]
    while len(level) > 1:
        level = [a + (b - a) * t for a, b in pairwise(level)]
    return level[0]


def tube(
    path: Points, radii: float | Sequence[float] | NDArray[np.float64], sides: int = 14, round_ends: bool = True
) -> SurfaceGrid:
    """Return a tube along a path [n, 3] of n points.

    `radii` is one radius, or one radius per point [n]. `sides` is the number of faces around the tube. If `round_ends`,
    hemispheres close the two ends, otherwise flat discs.
    """
    radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), (len(path),))
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = _transported(tangent)
    unit = circle(sides)
    rings = [
        p + r * (unit[:, :1] * s + unit[:, 1:] * np.cross(t, s))
        for p, t, s, r in zip(path, tangent, side, radius, strict=True)
    ]
    if round_ends:
        rings = [
            *_dome(rings[0], path[0], -tangent[0] * radius[0])[::-1],
            *rings,
            *_dome(rings[-1], path[-1], tangent[-1] * radius[-1]),
        ]
    return loft(rings)


def _transported(tangent: Points) -> Points:
    """Return a direction across the path at each point that rotates as little as possible (parallel transport)."""
    first = np.cross(tangent[0], (0.0, 0.0, 1.0) if abs(tangent[0][2]) < 0.9 else (0.0, 1.0, 0.0))
    sides = [first / np.linalg.norm(first)]
    for t in tangent[1:]:
        side = sides[-1] - t * (sides[-1] @ t)
        sides.append(side / np.linalg.norm(side))
    return np.stack(sides)


def _dome(ring: Points, center: Points, axis: Points) -> list[Points]:
    return [center + (ring - center) * np.cos(a) + axis * np.sin(a) for a in np.linspace(0, np.pi / 2, 5)[1:-1]] + [
        center + (ring - center) * 1e-3 + axis
    ]


def capsule(start: Vector, end: Vector, radius: float, end_radius: float | None = None, sides: int = 16) -> SurfaceGrid:
    """Return a straight tube with round ends between the points `start` and `end`.

    The radius of the tube is `radius` at `start` and `end_radius` at `end`. If `end_radius` is None, it is `radius`.
    """
    steps = np.linspace(0, 1, 6)
    path = np.asarray(start) + (np.asarray(end) - np.asarray(start)) * steps[:, None]
    return tube(path, radius + ((end_radius or radius) - radius) * steps, sides)


def moved(surface: SurfaceGrid, offset: Vector) -> SurfaceGrid:
    """Move a surface by `offset`."""
    return surface + offset


def turned(surface: SurfaceGrid, axis: str, angle_deg: float, about: Vector = (0, 0, 0)) -> SurfaceGrid:
    """Rotate a surface counter-clockwise.

    The axis of rotation passes through the point `about`. It is parallel to the coordinate axis `axis`: "x", "y" or
    "z".
    """
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    angle = np.deg2rad(angle_deg)
    local = surface - about
    result = local.copy()
    result[..., first] = local[..., first] * np.cos(angle) - local[..., second] * np.sin(angle)
    result[..., second] = local[..., first] * np.sin(angle) + local[..., second] * np.cos(angle)
    return result + about


def facing_front(surface: SurfaceGrid) -> SurfaceGrid:
    """Rotate a shape that was drawn in the xy plane, so that it stands upright and faces the front (-y).

    The y axis of the drawing becomes the z axis. The side of the shape that faced +z faces -y.
    """
    return np.stack([surface[..., 0], -surface[..., 2], surface[..., 1]], axis=-1)


def facing_side(surface: SurfaceGrid) -> SurfaceGrid:
    """Rotate a side view that was drawn in the xy plane, so that it stands upright and faces the side (+x).

    The x axis of the drawing becomes the y axis, and the y axis of the drawing becomes the z axis. The end of the
    drawing with the smallest x points to the front (-y).
    """
    return np.stack([surface[..., 2], surface[..., 0], surface[..., 1]], axis=-1)


def mirrored(surface: SurfaceGrid) -> SurfaceGrid:
    """Reflect a surface at the plane x = 0. The order of columns is reversed, so that faces still point outwards."""
    return surface[:, ::-1] * (-1.0, 1.0, 1.0)
