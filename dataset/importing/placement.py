"""Move and scale the cameras of an object, check that they see it, and choose its fixed and random views.

The size and the place of the object are unknown: only cameras are used. By default, they are kept as given.
"""

from typing import Final, NamedTuple

import numpy as np

from dataset.camera import DISTANCE, LENS_MM, SENSOR_MM, Float64Array, c2w_to_spherical, convert_c2w, spherical_to_c2w
from dataset.format.schema import VIEWS_PER_SET, Projection, ViewKey
from dataset.importing.errors import CameraFileError
from dataset.importing.settings import ImportSettings

RING_ELEVATION_DEG: Final = 30.0  # of the fixed views of the paper
RING_TOLERANCE_DEG: Final = 1.0  # of the direction from the origin to the camera, and of its rotation
FRAME_WIDTH: Final = DISTANCE * SENSOR_MM / LENS_MM  # what the default rig shows at the origin, in world units
_PARALLEL: Final = 1e-6  # smallest eigenvalue, relative to the largest: optical axes that define no point


class Placement(NamedTuple):
    """Cameras of `n` views after `position = scale * (position + offset)`.

    Attributes:
        c2w: Camera-to-world matrices [n, 4, 4], in the "blender" convention of `dataset.camera`.
        K: Intrinsic matrices [n, 3, 3] in pixels.
        scale: The factor.
        offset: The offset [3].
        unseen: Number of cameras whose image does not contain the origin.
    """

    c2w: Float64Array
    K: Float64Array
    scale: float
    offset: Float64Array
    unseen: int


def place_cameras(
    c2w: Float64Array, K: Float64Array, side: int, projection: Projection, settings: ImportSettings
) -> Placement:
    """Center and scale the cameras of `n` views as the settings say, and check that they look at the origin.

    Args:
        c2w: Camera-to-world matrices [n, 4, 4], in the "blender" convention.
        K: Intrinsic matrices [n, 3, 3], in pixels of square images.
        side: Pixels per side of the images.
        projection: Projection of all cameras.
        settings: `center` moves the point that is nearest to all optical axes to the origin. The scale "auto" makes
            the median width of what the images show at the origin FRAME_WIDTH, as in the default rig of rendering.

    Raises:
        CameraFileError: A camera is at the origin, all cameras look away from it, or the optical axes define no point.
    """
    offset = -nearest_point(c2w) if settings.center else np.zeros(3)
    moved, lenses = c2w.copy(), K.copy()
    moved[:, :3, 3] += offset
    distances = np.linalg.norm(moved[:, :3, 3], axis=1)
    if distances.min() < 1e-9:
        raise CameraFileError(f"camera number {int(distances.argmin())} is at the origin, where the object should be")
    widths = side / K[:, 0, 0] * (distances if projection == "perspective" else 1.0)
    scale = float(FRAME_WIDTH / np.median(widths)) if settings.scale == "auto" else settings.scale
    moved[:, :3, 3] *= scale
    if projection == "orthographic":
        lenses[:, :2, :2] /= scale
    pixels, depths = _origin(moved, lenses, projection)
    if (depths <= 0).all():
        raise CameraFileError(
            "all cameras look away from the origin, so the camera axes are probably not as stated: they must be x "
            "right, y up, z backwards (layout nerf, --convention opengl) or x right, y down, z forwards (--convention "
            "opencv). If the object is not at the origin, give --center"
        )
    inside = (depths > 0) & (pixels > 0).all(1) & (pixels < side).all(1)
    return Placement(moved, lenses, scale, offset, int((~inside).sum()))


