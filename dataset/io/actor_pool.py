"""Keep a fixed number of Ray actors running. Ray is imported lazily, because the import takes a second."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from dataset.errors import UserError

Item = TypeVar("Item")


@dataclass(eq=False)
class PoolActor(Generic[Item]):
    """An actor and the items that it is processing, oldest first."""

    handle: Any
    starting: Any  # the reference of `ready()`, or None after it returned
    running: dict[Any, Item] = field(default_factory=dict)  # by the reference of the result
    answer: Any = None  # what `ready()` returned

    @property
    def idle(self) -> bool:
        """Whether the actor has started and is not processing an item."""
        return not self.starting and not self.running


class PoolResult(NamedTuple):
    """An actor's result for an item. If the actor has just started, `item` is None and `value` is its `answer`."""

    actor: PoolActor[Any]
    item: Any
    value: Any


class ActorPool(Generic[Item]):
    """Keeps `workers` actors running and replaces those that die. The caller assigns items to actors (`submit`).

    Args:
        start: Function that creates an actor. The actor's method `ready` returns as soon as the actor can work.
        on_death: Function that is called with a dead actor and the error, after the actor was replaced. It may raise.
        workers: Number of actors.
        max_failed_starts: Number of consecutive starts that may fail.
        failed_start: Function that returns the error to raise when too many starts failed, given the error of the last
            start.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        on_death: Callable[[PoolActor[Item], Exception], None],
        *,
        workers: int,
        max_failed_starts: int,
        failed_start: Callable[[Exception], UserError],
    ) -> None:
        self._start, self._on_death = start, on_death
        self._max_failed_starts, self._failed_start = max_failed_starts, failed_start
        self._failed_starts = 0
        self.actors: list[PoolActor[Item]] = [self._new() for _ in range(workers)]

    @property
    def busy(self) -> bool:
        """Whether any actor is working on an item."""
        return any(actor.running for actor in self.actors)

    @staticmethod
    def submit(actor: PoolActor[Item], reference: Any, item: Item) -> None:
        """Register `reference`, the pending result of processing `item` on `actor`."""
        actor.running[reference] = item

    def wait(self, timeout_s: float) -> list[Any]:
        """Wait for a result or a started actor. Returns its reference for `collect`; an empty list at the timeout."""
        import ray

        pending = [actor.starting for actor in self.actors if actor.starting]
        pending += [reference for actor in self.actors for reference in actor.running]
        ready: list[Any] = ray.wait(pending, num_returns=1, timeout=timeout_s)[0] if pending else []
        return ready

    def collect(self, reference: Any) -> PoolResult | None:
        """Return the result of a reference from `wait`; None if its actor died, which is then replaced.

        Raises the error of `failed_start` when too many consecutive starts failed.
        """
        import ray

        actor = next((a for a in self.actors if reference is a.starting or reference in a.running), None)
        if actor is None:  # the actor was replaced in the meantime
            return None
        try:
            value = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts = self._failed_starts + 1 if actor.starting else 0
            if self._failed_starts >= self._max_failed_starts:
                raise self._failed_start(error) from error
            self._replace(actor)
            self._on_death(actor, error)
            return None
        if reference is actor.starting:
            actor.starting, actor.answer, self._failed_starts = None, value, 0
            return PoolResult(actor, None, value)
        return PoolResult(actor, actor.running.pop(reference), value)

    def kill(self, actor: PoolActor[Item]) -> None:
        """Kill an actor and start another one."""
        import ray

        ray.kill(actor.handle)
        self._replace(actor)

    def _new(self) -> PoolActor[Item]:
        handle = self._start()
        return PoolActor(handle, handle.ready.remote())

    def _replace(self, actor: PoolActor[Item]) -> None:
        self.actors[self.actors.index(actor)] = self._new()
