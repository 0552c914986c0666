"""Read the cameras of the layout `nerf`: `transforms.json` of nerfstudio and instant-ngp, or Blender's splits.

The counterpart of `dataset.export.nerf`. Matrices map camera to world, with OpenGL's camera axes in a world whose z
axis points up, which is the "blender" convention of `dataset.camera`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dataset.importing.errors import CameraFileError
from dataset.importing.source_view import Lens, SourceView, image_path, number, pose_matrix, read_camera_file

TRANSFORMS: Final = "transforms.json"
SPLITS: Final = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_ENDINGS: Final = ("", ".png", ".webp", ".jpg", ".jpeg")
_DISTORTION: Final = ("k1", "k2", "k3", "k4", "p1", "p2")
_PINHOLE: Final = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")  # with a distortion of 0


def nerf_files(folder: Path) -> list[Path]:
    """Return the camera files of an object: `transforms.json`, or the splits that exist; empty if there are none."""
    whole = folder / TRANSFORMS
    return [whole] if whole.is_file() else [folder / name for name in SPLITS if (folder / name).is_file()]


def read_nerf(folder: Path) -> list[SourceView]:
    """Read the views of an object, in the order of the camera files. No image is read.

    Raises:
        CameraFileError: A camera file is missing or invalid.
    """
    files = nerf_files(folder)
    if not files:
        raise CameraFileError(f"{folder} has neither {TRANSFORMS} nor {SPLITS[0]}; write the cameras to {TRANSFORMS}")
    return [view for path in files for view in _read(folder, path)]


def _read(folder: Path, path: Path) -> list[SourceView]:
    raw = read_camera_file(path)
    frames = raw.get("frames") if isinstance(raw, dict) else None
    if not isinstance(frames, list) or not frames:
        raise CameraFileError(f"{path}: frames is missing or empty; list the images with their cameras in it")
    views = []
    for index, frame in enumerate(frames):
        place = f"{path}, frames[{index}]"
        if not isinstance(frame, dict):
            raise CameraFileError(f"{place} is not a JSON object; write file_path and transform_matrix")
        views.append(
            SourceView(
                place,
                image_path(folder, frame.get("file_path"), place, _ENDINGS),
                pose_matrix(frame.get("transform_matrix"), place, "transform_matrix"),
                _lens({**raw, **frame}, place),
            )
        )
    return views


def _lens(raw: Mapping[str, Any], place: str) -> Lens:
    """Return the intrinsics. Keys of the frame take precedence over those of the file."""
    if (model := raw.get("camera_model", "PINHOLE")) not in _PINHOLE:
        raise CameraFileError(f"{place}: the camera model is {model!r}; render or undistort to a pinhole camera")
    for key in _DISTORTION:
        if key in raw and abs(number(raw[key], place, key)) > 1e-9:
            raise CameraFileError(f"{place}: the lens distortion {key} is {raw[key]}; undistort the images first")
    size = None
    if "w" in raw and "h" in raw:
        size = int(number(raw["w"], place, "w")), int(number(raw["h"], place, "h"))
    center = None
    if "cx" in raw and "cy" in raw:
        center = number(raw["cx"], place, "cx"), number(raw["cy"], place, "cy")
    if "fl_x" in raw:
        focal = number(raw["fl_x"], place, "fl_x")
        return Lens(focal=(focal, number(raw.get("fl_y", focal), place, "fl_y")), center=center, size=size)
    if "camera_angle_x" in raw:
        angle = number(raw["camera_angle_x"], place, "camera_angle_x")
        return Lens(fov_deg=math.degrees(angle), center=center, size=size)
    raise CameraFileError(f"{place}: fl_x and camera_angle_x are missing; write one of them")
