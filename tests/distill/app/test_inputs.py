"""Uploaded images: cropped, prepared as a run prepares them, and refused with one message."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from dataset.images.prepare import prepare_image
from distill.app.inputs import Crop, cut_out, store
from tests.support.distill_micro import draw

SIZE = 32


@pytest.mark.parametrize("background", ["auto", "keep"])
@pytest.mark.parametrize("crop", [Crop(), Crop(left=10, right=5, top=5, bottom=20)])
def test_a_run_sees_what_the_page_shows(tmp_path: Path, crop: Crop, background: str) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    cut = cut_out(image, SIZE, crop=crop, background=background)
    stored = store(cut, tmp_path / "images")
    seen = prepare_image(stored, SIZE, background=background)
    assert np.array_equal(seen.rgba, cut.prepared.rgba)
    assert store(cut, tmp_path / "images") == stored


def test_a_turned_photograph_stays_upright(tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:30, 20:30] = (200, 40, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    cut = cut_out(tmp_path / "photo.jpg", SIZE, crop=Crop(), background="auto")
    assert cut.source.size == (40, 60)
    stored = store(cut, tmp_path / "images")
    assert np.array_equal(prepare_image(stored, SIZE).rgba, cut.prepared.rgba)


def test_the_crop_and_the_background_change_the_digest(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    cuts = [
        cut_out(image, SIZE, crop=crop, background=background)
        for crop, background in ((Crop(), "auto"), (Crop(), "keep"), (Crop(left=10), "auto"))
    ]
    assert len({cut.digest for cut in cuts}) == 3


def test_names_of_uploads_are_reduced_to_harmless_characters(tmp_path: Path) -> None:
    image = draw(tmp_path / "my <b>cat</b> & $(dog)'s ../ photo.png".replace("/", "_"), (200, 40, 40))
    cut = cut_out(image, SIZE, crop=Crop(), background="auto")
    assert cut.stem == "my-b-cat-_b-dog-s-_-photo"
    assert store(cut, tmp_path / "images").parent == tmp_path / "images"


def test_nothing_is_left_after_the_crop(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (200, 40, 40))
    with pytest.raises(UserError, match="leaves nothing"):
        cut_out(image, SIZE, crop=Crop(left=60, right=60), background="auto")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            "a.svg is an SVG drawing",
        ),
        ("a.png", b'\n<?xml version="1.0"?><svg/>', "a.png is an SVG drawing"),
        ("a.png", b"\x89PNG\r\n\x1a\nbroken", "a.png cannot be read as an image"),
        ("a.png", b"", "a.png is an empty file"),
        ("a.txt", b"a letter", "a.txt cannot be read as an image"),
    ],
)
def test_unusable_files_get_one_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        cut_out(tmp_path / name, SIZE, crop=Crop(), background="auto")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_heic_photograph_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match="pillow-heif"):
        cut_out(tmp_path / "a.heic", SIZE, crop=Crop(), background="auto")


def test_an_image_of_20000_pixels_per_side_is_reduced_and_a_larger_one_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000), 0).save(tmp_path / "large.png")
    cut = cut_out(tmp_path / "large.png", SIZE, crop=Crop(), background="keep")
    assert max(cut.source.size) <= 4096
    assert any("large.png is large, 20000x20000; it was reduced to" in notice for notice in cut.notices)
    Image.new("1", (30_000, 20_000), 0).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match="more than 500,000,000 pixels"):
        cut_out(tmp_path / "huge.png", SIZE, crop=Crop(), background="keep")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    cut = cut_out(draw(tmp_path / "a.png", (200, 40, 40)), SIZE, crop=Crop(), background="auto")
    (tmp_path / "images").write_text("a file")
    with pytest.raises(UserError, match="cannot be stored"):
        store(cut, tmp_path / "images")
