"""A color function baked into a texture: UV triangles rasterized, surface points colored, seams padded. Pure numpy.

UV convention: u to the right, v up, (0, 0) the lower left corner of the picture, as trimesh and OBJ have it. Row 0 of a
texture is its top, so the center of texel (row i, column j) lies at u = (j + 0.5) / size, v = 1 - (i + 0.5) / size.

Letters: `v` vertices, `m` faces, `t` texels that a face covers.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Color = Callable[[Float], NDArray[np.float32]]  # what vertices hold, interpolated [n, c] -> colors [n, 3]

_CANDIDATES: Final = 1 << 20  # texels tested at a time, which bounds the memory
_EDGE: Final = 1e-9  # a texel center exactly on a shared edge belongs to a face


def texel_coordinates(uv: Float, size: int) -> Float:
    """UV [..., 2] -> (column, row) [..., 2] in texels, continuous; the center of texel (i, j) is (j + 0.5, i + 0.5)."""
    return np.stack([uv[..., 0] * size, (1.0 - uv[..., 1]) * size], -1)


def barycentric(corners: Float, points: Float) -> Float:
    """Weights [n, 3] of `points` [n, 2] in the triangles `corners` [n, 3, 2]; NaN where a triangle has no area."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight_b = _cross(points - a, c - a) / area
        weight_c = _cross(b - a, points - a) / area
    weights = np.stack([1.0 - weight_b - weight_c, weight_b, weight_c], -1)
    return np.where(area[:, None] == 0, np.nan, weights)


def _cross(a: Float, b: Float) -> Float:
    product: Float = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def rasterize(uv: Float, faces: Int, size: int) -> tuple[NDArray[np.int64], Float]:
    """Which face covers each texel's center: (face [size, size], -1 where none; weights [size, size, 3], 0 where none).

    `uv` is [v, 2], `faces` [m, 3]. Where faces overlap the last one wins, so the result depends on the input alone.
    """
    owner = np.full((size, size), -1, np.int64)
    weights = np.zeros((size, size, 3))
    corners = texel_coordinates(uv.astype(np.float64), size)[faces]
    for face, column, row in _candidates(corners, size):
        weight = barycentric(corners[face], np.stack([column + 0.5, row + 0.5], -1))
        inside = (weight >= -_EDGE).all(-1)
        owner[row[inside], column[inside]] = face[inside]
        weights[row[inside], column[inside]] = weight[inside]
    return owner, weights


def _candidates(corners: Float, size: int) -> Iterator[tuple[Int, Int, Int]]:
    """(face, column, row) of every texel whose center lies in the bounding box of a triangle, in chunks, by face."""
    low = np.clip(np.ceil(corners.min(1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners.max(1) - 0.5) + 1, 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    counts = extent[:, 0] * extent[:, 1]
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CANDIDATES, side="right")))
        face = np.repeat(np.arange(start, stop), counts[start:stop])
        place = np.arange(len(face)) - (ends - counts)[face] + done
        width = np.maximum(extent[face, 0], 1)
        yield face, low[face, 0] + place % width, low[face, 1] + place // width
        start = stop


def bake(vertices: Float, uv: Float, faces: Int, size: int, color: Color) -> NDArray[np.uint8]:
    """Texture [size, size, 3] of the color function over the surface; colors in [0, 1] become bytes unchanged.

    `vertices` [v, c] (places, or more columns) and `uv` [v, 2] share the indices of `faces` [m, 3]. Texels that no face
    covers take the color of the nearest one that is covered, so that filtering and mip maps do not bleed across seams.
    """
    owner, weights = rasterize(uv, faces, size)
    covered = owner >= 0
    texture = np.zeros((size, size, 3))
    if covered.any():
        corners = vertices[faces[owner[covered]]]
        points = (weights[covered][:, :, None] * corners).sum(1)
        texture[covered] = color(points)
    return as_bytes(pad(texture, covered))


def as_bytes(colors: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colors in [0, 1] as bytes."""
    quantized: NDArray[np.uint8] = np.rint(np.clip(colors, 0.0, 1.0) * 255).astype(np.uint8)
    return quantized


def pad(texture: Float, covered: NDArray[np.bool_]) -> Float:
    """Every texel of `texture` [h, w, c] that is not `covered` [h, w] takes the nearest covered texel's value."""
    if not covered.any():
        return texture
    rows, columns = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    padded: Float = texture[rows, columns]
    return padded
