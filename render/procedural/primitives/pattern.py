"""Define patterns that give a color to each position in space, so that no UV unwrapping is needed.

A `Pattern` maps points [n, 3] to sRGB colors [n, 3]. A `Mask` maps points [n, 3] to coverage [n] in [0, 1]. `blend`
shows one pattern where the coverage is 0 and another pattern where it is 1. A pattern continues without a seam from one
part of an object to the next. Lengths are in the units of the object's coordinates.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from render.procedural.primitives.color import Rgb
from render.procedural.primitives.surface import Points, Vector

Floats = NDArray[np.float64]
Pattern = Callable[[Points], Floats]
Mask = Callable[[Points], Floats]
_STEPS = (-1, 0, 1)  # from a cell to its neighbors along an axis


def solid(color: Rgb) -> Pattern:
    """Return a pattern of one color."""
    return lambda points: np.broadcast_to(np.asarray(color), points.shape)


def blend(under: Pattern, over: Pattern | Rgb, mask: Mask) -> Pattern:
    """Return a pattern that is `over` where the mask is 1 and `under` where it is 0."""
    top = over if callable(over) else solid(over)

    def color(points: Points) -> Floats:
        below = under(points)
        return below + (top(points) - below) * mask(points)[:, None]

    return color


def edge(distance: Floats, softness: float) -> Floats:
    """Convert signed distances [n] from the border of a shape to coverage [n].

    The coverage is 1 inside the shape, where distances are negative, and 0 outside. It changes linearly from 1 to 0 in
    a border of the width `softness`.
    """
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def waves(rng: np.random.Generator, scale: float, count: int = 6) -> Callable[[Points], Floats]:
    """Return smooth noise as a function of points [n, 3], with values [n] in about [-1, 1].

    The noise is a sum of `count` random plane waves; its features are about `scale` wide.
    """
    direction = rng.normal(size=(count, 3))
    direction *= (np.pi / scale) * rng.uniform(0.6, 1.4, (count, 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
    phase = rng.uniform(0, 2 * np.pi, count)

    def noise(points: Points) -> Floats:
        angle = points @ direction.T  # in place from here: the arrays are large, and there are many
        angle += phase
        return np.asarray(np.sin(angle, out=angle).sum(axis=1) * np.sqrt(2 / count) * 0.7)

    return noise


def stripes(
    rng: np.random.Generator,
    direction: Vector,
    period: float,
    share: float = 0.5,
    wobble: float = 0.0,
) -> Mask:
    """Return a mask of parallel bands.

    Args:
        rng: Draws the position of the bands.
        direction: Normal of the bands.
        period: Distance between the centers of neighboring bands.
        share: Width of a band as a fraction of the period.
        wobble: Amplitude of the waves in the bands as a fraction of the period.
    """
    axis = np.asarray(direction) / np.linalg.norm(direction)
    noise, phase = waves(rng, period * 2.0), rng.uniform()

    def mask(points: Points) -> Floats:
        place = points @ axis / period + phase + (wobble * noise(points) if wobble else 0.0)
        return edge(np.abs(place - np.floor(place) - 0.5) - share / 2, 0.1)

    return mask


def spots(rng: np.random.Generator, spacing: float, radius: float, softness: float = 0.06) -> Mask:
    """Return a mask of round spots with a radius of about `radius`.

    Each cell of a grid with the edge length `spacing` has one spot at a random position. `softness` is the width of the
    soft border of a spot as a fraction of `spacing`.
    """
    table_size = 8
    jitter = rng.uniform(0.15, 0.85, (table_size, table_size, table_size, 3))
    sizes = rng.uniform(0.6, 1.2, (table_size, table_size, table_size)) * radius

    # Flat tables, and one array per axis: many times faster than fancy indices and norms of points [n, 3].
    centers, flat_sizes = jitter.reshape(-1, 3).T.copy(), sizes.ravel()
    strides = (table_size**2, table_size, 1)

    def mask(points: Points) -> Floats:
        grid = (points / spacing).T.copy()
        cell = np.floor(grid).astype(np.int64)
        inside = [[grid[axis] - (cell[axis] + step) for step in _STEPS] for axis in range(3)]
        index = [[(cell[axis] + step) % table_size * strides[axis] for step in _STEPS] for axis in range(3)]
        nearest = np.full(len(points), np.inf)
        for x, y, z in product(range(len(_STEPS)), repeat=3):
            spot = index[0][x] + index[1][y] + index[2][z]
            away = [inside[axis][number] - centers[axis].take(spot) for axis, number in enumerate((x, y, z))]
            distance = np.sqrt(away[0] * away[0] + away[1] * away[1] + away[2] * away[2])
            np.minimum(nearest, distance * spacing - flat_sizes.take(spot), out=nearest)
        return edge(nearest, softness * spacing)

    return mask


def patches(rng: np.random.Generator, scale: float, share: float = 0.4) -> Mask:
    """Return a mask of irregular patches about `scale` wide, which cover about `share` of the surface."""
    noise = waves(rng, scale)
    level = (0.5 - share) * 1.4
    return lambda points: edge(level - noise(points), 0.12)


def checker(size: float) -> Mask:
    """Return a mask of alternating cubes with the edge length `size`, like a chessboard in three dimensions.

    One cube is centered at the origin, so that no border passes through the origin.
    """

    def mask(points: Points) -> Floats:
        wave = np.prod(np.sin((points + size / 2) * (np.pi / size)), axis=1)
        return edge(-wave, 0.1)

    return mask


def beyond(direction: Vector, level: float, softness: float = 0.02) -> Mask:
    """Return a mask of the points whose coordinate along `direction` exceeds `level`.

    `softness` is the width of the soft border.
    """
    axis = np.asarray(direction) / np.linalg.norm(direction)
    return lambda points: edge(level - points @ axis, softness)


def inside(center: Vector, radii: Vector, softness: float = 0.05) -> Mask:
    """Return a mask of the points inside the ellipsoid with this center and these radii along x, y and z.

    `softness` is the width of the soft border as a fraction of the radii.
    """
    return lambda points: edge(np.linalg.norm((points - np.asarray(center)) / radii, axis=1) - 1.0, softness)


def bricks(width: float, height: float, mortar: float = 0.08) -> Mask:
    """Return a mask of the joints of a brick wall. The rows of bricks are stacked along z.

    `width` and `height` are the size of a brick. `mortar` is half the thickness of a joint as a fraction of `height`.
    """

    def mask(points: Points) -> Floats:
        course = points[:, 2] / height
        shift = np.floor(course) % 2 * 0.5
        along = (points[:, 0] + points[:, 1]) / width + shift
        bed = np.minimum(course % 1.0, 1 - course % 1.0)
        joint = np.minimum(along % 1.0, 1 - along % 1.0) * width / height
        return edge(np.minimum(bed, joint) - mortar, 0.06)

    return mask


def grain(rng: np.random.Generator, direction: Vector, scale: float) -> Mask:
    """Return a mask of wood grain: growth rings, about `scale` wide, around an axis that is parallel to `direction`."""
    axis = np.asarray(direction) / np.linalg.norm(direction)
    noise, center = waves(rng, scale * 6), rng.uniform(1, 2, 3) * scale * 8

    def mask(points: Points) -> Floats:
        across = points - center
        across = across - (across @ axis)[:, None] * axis
        ring = np.linalg.norm(across, axis=1) / scale + noise(points * (1 - 0.8 * np.abs(axis)))
        return np.asarray(np.square(1 + np.sin(2 * np.pi * ring)) / 8)

    return mask
