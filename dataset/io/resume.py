"""Compare the settings that are stored with a result and the settings of the command that resumes it."""

from collections.abc import Iterable, Mapping, Set
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any], ignore: Set[str] = frozenset()) -> dict[str, str]:
    """Return one readable line per setting that differs from the stored one, sorted by name.

    Settings of nested mappings are compared one by one; their names are joined by dots. A missing setting equals None.

    Args:
        before: Stored settings, as read from JSON.
        now: Settings of this command. Tuples must be converted to lists, as in JSON.
        ignore: Names, with dots, that are not compared.
    """
    return dict(_differences(before, now, ignore, ""))


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignore: Set[str], prefix: str
) -> Iterable[tuple[str, str]]:
    for key in sorted({*before, *now}):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if name in ignore or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, ignore, f"{name}.")
        else:
            yield name, f"{name} was {old!r}, is now {new!r}"


def settings_differ(where: str, lines: Iterable[str], remedy: str) -> str:
    """Return the error text for a result made with other settings: one line per setting, then the remedy."""
    return "\n".join([f"{where} was started with other settings:", *(f"  {line}" for line in lines), remedy])
