"""Downloads ahead of rendering: Ray tasks of their own, on whichever node, a bounded number of them, in manifest order.

The driver sees what is known of a download, never its bytes: those go from the node that downloaded to the one that
renders, through Ray's object store, which spills to disk. What is lost with a node Ray downloads again.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataset.manifest import Asset
from render.download import cache_folder, fetch
from render.transfer import DownloadError, Policy

MAX_RETRIES: Final = 3  # by Ray, of a download whose node or process died


@dataclass(frozen=True)
class Download:
    """How a download went; `error_class` is empty when it went well."""

    size: int = 0
    sha256: str = ""
    seconds: float = 0.0
    attempts: int = 0  # 0: it was in the cache
    error_class: str = ""  # DownloadError.kind, or what Ray says became of the task
    message: str = ""


@dataclass(frozen=True)
class Ready:
    """An object whose turn it is. Both last fields are None when there is nothing to download."""

    position: int
    asset: Asset
    data: Any = None  # reference to the file's bytes, an array of uint8; None when the download failed
    download: Download | None = None


def download(asset: Asset, cache: Path | None, policy: Policy) -> tuple[Download, NDArray[np.uint8] | None]:
    """One download, wherever it runs: `cache` None is that machine's own."""
    started = time.monotonic()
    try:
        file = fetch(asset, cache or cache_folder(), policy)
    except DownloadError as error:
        seconds = round(time.monotonic() - started, 3)
        return Download(seconds=seconds, attempts=error.attempts, error_class=error.kind, message=str(error)), None
    return Download(file.size, file.sha256, round(time.monotonic() - started, 3), file.attempts), file.data


@dataclass(frozen=True)
class _Entry:
    position: int
    asset: Asset
    outcome: Any = None  # reference to a Download
    data: Any = None


class Prefetcher:
    """Hands out (position, asset) pairs in their order, each with its file on the way or there.

    At most `ahead` objects are downloading or wait to be taken, at most `at_once` of them downloading (each takes a Ray
    process). Only `take` starts downloads. Ray must be initialised.
    """

    def __init__(
        self, objects: Iterable[tuple[int, Asset]], policy: Policy, ahead: int, at_once: int, cache: Path | None = None
    ) -> None:
        import ray

        self._objects, self._exhausted = iter(objects), False
        self._ahead, self._at_once = ahead, at_once
        # No CPU: the renderers hold them all, and a download mostly waits.
        task: Any = ray.remote(download).options(
            num_cpus=0, num_returns=2, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD"
        )
        self._submit = lambda asset: task.remote(asset, cache, policy)
        self._queue: deque[_Entry] = deque()
        self._downloading: set[Any] = set()

    @property
    def done(self) -> bool:
        """Every object has been taken."""
        return self._exhausted and not self._queue

    @property
    def downloading(self) -> list[Any]:
        """References that become ready as downloads end, for a `ray.wait` that waits for other things too."""
        return list(self._downloading)

    def take(self, timeout_s: float | None = None) -> Ready | None:
        """The next object, or None when `done`, or when its download has not ended within `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._notice(0.0)
        self._fill()
        while self._queue:
            if self._queue[0].outcome not in self._downloading:
                return self._taken()
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._notice(remaining) and remaining is not None:
                return None
            self._fill()
        return None

    def __iter__(self) -> Iterator[Ready]:
        while ready := self.take():
            yield ready

    def _notice(self, timeout_s: float | None) -> bool:
        """Wait until a download ends; whether one has."""
        import ray

        if not self._downloading:
            return False
        if timeout_s != 0.0:
            ray.wait(self.downloading, num_returns=1, timeout=timeout_s)
        ended, _ = ray.wait(self.downloading, num_returns=len(self._downloading), timeout=0)  # all that have by now
        self._downloading.difference_update(ended)
        return bool(ended)

    def _fill(self) -> None:
        while not self._exhausted and len(self._queue) < self._ahead and len(self._downloading) < self._at_once:
            following = next(self._objects, None)
            if following is None:
                self._exhausted = True
            else:
                self._queue.append(self._started(*following))

    def _started(self, position: int, asset: Asset) -> _Entry:
        if asset.objaverse_path is None or asset.excluded:
            return _Entry(position, asset)
        outcome, data = self._submit(asset)  # type: ignore[no-untyped-call]
        self._downloading.add(outcome)
        return _Entry(position, asset, outcome, data)

    def _taken(self) -> Ready:
        import ray

        entry = self._queue.popleft()
        self._fill()
        if entry.outcome is None:
            return Ready(entry.position, entry.asset)
        try:
            result: Download = ray.get(entry.outcome)
        except ray.exceptions.RayError as error:  # its process was killed, its node is gone: this object only
            message = str(error).strip().partition("\n")[0] or "Ray lost the download"
            result = Download(error_class=type(error).__name__, message=message)
        return Ready(entry.position, entry.asset, None if result.error_class else entry.data, result)
