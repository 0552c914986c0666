"""License codes of Sketchfab, as used in Objaverse's annotations, and SPDX identifiers of licenses."""

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
_OTHERS: Final = ("CC-BY-3.0", "CC-BY-3.0-US")  # licenses of other sources, which have no code
_KNOWN: Final = {
    **{name.lower(): identifier for code, identifier in CODES.items() for name in (code, identifier)},
    **{identifier.lower(): identifier for identifier in _OTHERS},
}


def spdx(name: str) -> str:
    """Return the SPDX identifier of a license.

    `name` is Sketchfab's code of the license (`by-sa`) or the SPDX identifier (`CC-BY-SA-4.0`), in upper or lower case.
    A code means version 4.0, as on Sketchfab; for older versions, give the identifier (`CC-BY-3.0`).

    Raises UserError when the license is unknown.
    """
    try:
        return _KNOWN[name.lower()]
    except KeyError:
        known = ", ".join([*(f"{code} ({identifier})" for code, identifier in CODES.items()), *_OTHERS])
        raise UserError(f"unknown license {name!r}; choose from {known}") from None
