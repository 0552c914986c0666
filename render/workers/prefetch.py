"""Downloads ahead of rendering: Ray tasks of their own, on whichever node, a bounded number of them.

The driver never sees the bytes: they go from the node that downloaded to the one that renders, through Ray's object
store, which spills to disk. The renderer waits for its own file alone. What is lost with a node Ray downloads again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.io.read_ahead import draw_ahead
from render.download.http import Policy
from render.download.objaverse_cache import download
from render.workers.messages import Task

MAX_RETRIES: Final = 3  # by Ray, of a download whose node or process died


def submitter(policy: Policy, cache: Path | None = None) -> Callable[[Asset], Any]:
    """What starts a download as a Ray task and returns its reference. Ray must be initialised when it is called."""
    import ray

    # No CPU: the renderers hold them all, and a download mostly waits.
    task: Any = ray.remote(download).options(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
    return lambda asset: task.remote(asset, cache, policy)


def downloads_ahead(tasks: Iterator[Task], submit: Callable[[Asset], Any], ahead: int) -> Iterator[Task]:
    """The same tasks in the same order, each with its download begun when `ahead` others still stand before it."""
    started = (replace(task, blob=submit(task.asset)) if task.asset.objaverse_path else task for task in tasks)
    return draw_ahead(started, ahead)
