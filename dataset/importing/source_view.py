"""Describe an image with its camera, as a camera file states them, and check the camera."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from dataset.camera import Float64Array
from dataset.errors import UserError
from dataset.format.schema import Projection
from dataset.importing.errors import CameraFileError
from dataset.reading.labels import path_inside

ROTATION_TOLERANCE: Final = 1e-3  # largest difference of an element of R^T R from the unit matrix
_EXACT: Final = 1e-9  # rotations closer than this are stored unchanged
FOV_RANGE_DEG: Final = (1.0, 170.0)
SQUARE_TOLERANCE: Final = 0.01  # relative difference of the focal lengths
CENTER_TOLERANCE: Final = 0.05  # distance of the principal point from the image center, as a part of the longer side
_LARGEST_FILE: Final = 64 << 20  # bytes of a camera file
_LARGEST: Final = 1e9  # magnitude of a number


@dataclass(frozen=True)
class Lens:
    """Intrinsics of a camera. Exactly one of `focal`, `fov_deg` and `width` is given.

    Attributes:
        focal: Focal lengths (x, y) in pixels.
        fov_deg: Angle between the left and the right border of the image, in degrees.
        width: Width of what an orthographic camera shows, in world units.
        center: Principal point (x, y) in pixels from the top-left corner. None: the center of the image.
        size: Width and height of the image in pixels. None: not stated.
    """

    focal: tuple[float, float] | None = None
    fov_deg: float | None = None
    width: float | None = None
    center: tuple[float, float] | None = None
    size: tuple[int, int] | None = None

    @property
    def projection(self) -> Projection:
        return "perspective" if self.width is None else "orthographic"

    def K(self, width: int, height: int, place: str) -> Float64Array:
        """Return the intrinsic matrix [3, 3] of an image of `width` x `height` pixels, as in `schema.View`.

        Raises:
            CameraFileError: The intrinsics are implausible. The message begins with `place`, the camera file and frame.
        """
        if self.width is not None:
            focal = (width / self.width, width / self.width)
        elif self.fov_deg is not None:
            _check_fov(self.fov_deg, place)
            focal = (0.5 * width / math.tan(math.radians(self.fov_deg) / 2),) * 2
        else:
            focal = self.focal or (0.0, 0.0)
            if min(focal) <= 0:
                raise CameraFileError(f"{place}: the focal lengths are {focal}; they must be positive")
            _check_fov(math.degrees(2 * math.atan(width / (2 * focal[0]))), place)
        if abs(focal[0] - focal[1]) > SQUARE_TOLERANCE * focal[0]:
            raise CameraFileError(
                f"{place}: the focal lengths {focal[0]:g} and {focal[1]:g} differ by more than {SQUARE_TOLERANCE:.0%}; "
                "only square pixels can be imported: resize the images"
            )
        center = self.center or (width / 2, height / 2)
        if max(abs(center[0] - width / 2), abs(center[1] - height / 2)) > CENTER_TOLERANCE * max(width, height):
            raise CameraFileError(
                f"{place}: the principal point ({center[0]:g}, {center[1]:g}) is farther than {CENTER_TOLERANCE:.0%} "
                f"of the longer side from the center of the image of {width}x{height} pixels; crop the images about "
                "the principal point"
            )
        return np.array([[focal[0], 0.0, center[0]], [0.0, focal[1], center[1]], [0.0, 0.0, 1.0]])


class SourceView(NamedTuple):
    """An image of the source with its camera.

    Attributes:
        place: Camera file and frame, with which messages begin.
        path: Path of the image, inside the folder of the object.
        c2w: Camera-to-world matrix [4, 4], in the "blender" convention of `dataset.camera`.
        lens: Intrinsics.
    """

    place: str
    path: Path
    c2w: Float64Array
    lens: Lens


def _check_fov(fov_deg: float, place: str) -> None:
    low, high = FOV_RANGE_DEG
    if not low <= fov_deg <= high:
        raise CameraFileError(
            f"{place}: the field of view is {fov_deg:.4g} degrees, expected {low:g} to {high:g}; check the unit and "
            "the size of the images"
        )


def read_camera_file(path: Path) -> Any:
    """Read a camera file, which is JSON.

    Raises:
        CameraFileError: The file cannot be read, is too large, or is not JSON.
    """
    try:
        if not path.is_file():
            raise CameraFileError(f"{path} is missing or is not a regular file; write the cameras of the object to it")
        if path.stat().st_size > _LARGEST_FILE:
            raise CameraFileError(f"{path} has more than {_LARGEST_FILE >> 20} MB; split the object into several")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CameraFileError(f"cannot read {path}: {error.strerror}; check the path and permissions") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise CameraFileError(f"{path} is not valid JSON ({error}); write the file again") from error


def number(value: Any, place: str, key: str) -> float:
    """Return a number of a camera file.

    Raises:
        CameraFileError: `value` is not a finite number. The message names `place`, the file and frame, and the `key`.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise CameraFileError(f"{place}: {key} is {str(value)[:80]!r}; it must be a finite number")
    return float(value)


