"""Tables of finished distillations and their objects: what they say, and what is none."""

import csv
from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.evaluate.pairing import AssetEntry, read_table


def test_a_csv_may_leave_views_out_and_its_runs_are_beside_it(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("run", "uid", "view"))
        writer.writeheader()
        writer.writerows([{"run": "sub/x", "uid": "u"}, {"run": "/y", "uid": "v", "view": "random_00"}])
    assert read_table(tmp_path / "t.csv") == [
        AssetEntry(tmp_path / "sub" / "x", "u", None),
        AssetEntry(Path("/y"), "v", 16),
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "", r"t\.csv is empty; give a CSV file with the header run,uid,view"),
        ("t.csv", "run,uid\n", r"t\.csv has no rows"),
        ("t.csv", "folder,uid\nx,y\n", r"t\.csv, line 1: lacks the column run "),
        (
            "t.csv",
            "run,uid,veiw\nx,y,\n",
            r"t\.csv, line 1: unknown column 'veiw'; rename or remove it .* run, uid and view\)$",
        ),
        ("t.csv", "run,uid,view,\nx,y,,\n", r"t\.csv, line 1: unknown column number 4 \(without a name\); rename"),
        ("t.csv", "run,uid,uid\nx,y,\n", r"t\.csv, line 1: names the column uid more than once"),
        ("t.csv", "run,uid,view\nx,,\n", r"t\.csv, line 2: nothing in the column uid"),
        ("t.csv", "run,uid\nx,y,z\n", r"t\.csv, line 2: has 3 cells"),
        ("t.csv", "run,uid,view\nx,y,3\n", r"t\.csv, line 2: there is no view '3'"),
        ("t.json", "[3]", r"t\.json, row 1 .*: not a JSON object; give a CSV file"),
        (
            "t.json",
            '[{"run": "x", "uid": 3}]',
            r"t\.json, row 1 .*: run or uid is missing, or a value is not text; give",
        ),
        ("t.json", '[{"run": "x", "uid": null}]', r"t\.json, row 1 .*: run or uid is missing, or a value is not text"),
        ("t.json", '[{"run": "x", "uid": "y", "view": 0}]', r"t\.json, row 1 .* is not text; give"),
        (
            "t.json",
            '[{"run": "x", "uid": "y", "veiw": "", "a": 1}]',
            r"unknown keys 'a', 'veiw'; rename or remove them .* run, uid, view\)$",
        ),
        (
            "t.json",
            '[{"run": "x", "uid": "y"}, {"veiw": ""}]',
            r"t\.json, row 2 .*: unknown key 'veiw'; rename or remove it",
        ),
        ("t.json", '[{"run": "x", "uid": "y", "view": "3"}]', r"t\.json, row 1 .*: there is no view '3'"),
        ("t.json", "{", "is not a readable table"),
        ("t.json", '{"run": "x"}', "has no rows"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=says):
        read_table(tmp_path / name)
