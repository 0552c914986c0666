"""Check the values of numeric command-line options."""

import math
from typing import Final

from dataset.errors import UserError

MAX_SEED: Final = 2**63 - 1  # the largest seed that torch's generators accept


def check_number(option: str, value: float | None, low: float = -math.inf, high: float = math.inf) -> None:
    """Check that the value of a numeric command-line option is finite and lies in [low, high].

    Args:
        option: Name of the option, such as `--seed`, for the message.
        value: Value of the option; None if the option was not given, which is valid.
        low: Smallest valid value.
        high: Largest valid value.

    Raises:
        UserError: The value is NaN, infinite or out of range.
    """
    if value is None or (low <= value <= high and abs(value) < math.inf):
        return
    if high < math.inf:
        valid_range = f"between {low} and {high}"
    else:
        valid_range = f"at least {low}, and finite" if low > -math.inf else "a finite number"
    raise UserError(f"{option} is {value}; it must be {valid_range}")


def part_slice(part: str | None) -> slice:
    """Return the slice that `part`, the value of the option --part, selects from a sequence. None selects everything.

    Args:
        part: I/N with I from 1 to N: every N-th element from the I-th.

    Raises:
        UserError: `part` is not I/N with I from 1 to N.
    """
    if part is None:
        return slice(None)
    first, _, count = part.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UserError(f"--part {part} is not I/N with I from 1 to N; give 1/4, 2/4, 3/4 or 4/4, for example")
    return slice(int(first) - 1, None, int(count))


def check_seed(option: str, value: int) -> None:
    """Check that `value`, a seed given by the command-line option named `option`, is between 0 and MAX_SEED.

    Raises:
        UserError: The seed is out of range.
    """
    check_number(option, value, 0, MAX_SEED)