def pose_matrix(value: Any, place: str, key: str) -> Float64Array:
    """Return a camera-to-world matrix [4, 4] of a camera file, with an exact rotation.

    The file's rotation R may be rounded: no element of R^T R - 1 may exceed ROTATION_TOLERANCE. It is replaced by the
    nearest rotation, unless it is one to within 1e-9.

    Raises:
        CameraFileError: `value` is not such a matrix. The message names `place`, the file and frame, and the `key`.
    """
    rows = value if isinstance(value, list) else []
    if len(rows) != 4 or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise CameraFileError(f"{place}: {key} is not a matrix of 4 x 4 numbers; write camera-to-world matrices")
    matrix = np.array([[number(each, place, key) for each in row] for row in rows])
    rotation = matrix[:3, :3]
    if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6, rtol=0):
        raise CameraFileError(
            f"{place}: the last row of {key} is {matrix[3].tolist()}, expected [0, 0, 0, 1]; the translation must be "
            "in the last column (transpose the matrix?)"
        )
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if error > ROTATION_TOLERANCE:
        raise CameraFileError(
            f"{place}: the 3 x 3 part of {key} is not a rotation: R^T R differs from the unit matrix by {error:.2g}, "
            f"more than {ROTATION_TOLERANCE:g}; remove scale and shear from the matrix"
        )
    if np.linalg.det(rotation) < 0:
        raise CameraFileError(
            f"{place}: the 3 x 3 part of {key} is a reflection (its determinant is -1); use right-handed axes for "
            "the camera and the world"
        )
    if error > _EXACT:
        left, _, right = np.linalg.svd(rotation)
        matrix[:3, :3] = left @ right
    matrix[3] = [0, 0, 0, 1]
    return matrix


def image_path(folder: Path, file: Any, place: str, endings: tuple[str, ...] = ("",)) -> Path:
    """Return the path of an image that a camera file names.

    Args:
        folder: Folder of the object.
        file: The name in the camera file, relative to `folder`.
        place: The camera file and frame, for messages.
        endings: Endings to try, in this order. If no file exists, the path has the first ending.

    Raises:
        CameraFileError: `file` is not a path, or leads out of the folder, also by ".." or by a symbolic link.
    """
    if not isinstance(file, str) or not file.strip() or not file.isprintable() or len(file) > 1024:
        raise CameraFileError(f"{place}: the image file is {str(file)[:80]!r}; write the path of an image")
    try:
        paths = [path_inside(folder, file + ending, place) for ending in endings]
        return next((path for path in paths if path.is_file()), paths[0])
    except UserError as error:
        raise CameraFileError(str(error)) from error
    except OSError as error:
        raise CameraFileError(f"{place}: {file} cannot be opened ({error.strerror}); correct the path") from error
