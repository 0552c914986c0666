"""Points on the visual hull of an object: the largest shape whose silhouettes match the given masks."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.camera import convert_c2w
from dataset.reading.rendered_object import RenderedObject

GRID: Final = 64  # points along each side of the cube [-0.5, 0.5]^3
_OPAQUE: Final = 128  # alpha of a pixel that shows the object, 0 to 255


def hull_points(item: RenderedObject, grid: int = GRID) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return points on the surface of an object's visual hull, and their colors.

    The points of a regular grid in the cube [-0.5, 0.5]^3 are kept if every view shows the object there. Of these, the
    points with a neighbor that was not kept are returned. The color of a point is the mean over the views that look
    at it from its open side, without a test of visibility.

    Args:
        item: Object with `f` views.
        grid: Number of grid points along each axis.

    Returns:
        Points [n, 3] in world coordinates and colors, uint8 [n, 3]. `n` is 0 if no point is inside all silhouettes.
    """
    axis = (np.arange(grid) + 0.5) / grid - 0.5
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = np.ones(len(points), bool)
    for c2w, K, image in zip(convert_c2w(item.c2w, "blender", "opencv"), item.K, item.images, strict=True):
        left = np.flatnonzero(inside)
        columns, rows, visible = _pixels(points[left], c2w, K, item.size)
        inside[left] = visible & (image[rows, columns, 3] >= _OPAQUE)
    solid = np.pad(inside.reshape(grid, grid, grid), 1)
    normals = _outward(solid)[inside.reshape(grid, grid, grid)]
    on_surface = np.any(normals != 0, axis=-1)
    surface, normals = points[inside][on_surface], normals[on_surface]
    return surface, _colors(item, surface, normals)


def _pixels(
    points: NDArray[np.float64], c2w: NDArray[np.float64], K: NDArray[np.float64], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Return column and row of the pixel of each point [n], and whether the point is in the image.

    `c2w` [4, 4] has OpenCV's axes. Points outside the image get the nearest pixel of the border.
    """
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    depth = np.maximum(local[:, 2], 1e-6)
    xy = (local @ K.T)[:, :2] / depth[:, None]
    inside = np.all((xy >= 0) & (xy < size), axis=-1) & (local[:, 2] > 0)
    columns, rows = np.clip(xy, 0, size - 1).astype(np.intp).T
    return columns, rows, inside


def _outward(solid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each point of a grid the sum of the directions of its empty neighbors, int64 [g, g, g, 3].

    `solid` [g + 2, g + 2, g + 2] has an empty border.
    """
    empty = (~solid).astype(np.int64)
    core = slice(1, -1)
    return np.stack(
        [
            empty[2:, core, core] - empty[:-2, core, core],
            empty[core, 2:, core] - empty[core, :-2, core],
            empty[core, core, 2:] - empty[core, core, :-2],
        ],
        -1,
    )


def _colors(item: RenderedObject, points: NDArray[np.float64], normals: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the mean color, uint8 [n, 3], of the pixels that show each point from the side of its normal [n, 3]."""
    total, weights = np.zeros((len(points), 3)), np.full((len(points), 1), 1e-9)
    for c2w, K, image in zip(convert_c2w(item.c2w, "blender", "opencv"), item.K, item.images, strict=True):
        columns, rows, _ = _pixels(points, c2w, K, item.size)
        facing = np.maximum(np.sum((c2w[:3, 3] - points) * normals, axis=-1, keepdims=True), 0)
        total += facing * image[rows, columns, :3]
        weights += facing
    colors: NDArray[np.uint8] = np.clip(np.rint(total / weights), 0, 255).astype(np.uint8)
    return colors
