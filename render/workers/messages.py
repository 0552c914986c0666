"""The messages between the driver, the actor pool and the workers: tasks, results and batches of results."""

from dataclasses import dataclass
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from render.workers.protocol import Reply

MAX_ATTEMPTS: Final = 2  # per object, for failures that a retry may cure: a crash, a timeout, too much memory


@dataclass(frozen=True)
class RenderTask:
    """One object to render: its asset, its position in the manifest, and the name of its shard.

    `blob` is the download of an object that must be downloaded, and None for other objects.
    """

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
    """The results of a batch of tasks, in the order of the tasks.

    `seconds` is the time for the whole batch, `worker` the name of the worker, and `log` its log messages. If `results`
    is empty, the batch contains only a log message of the pool, or nothing when no result arrived in time.
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
