"""Check the numbers given on a command line."""

import math
from typing import Final

from dataset.errors import UserError

MAX_SEED: Final = 2**63 - 1  # the largest seed that torch's generators accept


def check_number(option: str, value: float | None, low: float = -math.inf, high: float = math.inf) -> None:
    """Check that a number is finite and lies in [low, high].

    Args:
        option: Name of the option, such as `--seed`.
        value: Its value; None if it was not given.
        low: Smallest valid value.
        high: Largest valid value.

    Raises:
        UserError: the number is NaN, infinite or out of range.
    """
    if value is None or (low <= value <= high and abs(value) < math.inf):
        return
    if high < math.inf:
        valid = f"between {low} and {high}"
    else:
        valid = f"at least {low}, and finite" if low > -math.inf else "a finite number"
    raise UserError(f"{option} is {value}; it must be {valid}")


def check_seed(option: str, value: int) -> None:
    """Check that a seed is between 0 and `MAX_SEED`. Raises UserError otherwise."""
    check_number(option, value, 0, MAX_SEED)
