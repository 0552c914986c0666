"""Which images of a folder are evaluated, in which order, and what is refused."""

from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.evaluate.photos.images import LabelledImage, by_kind_in_turn, read_images, select_images
from tests.support.paths import ROOT


def folder(tmp_path: Path, *rows: str) -> Path:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,known,style", *rows]) + "\n")
    for row in rows:
        (tmp_path / row.split(",")[0]).write_bytes(b"")
    return tmp_path


def test_images_of_known_kinds_are_read(tmp_path):
    images = read_images(folder(tmp_path, "a.png,cat,yes,photo", "b.png,bee,no,photo", "c.png,gnu,near,drawing"))
    assert images == [LabelledImage(tmp_path / "a.png", "cat", "photo")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.png,,yes,photo"], r"labels\.csv, line 2: nothing in the column label; fill in"),
        (["a.png,cat,no,photo", "b.png,cat,Yes,photo"], r"labels\.csv, line 3: known is 'Yes'; it must be yes, no or"),
        (["../a.png,cat,yes,photo"], r"labels\.csv, line 2: \.\./a\.png is outside of the folder"),
        (
            ["a.png,cat,yes,photo", "../a.png,cat,no,photo"],
            r"labels\.csv, line 3: \.\./a\.png is outside of the folder",
        ),
        (["a.png,cat,yes,photo", "a.jpg,cat,yes,photo"], "line 3: a second image is called a;"),
    ],
)
def test_bad_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_images(folder(tmp_path / "images", *rows))


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels\.csv cannot be read .*python -m examples\.photos"):
        read_images(tmp_path)
    (folder(tmp_path, "a.png,cat,yes,photo") / "a.png").unlink()
    with pytest.raises(UserError, match=r"line 2: .*a\.png does not exist"):
        read_images(tmp_path)


def test_kinds_take_turns_and_a_larger_limit_adds_images():
    images = [LabelledImage(Path(f"{kind}-{i}.png"), kind, "photo") for kind in ("ball", "box") for i in range(3)]
    order = by_kind_in_turn(images)
    assert [image.label for image in order] == ["box", "ball"] * 3  # the order of SHA-256
    assert by_kind_in_turn(images[::-1]) == order
    fewer = [image for image in images if image != order[-1]]
    assert by_kind_in_turn(fewer) == order[:-1]


def test_patterns_select_files():
    images = [LabelledImage(Path(f"x/{name}.png"), "cat", "photo") for name in ("pets-a", "pets-b", "wild-a")]
    assert {each.name for each in select_images(images, ("pets-*",))} == {"pets-a", "pets-b"}
    assert {each.name for each in select_images(images, ("*-a.png", "*b*"))} == {each.name for each in images}
    with pytest.raises(UserError, match=r"none of the 3 images of known kinds matches x-\*"):
        select_images(images, ("x-*",))


def test_the_example_images_are_labelled():
    assert {image.path for image in read_images(ROOT / "examples")} == set((ROOT / "examples").glob("*.png"))
