"""Kinds of objects, such as "chair"."""

import re
from collections.abc import Mapping
from typing import Final

_PROCEDURAL: Final = re.compile(r"procedural-([a-z]+)-\d{6}")


def kind_of(uid: str, labels: Mapping[str, str]) -> str | None:
    """Return the kind of an object: its label, or the kind in the uid of a procedural object; None if neither exists.

    Args:
        uid: The uid of the object.
        labels: Kinds by uid.
    """
    if uid in labels:
        return labels[uid]
    match = _PROCEDURAL.fullmatch(uid)
    return match[1] if match else None
