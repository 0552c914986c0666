"""Numbers of a command line: which are valid, and that messages name the option and the range."""

import math

import pytest
import torch

from dataset.errors import UserError
from dataset.io.option_checks import MAX_SEED, check_number, check_seed, part_slice


def test_valid_numbers_pass() -> None:
    check_number("--scale", None)
    check_number("--scale", -3.5)
    for value in (1, 2, 3):
        check_number("--count", value, 1, 3)
    check_number("--count", 10**400, 1)
    check_seed("--seed", 0)
    check_seed("--seed", MAX_SEED)
    torch.Generator().manual_seed(MAX_SEED)


@pytest.mark.parametrize(
    ("value", "low", "high", "message"),
    [
        (math.nan, -math.inf, math.inf, "--x is nan; it must be a finite number"),
        (math.inf, -math.inf, math.inf, "--x is inf; it must be a finite number"),
        (-math.inf, -math.inf, math.inf, "--x is -inf; it must be a finite number"),
        (math.nan, 0, math.inf, "--x is nan; it must be at least 0, and finite"),
        (math.inf, 0, math.inf, "--x is inf; it must be at least 0, and finite"),
        (0, 1, math.inf, "--x is 0; it must be at least 1, and finite"),
        (math.nan, -90, 90, "--x is nan; it must be between -90 and 90"),
        (91.0, -90, 90, "--x is 91.0; it must be between -90 and 90"),
    ],
)
def test_other_numbers_are_refused(value: float, low: float, high: float, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_number("--x", value, low, high)
    assert str(caught.value) == message


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_seeds_that_no_generator_takes_are_refused(seed: int) -> None:
    with pytest.raises(UserError, match=f"--seed is {seed}; it must be between 0 and {MAX_SEED}"):
        check_seed("--seed", seed)


def test_parts_together_are_everything() -> None:
    assert "abcde"[part_slice("1/2")] == "ace"
    assert "abcde"[part_slice("2/2")] == "bd"
    assert "abcde"[part_slice("7/9")] == ""
    assert "abcde"[part_slice(None)] == "abcde"


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/2/3", "", "-1/2"])
def test_other_parts_are_refused(part: str) -> None:
    with pytest.raises(UserError, match=f"--part {part} is not I/N with I from 1 to N"):
        part_slice(part)
