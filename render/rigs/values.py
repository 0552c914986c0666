"""Check values of a rig's TOML file. Errors name the file and the place of the value."""

from collections.abc import Mapping
from typing import Any

from dataset.errors import UserError


def check_keys(raw: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise UserError if a table has an unknown key. `where` is the place of the table in the file."""
    if unknown := sorted(set(raw) - known):
        raise UserError(f"{where}: {unknown[0]!r} is unknown; the keys are {', '.join(sorted(known))}")


def to_number(value: Any, where: str, low: float, high: float) -> float:
    """Return a number from `low` to `high`. Raises UserError for other values."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{where} is {value!r}, expected a number from {low} to {high}")
    return float(value)


def to_text(value: Any, where: str) -> str:
    """Return a name of 1 to 64 characters. Raises UserError for other values."""
    if not isinstance(value, str) or not value.isascii() or not 1 <= len(value) <= 64:
        raise UserError(f"{where} is {value!r}, expected a name of 1 to 64 characters")
    return value


def to_choice(value: Any, known: tuple[Any, ...], where: str) -> Any:
    """Return a value that is one of `known`. Raises UserError for other values."""
    if value not in known:
        raise UserError(f"{where} is {value!r}; choose one of {', '.join(map(str, known))}")
    return value
