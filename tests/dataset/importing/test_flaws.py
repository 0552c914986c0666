"""Every flaw of an object makes a failed row whose message names the camera file and the frame."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from dataset.format.outcomes import read_outcomes
from dataset.importing import images
from dataset.importing.images import read_view_image
from dataset.importing.import_set import import_set
from dataset.importing.settings import ImportSettings
from dataset.io.files import url_to_fs
from tests.support.make_posed_images import SPIRAL, folder_entries, write_folder_object, write_image

FOLDER = ImportSettings("folder")


def run(source: Path, out: Path) -> None:
    import_set(source, str(out), FOLDER, workers=1)


def message(out: Path) -> str:
    (row,) = [row for row in read_outcomes(*url_to_fs(out)) if row.status == "failed"]
    assert row.stage == "import"
    assert row.message.startswith(f"{row.uid}: ")
    return f"{row.error_class}: {row.message}"


def broken(tmp_path: Path, change: dict[str, object]) -> str:
    """The failure of an object whose entry number 1 is changed, beside one that is fine."""
    write_folder_object(tmp_path / "source" / "good", SPIRAL[:3])
    write_folder_object(tmp_path / "source" / "bad", SPIRAL[:3])
    entries = folder_entries(SPIRAL[:3])
    entries[1] = {key: value for key, value in {**entries[1], **change}.items() if value is not None}
    (tmp_path / "source" / "bad" / "cameras.json").write_text(json.dumps(entries))
    run(tmp_path / "source", tmp_path / "set")
    text = message(tmp_path / "set")
    assert "cameras.json" in text
    return text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"file": "../good/001.png"}, "is outside of the folder"),
        ({"file": "/etc/hostname"}, "is outside of the folder"),
        ({"file": "link.png"}, "is outside of the folder"),
        ({"file": "a\0b.png"}, "the image file is"),
        ({"file": 3}, "the image file is '3'; write the path of an image"),
        ({"file": "n" * 300}, "cannot be opened"),
        ({"file": "missing.png"}, "does not exist"),
        ({"file": "000.png"}, "is also in"),
        ({"file": "wide.png"}, "all images of an object must have the same size"),
        ({"file": "opaque.png"}, "has no transparent pixels"),
        ({"file": "note.png"}, "cannot be read as an image"),
        ({"elevation_deg": 91}, "the elevation must be from -90 to 90"),
        ({"distance": float("nan")}, "distance is 'nan'; it must be a finite number"),
        ({"distance": "far"}, "distance is 'far'; it must be a finite number"),
        ({"distance": None}, "distance is 'None'"),
        ({"fov_deg": 0.69}, "the field of view is 0.69 degrees, expected 1 to 170"),
        ({"fov_deg": 175}, "expected 1 to 170"),
        ({"fov_deg": None, "orthographic_scale": 2}, "perspective and orthographic cameras"),
        ({"fov_deg": None}, "give either fov_deg or orthographic_scale"),
        ({"camera_to_world": np.eye(4).tolist()}, "give either camera_to_world or all of azimuth_deg"),
        ({"fov": 3}, "the key 'fov' is unknown"),
    ],
)
def test_every_flaw_is_one_error_that_names_the_frame(tmp_path, change, expected):
    bad = tmp_path / "source" / "bad"
    write_image(bad / "wide.png", 20, 16)
    write_image(bad / "opaque.png", mode="RGB")
    (bad / "note.png").write_text("no image")
    (bad / "link.png").symlink_to("/etc/hostname")
    text = broken(tmp_path, change)
    assert expected in text
    assert "\n" not in text


def test_an_image_that_is_turned_by_its_metadata_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 16)).save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(UserError, match=r"here: .*turned\.jpg is stored rotated"):
        read_view_image(tmp_path / "turned.jpg", "here", (20, 16), 16, opaque=True)


def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    write_image(tmp_path / "large.png", 4104, 8)
    monkeypatch.setattr(images, "read_image", lambda *_: pytest.fail("the image was decoded"))
    with pytest.raises(UserError, match=r"large\.png has 4104x8 pixels, but at most 4096 per side can be imported"):
        read_view_image(tmp_path / "large.png", "here", (4104, 8), 16, opaque=False)


def test_invisible_objects_fail(tmp_path):
    write_folder_object(tmp_path / "source" / "good", SPIRAL)
    write_folder_object(tmp_path / "source" / "none", SPIRAL)
    for path in (tmp_path / "source" / "none").glob("*.png"):
        Image.new("RGBA", (16, 16)).save(path)
    run(tmp_path / "source", tmp_path / "set")
    assert "ViewImageError: none: the object is invisible in all images" in message(tmp_path / "set")


def test_objects_of_another_size_fail_and_name_the_option(tmp_path):
    write_folder_object(tmp_path / "source" / "a", SPIRAL, width=32, height=32)
    write_folder_object(tmp_path / "source" / "b", SPIRAL)
    run(tmp_path / "source", tmp_path / "set")
    assert "less than the 32 per side of the set" in message(tmp_path / "set")
    assert "give --resolution 16 or less" in message(tmp_path / "set")
