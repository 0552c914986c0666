"""The messages between the driver, the actor pool and the workers: tasks, results and batches of results."""

from dataclasses import dataclass
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from render.workers.protocol import Reply

MAX_ATTEMPTS: Final = 2  # per object, for failures that a retry may cure: a crash, a timeout, too much memory


@dataclass(frozen=True)
class RenderTask:
    """One object to render: its asset, its manifest position, its shard and, for a downloaded object, its download."""

    asset: Asset
    position: int
    shard: str
    blob: Any = None  # a Download, or Ray's reference to one


@dataclass(frozen=True)
class RenderResult:
    """The outcome of an object and, if it was rendered, its sample as the bytes of a tar file."""

    outcome: Outcome
    tar: bytes = b""


@dataclass(frozen=True)
class RenderBatch:
    """The results of some tasks in order, their time in seconds, and the name and log messages of the worker.

    A batch without results only contains a log message of the pool, or signals that no result arrived.
    """

    results: list[RenderResult]
    seconds: float
    worker: str
    log: str = ""


@dataclass(frozen=True)
class Attempt:
    """One attempt to render an object.

    If Blender itself failed, the stage of the failure in `reply` is "worker", and another attempt may succeed.
    """

    reply: Reply
    exit_signal: int | None = None
    peak_rss_mb: float = 0.0
    stderr_tail: str = ""
