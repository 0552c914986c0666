"""Workers as Ray actors, on this machine or on a cluster. Ray is imported when it is needed: it takes a second."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from dataset.outcome import Outcome
from render.settings import Settings
from render.worker import MAX_ATTEMPTS, Limits, Result, Task, Worker

IN_FLIGHT: Final = 2  # tasks an actor holds: the one it renders and the next
OBJECT_STORE_BYTES: Final = 256 * 2**20  # results pass through it one by one; a sample is about a megabyte
CLOSE_S: Final = 15.0


@contextmanager
def connected(workers: int, cores: int) -> Iterator[int]:
    """A Ray of our own, the cluster at RAY_ADDRESS, or the connection that is already open; yields threads a worker."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if ray.is_initialized():
        yield _cluster_threads(workers)
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
        threads = _cluster_threads(workers)
    else:
        threads = max(1, cores // workers)
        cpus, store = workers * threads, OBJECT_STORE_BYTES
        ray.init(address="local", num_cpus=cpus, object_store_memory=store, include_dashboard=False, **quiet)
    try:
        yield threads
    finally:
        ray.shutdown()


def _cluster_threads(workers: int) -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)  # type: ignore[no-untyped-call]


class Pool:
    """Actors that each hold a Worker. One that dies (its node, Ray's memory monitor) is replaced, its tasks retried."""

    def __init__(self, seed: int, settings: Settings, limits: Limits, workers: int, threads: int) -> None:
        import ray

        actor: Any = ray.remote(Worker).options(num_cpus=threads)
        self._start = lambda: actor.remote(seed, settings, limits, threads)
        self._actors: list[Any] = [self._start() for _ in range(workers)]  # type: ignore[no-untyped-call]

    def results(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """One result a task, as they come. At most IN_FLIGHT tasks an actor are under way."""
        import ray

        waiting = [(task, 1) for task in reversed(tasks)]  # (task, which attempt of an actor), next one last
        running: dict[Any, tuple[int, Any, Task, int]] = {}
        while waiting or running:
            self._fill(waiting, running)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in ready:
                slot, actor, task, attempt = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    if self._actors[slot] is actor:
                        self._actors[slot] = self._start()  # type: ignore[no-untyped-call]
                    if attempt < MAX_ATTEMPTS:
                        waiting.append((task, attempt + 1))
                    else:
                        yield _lost(task, attempt, error)

    def close(self) -> None:
        """Let the workers end their Blender processes and remove their temporary folders."""
        import ray

        ray.wait([actor.close.remote() for actor in self._actors], num_returns=len(self._actors), timeout=CLOSE_S)

    def _fill(self, waiting: list[tuple[Task, int]], running: dict[Any, tuple[int, Any, Task, int]]) -> None:
        load = Counter(slot for slot, _, _, _ in running.values())
        for level in range(IN_FLIGHT):
            for slot, actor in enumerate(self._actors):
                if waiting and load[slot] <= level:
                    task, attempt = waiting.pop()
                    running[actor.render.remote(task)] = (slot, actor, task, attempt)
                    load[slot] += 1


def _lost(task: Task, attempts: int, error: Exception) -> Result:
    outcome = Outcome(
        uid=task.asset.uid,
        position=task.position,
        shard=task.shard,
        status="failed",
        stage="worker",
        error_class=type(error).__name__,
        message=str(error).strip().partition("\n")[0],
        attempts=attempts,
    )
    return Result(outcome)
