"""Sketchfab's license codes, as used in Objaverse's annotations, and their SPDX identifiers."""

from typing import Final

from dataset.errors import UserError

CODES: Final = {
    "by": "CC-BY-4.0",
    "by-nc": "CC-BY-NC-4.0",
    "by-nc-nd": "CC-BY-NC-ND-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",
    "by-nd": "CC-BY-ND-4.0",
    "by-sa": "CC-BY-SA-4.0",
    "cc0": "CC0-1.0",
}
_KNOWN: Final = {name.lower(): identifier for code, identifier in CODES.items() for name in (code, identifier)}


def spdx(name: str) -> str:
    """Return the SPDX identifier of a code (`by-sa`) or identifier (`CC-BY-SA-4.0`), ignoring case.

    Raises UserError when the license is unknown.
    """
    try:
        return _KNOWN[name.lower()]
    except KeyError:
        known = ", ".join(f"{code} ({identifier})" for code, identifier in CODES.items())
        raise UserError(f"unknown license {name!r}; choose from {known}") from None
