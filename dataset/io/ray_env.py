"""This checkout's code on the nodes of a Ray cluster, so that all nodes run what the driver runs."""

from collections.abc import Sequence
from typing import Any

from dataset.io.paths import ROOT


def all_but(packages: Sequence[str]) -> list[str]:
    """What not to send, in .gitignore's language as Ray reads it.

    All but ".", the folder itself, then the exceptions and what is in them. Without it a checkout's .venv would travel
    too, and the shards that lie in it.
    """
    kept = (f"!/{package}{contents}" for package in packages for contents in ("", "/**"))
    return ["/[!.]*", "/.?*", *kept, "__pycache__/"]


def code_for_nodes(packages: Sequence[str]) -> dict[str, Any]:
    """Ray's `runtime_env` that sends these packages of the checkout to every worker process."""
    return {"working_dir": str(ROOT), "excludes": all_but(packages)}
