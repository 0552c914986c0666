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
    """Convert UV coordinates to texel coordinates. The center of the texel in row i and column j is (j + 0.5, i + 0.5).

    Args:
        uv: UV coordinates [..., 2].
        size: Edge of the square texture in texels.

    Returns:
        Coordinates (column, row) [..., 2] in texels.
    """
    return np.stack([uv[..., 0] * size, (1.0 - uv[..., 1]) * size], -1)


def barycentric(corners: FloatArray, points: FloatArray) -> FloatArray:
    """Return the barycentric weights [n, 3] of n points, each in its own triangle. Triangles of area 0 give NaN.

    Args:
        corners: The three corners of the triangle of each point, [n, 3, 2].
        points: The points [n, 2].
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
    """Find the face that covers the center of each texel. If there are several, the highest face index is taken.

    Args:
        uv: UV coordinates [v, 2] of v vertices.
        faces: For each of m faces, the indices of its three vertices, [m, 3]. They index the rows of `uv`.
        size: Edge of the square texture in texels.

    Returns:
        The index of the face at each texel, [size, size], and the barycentric weights of the texel's center in this
        face, [size, size, 3]. For texels without a face, the index is -1 and the weights are 0.
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
    """Yield the texels that each face may cover: those with centers in the bounding box of the face.

    Args:
        corners: Corners [m, 3, 2] of the faces in texels.
        size: Edge of the square texture in texels.

    Yields:
        Face index, column and row of each pair of face and texel, in order of the faces, as arrays of bounded size.
    """
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
        vertices: c values for each of v vertices, [v, c], such as position and normal. They are interpolated within
            each face and passed to `color`.
        uv: UV coordinates [v, 2] of v vertices.
        faces: For each of m faces, the indices of its three vertices, [m, 3]. They index the rows of `vertices` and
            `uv`.
        size: Edge of the square texture in texels.
        color: Function from the interpolated values of n points, [n, c], to colors [n, 3] in [0, 1]. The colors are
            stored without color conversion.

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
    """Convert colors in [0, 1] to uint8 values from 0 to 255.

    Args:
        colors: An array of any shape. Values outside [0, 1] are clipped.
    """
    quantized: UInt8 = np.rint(np.clip(colors, 0.0, 1.0) * 255).astype(np.uint8)
    return quantized


def pad(texture: FloatArray, covered: NDArray[np.bool_]) -> FloatArray:
    """Fill the uncovered texels of a texture with the color of the nearest covered texel.

    Args:
        texture: The texture [h, w, c], with c color channels.
        covered: Mask [h, w] of the texels that a face covers. If no texel is covered, the texture is returned
            unchanged.
    """
    if not covered.any():
        return texture
    rows, columns = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    padded: FloatArray = texture[rows, columns]
    return padded
