"""Read the cameras of the layout `folder`: one `cameras.json` per object, which is a list with one entry per image.

    {"file": "000.png", "fov_deg": 49.1, "camera_to_world": [[...], [...], [...], [0, 0, 0, 1]]}
    {"file": "001.png", "fov_deg": 49.1, "azimuth_deg": 22.5, "elevation_deg": 30, "distance": 1.5}
    {"file": "002.png", "orthographic_scale": 1.2, "azimuth_deg": 90, "elevation_deg": 0, "distance": 1.5}

`fov_deg` is the angle between the left and the right border of the image. `orthographic_scale` is the width of what the
image shows, in world units. Angles and distance are those of `dataset.camera`. The camera axes and the up axis of
matrices are not in the file: they are options of the command.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dataset.camera import Float64Array, convert_c2w, spherical_to_c2w
from dataset.importing.errors import CameraFileError
from dataset.importing.settings import ImportSettings
from dataset.importing.source_view import Lens, SourceView, image_path, number, pose_matrix, read_camera_file

CAMERAS: Final = "cameras.json"
_ANGLES: Final = ("azimuth_deg", "elevation_deg", "distance")
_KEYS: Final = frozenset({"file", "camera_to_world", *_ANGLES, "fov_deg", "orthographic_scale"})


def folder_files(folder: Path) -> list[Path]:
    """Return the camera files of an object: `cameras.json`, or none if it does not exist."""
    return [folder / CAMERAS] if (folder / CAMERAS).is_file() else []


def read_folder(folder: Path, settings: ImportSettings) -> list[SourceView]:
    """Read the views of an object, in the order of the camera file. No image is read.

    Raises:
        CameraFileError: The camera file is missing or invalid, or has matrices but their camera axes are not stated.
    """
    path = folder / CAMERAS
    raw = read_camera_file(path)
    if not isinstance(raw, list) or not raw:
        raise CameraFileError(f"{path} is not a list of cameras; write a list with one entry per image")
    views = []
    for index, entry in enumerate(raw):
        place = f"{path}, [{index}]"
        if not isinstance(entry, dict) or (unknown := sorted(set(entry) - _KEYS)):
            what = f"the key {unknown[0]!r} is unknown" if isinstance(entry, dict) else "this is not a JSON object"
            raise CameraFileError(f"{place}: {what}; the keys are {', '.join(sorted(_KEYS))}")
        file = image_path(folder, entry.get("file"), place)
        views.append(SourceView(place, file, _c2w(entry, place, settings), _lens(entry, place)))
    return views


def _c2w(entry: Mapping[str, Any], place: str, settings: ImportSettings) -> Float64Array:
    if ("camera_to_world" in entry) == any(key in entry for key in _ANGLES):
        raise CameraFileError(f"{place}: give either camera_to_world or all of {', '.join(_ANGLES)}")
    if "camera_to_world" not in entry:
        azimuth_deg, elevation_deg, distance = (number(entry.get(key), place, key) for key in _ANGLES)
        if not -90 <= elevation_deg <= 90 or distance <= 0:
            raise CameraFileError(
                f"{place}: elevation_deg is {elevation_deg:g} and distance is {distance:g}; the elevation must be from "
                "-90 to 90, and the distance positive"
            )
        return spherical_to_c2w(elevation_deg, azimuth_deg, distance)
    if settings.convention is None:
        raise CameraFileError(
            f"{place}: the camera axes of camera_to_world are not stated; give --convention opengl (x right, y up, z "
            "backwards) or --convention opencv (x right, y down, z forwards)"
        )
    c2w = pose_matrix(entry["camera_to_world"], place, "camera_to_world")
    if settings.convention == "opencv":
        c2w = convert_c2w(c2w, "opencv", "blender")
    return convert_c2w(c2w, "opengl", "blender") if settings.up == "y" else c2w


def _lens(entry: Mapping[str, Any], place: str) -> Lens:
    if ("fov_deg" in entry) == ("orthographic_scale" in entry):
        raise CameraFileError(f"{place}: give either fov_deg or orthographic_scale")
    if "fov_deg" in entry:
        return Lens(fov_deg=number(entry["fov_deg"], place, "fov_deg"))
    width = number(entry["orthographic_scale"], place, "orthographic_scale")
    if width <= 1e-6:
        raise CameraFileError(f"{place}: orthographic_scale is {width:g}; it must be positive")
    return Lens(width=width)
