"""CSV files with named columns: what is read, and the error that names file, line and remedy."""

import re
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.reading.csv_table import columns_text, numbered_lines, read_csv_table

ROWS = [(2, {"uid": "a", "label": "cat"}), (3, {"uid": "b", "label": "owl"})]


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "uid,label\na,cat\nb,owl\n",
        "uid,label\na,cat\nb,owl",
        "uid,label\r\na,cat\r\nb,owl\r\n",
        "\ufeffuid,label\na,cat\nb,owl\n",
        '\ufeffuid,label\r\n"a","cat"\r\nb,owl\r\n',
        "uid,label\ra,cat\rb,owl\r",
    ],
)
def test_byte_order_marks_and_all_line_ends_are_accepted(tmp_path: Path, text: str) -> None:
    assert read_csv_table(table(tmp_path, text), ("uid", "label"), "") == ROWS


def test_lines_are_counted_across_empty_lines_and_quoted_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, '\nuid,label\na,"two\r\nlines, and ""quotes"""\n\n\nb,owl\u2028\n')
    assert read_csv_table(path, ("label",), "") == [
        (3, {"uid": "a", "label": 'two\r\nlines, and "quotes"'}),
        (7, {"uid": "b", "label": "owl\u2028"}),
    ]


def test_misplaced_quotation_marks_are_accepted_on_request(tmp_path: Path) -> None:
    path, text = tmp_path / "table.csv", '\r"a"b,c\r\rd\r'
    assert list(numbered_lines(text, path, strict=False)) == [(2, ["ab", "c"]), (4, ["d"])]
    with pytest.raises(UserError, match=r"table\.csv, line 2: not CSV \("):
        list(numbered_lines(text, path))


def test_other_columns_are_returned_and_their_cells_may_be_missing(tmp_path: Path) -> None:
    path = table(tmp_path, "more,uid,last\n,a,\n1,b\n")
    assert read_csv_table(path, ("uid",), "") == [
        (2, {"more": "", "uid": "a", "last": ""}),
        (3, {"more": "1", "uid": "b", "last": ""}),
    ]


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, "uid,label,,\na,cat,,note\nb,owl\n")
    assert read_csv_table(path, ("uid", "label"), "") == ROWS


def test_optional_columns_are_all_that_a_table_may_have_besides(tmp_path: Path) -> None:
    assert (
        read_csv_table(table(tmp_path, "label,uid\ncat,a\nowl,b\n"), ("uid",), "", optional=("label", "more")) == ROWS
    )
    for header, named, them in (
        ("uid,label,Note", "column 'Note'", "it"),
        ("uid, label", "column ' label'", "it"),
        ("uid,label,", "column number 3 (without a name)", "it"),
        ("x,uid,,y", "columns 'x', number 3 (without a name) and 'y'", "them"),
    ):
        path = table(tmp_path, f"\n{header}\na,cat\n")
        message = (
            f"{path}, line 2: unknown {named}; rename or remove {them} (the table may have the columns uid and label)"
        )
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            read_csv_table(path, ("uid",), "", optional=("label",))


def test_names_of_columns_are_one_part_of_a_sentence() -> None:
    texts = [columns_text("abc"[:count]) for count in (1, 2, 3)]
    assert texts == ["column a", "columns a and b", "columns a, b and c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, " cannot be read (No such file or directory); give another file"),
        ("", " is empty; give another file"),
        ("\ufeff\r\n", " is empty; give another file"),
        ("uid,label\n\n", " has no rows; write at least one row with the columns uid and label"),
        ("uid,name\na,cat\n", ", line 1: lacks the column label ("),
        ("\nuid;label\na;cat\n", ", line 2: lacks the columns uid and label ("),
        ("uid,label\na,cat\n\nb\n", ", line 4: nothing in the column label; fill in the columns uid and label, or"),
        ("uid,label\r\n,\r\n", ", line 2: nothing in the columns uid and label; fill in the columns uid and label"),
        (
            "\nuid,label,label\na,cat,\n",
            ", line 2: names the column label more than once; rename or remove the additional ones",
        ),
        ("a,uid,a,label,uid\n", ", line 1: names the columns a and uid more than once; rename or remove"),
        ("uid,label\na,cat, black\n", ", line 2: has 3 cells, but the table has 2 columns; put a cell"),
        ('uid,label\na,cat\nb,"owl\nc,dog\n', ", line 3: not CSV (unexpected end of data); separate cells"),
        (b"uid,label\na,caf\xe9\n", ", line 2: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        (b"\xef\xbb\xbfuid,label\r\na,cat\r\nb,caf\xe9\r\n", ", line 3: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("uid,label\na,cat\n".encode("utf-16"), ", line 1: not UTF-8 (byte 0xff); save the file as UTF-8"),
        (b"uid,label\ra,cat\rb,caf\xe9\r", ", line 3: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        (b"uid,label\n\r\n\ra,caf\xe9", ", line 4: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("uid,label\na,c\0at\n", ", line 2: contains a NUL character; save the file as CSV in UTF-8"),
        ("uid,label\ra,caf\xe9\rb,o\0wl\r", ", line 3: contains a NUL character; save the file as CSV in UTF-8"),
        ("uid,label\r\na,c\0at\r\n", ", line 2: contains a NUL character; save the file as CSV in UTF-8"),
    ],
)
def test_errors_name_the_file_the_line_and_the_remedy(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "table.csv" if content is None else table(tmp_path, content)
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}{message}')}"):
        read_csv_table(path, ("uid", "label"), "give another file")


def test_a_missing_column_and_a_folder_lead_to_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks the column label .*; give another file$"):
        read_csv_table(table(tmp_path, "uid\na\n"), ("uid", "label"), "give another file")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); give another file$"):
        read_csv_table(tmp_path, ("uid",), "give another file")
