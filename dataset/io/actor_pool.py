"""Keep a fixed number of Ray actors running. Ray is imported only when it is used: the import takes a second."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from dataset.errors import UserError

Item = TypeVar("Item")


@dataclass(eq=False)
class PoolActor(Generic[Item]):
    """A Ray actor of a pool, and the items that the actor is processing, oldest first."""

    handle: Any
    starting: Any  # the reference of `ready()`, or None after it returned
    running: dict[Any, Item] = field(default_factory=dict)  # by the reference of the result
    answer: Any = None  # what `ready()` returned

    @property
    def idle(self) -> bool:
        """Whether the actor has started and is not processing any item."""
        return not self.starting and not self.running


class PoolResult(NamedTuple):
    """The result that an actor returned: `value` is the result for `item`.

    If the actor has just started, `item` is None and `value` is the result of the actor's method `ready`.
    """

    actor: PoolActor[Any]
    item: Any
    value: Any


class ActorPool(Generic[Item]):
    """Keeps a fixed number of Ray actors running and replaces actors that die. The caller gives items to the actors.

    For each item, the caller starts a remote call on an idle actor, registers the call with `submit`, and gets results
    with `wait` and `collect`.

    Args:
        start: Function that creates an actor. The actor must have a method `ready` that returns once the actor can
            work.
        on_death: Function that is called after a dead actor has been replaced. Its arguments are the dead actor and
            the error. The function may raise an exception.
        workers: Number of actors.
        max_failed_starts: When this number of actors in a row has failed to start, `collect` raises an error.
        failed_start: Function that returns the error that `collect` raises. Its argument is the error of the last
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
        """Whether any actor is processing an item."""
        return any(actor.running for actor in self.actors)

    @staticmethod
    def submit(actor: PoolActor[Item], reference: Any, item: Item) -> None:
        """Register that `actor` is processing `item`. `reference` is the Ray object reference of the result."""
        actor.running[reference] = item

    def wait(self, timeout_s: float) -> list[Any]:
        """Wait until an actor has a result or has started, for at most `timeout_s` seconds.

        Returns:
            A list with one Ray object reference, to pass to `collect`; an empty list if there was no result in time.
        """
        import ray

        pending = [actor.starting for actor in self.actors if actor.starting]
        pending += [reference for actor in self.actors for reference in actor.running]
        ready: list[Any] = ray.wait(pending, num_returns=1, timeout=timeout_s)[0] if pending else []
        return ready

    def collect(self, reference: Any) -> PoolResult | None:
        """Return the result that belongs to a Ray object reference returned by `wait`.

        If the actor has died, replace the actor, call `on_death` and return None.

        Raises:
            UserError: The error that `failed_start` returned, when `max_failed_starts` actors in a row did not start.
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
        """Kill an actor and start a new actor in its place. `on_death` is not called."""
        import ray

        ray.kill(actor.handle)
        self._replace(actor)

    def _new(self) -> PoolActor[Item]:
        handle = self._start()
        return PoolActor(handle, handle.ready.remote())

    def _replace(self, actor: PoolActor[Item]) -> None:
        self.actors[self.actors.index(actor)] = self._new()
