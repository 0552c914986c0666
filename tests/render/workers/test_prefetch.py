"""Downloads ahead of rendering, as Ray tasks: bounded, handed to the worker, and lost one at a time."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from dataset.format.manifest import Asset
from dataset.format.outcomes import Failure
from render.settings import Settings
from render.workers.blender_process import Limits
from render.workers.messages import Attempt, RenderTask
from render.workers.prefetch import downloads_ahead, submitter
from render.workers.protocol import Reply
from render.workers.worker import RenderWorker
from tests.support.loopback import NAME, Answer, asset, files, glb, policy

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def small_ray():
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def test_downloads_begin_a_bounded_number_of_tasks_ahead():
    tasks = [RenderTask(asset(f"glbs/000-000/{n:032x}.glb", f"{n:032x}"), n, "shard-000000") for n in range(9)]
    tasks[3] = RenderTask(Asset("made", "procedural", procedural_index=0), 3, "shard-000000")
    begun = []

    def submit(one):
        begun.append(one.uid)
        return f"reference of {one.uid}"

    for taken, task in enumerate(downloads_ahead(iter(tasks), submit, ahead=4), start=1):
        assert (task.asset, task.position) == (tasks[taken - 1].asset, taken - 1)
        assert task.blob == (None if taken == 4 else f"reference of {task.asset.uid}")
        assert len(begun) - taken <= 4
    assert len(begun) == 8


def test_a_worker_gets_its_file_or_the_reason_and_keeps_nothing(server, small_ray, tmp_path):
    """With a stand-in for Blender: what it is asked to render is on its disk while it renders, and gone after."""
    uids = [f"{number:032x}" for number in range(5)]
    answers = [Answer(), Answer(status=404), Answer(), Answer(), Answer()]
    for uid, answer in zip(uids, answers, strict=True):
        server.give(f"glbs/000-000/{uid}.glb", answer)
    submit = submitter(policy(server, keep=False, max_bytes=10**6), tmp_path / "cache")
    server.give(f"glbs/000-000/{uids[2]}.glb", Answer(glb(2 * 10**6)))
    tasks = [RenderTask(asset(f"glbs/000-000/{uid}.glb", uid), n, "shard-000000") for n, uid in enumerate(uids)]
    seen = []

    class Told(RenderWorker):
        def _attempt(self, job):
            seen.append((job.asset.uid, hashlib.sha256(Path(job.path).read_bytes()).hexdigest() == job.asset_sha256))
            return Attempt(Reply(Failure("import", "Stub", "nothing renders here")))

    worker = Told(0, Settings(), Limits(), 1)
    batch = worker.render(list(downloads_ahead(iter(tasks), submit, ahead=5)))
    worker.close()
    rows = [result.outcome for result in batch.results]
    assert [(row.stage, row.error_class) for row in rows] == [
        ("import", "Stub"),
        ("download", "Http404"),
        ("download", "TooLarge"),
        ("import", "Stub"),
        ("import", "Stub"),
    ]
    assert (rows[2].status, rows[2].flags) == ("skipped", ("too-large",))
    assert seen == [(uids[0], True), (uids[3], True), (uids[4], True)]
    assert files(tmp_path / "cache") == []
    assert not worker._folder.exists()


def test_a_download_whose_process_is_gone_costs_its_object_alone(server, small_ray, tmp_path):
    server.give(NAME, Answer(pauses_s=1.0))
    reference = submitter(policy(server), tmp_path)(asset())
    while not server.asked(NAME):
        time.sleep(0.01)
    small_ray.cancel(reference, force=True)
    outcome = (
        RenderWorker(0, Settings(), Limits(), 1).render_one(RenderTask(asset(), 0, "shard-000000", reference)).outcome
    )
    assert (outcome.status, outcome.stage) == ("failed", "download")
    assert outcome.error_class in ("WorkerCrashedError", "TaskCancelledError")
    assert outcome.message
