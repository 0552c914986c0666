"""Read small CSV files whose first line names the columns, such as tables of labels."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dataset.errors import UserError, one_line

LABELS_FILE: Final = "labels.csv"  # the table of a folder of labelled images


def read_csv_table(path: Path, columns: Sequence[str], remedy: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file in UTF-8 whose first line names the columns.

    A byte order mark and Windows line ends are accepted. Empty lines are skipped. The file may have more columns than
    `columns`, in any order; cells of these other columns may be empty or, at the end of a row, missing.

    Args:
        path: The file.
        columns: Names of the columns that the file must have. Each row must have text in all of them.
        remedy: What to do if the file is missing, empty or another kind of table, for the message, such as "give a CSV
            file with the columns uid and label".

    Returns:
        The rows in the order of the file, at least one. Each is the pair (number of its first line in the file, the row
        as a mapping of the names of all columns of the file to text). Missing cells are "".

    Raises:
        UserError: The file cannot be read, is not CSV in UTF-8, is empty, lacks a column, or has no rows; or a row has
            no text in one of `columns`, or more cells than there are columns. The message names the file, what to do
            and, if the fault is in one line, the number of this line.
    """
    lines = _lines(_read_utf8(path, remedy), path)
    number, header = next(lines, (1, []))
    if not header:
        raise UserError(f"{path} is empty; {remedy}")
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{path}, line {number}: lacks the column {' and '.join(missing)} (this line must name the columns, "
            f"separated by commas); {remedy}"
        )
    rows = [(number, _row(f"{path}, line {number}", header, cells, columns)) for number, cells in lines]
    if not rows:
        raise UserError(f"{path} has no rows; write at least one row with the columns {', '.join(columns)}")
    return rows


def read_labels(paths: Sequence[Path]) -> dict[str, str]:
    """Read the files of an option --labels: tables with the columns uid and label. Return the label of each uid.

    Args:
        paths: The files. If a uid is in several rows, its last label is used.

    Raises:
        UserError: A file is not such a table (`read_csv_table`).
    """
    remedy = "give --labels a CSV file with the columns uid and label"
    return {row["uid"]: row["label"] for path in paths for _, row in read_csv_table(path, ("uid", "label"), remedy)}


def not_utf8(path: Path, error: UnicodeDecodeError) -> UserError:
    """Return the error to raise when decoding the bytes of the file `path` failed. It names the line and the byte."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return UserError(f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8")


def _read_utf8(path: Path, remedy: str) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Excel begins the file with a byte order mark
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or one_line(error)}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    before, nul, _ = text.partition("\0")
    if nul:
        line = before.count("\n") + 1
        raise UserError(f"{path}, line {line}: contains a NUL character; save the file as CSV in UTF-8")
    return text


def _lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not empty, with its number. Quoted cells may contain line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            if cells:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {number}: not CSV ({one_line(error)}); separate cells by commas, and close each quotation "
            "mark"
        ) from error


def _row(place: str, header: Sequence[str], cells: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Return the row of a table as column -> text. `place` is the place of the row, for messages."""
    if len(cells) > len(header):
        raise UserError(
            f"{place}: has {len(cells)} cells, but the table has {len(header)} columns; put a cell that contains a "
            "comma in quotation marks, or remove the additional cells"
        )
    row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
    if empty := [column for column in columns if not row[column]]:
        raise UserError(
            f"{place}: nothing in the column {' and '.join(empty)}; fill in the columns {', '.join(columns)}, or "
            "remove the row"
        )
    return row
