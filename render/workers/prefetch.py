"""Download objects before they are rendered. Each download is a Ray task that runs on any node.

Only a limited number of downloads is started ahead of rendering. The bytes do not pass through the driver. They go from
the downloading node to the rendering node through Ray's object store, which spills to disk. A worker waits only for the
file that it renders next. If a node fails, Ray repeats the downloads that were stored on that node.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.io.read_ahead import draw_ahead
from render.download.http import DownloadPolicy
from render.download.objaverse_cache import download
from render.workers.messages import RenderTask

MAX_RETRIES: Final = 3  # by Ray, when the node or process of a download died


def submitter(policy: DownloadPolicy, cache: Path | None = None) -> Callable[[Asset], Any]:
    """Return a function that starts the download of an asset as a Ray task and returns Ray's reference to the result.

    Args:
        policy: Settings of the downloads.
        cache: The cache folder; None: the default folder of the machine that downloads.

    Ray must be initialized.
    """
    import ray

    # No CPU: the workers reserve them all, and a download mostly waits.
    task: Any = ray.remote(download).options(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
    return lambda asset: task.remote(asset, cache, policy)


def downloads_ahead(tasks: Iterator[RenderTask], submit: Callable[[Asset], Any], ahead: int) -> Iterator[RenderTask]:
    """Yield the tasks in order. When a task is yielded, the downloads of the next `ahead` tasks have begun.

    `submit` starts the download of an asset and returns a reference to it. The task gets this reference as `blob`.
    Objects that need no download keep their `blob`.
    """
    started = (replace(task, blob=submit(task.asset)) if task.asset.objaverse_path else task for task in tasks)
    return draw_ahead(started, ahead)
