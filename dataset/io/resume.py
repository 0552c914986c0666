"""Compare the stored settings of an earlier command with the settings of the command that resumes its work."""

from collections.abc import Iterable, Mapping, Set
from itertools import zip_longest
from typing import Any, Final

_LONGEST: Final = 120  # characters of a value in a message


def differences(before: Mapping[str, Any], now: Mapping[str, Any], ignore: Set[str] = frozenset()) -> dict[str, str]:
    """Return a line of text for each setting that differs between `before` and `now` (name -> line), sorted by name.

    Settings of nested mappings are compared one by one; their names are joined by dots. A missing setting is treated as
    None. If two long lists differ, the line describes only the first pair of items that differ.

    Args:
        before: Stored settings of the earlier command, as read from JSON.
        now: Settings of the command that resumes its work. They must contain lists instead of tuples, as in JSON.
        ignore: Names of settings that are not compared, with dots for nested settings.
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
            yield name, _line(name, old, new)


def _line(name: str, old: Any, new: Any) -> str:
    """Return the line that describes one setting, shortened if the old or new value is long."""
    if max(len(repr(old)), len(repr(new))) <= _LONGEST:
        return f"{name} was {old!r}, is now {new!r}"
    if isinstance(old, list) and isinstance(new, list):
        pairs = list(zip_longest(old, new))
        first = next(i for i, (a, b) in enumerate(pairs) if a != b)
        count = sum(a != b for a, b in pairs)
        sizes = f"{name} had {len(old)} items, now has {len(new)}; " if len(old) != len(new) else ""
        more = f" ({count} items differ)" if count > 1 else ""
        return f"{sizes}{name}[{first}] was {_short(pairs[first][0])}, is now {_short(pairs[first][1])}{more}"
    return f"{name} was {_short(old)}, is now {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


def settings_differ(where: str, lines: Iterable[str], remedy: str) -> str:
    """Return the error text for a command that cannot resume an earlier command because their settings differ.

    Args:
        where: Path or URL of the earlier command's output. The text begins with it.
        lines: One line for each setting that differs, as returned by `differences`.
        remedy: What to do; the last line of the text.
    """
    return "\n".join([f"{where} was started with other settings:", *(f"  {line}" for line in lines), remedy])
