"""Public functions state the shapes of their arrays and the errors that they raise."""

from pathlib import Path

import pytest

from tests.support.docstring_coverage import PACKAGES, count
from tests.support.paths import ROOT

GOAL = 0.95

EXAMPLE = '''
def stated(values: Tensor) -> Tensor:
    """Double values [n, 3]. Raises ValueError for none."""
    raise ValueError


def silent(values: Tensor) -> Tensor:
    """Double values."""
    raise ValueError


def _private(values: Tensor) -> Tensor:
    raise ValueError


def plain(number: int) -> int:
    def inner():
        raise ValueError
    return number
'''


@pytest.mark.parametrize("package", PACKAGES)
def test_shapes_are_stated(package: str) -> None:
    found = count(ROOT / package)
    assert found.shapes_share >= GOAL, "\n".join(found.without_shapes)


@pytest.mark.parametrize("package", PACKAGES)
def test_raised_errors_are_stated(package: str) -> None:
    found = count(ROOT / package)
    assert found.raises_share >= GOAL, "\n".join(found.without_raises)


def test_the_count_sees_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(EXAMPLE)
    found = count(tmp_path / "package")
    assert (found.with_arrays, found.with_raises) == (2, 2)
    assert [name.split()[1] for name in found.without_shapes] == ["silent"]
    assert [name.split()[1] for name in found.without_raises] == ["silent"]
