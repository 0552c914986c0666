"""A pool of render workers as Ray actors, on this machine or on a cluster.

Tasks are sent in batches from one shard, sized to take about TARGET_S; slow objects are sent one by one. An actor that
dies (node failure, Ray's memory monitor) is replaced. The object it was rendering counts one attempt and is retried
alone; its other tasks are requeued. Ray is imported lazily because the import takes a second.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.outcomes import Outcome
from render.workers.logs import stamped
from render.workers.messages import MAX_ATTEMPTS, Batch, Result, Task
from render.workers.resources import MachineSize

IN_FLIGHT: Final = 2  # batches an actor holds: the one it renders and the next
TARGET_S: Final = 0.25
LARGEST_BATCH: Final = 256
MAX_FAILED_STARTS: Final = 5  # in a row, without one actor that began
OBJECT_STORE_BYTES: Final = 512 * 2**20  # results and downloads pass through it; a sample is about a megabyte
CLOSE_S: Final = 15.0
WAIT_S: Final = 2.0


@contextmanager
def ray_connection(size: MachineSize) -> Iterator[None]:
    """Use the open Ray connection, else connect to the cluster at RAY_ADDRESS, else start Ray on this machine."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
    else:
        resources: dict[str, Any] = {
            "num_cpus": size.cores,
            "num_gpus": size.gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        ray.init(address="local", include_dashboard=False, **resources, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class _Actor:
    """One worker: its handle and its batches, oldest first. `starting` is the reference of `ready` until it returns."""

    handle: Any
    starting: Any
    running: dict[Any, list[Task]]
    name: str = ""


class RayLost(Exception):
    """No Ray node is alive: Ray's process on this machine was killed. Staged results are not affected."""


class ActorPool:
    """Runs tasks on Ray actors; `start()` creates one with the methods of `render.workers.worker.Worker`."""

    def __init__(self, start: Callable[[], Any], workers: int) -> None:
        self._start = start
        self._actors = [self._new() for _ in range(workers)]
        self._again: deque[Task] = deque()  # each is sent alone
        self._attempts: dict[int, int] = {}  # by position, of tasks whose actor died
        self._seconds: float | None = None  # moving average per object
        self._failed_starts = 0

    def results(self, tasks: Iterator[Task]) -> Iterator[Batch]:
        """Yield batches as they complete until each task has a result, and an empty one after each WAIT_S without any.

        `tasks` is consumed only as far as the workers need. Raises RayLost when no Ray node is alive.
        """
        import ray

        queue = _Queue(tasks)
        while True:
            self._fill(queue)
            waiting = [a.starting for a in self._actors if a.starting] + [r for a in self._actors for r in a.running]
            if not self._again and not queue and not any(actor.running for actor in self._actors):
                return
            ready, _ = ray.wait(waiting, num_returns=1, timeout=WAIT_S)
            if not ready:
                if all(actor.starting for actor in self._actors) and not _living_nodes():
                    raise RayLost
                yield Batch([], 0.0, "")
            for reference in ready:
                yield from self._collect(reference)

    def close(self) -> None:
        """Have the workers end their Blender processes and remove their temporary folders."""
        import ray

        idle = [actor.handle.close.remote() for actor in self._actors if not actor.starting]
        if idle:
            ray.wait(idle, num_returns=len(idle), timeout=CLOSE_S)

    def _new(self) -> _Actor:
        handle = self._start()
        return _Actor(handle, handle.ready.remote(), {})

    def _collect(self, reference: Any) -> Iterator[Batch]:
        import ray

        index = next((i for i, a in enumerate(self._actors) if reference is a.starting or reference in a.running), None)
        if index is None:  # its actor has died in the meantime
            return
        actor = self._actors[index]
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) and not actor.starting:
                raise  # a programming error, not a dead actor
            self._count_start(error if actor.starting else None)
            self._actors[index] = self._new()
            yield from self._handle_actor_death(actor, error)
            return
        if reference is actor.starting:
            actor.starting, actor.name = None, answer
            self._count_start(None)
            return
        tasks = actor.running.pop(reference)
        share = answer.seconds / len(tasks)
        self._seconds = share if self._seconds is None else 0.8 * self._seconds + 0.2 * share
        yield answer

    def _count_start(self, error: Exception | None) -> None:
        self._failed_starts = self._failed_starts + 1 if error else 0
        if error and self._failed_starts >= MAX_FAILED_STARTS:
            raise UserError(
                f"{MAX_FAILED_STARTS} workers in a row failed to start; the last error: {error}. "
                "Check that every node has this checkout and its packages (docs/cluster.md), then repeat the command"
            ) from error

    def _handle_actor_death(self, actor: _Actor, error: Exception) -> Iterator[Batch]:
        """Requeue a dead actor's tasks. Its oldest batch is assumed to have caused the crash."""
        held = [task.asset.uid for tasks in actor.running.values() for task in tasks]
        yield Batch([], 0.0, actor.name, stamped(f"ended ({_first_line(error)}) with {', '.join(held) or 'nothing'}"))
        for i, tasks in enumerate(actor.running.values()):
            for task in tasks:
                attempts = self._attempts.get(task.position, 0) + (i == 0)
                self._attempts[task.position] = attempts
                if i == 0 and len(tasks) == 1 and attempts >= MAX_ATTEMPTS:
                    yield Batch([_lost(task, attempts, error)], 0.0, "")
                else:
                    self._again.append(task)

    def _fill(self, queue: "_Queue") -> None:
        for level in range(IN_FLIGHT):
            for actor in self._actors:
                if not actor.starting and len(actor.running) <= level:
                    tasks = [self._again.popleft()] if self._again else queue.take(self._batch_size())
                    if not tasks:
                        return
                    actor.running[actor.handle.render.remote(tasks)] = tasks

    def _batch_size(self) -> int:
        if self._seconds is None:
            return 1
        return min(LARGEST_BATCH, max(1, int(TARGET_S / max(self._seconds, 1e-6))))


class _Queue:
    """Tasks, taken in batches of one shard each. False when empty."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._next = next(tasks, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def take(self, count: int) -> list[Task]:
        taken: list[Task] = []
        while self._next and len(taken) < count and (not taken or self._next.shard == taken[0].shard):
            taken.append(self._next)
            self._next = next(self._tasks, None)
        return taken


def _living_nodes() -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _lost(task: Task, attempts: int, error: Exception) -> Result:
    outcome = Outcome(
        uid=task.asset.uid,
        position=task.position,
        shard=task.shard,
        status="failed",
        stage="worker",
        error_class=type(error).__name__,
        message=_first_line(error),
        attempts=attempts,
    )
    return Result(outcome)
