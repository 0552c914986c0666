"""The script that breaks lines: a mutation is killed or survives, and the file is restored."""

from pathlib import Path

import pytest

from dataset.errors import UserError
from tests.support.mutation_list import MUTATIONS
from tests.support.mutations import Mutation, Result, row, try_mutation
from tests.support.paths import ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "doubled.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_code.py").write_text(
        "from doubled import double\n\n\ndef test_two():\n    assert double(2) == 4\n"
        "\n\ndef test_five():\n    assert double(5) == 10\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("new", "tests", "result"),
    [
        ("x * x", "test_code.py", Result("killed", "test_code.py::test_five")),
        ("x * x", "test_code.py -k two", Result("survived")),
        ("(", "test_code.py", Result("error", "test_code.py")),
        ("[][x]", "test_missing.py", Result("error")),
    ],
)
def test_a_mutation_is_killed_or_survives_and_the_file_is_restored(
    copy: Path, new: str, tests: str, result: Result
) -> None:
    before = (copy / "doubled.py").read_text()
    assert try_mutation(copy, Mutation("doubled.py", "2 * x", new, tests), 100) == result
    assert (copy / "doubled.py").read_text() == before


def test_a_mutation_that_hangs_ends_in_time(copy: Path) -> None:
    hangs = Mutation("doubled.py", "    return 2 * x", "    while True: pass", "test_code.py")
    assert try_mutation(copy, hangs, 5) == Result("timeout")


def test_a_line_that_changed_is_named(copy: Path) -> None:
    with pytest.raises(UserError, match=r"doubled\.py: '3 \* x' occurs 0 times; update the list"):
        try_mutation(copy, Mutation("doubled.py", "3 * x", "x", "test_code.py"), 100)


def test_the_row_of_a_mutation_is_one_line() -> None:
    mutation = Mutation("a.py", "    x\n", "x | y", "tests/test_a.py")
    assert row(mutation, Result("killed", "test_a.py::test_b")) == (
        "| a.py | `x` | `x \\| y` | test_a.py | killed | test_a.py::test_b |"
    )


def test_the_list_names_files_and_tests_of_all_packages() -> None:
    assert len(MUTATIONS) >= 40
    assert {mutation.file.split("/")[0] for mutation in MUTATIONS} == {"dataset", "render", "train", "distill"}
    for mutation in MUTATIONS:
        files = [mutation.file, *(word for word in mutation.tests.split() if word.startswith("tests/"))]
        assert all((ROOT / file).is_file() for file in files), mutation
