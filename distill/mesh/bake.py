"""Bake a color function into a texture: rasterize UV triangles, color surface points, pad seams. Numpy only.

UV convention: u to the right, v up, (0, 0) is the lower left corner of the image, as in trimesh and OBJ. Row 0 of a
texture is its top, so the center of texel (row i, column j) is at u = (j + 0.5) / size, v = 1 - (i + 0.5) / size.

Axis letters: `v` vertices, `m` faces, `t` texels that a face covers.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from distill.mesh.arrays import FloatArray, IntArray, UInt8

ColorFunction = Callable[[FloatArray], NDArray[np.float32]]  # interpolated vertex values [n, c] -> colors [n, 3]

_CANDIDATES: Final = 1 << 20  # number of texels tested at once, to bound the memory
_EDGE: Final = 1e-9  # tolerance so that a texel center on a shared edge belongs to a face


def texel_coordinates(uv: FloatArray, size: int) -> FloatArray:
    """Convert UV [..., 2] to (column, row) [..., 2] in texels; the center of texel (i, j) is (j + 0.5, i + 0.5)."""
    return np.stack([uv[..., 0] * size, (1.0 - uv[..., 1]) * size], -1)


def barycentric(corners: FloatArray, points: FloatArray) -> FloatArray:
    """Return barycentric weights [n, 3] of points [n, 2] in triangles `corners` [n, 3, 2].

    The weights of triangles of area 0 are NaN.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight_b = _cross(points - a, c - a) / area
        weight_c = _cross(b - a, points - a) / area
    weights = np.stack([1.0 - weight_b - weight_c, weight_b, weight_c], -1)
    return np.where(area[:, None] == 0, np.nan, weights)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    product: FloatArray = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return product


def rasterize(uv: FloatArray, faces: IntArray, size: int) -> tuple[IntArray, FloatArray]:
    """Find the face that covers the center of each texel. If faces overlap, the last one is taken.

    Args:
        uv: UV coordinates [v, 2].
        faces: Indices into `uv`, [m, 3].
        size: Edge of the texture in texels.

    Returns:
        The index of the face at each texel [size, size], -1 where there is none, and the barycentric weights of the
        texel's center in that face [size, size, 3], 0 where there is none.
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


def _candidates(corners: FloatArray, size: int) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Yield face, column and row of all texels with centers in the bounding box of a face, in chunks, by face."""
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
        offset = np.arange(len(face)) - (ends - counts)[face] + done
        width = np.maximum(extent[face, 0], 1)
        yield face, low[face, 0] + offset % width, low[face, 1] + offset // width
        start = stop


def bake(vertices: FloatArray, uv: FloatArray, faces: IntArray, size: int, color: ColorFunction) -> UInt8:
    """Bake a color function into a texture.

    Texels outside all faces take the color of the nearest covered texel, so that filtering and mip maps do not bleed
    across seams.

    Args:
        vertices: Values [v, c] per vertex, such as position and normal, which are interpolated and passed to `color`.
        uv: UV coordinates [v, 2].
        faces: Indices into `vertices` and `uv`, [m, 3].
        size: Edge of the texture in texels.
        color: The color function; its colors in [0, 1] are stored without conversion.

    Returns:
        The texture [size, size, 3].
    """
    owner, weights = rasterize(uv, faces, size)
    covered = owner >= 0
    texture = np.zeros((size, size, 3))
    if covered.any():
        corners = vertices[faces[owner[covered]]]
        points = (weights[covered][:, :, None] * corners).sum(1)
        texture[covered] = color(points)
    return as_bytes(pad(texture, covered))


def as_bytes(colors: NDArray[np.floating[Any]]) -> UInt8:
    """Convert colors in [0, 1], of any shape, to uint8."""
    quantized: UInt8 = np.rint(np.clip(colors, 0.0, 1.0) * 255).astype(np.uint8)
    return quantized


def pad(texture: FloatArray, covered: NDArray[np.bool_]) -> FloatArray:
    """Give every texel of `texture` [h, w, c] that is not `covered` [h, w] the value of the nearest covered texel."""
    if not covered.any():
        return texture
    rows, columns = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    padded: FloatArray = texture[rows, columns]
    return padded
