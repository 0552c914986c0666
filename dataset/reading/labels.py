"""Read tables of labels: of the images of a folder (labels.csv), or of objects by their uids (option --labels)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.reading.csv_table import read_csv_table

LABELS_FILE: Final = "labels.csv"  # the table in a folder of labelled images
PHOTO_COLUMNS: Final = ("file", "label", "known", "style")  # of the table that `python -m examples.photos` writes
_KNOWN: Final = ("yes", "no", "near")


@dataclass(frozen=True)
class ImageRow:
    """A row of the table in a folder of labelled images."""

    place: str  # the table and the line, for messages
    path: Path  # of the image, which is inside the folder of the table, but may be missing
    cells: dict[str, str]  # column -> text


def read_image_table(folder: Path, columns: Sequence[str], remedy: str) -> list[ImageRow]:
    """Read labels.csv in a folder of labelled images.

    Args:
        folder: The folder.
        columns: Names of the columns that the table must have, with `file`: the path of an image, relative to the
            folder. Cells of the column `known` are checked (`check_known`).
        remedy: What to do if the table is missing or of another kind, for the message.

    Raises:
        UserError: The file is not such a table (`read_csv_table`), a path leads out of the folder, or a cell of the
            column `known` is invalid.
    """
    table = folder / LABELS_FILE
    rows = []
    for number, cells in read_csv_table(table, columns, remedy):
        place = f"{table}, line {number}"
        if "known" in columns:
            check_known(place, cells["known"])
        rows.append(ImageRow(place, path_inside(folder, cells["file"], place), cells))
    return rows


def check_known(place: str, known: str) -> None:
    """Raise UserError if the cell `known` of a table of images is neither yes, no nor near (a relative is known)."""
    if known not in _KNOWN:
        raise UserError(f"{place}: known is {known!r}; it must be yes, no or near")


def read_object_labels(paths: Sequence[Path]) -> dict[str, str]:
    """Read the files of an option --labels: tables with the columns uid and label. Return the label of each uid.

    Args:
        paths: The files. If a uid is in several rows, its last label is used.

    Raises:
        UserError: A file is not such a table (`read_csv_table`).
    """
    remedy = "give --labels a CSV file with the columns uid and label"
    return {row["uid"]: row["label"] for path in paths for _, row in read_csv_table(path, ("uid", "label"), remedy)}


def path_inside(folder: Path, file: str, place: str) -> Path:
    """Return the path of a file that a table names. Raises UserError if it is outside of `folder`, also by a link.

    Args:
        folder: The folder of the table.
        file: Path of the file, relative to the folder, as written in the table.
        place: The table and the line, with which the message begins.
    """
    path = folder / file
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"{place}: {file} is outside of the folder {folder}; copy the file into this folder and write its new "
            "path, or remove the row"
        )
    return path
