"""Compute the scores of an object's shape from its views: flatness, symmetry and number of distinct views."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.camera import world_to_camera
from dataset.curate.views import Float32, is_visible
from dataset.format.schema import View

Float64 = NDArray[np.float64]

DISTINCT_FROM: Final = 0.2  # distance of two views that are distinct
_PIXEL_VARIANCE: Final = 1 / 12  # pixels^2: what averaging over a pixel adds to the variance of a silhouette
_IN_IMAGE: Final = 0.5  # length of a projected unit vector whose extent a view shows well enough
_COMPARED_SIDE: Final = 16  # pixels per side of views that are compared with each other


def semi_axes(views: Float32, cameras: Sequence[View]) -> Float64:
    """Return the semi-axes of the ellipsoid that fits the silhouettes of an object, longest first: float64 [3].

    The silhouette of an ellipsoid with the shape matrix S [3, 3] is an ellipse with the shape matrix P S P^T, where the
    rows of P [2, 3] are the image axes. The second moments of each silhouette give the left side of this equation,
    which is linear in S, and least squares over all views give S. The semi-axes are the roots of its eigenvalues, and
    their directions the eigenvectors. Least squares are not precise enough for the thickness of thin objects.
    Therefore, the short semi-axis is computed from one view, in which the longer ones contribute least to the extent of
    the silhouette along the short one: a sheet is seen edge-on there. If the object is invisible in this view, its
    thickness is 0. Perspective is approximated by the scale of the image at the origin.

    Args:
        views: float32 [f, s, s, 4] with premultiplied alpha.
        cameras: Camera of each of the `f` views. It looks at the origin; the principal point is the image center.
    """
    shown = views[..., 3].sum((1, 2)) > 0
    if not shown.any():
        return np.zeros(3)
    planes = np.array([world_to_camera(camera.c2w)[:2, :3] for camera in cameras])  # [f, 2, 3]: right and up
    ellipses = np.array([_ellipse(view, camera) for view, camera in zip(views[..., 3], cameras, strict=True)])
    right, up = planes[shown, 0], planes[shown, 1]
    coefficients = np.concatenate([_quadratic(right, right), _quadratic(up, up), _quadratic(right, up)])
    values = np.concatenate([ellipses[shown, i, j] for i, j in ((0, 0), (1, 1), (0, 1))])
    xx, yy, zz, xy, xz, yz = np.linalg.lstsq(coefficients, values, rcond=None)[0]
    squares, directions = np.linalg.eigh(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))  # ascending
    squares = np.maximum(squares, 0)
    middle, long = np.sqrt(squares[1:])
    return np.array([long, middle, min(_short_axis(planes, ellipses, squares[1:], directions), middle)])


def _short_axis(planes: Float64, ellipses: Float64, squares: Float64, directions: Float64) -> float:
    """Return the short semi-axis from the view in which the two longer ones contribute least.

    Args:
        planes: Image axes of `f` views, [f, 2, 3].
        ellipses: Shape matrices of the silhouettes, [f, 2, 2].
        squares: Squares of the two longer semi-axes, [2].
        directions: Directions of the three semi-axes as columns, shortest first: [3, 3].
    """
    axis = planes @ directions[:, 0]  # [f, 2]
    length = np.linalg.norm(axis, axis=1)
    limit = min(_IN_IMAGE, float(length.max()))
    axis /= np.maximum(length, 1e-9)[:, None]
    longer = np.einsum("fi,fij,jk->fk", axis, planes, directions[:, 1:]) ** 2 @ squares  # [f]
    extents = np.einsum("fi,fij,fj->f", axis, ellipses, axis)
    best = int(np.argmin(np.where(length >= limit, longer, np.inf)))
    return float(np.sqrt(max(extents[best] - longer[best], 0.0)) / max(length[best], 1e-9))


def _quadratic(a: Float64, b: Float64) -> Float64:
    """Return the coefficients of the entries xx, yy, zz, xy, xz, yz of a symmetric matrix S in a^T S b.

    `a` and `b` are float64 [f, 3]; the result is float64 [f, 6].
    """
    x, y, z = ((a[:, i] * b[:, j] + a[:, j] * b[:, i]) for i, j in ((0, 1), (0, 2), (1, 2)))
    return np.stack([*(a * b).T, x, y, z], axis=1)


def _ellipse(alpha: Float32, camera: View) -> Float64:
    """Return the shape matrix [2, 2] (right, up) of the ellipse with the second moments of a silhouette [s, s].

    The unit is that of the camera's distance, squared. Without visible pixels, the matrix is zero.
    """
    total = float(alpha.sum(dtype=np.float64))
    if total <= 0:
        return np.zeros((2, 2))
    pixels = alpha.shape[0] * camera.K[0][0] / (2 * camera.K[0][2])  # focal length in pixels of the reduced view
    place = np.arange(alpha.shape[0], dtype=np.float64)
    weight = alpha.astype(np.float64) / total
    columns, rows = weight.sum(0), weight.sum(1)
    x, y = place - columns @ place, rows @ place - place
    across = max(float(columns @ x**2) - _PIXEL_VARIANCE, 0.0)
    upwards = max(float(rows @ y**2) - _PIXEL_VARIANCE, 0.0)
    covariance = float(y @ weight @ x)
    return 4 * (camera.distance / pixels) ** 2 * np.array([[across, covariance], [covariance, upwards]])


def flatness(axes: Float64) -> float:
    """Return how flat an object is, 0 to 1: one minus the ratio of its shortest to its middle semi-axis.

    A sheet has a flatness of 1. A sphere and a cube have almost 0, and a rod, which is thin in two directions, is below
    0.7 because its middle semi-axis is imprecise.

    Args:
        axes: Semi-axes, longest first: float64 [3], as returned by `semi_axes`. If all are 0, the flatness is 0.
    """
    return float(1 - axes[2] / axes[1]) if axes[1] > 0 else 0.0


def symmetry(alpha: Float32) -> float:
    """Return how symmetric the silhouettes of an object are about the best vertical plane, 0 to 1.

    For an object with a plane of symmetry through the vertical axis, the views from both sides of the plane, at equal
    angles to it, are mirror images. The score of a plane is the mean overlap of the views and the mirror images of
    their counterparts. The overlap of two silhouettes is the sum of the minima of their alpha, divided by the sum of
    the maxima. There are as many planes as views: through the cameras and halfway between them. Colors do not count,
    because the light is not symmetric. Without visible views, the score is 0.

    Args:
        alpha: Alpha of `f` views from one elevation with evenly spaced azimuths, in order: float32 [f, s, s].
    """
    count, mirrored, best = len(alpha), alpha[:, :, ::-1], 0.0
    for plane in range(count):
        other = mirrored[(plane - np.arange(count)) % count]
        common, union = np.minimum(alpha, other).sum((1, 2)), np.maximum(alpha, other).sum((1, 2))
        seen = union > 0
        if seen.any():
            best = max(best, float((common[seen] / union[seen]).mean()))
    return best


def distinct_views(views: Float32) -> int:
    """Return how many of the views of an object differ from each other, 0 to the number of views.

    The views are taken in order; a view counts if its distance from every view that was counted before is at least
    DISTINCT_FROM. Views are compared at 16 x 16 pixels. The distance is the sum over the pixels of the largest
    difference of a channel (red, green, blue, alpha, premultiplied), divided by the area of the union of the
    silhouettes. A plain vase has 1 distinct view, a box has 4 to 8, and most objects without rotational symmetry have
    16. Views that do not show the object do not count.

    Args:
        views: float32 [f, s, s, 4] in [0, 1] with premultiplied alpha.
    """
    small = coarsen(views[is_visible(views)], _COMPARED_SIDE)
    kept: list[Float32] = []
    for view in small:
        if all(_distance(view, other) >= DISTINCT_FROM for other in kept):
            kept.append(view)
    return len(kept)


def _distance(first: Float32, second: Float32) -> float:
    """Return the distance, 0 to 1, of two views [n, n, 4] that show the object."""
    union = float(np.maximum(first[..., 3], second[..., 3]).sum())
    return float(np.abs(first - second).max(-1).sum()) / union


def coarsen(images: Float32, side: int) -> Float32:
    """Reduce images [f, s, s, c] to at most `side` x `side` pixels by averaging blocks of pixels: float32 [f, n, n, c].

    If s is not a multiple of n, which is the smaller of s and `side`, the right and lower border are cut off.
    """
    count, size, _, channels = images.shape
    n = min(size, side)
    block = size // n
    cut = images[:, : n * block, : n * block]
    coarse: Float32 = cut.reshape(count, n, block, n, block, channels).mean((2, 4), dtype=np.float32)
    return coarse
