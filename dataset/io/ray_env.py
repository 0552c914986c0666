"""Send the code of this checkout to the nodes of a Ray cluster, so that all nodes run the same code."""

from collections.abc import Sequence
from typing import Any

from dataset.io.paths import ROOT


def exclude_all_but(packages: Sequence[str]) -> list[str]:
    """Return .gitignore patterns for Ray that exclude everything but these packages, such as .venv and shards."""
    kept = (f"!/{package}{contents}" for package in packages for contents in ("", "/**"))
    return ["/[!.]*", "/.?*", *kept, "__pycache__/"]


def code_for_nodes(packages: Sequence[str]) -> dict[str, Any]:
    """Return the Ray `runtime_env` that sends these packages of the checkout to every worker process."""
    return {"working_dir": str(ROOT), "excludes": exclude_all_but(packages)}
