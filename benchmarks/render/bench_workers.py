"""Blender workers of the benchmark: Blender processes, each fed by a thread."""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.render.bench_objects import SEED, BenchObject
from dataset.format.manifest import Asset
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, member_name, meta_name, parse_meta
from dataset.format.tar import unpack
from dataset.images.prepare import decode_webp
from render.settings import Settings
from render.workers.blender_process import BlenderEnded, BlenderProcess, Limits
from render.workers.protocol import RenderJob

LIMITS: Final = Limits(timeout_s=1800.0)


@dataclass(frozen=True)
class Rendered:
    """An object rendered by a worker."""

    uid: str
    seconds: float
    timings: dict[str, float]
    peak_rss_mb: float
    images: NDArray[np.uint8]  # [32, h, w, 4]
    scene: dict[str, Any]  # as benchmarks.render.plain_render writes it


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(count: int) -> Iterator[list[BlenderProcess]]:
    """Start `count` Blender processes with one thread each."""
    pool = [BlenderProcess(threads=1, device="cpu") for _ in range(count)]
    try:
        for process in pool:
            if process.hello.error:
                sys.exit(f"Blender cannot run on this machine: {process.hello.error}")
        yield pool
    finally:
        for process in pool:
            process.close()


def render_all(
    pool: Sequence[BlenderProcess], items: Sequence[BenchObject], settings: Settings, scratch: Path
) -> tuple[float, list[Rendered]]:
    """Render all items with the pool. Return the seconds, without those for reading the results, and the results."""
    queued = _RenderQueue(settings, scratch)
    for entry in enumerate(items):
        queued.waiting.put(entry)
    threads = [threading.Thread(target=queued.feed, args=(process,)) for process in pool]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    if queued.errors:
        raise queued.errors[0]
    return seconds, [_read(items[n], scratch / f"{n}.tar", *queued.done[n]) for n in sorted(queued.done)]


class _RenderQueue:
    """Items to render, and results by item number: seconds, seconds per part, peak memory in MB."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self._settings, self._scratch = settings, scratch
        self.waiting: queue.SimpleQueue[tuple[int, BenchObject]] = queue.SimpleQueue()
        self.done: dict[int, tuple[float, dict[str, float], float]] = {}
        self.errors: list[Exception] = []

    def feed(self, process: BlenderProcess) -> None:
        """Render waiting items with one process until no item is left or one has failed."""
        try:
            while not self.errors:
                number, item = self.waiting.get_nowait()
                asset = Asset(item.uid, "benchmark", "CC0-1.0")
                job = RenderJob(
                    asset, str(item.path), item.sha256, SEED, self._settings, str(self._scratch / f"{number}.tar")
                )
                started = time.monotonic()
                reply = process.render(job, LIMITS)
                if failure := reply.failure:
                    raise RuntimeError(f"{item.uid}: {failure.error_class}: {failure.message}")
                self.done[number] = (time.monotonic() - started, dict(reply.timings), process.peak_rss_mb)
        except queue.Empty:
            return
        except (BlenderEnded, RuntimeError, OSError) as error:
            self.errors.append(error)


def _read(item: BenchObject, tar: Path, seconds: float, timings: dict[str, float], peak_rss_mb: float) -> Rendered:
    members = unpack(tar.read_bytes())
    tar.unlink()
    names = [member_name(item.uid, view_set, i) for view_set in VIEW_SETS for i in range(VIEWS_PER_SET)]
    images = np.stack([decode_webp(members[name], name) for name in names])
    meta = parse_meta(members[meta_name(item.uid)], item.uid)
    scene = {"scale": meta.normalization.scale, "offset": meta.normalization.offset, "hdri": meta.hdri.__dict__}
    return Rendered(item.uid, seconds, timings, peak_rss_mb, images, scene)
