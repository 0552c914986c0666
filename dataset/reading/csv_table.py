"""Read small CSV files whose first line names the columns."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dataset.errors import UserError, one_line

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def read_csv_table(
    path: Path, columns: Sequence[str], remedy: str, *, optional: Sequence[str] | None = None
) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file in UTF-8 whose first line names the columns.

    A byte order mark and the line ends of all systems are accepted. Empty lines are skipped. The file may have more
    columns than `columns`, in any order; cells of these other columns may be empty or, at the end of a row, missing.

    Args:
        path: The file.
        columns: Names of the columns that the file must have. Each row must have text in all of them.
        remedy: What to do if the file is missing, empty or another kind of table, for the message, such as "give a CSV
            file with the columns uid and label".
        optional: Names of all other columns that the file may have. None: any other columns.

    Returns:
        The rows in the order of the file, at least one. Each is the pair (number of its first line in the file, the row
        as a mapping of the names of all columns of the file to text). Missing cells are "". Columns without a name are
        left out.

    Raises:
        UserError: The file cannot be read, is not CSV in UTF-8, is empty, lacks a column, has two columns of the same
            name or a column that is not allowed, or has no rows; or a row has no text in one of `columns`, or more
            cells than there are columns. The message names the file, what to do and, if the fault is in one line, the
            number of this line.
    """
    lines = numbered_lines(_read_utf8(path, remedy), path)
    number, header = next(lines, (1, []))
    if not header:
        raise UserError(f"{path} is empty; {remedy}")
    _check_header(f"{path}, line {number}", header, columns, remedy, optional)
    rows = [(number, _row(f"{path}, line {number}", header, cells, columns)) for number, cells in lines]
    if not rows:
        raise UserError(f"{path} has no rows; write at least one row with the {columns_text(columns)}")
    return rows


def numbered_lines(text: str, path: Path, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line of a CSV file that is not empty, with the number of the line.

    Quoted cells may contain line ends; the number is that of the first line.

    Args:
        text: The text of the file.
        path: The file, for messages.
        strict: Whether misplaced quotation marks are an error.

    Raises:
        UserError: The text is not CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=strict)
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


def columns_text(names: Sequence[str]) -> str:
    """Return names of columns as part of a sentence: "column a", "columns a and b" or "columns a, b and c"."""
    *others, last = names
    return f"columns {', '.join(others)} and {last}" if others else f"column {last}"


def repeated_columns(header: Sequence[str]) -> list[str]:
    """Return the names that two or more columns of a header have, in the order of the header."""
    return [name for name, count in Counter(header).items() if name and count > 1]


def not_utf8(path: Path, error: UnicodeDecodeError) -> UserError:
    """Return the error to raise when decoding the bytes of the file `path` failed. It names the line and the byte."""
    line = _line_number(error.object[: error.start])
    return UserError(f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8")


def _line_number(before: bytes) -> int:
    """Return the number of a line, given the bytes of the file before a character of this line."""
    return len(_LINE_END.findall(before)) + 1


def _read_utf8(path: Path, remedy: str) -> str:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")  # Excel begins the file with a byte order mark
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or one_line(error)}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    before, nul, _ = data.partition(b"\0")
    if nul:
        raise UserError(f"{path}, line {_line_number(before)}: contains a NUL character; save the file as CSV in UTF-8")
    return text


def _check_header(
    place: str, header: Sequence[str], columns: Sequence[str], remedy: str, optional: Sequence[str] | None
) -> None:
    """Raise UserError if a header lacks a column, or has a repeated or unknown one. `place` is for messages."""
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{place}: lacks the {columns_text(missing)} (this line must name the columns, separated by commas); "
            f"{remedy}"
        )
    if repeated := repeated_columns(header):
        raise UserError(
            f"{place}: names the {columns_text(repeated)} more than once; rename or remove the additional ones"
        )
    known = None if optional is None else {*columns, *optional}
    unknown = [
        repr(name) if name else f"number {number} (without a name)"
        for number, name in enumerate(header, 1)
        if known is not None and name not in known
    ]
    if unknown:
        raise UserError(
            f"{place}: unknown {columns_text(unknown)}; rename or remove {'them' if len(unknown) > 1 else 'it'} (the "
            f"table may have the {columns_text([*columns, *(optional or ())])})"
        )


def _row(place: str, header: Sequence[str], cells: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Return the row of a table as column -> text. `place` is the place of the row, for messages."""
    if len(cells) > len(header):
        raise UserError(
            f"{place}: has {len(cells)} cells, but the table has {len(header)} columns; put a cell that contains a "
            "comma in quotation marks, or remove the additional cells"
        )
    row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
    row.pop("", None)
    if empty := [column for column in columns if not row[column]]:
        raise UserError(
            f"{place}: nothing in the {columns_text(empty)}; fill in the {columns_text(columns)}, or remove the row"
        )
    return row
