"""Tables of labels: of the images of a folder, and of objects."""

import re
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.reading.labels import ImageRow, check_known, read_image_table, read_object_labels


def write_table(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "labels.csv").write_text(text)
    return folder


def test_rows_have_the_path_of_their_image_and_their_line(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "images", "known,file\nyes,a.png\n\nnear,x/../y/b.png\n")
    link = tmp_path / "link"
    link.symlink_to(folder)
    (folder / "a.png").symlink_to("y/c.png")
    for given in (folder, link):
        table = given / "labels.csv"
        assert read_image_table(given, ("file",), "") == [
            ImageRow(f"{table}, line 2", given / "a.png", {"known": "yes", "file": "a.png"}),
            ImageRow(f"{table}, line 4", given / "x/../y/b.png", {"known": "near", "file": "x/../y/b.png"}),
        ]


@pytest.mark.parametrize("file", ["../a.png", "x/../../a.png", "/a.png", "../images-2/a.png", "out.png", "up/a.png"])
def test_no_path_leads_out_of_the_folder(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_table(tmp_path / "images", f"file,label\nin.png,cat\n{file},cat\n")
    (folder / "out.png").symlink_to("../a.png")
    (folder / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    for given in (folder, Path("images")):
        message = (
            f"{given / 'labels.csv'}, line 3: {file} is outside of the folder {given}; copy the file into this folder"
        )
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            read_image_table(given, ("file", "label"), "")


def test_a_link_to_itself_is_inside(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    assert [row.path for row in read_image_table(write_table(tmp_path, "file\na.png\n"), ("file",), "")] == [
        tmp_path / "a.png"
    ]


@pytest.mark.parametrize("known", ["Yes", "no ", "unknown"])
def test_known_is_yes_no_or_near_in_tables_with_this_column(tmp_path: Path, known: str) -> None:
    folder = write_table(tmp_path, f"file,known\na.png,near\nb.png,no\nc.png,yes\nd.png,{known}\n")
    message = f"{folder / 'labels.csv'}, line 5: known is {known!r}; it must be yes, no or near"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_image_table(folder, ("file", "known"), "")
    assert len(read_image_table(folder, ("file",), "")) == 4
    with pytest.raises(UserError, match=r"^here: known is 'maybe'; it must be yes, no or near$"):
        check_known("here", "maybe")


def test_a_missing_table_leads_to_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels\.csv cannot be read .*; make one$"):
        read_image_table(tmp_path, ("file",), "make one")


def test_labels_are_read_from_several_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("uid,label\nx,sofa\nz,bed\n")
    second.write_text("label,uid,more\nlamp,y,1\nbunk,z,2\n")
    assert read_object_labels([]) == {}
    assert read_object_labels([first, second]) == {"x": "sofa", "y": "lamp", "z": "bunk"}
    second.write_text("uid,label\ny,\n")
    with pytest.raises(UserError, match=r"b\.csv, line 2: nothing in the column label"):
        read_object_labels([first, second])
    with pytest.raises(UserError, match=r"missing\.csv cannot be read .*; give --labels a CSV file"):
        read_object_labels([tmp_path / "missing.csv"])
