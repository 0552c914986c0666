"""Grids become triangles with texture coordinates, and patterns become textures. Pure numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.procedural.pattern import Pattern
from render.procedural.surface import Surface

TEXELS = 128
ROWS = 32


@dataclass(frozen=True)
class Mesh:
    """Welded triangles: smooth across seams, while texture coordinates belong to corners."""

    vertices: NDArray[np.float64]  # [v, 3]
    triangles: NDArray[np.int64]  # [t, 3]
    corners_uv: NDArray[np.float64]  # [t, 3, 2], v upwards


def triangulate(surface: Surface) -> Mesh:
    """Two triangles a cell; points that coincide are one vertex and triangles without area vanish."""
    rows, columns, _ = surface.shape
    points = np.round(surface.reshape(-1, 3), 6)
    vertices, vertex_of = np.unique(points, axis=0, return_inverse=True)
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    cells = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    triangles = vertex_of.reshape(-1)[cells]
    kept = (triangles != np.roll(triangles, 1, axis=1)).all(axis=1)
    return Mesh(vertices, triangles[kept], _coordinates(surface).reshape(-1, 2)[cells[kept]])


def refined(surface: Surface, rest: Surface) -> tuple[Surface, Surface]:
    """Both grids with rows added by interpolation until none is far from the next, so that a texture lies true on long cells."""
    gaps = np.diff(_row_places(rest))
    places = np.concatenate([row + np.arange(n) / n for row, n in enumerate(np.ceil(gaps * ROWS).astype(np.int64).clip(1))])
    places = np.append(places, len(rest) - 1)
    row = np.minimum(places.astype(np.int64), len(rest) - 2)
    share = (places - row)[:, None, None]
    first, second = (grid[row] * (1 - share) + grid[row + 1] * share for grid in (surface, rest))
    return first, second


def _coordinates(surface: Surface) -> NDArray[np.float64]:
    """[rows, columns, 2]: around by column number, along by mean arc length, half a texel away from the border."""
    along, around = _row_places(surface), np.linspace(0, 1, surface.shape[1])
    uv = np.stack(np.broadcast_arrays(around[None, :], along[:, None]), axis=-1)
    return (uv * (TEXELS - 1) + 0.5) / TEXELS


def _row_places(surface: Surface) -> NDArray[np.float64]:
    """Each row's place in [0, 1], in proportion to the way along the surface."""
    step = np.linalg.norm(np.diff(surface, axis=0), axis=-1).mean(axis=1)
    place = np.concatenate([[0.0], np.cumsum(step + 1e-9)])
    return place / place[-1]


def paint_texture(rest: Surface, pattern: Pattern) -> NDArray[np.uint8]:
    """[TEXELS, TEXELS, 3] sRGB, row 0 at v = 0 (the bottom): the pattern at each texel's point on the surface."""
    place = np.linspace(0, 1, TEXELS)
    along, row_places = place, _row_places(rest)
    row = np.clip(np.searchsorted(row_places, along, side="right") - 1, 0, len(rest) - 2)
    row_share = ((along - row_places[row]) / (row_places[row + 1] - row_places[row]))[:, None, None]
    column_place = place * (rest.shape[1] - 1)
    column = np.minimum(column_place.astype(np.int64), rest.shape[1] - 2)
    column_share = (column_place - column)[None, :, None]
    lines = rest[row] * (1 - row_share) + rest[row + 1] * row_share
    points = lines[:, column] * (1 - column_share) + lines[:, column + 1] * column_share
    colours = np.clip(pattern(points.reshape(-1, 3)), 0, 1)
    return np.rint(colours * 255).astype(np.uint8).reshape(TEXELS, TEXELS, 3)