def nearest_point(c2w: Float64Array) -> Float64Array:
    """Return the point [3] with the smallest sum of squared distances to the optical axes of cameras [n, 4, 4].

    Raises:
        CameraFileError: The optical axes are parallel, or there is only one.
    """
    axes, positions = c2w[:, :3, 2], c2w[:, :3, 3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None]  # [n, 3, 3] projections onto the planes across the axes
    matrix = across.sum(0)
    values = np.linalg.eigvalsh(matrix)
    if values[0] < _PARALLEL * values[-1]:
        raise CameraFileError("the optical axes of the cameras are parallel, so --center finds no point; remove it")
    point: Float64Array = np.linalg.solve(matrix, (across @ positions[:, :, None]).sum(0)[:, 0])
    return point


def _origin(c2w: Float64Array, K: Float64Array, projection: Projection) -> tuple[Float64Array, Float64Array]:
    """Return the pixel coordinates [n, 2] of the origin in `n` images, and its depths [n]; NaN if it is behind."""
    opencv = convert_c2w(c2w, "blender", "opencv")
    local = -(np.swapaxes(opencv[:, :3, :3], 1, 2) @ opencv[:, :3, 3:])[..., 0]
    depths: Float64Array = local[:, 2].copy()
    divisor = depths if projection == "perspective" else np.ones_like(depths)
    divisor = np.where(depths > 0, divisor, np.nan)
    pixels: Float64Array = local[:, :2] / divisor[:, None] * K[:, [0, 1], [0, 1]] + K[:, :2, 2]
    return pixels, depths


def find_ring(c2w: Float64Array) -> list[int]:
    """Return the numbers of the views that are the 16 fixed views of the paper, in their order.

    They have the elevation RING_ELEVATION_DEG and the azimuths 0, 22.5, ..., 337.5. A view is one of them if the
    direction from the origin to its camera and the rotation of its camera differ by at most RING_TOLERANCE_DEG; of
    several such views, the nearest one, then the first. Distance and field of view are not compared.

    Args:
        c2w: Camera-to-world matrices [n, 4, 4], in the "blender" convention.

    Returns:
        The 16 numbers, 0 to n - 1; empty if a view is missing.
    """
    azimuths_deg = 360.0 / VIEWS_PER_SET * np.arange(VIEWS_PER_SET)
    ring = spherical_to_c2w(RING_ELEVATION_DEG, azimuths_deg)
    elevation_deg, azimuth_deg, _ = c2w_to_spherical(c2w)
    toward = spherical_to_c2w(elevation_deg, azimuth_deg)[:, :3, 2]  # unit vectors from the origin to the cameras
    chords = np.linalg.norm(toward[None] - ring[:, None, :3, 2], axis=2)  # [16, n]
    turns = np.linalg.norm(c2w[None, :, :3, :3] - ring[:, None, :3, :3], axis=(2, 3)) / np.sqrt(2)
    angles_deg = np.rad2deg(2 * np.arcsin(np.minimum(np.maximum(chords, turns) / 2, 1)))
    nearest = np.rint(angles_deg / 1e-6).argmin(1)  # rounded: equal views differ by rounding errors
    if angles_deg[np.arange(VIEWS_PER_SET), nearest].max() > RING_TOLERANCE_DEG:
        return []
    return [int(index) for index in nearest]


def choose_views(c2w: Float64Array, max_views: int) -> tuple[list[tuple[ViewKey, int]], int]:
    """Choose the fixed and random views of an object. Return (key, number of the view) pairs, and how many are left.

    The ring (`find_ring`) becomes the fixed views; without a complete ring there are none. The other views become
    random views in the given order. If there are more than `max_views`, they are spread evenly over the order.

    Args:
        c2w: Camera-to-world matrices [n, 4, 4], in the "blender" convention.
        max_views: Largest number of random views.
    """
    ring = find_ring(c2w)
    others = [index for index in range(len(c2w)) if index not in set(ring)]
    kept = min(len(others), max_views)
    spread = [others[place * len(others) // kept] for place in range(kept)]
    fixed: list[tuple[ViewKey, int]] = [(("fixed", place), index) for place, index in enumerate(ring)]
    return [*fixed, *((("random", place), index) for place, index in enumerate(spread))], len(others) - kept
