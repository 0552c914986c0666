"""The pool of Ray actors: batches that adapt, a poison object that costs itself alone, workers that never start."""

import os
import time

import pytest

from dataset.errors import UserError
from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from render.workers.actor_pool import LARGEST_BATCH, RenderPool, TaskQueue
from render.workers.messages import MAX_ATTEMPTS, RenderBatch, RenderResult, RenderTask

pytestmark = pytest.mark.integration


def task(position, uid=None, per_shard=100):
    return RenderTask(Asset(uid or f"uid-{position}", "test"), position, f"shard-{position // per_shard:06d}")


class Stub:
    """Takes `seconds` an object; an object called poison kills its process, as Ray sees a lost node."""

    def __init__(self, seconds):
        self._seconds = seconds

    def ready(self):
        return "stub"

    def render(self, tasks):
        started = time.monotonic()
        for one in tasks:
            time.sleep(self._seconds)
            if one.asset.uid == "poison":
                os._exit(1)
        results = [RenderResult(Outcome(t.asset.uid, t.position, t.shard, "ok")) for t in tasks]
        return RenderBatch(results, time.monotonic() - started, "stub")

    def close(self):
        pass


class NeverStarts(Stub):
    def __init__(self, seconds):
        raise RuntimeError("this node lacks a package")


class Unfit(Stub):
    def ready(self):
        raise ValueError("no GPU on this node")


@pytest.fixture(scope="module")
def small_ray():
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, **quiet)
    yield ray
    ray.shutdown()


def run(ray, tasks, seconds=0.0, workers=2, kind=Stub):
    actor = ray.remote(kind).options(num_cpus=1)
    pool = RenderPool(lambda: actor.remote(seconds), workers)
    batches = [batch for batch in pool.results(iter(tasks)) if batch.results]
    pool.close()
    return batches


def test_a_queue_never_crosses_a_shard():
    queue = TaskQueue(task(position, per_shard=4) for position in range(10))
    taken = []
    while queue:
        taken.append([t.position for t in queue.take(3)])
    assert taken == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9]]
    assert queue.take(3) == []


def test_batches_grow_when_objects_are_quick_and_stay_single_when_they_are_slow(small_ray):
    quick = [len(batch.results) for batch in run(small_ray, [task(p, per_shard=1000) for p in range(3000)])]
    assert sum(quick) == 3000
    assert quick[0] == 1
    assert max(quick) > 50
    assert max(quick) <= LARGEST_BATCH
    slow = [len(batch.results) for batch in run(small_ray, [task(p) for p in range(4)], seconds=0.3)]
    assert slow == [1, 1, 1, 1]


def test_a_poison_object_is_set_aside_and_its_neighbors_are_not(small_ray):
    tasks = [task(p, "poison" if p in (1, 250) else None, per_shard=400) for p in range(300)]
    rows = [result.outcome for batch in run(small_ray, tasks) for result in batch.results]
    assert sorted(row.position for row in rows) == list(range(300))
    lost = {row.position: row for row in rows if row.status != "ok"}
    assert set(lost) == {1, 250}
    assert all((row.stage, row.attempts) == ("worker", MAX_ATTEMPTS) for row in lost.values())
    assert all(row.error_class.startswith("Actor") for row in lost.values())


def test_workers_that_never_start_are_an_error_not_a_wait(small_ray):
    with pytest.raises(UserError, match=r"workers in a row failed to start(?s:.*)lacks a package"):
        run(small_ray, [task(0)], kind=NeverStarts)
    with pytest.raises(UserError, match=r"workers in a row failed to start(?s:.*)no GPU on this node"):
        run(small_ray, [task(0)], kind=Unfit)
