"""Compute camera matrices, and the camera labels that the models take as input. All computations use float64.

The project uses the "blender" convention: the world's z axis points up; a camera at azimuth 0 is at -y, a camera at
azimuth 90 is at +x; elevation is positive upwards; a camera looks along its -z axis and y is up. The other conventions
differ from it by fixed rotations:

    name       camera axes                    world axes
    blender    x right, y up, z backwards     z up
    opengl     x right, y up, z backwards     y up (as in glTF: blender (x, y, z) is opengl (x, z, -y))
    opencv     x right, y down, z forwards    z up
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataset.errors import UserError

Float64Array = NDArray[np.float64]
Convention = Literal["blender", "opengl", "opencv"]

LENS_MM: Final = 35.0  # SyncDreamer's render settings, which the paper (4.1) follows
SENSOR_MM: Final = 32.0
DISTANCE: Final = 1.5

_Y_UP_FROM_Z_UP: Final = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_FLIP_YZ: Final = np.diag([1.0, -1.0, -1.0, 1.0])
# (world from blender world, blender camera from camera), both self-inverse or orthogonal
_AXES: Final[dict[str, tuple[Float64Array, Float64Array]]] = {
    "blender": (np.eye(4), np.eye(4)),
    "opengl": (_Y_UP_FROM_Z_UP, np.eye(4)),
    "opencv": (np.eye(4), _FLIP_YZ),
}


def spherical_to_c2w(elevation_deg: ArrayLike, azimuth_deg: ArrayLike, distance: ArrayLike = 1.0) -> Float64Array:
    """Return camera-to-world matrices [..., 4, 4], in the "blender" convention, of cameras that look at the origin.

    The three arguments are broadcast against each other to the shape [...]. At an elevation of +90 or -90 degrees, the
    up vector is the limit for elevations that approach this value at the same azimuth.

    Args:
        elevation_deg: Elevation of each camera in degrees.
        azimuth_deg: Azimuth of each camera in degrees.
        distance: Distance of each camera from the origin.
    """
    elevation, azimuth, radius = np.broadcast_arrays(
        np.deg2rad(np.asarray(elevation_deg, np.float64)),
        np.deg2rad(np.asarray(azimuth_deg, np.float64)),
        np.asarray(distance, np.float64),
    )
    sin_e, cos_e, sin_a, cos_a = np.sin(elevation), np.cos(elevation), np.sin(azimuth), np.cos(azimuth)
    zero = np.zeros_like(sin_e)
    right = np.stack([cos_a, sin_a, zero], -1)
    up = np.stack([-sin_e * sin_a, sin_e * cos_a, cos_e], -1)
    back = np.stack([cos_e * sin_a, -cos_e * cos_a, sin_e], -1)
    c2w = np.zeros((*sin_e.shape, 4, 4))
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2] = right, up, back
    c2w[..., :3, 3] = back * radius[..., None]
    c2w[..., 3, 3] = 1.0
    return c2w


def c2w_to_spherical(c2w: ArrayLike) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return elevation (degrees), azimuth (degrees in [0, 360)) and distance from the origin, each [...], of cameras.

    `c2w` contains camera-to-world matrices [..., 4, 4] in the "blender" convention. For a camera directly above or
    below the origin, the azimuth is computed from the camera's right axis. Therefore, this function is the inverse of
    `spherical_to_c2w` for these cameras too.
    """
    matrix = np.asarray(c2w, np.float64)
    x, y, z = np.moveaxis(matrix[..., :3, 3], -1, 0)
    distance = np.linalg.norm(matrix[..., :3, 3], axis=-1)
    horizontal = np.hypot(x, y)
    elevation_deg = np.rad2deg(np.arctan2(z, horizontal))
    at_pole = horizontal < 1e-9 * np.maximum(distance, 1e-30)
    azimuth = np.where(at_pole, np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]), np.arctan2(x, -y))
    return elevation_deg, np.mod(np.rad2deg(azimuth), 360.0), distance


def convert_c2w(c2w: ArrayLike, source: Convention, target: Convention) -> Float64Array:
    """Convert camera-to-world matrices [..., 4, 4] from the convention `source` to the convention `target`.

    The module docstring defines the conventions "blender", "opengl" and "opencv".

    Raises:
        UserError: `source` or `target` is not one of the conventions.
    """
    for name in (source, target):
        if name not in _AXES:
            raise UserError(f"unknown camera convention {name!r}; choose one of {', '.join(_AXES)}")
    world_source, camera_source = _AXES[source]
    world_target, camera_target = _AXES[target]
    blender = world_source.T @ np.asarray(c2w, np.float64) @ camera_source
    converted: Float64Array = world_target @ blender @ camera_target
    return converted


