"""Convert grids of points to triangles with texture coordinates, and patterns to textures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.procedural.primitives.pattern import Pattern
from render.procedural.primitives.surface import SurfaceGrid

TEXELS = 128
CELLS = 14


@dataclass(frozen=True)
class Mesh:
    """Triangles that share vertices. Each corner of a triangle has its own texture coordinates.

    Triangles on the two sides of a texture seam share vertices too.
    """

    vertices: NDArray[np.float64]  # [v, 3]
    triangles: NDArray[np.int64]  # [t, 3]
    corners_uv: NDArray[np.float64]  # [t, 3, 2], v upwards


def triangulate(surface: SurfaceGrid, rest: SurfaceGrid) -> Mesh:
    """Split each cell of a grid [rows, columns, 3] into two triangles. Merge equal points.

    Triangles without area are dropped. Texture coordinates are computed from `rest` [rows, columns, 3], the points at
    which the pattern is evaluated.
    """
    rows, columns, _ = surface.shape
    points = np.round(surface.reshape(-1, 3), 6)
    vertices, vertex_of = np.unique(points, axis=0, return_inverse=True)
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    cells = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    triangles = vertex_of.reshape(-1)[cells]
    kept = (triangles != np.roll(triangles, 1, axis=1)).all(axis=1)
    return Mesh(vertices, triangles[kept], _coordinates(rest).reshape(-1, 2)[cells[kept]])


def refined(surface: SurfaceGrid, rest: SurfaceGrid) -> tuple[SurfaceGrid, SurfaceGrid]:
    """Add interpolated rows and columns to both grids [rows, columns, 3] where the cells of `rest` are long.

    The texture of a long cell would be distorted. `rest` holds the points at which the pattern is evaluated.
    """
    for axis in (0, 1):
        gaps = np.diff(_places(rest, axis))
        pieces = np.ceil(gaps * CELLS).astype(np.int64).clip(1)
        index = np.concatenate([line + np.arange(n) / n for line, n in enumerate(pieces)] + [[float(len(pieces))]])
        surface, rest = _interpolated(surface, index, axis), _interpolated(rest, index, axis)
    return surface, rest


def _interpolated(surface: SurfaceGrid, index: NDArray[np.float64], axis: int) -> SurfaceGrid:
    """Return rows (axis 0) or columns (axis 1) at fractional indices."""
    low = np.minimum(index.astype(np.int64), surface.shape[axis] - 2)
    share = (index - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    first, second = np.take(surface, low, axis), np.take(surface, low + 1, axis)
    return np.asarray(first + (second - first) * share)


def _places(surface: SurfaceGrid, axis: int) -> NDArray[np.float64]:
    """Return the position in [0, 1] of each row or column, proportional to the mean distance along the surface."""
    step = np.linalg.norm(np.diff(surface, axis=axis), axis=-1).mean(axis=1 - axis)
    place = np.concatenate([[0.0], np.cumsum(step + 1e-9)])
    return np.asarray(place / place[-1])


def _coordinates(surface: SurfaceGrid) -> NDArray[np.float64]:
    """Return texture coordinates [rows, columns, 2]: u around the surface, v along it, half a texel off the border."""
    uv = np.stack(np.broadcast_arrays(_places(surface, 1)[None, :], _places(surface, 0)[:, None]), axis=-1)
    return np.asarray((uv * (TEXELS - 1) + 0.5) / TEXELS)


def paint_texture(rest: SurfaceGrid, pattern: Pattern) -> NDArray[np.uint8]:
    """Return the sRGB texture [TEXELS, TEXELS, 3] of a pattern on the surface `rest` [rows, columns, 3].

    The pattern is evaluated at the surface point of each texel. Row 0 is the bottom row of the texture.
    """
    even = np.linspace(0, 1, TEXELS)
    points = rest
    for axis in (0, 1):
        places = _places(rest, axis)
        points = _interpolated(points, np.interp(even, places, np.arange(len(places))), axis)
    colors = np.clip(pattern(points.reshape(-1, 3)), 0, 1)
    texels: NDArray[np.uint8] = np.rint(colors * 255).astype(np.uint8)
    return texels.reshape(TEXELS, TEXELS, 3)
