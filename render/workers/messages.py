"""What the driver, the actor pool and the workers pass to each other: tasks, results and batches of results."""

from dataclasses import dataclass
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from render.workers.protocol import Reply

MAX_ATTEMPTS: Final = 2  # per object, for failures that a retry may cure: a crash, a timeout, too much memory


@dataclass(frozen=True)
class Task:
    """One object of a set: the asset, its place in the manifest, its shard, and its downloaded file if it has one."""

    asset: Asset
    position: int
    shard: str
    blob: Any = None  # a Download, or Ray's reference to one


@dataclass(frozen=True)
class Result:
    """How an object ended, and its sample as the bytes of a tar when it is ok."""

    outcome: Outcome
    tar: bytes = b""


@dataclass(frozen=True)
class Batch:
    """The results of some tasks, in their order, how long they took, and the worker's log of that time.

    No results: a word of the pool's about a worker, or none at all.
    """

    results: list[Result]
    seconds: float
    worker: str
    log: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try at an object; `reply.stage` is "worker" when Blender itself gave up, which another try may mend."""

    reply: Reply
    exit_signal: int | None = None
    peak_rss_mb: float = 0.0
    stderr_tail: str = ""
