"""Placeholder until the report branch lands."""

from typing import Any


def write_attribution(fs: Any, root: str) -> None:
    """Nothing yet."""
