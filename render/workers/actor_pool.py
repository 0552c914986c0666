"""A pool of render workers as Ray actors, on this machine or on a cluster.

Tasks are sent in batches. The tasks of a batch belong to one shard and take about TARGET_S seconds together; slow
objects are sent one by one. An actor that dies is replaced, for example after a node failure or when Ray's memory
monitor killed it. The unfinished tasks of the dead actor are sent again, each alone. For the tasks of its oldest batch,
this counts as one attempt, because this batch is assumed to have caused the crash. Ray is imported lazily because the
import takes a second.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from dataset.errors import UserError, one_line
from dataset.format.outcomes import Failure, Outcome
from dataset.io.actor_pool import ActorPool, PoolActor
from dataset.io.ray_env import start_ray
from dataset.io.scratch import remove_stale_folders
from render.workers.logs import stamped
from render.workers.messages import MAX_ATTEMPTS, RenderBatch, RenderResult, RenderTask
from render.workers.resources import MachineSize

IN_FLIGHT: Final = 2  # batches per actor: the one that it renders and the next
TARGET_S: Final = 0.25
LARGEST_BATCH: Final = 256
MAX_FAILED_STARTS: Final = 5  # in a row
OBJECT_STORE_BYTES: Final = 512 * 2**20  # results and downloads pass through it; a sample is about a megabyte
CLOSE_S: Final = 15.0
WAIT_S: Final = 2.0


@contextmanager
def ray_connection(size: MachineSize) -> Iterator[None]:
    """Use the open Ray connection, else connect to the cluster at RAY_ADDRESS, else start Ray on this machine.

    If Ray is started on this machine, it may use the CPU cores and GPUs of `size`. Raises UserError when there is no
    cluster at RAY_ADDRESS or Ray does not start.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        try:
            start_ray(address="auto", **quiet)
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({one_line(error)}); start it, or unset "
                "RAY_ADDRESS to render on this machine"
            ) from error
    else:
        resources: dict[str, Any] = {
            "num_cpus": size.cores,
            "num_gpus": size.gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        start_ray(address="local", include_dashboard=False, **resources, **quiet)
    try:
        yield
    finally:
        ray.shutdown()
        remove_stale_folders()  # of workers that ended without `close`


class RayLost(Exception):
    """Raised when no Ray node is alive, because Ray's process on this machine was killed. Staged results are kept."""


class RenderPool:
    """Runs tasks on Ray actors.

    Args:
        start: Creates an actor that has the methods of `render.workers.worker.RenderWorker`.
        workers: Number of actors.
    """

    def __init__(self, start: Callable[[], Any], workers: int) -> None:
        self._pool: ActorPool[list[RenderTask]] = ActorPool(
            start,
            self._handle_actor_death,
            workers=workers,
            max_failed_starts=MAX_FAILED_STARTS,
            failed_start=_failed_start,
        )
        self._again: deque[RenderTask] = deque()  # each is sent alone
        self._deaths: deque[RenderBatch] = deque()  # logs and lost objects of dead actors, to be yielded
        self._attempts: dict[int, int] = {}  # by position, of tasks whose actor died
        self._seconds: float | None = None  # moving average per object

    def results(self, tasks: Iterator[RenderTask]) -> Iterator[RenderBatch]:
        """Render the tasks. Yield batches of results as they complete, until each task has a result.

        When no batch completes within WAIT_S seconds, an empty batch is yielded. `tasks` is consumed only as far as the
        workers need. Raises RayLost when no Ray node is alive.
        """
        queue = TaskQueue(tasks)
        while True:
            self._fill(queue)
            if not self._again and not queue and not self._pool.busy:
                return
            ready = self._pool.wait(WAIT_S)
            if not ready:
                if all(actor.starting for actor in self._pool.actors) and not _living_nodes():
                    raise RayLost
                yield RenderBatch([], 0.0, "")
            for reference in ready:
                yield from self._collect(reference)

    def close(self) -> None:
        """Make the workers end their Blender processes and remove their temporary folders."""
        import ray

        closing = [actor.handle.close.remote() for actor in self._pool.actors if not actor.starting]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)

    def _collect(self, reference: Any) -> Iterator[RenderBatch]:
        result = self._pool.collect(reference)
        while self._deaths:
            yield self._deaths.popleft()
        if result is None or result.item is None:
            return
        per_object = result.value.seconds / len(result.item)
        self._seconds = per_object if self._seconds is None else 0.8 * self._seconds + 0.2 * per_object
        yield result.value

    def _handle_actor_death(self, actor: PoolActor[list[RenderTask]], error: Exception) -> None:
        """Requeue a dead actor's tasks. Its oldest batch is assumed to have caused the crash."""
        import ray

        if isinstance(error, ray.exceptions.RayTaskError) and not actor.starting:
            raise error  # a programming error, not a dead actor
        uids = [task.asset.uid for tasks in actor.running.values() for task in tasks]
        log = stamped(f"died ({_first_line(error)}); unfinished objects: {', '.join(uids) or 'none'}")
        self._deaths.append(RenderBatch([], 0.0, actor.answer or "", log))
        for i, tasks in enumerate(actor.running.values()):
            for task in tasks:
                attempts = self._attempts.get(task.position, 0) + (i == 0)
                self._attempts[task.position] = attempts
                if i == 0 and len(tasks) == 1 and attempts >= MAX_ATTEMPTS:
                    self._deaths.append(RenderBatch([_lost(task, attempts, error)], 0.0, ""))
                else:
                    self._again.append(task)

    def _fill(self, queue: "TaskQueue") -> None:
        for level in range(IN_FLIGHT):
            for actor in self._pool.actors:
                if not actor.starting and len(actor.running) <= level:
                    tasks = [self._again.popleft()] if self._again else queue.take(self._batch_size())
                    if not tasks:
                        return
                    self._pool.submit(actor, actor.handle.render.remote(tasks), tasks)

    def _batch_size(self) -> int:
        if self._seconds is None:
            return 1
        return min(LARGEST_BATCH, max(1, int(TARGET_S / max(self._seconds, 1e-6))))


class TaskQueue:
    """A queue of tasks. Batches are taken from it, each from a single shard.

    `bool(queue)` is False when the queue is empty.
    """

    def __init__(self, tasks: Iterator[RenderTask]) -> None:
        self._tasks = tasks
        self._next = next(tasks, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def take(self, count: int) -> list[RenderTask]:
        """Remove and return the next tasks of the queue, at most `count`, all of the same shard."""
        taken: list[RenderTask] = []
        while self._next and len(taken) < count and (not taken or self._next.shard == taken[0].shard):
            taken.append(self._next)
            self._next = next(self._tasks, None)
        return taken


def _failed_start(error: Exception) -> UserError:
    return UserError(
        f"{MAX_FAILED_STARTS} workers in a row failed to start; the last error: {error}. "
        "Check that every node has this checkout and its packages (docs/cluster.md), then repeat the command"
    )


def _living_nodes() -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _lost(task: RenderTask, attempts: int, error: Exception) -> RenderResult:
    failure = Failure("worker", type(error).__name__, _first_line(error))
    return RenderResult(
        Outcome(task.asset.uid, task.position, task.shard, "ok", attempts=attempts).with_failure("failed", failure)
    )