def world_to_camera(c2w: ArrayLike) -> Float64Array:
    """Invert camera-to-world matrices [..., 4, 4] of rigid motions. Return world-to-camera matrices [..., 3, 4].

    World and camera axes are those of `c2w`.
    """
    matrix = np.asarray(c2w, np.float64)
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return np.concatenate([rotation, -rotation @ matrix[..., :3, 3:]], axis=-1)


def intrinsics(resolution: int, lens_mm: float = LENS_MM, sensor_mm: float = SENSOR_MM) -> Float64Array:
    """Return the intrinsic matrix K [3, 3], in pixels, of a square image whose principal point is the image center.

    Args:
        resolution: Pixels per side of the image.
        lens_mm: Focal length of the lens in millimeters.
        sensor_mm: Width of the sensor in millimeters.
    """
    focal = resolution * lens_mm / sensor_mm
    return np.array([[focal, 0.0, resolution / 2], [0.0, focal, resolution / 2], [0.0, 0.0, 1.0]])


def intrinsics_from_fov(resolution: int, fov_deg: float) -> Float64Array:
    """Return the intrinsic matrix K [3, 3], in pixels, of a square image with a given field of view.

    Args:
        resolution: Pixels per side of the image.
        fov_deg: Angle between the left and the right border of the image, in degrees.

    Raises:
        UserError: `fov_deg` is not between 0 and 180.
    """
    if not 0 < fov_deg < 180:
        raise UserError(f"fov_deg is {fov_deg}; it must lie between 0 and 180 degrees")
    return intrinsics(resolution, lens_mm=1.0, sensor_mm=2 * float(np.tan(np.deg2rad(fov_deg) / 2)))


def fov_deg(K: ArrayLike, resolution: int) -> float:
    """Return the angle, in degrees, between the left and the right border of a square image.

    Args:
        K: Intrinsic matrix [3, 3] in pixels.
        resolution: Pixels per side of the image.
    """
    focal = float(np.asarray(K, np.float64)[0, 0])
    return float(np.rad2deg(2 * np.arctan(resolution / (2 * focal))))


def project(points: ArrayLike, c2w: ArrayLike, K: ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Project world points [n, 3] into an image. Return pixel coordinates [n, 2] and depths [n].

    The camera has the camera-to-world matrix `c2w` [4, 4], in the "blender" convention, and the intrinsic matrix `K`
    [3, 3], in pixels.

    Pixel coordinates start at the top-left corner of the image; x points right and y points down. Depth is measured
    along the viewing direction; points with depth <= 0 get NaN as pixel coordinates.
    """
    opencv = convert_c2w(c2w, "blender", "opencv")
    local = (np.asarray(points, np.float64) - opencv[:3, 3]) @ opencv[:3, :3]
    depth: Float64Array = local[:, 2]
    homogeneous = local @ np.asarray(K, np.float64).T
    safe = np.where(depth > 0, depth, np.nan)
    return homogeneous[:, :2] / safe[:, None], depth


def mvdream_camera(elevation_deg: ArrayLike, azimuth_deg: ArrayLike) -> NDArray[np.float32]:
    """Return the camera labels [..., 16] of MVDream: 4x4 camera-to-world matrices, flattened row by row.

    All cameras are at distance 1 from the origin and look at the origin. [...] is the shape to which the angles are
    broadcast.
    """
    c2w = spherical_to_c2w(elevation_deg, azimuth_deg)
    return c2w.reshape(*c2w.shape[:-2], 16).astype(np.float32)


def relative_camera(
    elevation_deg: ArrayLike, azimuth_deg: ArrayLike, ref_elevation_deg: ArrayLike, ref_azimuth_deg: ArrayLike
) -> NDArray[np.float32]:
    """Return camera labels [..., 16] of views relative to a reference view (appendix A of the Isotropic3D paper).

    A label equals `mvdream_camera` of the differences: elevation and azimuth of the view minus those of the reference
    view, whose angles are `ref_elevation_deg` and `ref_azimuth_deg`. All angles are in degrees.
    """
    return mvdream_camera(
        np.asarray(elevation_deg, np.float64) - np.asarray(ref_elevation_deg, np.float64),
        np.asarray(azimuth_deg, np.float64) - np.asarray(ref_azimuth_deg, np.float64),
    )


def released_isotropic3d_camera(elevation_deg: ArrayLike, azimuth_deg: ArrayLike) -> NDArray[np.float32]:
    """Return the camera labels [..., 16] that the released Isotropic3D weights expect.

    The released code converts angles to radians twice: it passes radians to a function that expects degrees, so an
    angle of 90 degrees acts like one of 1.57 degrees. Do not use these labels to fine-tune MVDream.
    """
    return mvdream_camera(np.deg2rad(elevation_deg), np.deg2rad(azimuth_deg))
