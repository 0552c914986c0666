"""The actor pool with a stand-in for Ray: results, deaths, failed starts and replacements."""

import itertools
import sys
from types import SimpleNamespace

import pytest

from dataset.errors import UserError
from dataset.io.actor_pool import ActorPool


class RayError(Exception):
    pass


class FakeRay:
    """References are numbers; `values` holds what `get` returns or raises for those that are ready."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self):
        self.values = {}
        self.killed = []

    def wait(self, references, num_returns, timeout):
        ready = [reference for reference in references if reference in self.values][:num_returns]
        return ready, [reference for reference in references if reference not in ready]

    def get(self, reference):
        value = self.values[reference]
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, handle):
        self.killed.append(handle)


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def new_pool(workers, deaths=None):
    """Actors 1, 2, ... whose `ready()` has the references 1, 2, ..."""
    numbers = itertools.count(1)

    def start():
        number = next(numbers)
        return SimpleNamespace(number=number, ready=SimpleNamespace(remote=lambda: number))

    return ActorPool(
        start,
        lambda actor, error: deaths.append((actor.handle.number, list(actor.running.values()), str(error))),
        workers=workers,
        max_failed_starts=2,
        failed_start=lambda error: UserError(f"cannot start: {error}"),
    )


def step(pool):
    return [pool.collect(reference) for reference in pool.wait(0.0)]


def test_an_actor_is_idle_after_its_start_and_after_its_items(ray):
    pool = new_pool(2)
    assert step(pool) == []
    ray.values[2] = "ready"
    (started,) = step(pool)
    first, second = pool.actors
    assert (started.actor, started.item, second.answer) == (second, None, "ready")
    assert (first.idle, second.idle, pool.busy) == (False, True, False)
    pool.submit(second, 10, "item")
    assert (second.idle, pool.busy, step(pool)) == (False, True, [])
    ray.values[10] = "result"
    assert step(pool) == [(second, "item", "result")]
    assert second.idle


def test_a_dead_actor_is_replaced_and_its_items_are_reported_oldest_first(ray):
    deaths = []
    pool = new_pool(1, deaths)
    ray.values[1] = None
    step(pool)
    dead = pool.actors[0]
    pool.submit(dead, 10, "old")
    pool.submit(dead, 11, "new")
    ray.values |= {10: RayError("gone"), 11: RayError("gone")}
    assert step(pool) == [None]
    assert deaths == [(1, ["old", "new"], "gone")]
    assert pool.collect(11) is None  # a result of the actor that was replaced
    assert len(deaths) == 1
    assert [actor.handle.number for actor in pool.actors] == [2]
    assert not pool.busy


def test_failed_starts_in_a_row_are_an_error(ray):
    deaths = []
    pool = new_pool(1, deaths)
    ray.values |= {1: RayError("no"), 2: "ready", 3: RayError("no"), 4: RayError("still no")}
    step(pool)  # 1 fails, 2 starts in its place
    step(pool)
    pool.kill(pool.actors[0])  # 3 starts in its place
    assert [handle.number for handle in ray.killed] == [2]
    step(pool)
    with pytest.raises(UserError, match="cannot start: still no"):
        step(pool)
    assert [number for number, _, _ in deaths] == [1, 3]
