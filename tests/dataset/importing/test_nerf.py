"""transforms.json: intrinsics, file names, and every flaw as one error that names the frame."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.camera import spherical_to_c2w
from dataset.errors import UserError
from dataset.importing import source_view
from dataset.importing.errors import CameraFileError
from dataset.importing.nerf import nerf_files, read_nerf
from dataset.importing.source_view import Lens
from tests.support.make_posed_images import write_image

POSE = spherical_to_c2w(20, 30, 2.0)


def frame(**changes: Any) -> dict[str, Any]:
    values = {"file_path": "a", "transform_matrix": POSE.tolist(), "camera_angle_x": 0.7, **changes}
    return {key: value for key, value in values.items() if value is not None}


def write(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_image(folder / "a.png")
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def read_cameras(folder: Path) -> list[np.ndarray]:
    return [view.lens.K(16, 16, view.place) for view in read_nerf(folder)]


def refusal(folder: Path, content: Any) -> str:
    write(folder, content)
    with pytest.raises(CameraFileError) as caught:
        read_cameras(folder)
    text = str(caught.value)
    assert str(folder / "transforms.json") in text
    assert "\n" not in text
    return text


def test_keys_of_the_frame_take_precedence(tmp_path):
    content = {"fl_x": 20, "fl_y": 20.1, "cx": 8.2, "cy": 7.9, "w": 16, "h": 16, "frames": [frame(fl_x=30, fl_y=30)]}
    (view,) = read_nerf(write(tmp_path, content))
    np.testing.assert_array_equal(view.lens.K(16, 16, ""), [[30, 0, 8.2], [0, 30, 7.9], [0, 0, 1]])
    assert view.lens.size == (16, 16)
    assert view.path == tmp_path / "a.png"
    np.testing.assert_array_equal(view.c2w, POSE)


def test_the_horizontal_angle_gives_the_focal_length(tmp_path):
    (view,) = read_nerf(write(tmp_path, {"camera_angle_x": 0.6, "frames": [frame(camera_angle_x=None)]}))
    K = view.lens.K(800, 600, "")
    assert K[0, 0] == pytest.approx(400 / math.tan(0.3))
    assert (K[0, 2], K[1, 2]) == (400, 300)


def test_one_file_or_the_splits(tmp_path):
    assert nerf_files(tmp_path) == []
    for split in ("test", "train"):
        (tmp_path / f"transforms_{split}.json").write_text("{}")
    assert [path.name for path in nerf_files(tmp_path)] == ["transforms_train.json", "transforms_test.json"]
    (tmp_path / "transforms.json").write_text("{}")
    assert [path.name for path in nerf_files(tmp_path)] == ["transforms.json"]


def test_rounded_rotations_become_exact(tmp_path):
    rounded = np.round(POSE, 4)
    (view,) = read_nerf(write(tmp_path, {"frames": [frame(transform_matrix=rounded.tolist())]}))
    np.testing.assert_allclose(view.c2w[:3, :3].T @ view.c2w[:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(view.c2w, POSE, atol=2e-4)


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    matrix = POSE.tolist()
    matrix[row][column] = value
    return matrix


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transform_matrix": (POSE * 1.01).tolist()}, "the last row of transform_matrix"),
        ({"transform_matrix": (POSE @ np.diag([1.01, 1.01, 1.01, 1])).tolist()}, "is not a rotation: R^T R differs"),
        ({"transform_matrix": (POSE @ np.diag([-1, 1, 1, 1])).tolist()}, "is a reflection (its determinant is -1)"),
        ({"transform_matrix": POSE.T.tolist()}, "transpose the matrix?"),
        ({"transform_matrix": POSE[:3].tolist()}, "is not a matrix of 4 x 4 numbers"),
        ({"transform_matrix": None}, "is not a matrix of 4 x 4 numbers"),
        ({"transform_matrix": changed(0, 3, float("nan"))}, "it must be a finite number"),
        ({"transform_matrix": changed(0, 3, float("inf"))}, "it must be a finite number"),
        ({"transform_matrix": changed(0, 3, "1")}, "it must be a finite number"),
        ({"transform_matrix": changed(0, 3, True)}, "it must be a finite number"),
        ({"camera_angle_x": None}, "fl_x and camera_angle_x are missing"),
        ({"camera_angle_x": 0.01}, "the field of view is 0.573 degrees, expected 1 to 170"),
        ({"fl_x": 0.01}, "expected 1 to 170"),
        ({"fl_x": -3}, "the focal lengths are (-3.0, -3.0); they must be positive"),
        ({"fl_x": 20, "fl_y": 21}, "only square pixels can be imported"),
        ({"fl_x": 20, "cx": 10, "cy": 8}, "the principal point (10, 8) is farther than 5%"),
        ({"k1": 0.1}, "the lens distortion k1 is 0.1; undistort the images first"),
        ({"camera_model": "OPENCV_FISHEYE"}, "the camera model is 'OPENCV_FISHEYE'"),
        ({"file_path": "../a"}, "is outside of the folder"),
        ({"file_path": "/etc/passwd"}, "is outside of the folder"),
        ({"file_path": None}, "the image file is 'None'"),
    ],
)
def test_every_flaw_names_the_frame(tmp_path, changes, expected):
    text = refusal(tmp_path / "object", {"frames": [frame(), frame(**changes)]})
    assert ", frames[1]" in text
    assert expected in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "frames is missing or empty"),
        ({"frames": []}, "frames is missing"),
        ({"frames": [3]}, "is not a JSON object"),
    ],
)
def test_other_files_are_refused(tmp_path, content, expected):
    assert expected in refusal(tmp_path / "object", content)


def test_a_file_that_is_no_json_or_too_large(tmp_path, monkeypatch):
    path = tmp_path / "transforms.json"
    for text in ("{", "[" * 100_000, "\xff"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(CameraFileError, match=r"transforms\.json is not valid JSON"):
            read_nerf(tmp_path)
    monkeypatch.setattr(source_view, "_LARGEST_FILE", 10)
    path.write_text(json.dumps({"frames": []}))
    with pytest.raises(CameraFileError, match="split the object into several"):
        read_nerf(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"has neither transforms\.json nor transforms_train\.json"):
        read_nerf(tmp_path)


def test_an_orthographic_lens_has_pixels_per_world_unit():
    np.testing.assert_array_equal(Lens(width=2.0).K(32, 16, ""), [[16, 0, 16], [0, 16, 8], [0, 0, 1]])
