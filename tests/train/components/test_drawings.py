"""Folders of labelled drawings."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.errors import UserError
from train.components.drawings import read_drawings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three squares of 20 pixels on transparent images of 30 x 40."""
    for name, color in (("a", "red"), ("b", "lime"), ("c", "blue")):
        image = Image.new("RGBA", (30, 40))
        image.paste(color, (5, 10, 25, 30))
        image.save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.png,owl\nc.png,cat\n")
    return tmp_path


def test_drawings_are_prepared_as_for_distillation(folder: Path) -> None:
    drawings = read_drawings(folder, 32)
    assert drawings.kinds == ("cat", "owl", "cat")
    assert (drawings.rgba.shape, drawings.rgba.dtype) == ((3, 32, 32, 4), torch.uint8)
    assert drawings.rgba[:, 16, 16].tolist() == [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]]
    assert drawings.rgba[:, 0, 0, 3].tolist() == [0, 0, 0]
    images, numbers = drawings.of_kinds(["ape", "cat"])
    assert numbers.tolist() == [1, 1]
    assert torch.equal(images, drawings.rgba[[0, 2]])
    assert [len(each) for each in drawings.of_kinds(["ape"])] == [0, 0]


def test_the_digest_covers_images_and_kinds(folder: Path) -> None:
    first = read_drawings(folder, 32).sha256
    assert read_drawings(folder, 32).sha256 == first
    (folder / "labels.csv").write_text("file,label\na.png,cat\nb.png,owl\nc.png,dog\n")
    second = read_drawings(folder, 32).sha256
    (folder / "labels.csv").write_text("file,label\nc.png,cat\nb.png,owl\na.png,dog\n")
    assert len({first, second, read_drawings(folder, 32).sha256}) == 3


def test_bad_folders_are_one_clear_error(folder: Path) -> None:
    outside = folder / "inside"
    outside.mkdir()
    (outside / "labels.csv").write_text("file,label\n../a.png,cat\n")
    with pytest.raises(UserError, match=r"labels\.csv, line 2: \.\./a\.png is outside of the folder"):
        read_drawings(outside, 32)
    (folder / "labels.csv").write_text("file,label\nnone.png,cat\n")
    with pytest.raises(UserError, match=r"none\.png"):
        read_drawings(folder, 32)
    for content, message in (
        ("file\na.png\n", ", line 1: lacks the column label"),
        ("file,label\n", " has no rows"),
    ):
        (folder / "labels.csv").write_text(content)
        with pytest.raises(UserError, match=rf"labels\.csv{message}"):
            read_drawings(folder, 32)
    (folder / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"labels\.csv cannot be read .* python -m examples\.emoji"):
        read_drawings(folder, 32)
