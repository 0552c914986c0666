"""The Blender process and its keeper: crashes, hangs and memory cost one object; pictures depend on nothing else."""

import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest

from dataset.format.manifest import Asset
from dataset.format.schema import member_names, validate_sample
from dataset.format.tar import unpack
from render.settings import Settings
from render.workers.blender_process import Limits
from render.workers.messages import RenderTask
from render.workers.worker import RenderWorker
from tests.support.make_models import box_glb
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
TINY = Settings(resolution=16, samples=1)


def task(path):
    return RenderTask(Asset(path.stem, "test", "CC0-1.0", "nobody", file=path.name), 0, "shard-000000")


@pytest.fixture
def worker(tmp_path):
    """Opens workers whose source folder is the test's own."""
    return partial(open_worker, tmp_path)


@contextmanager
def open_worker(folder, limits=Limits(timeout_s=60.0), settings=TINY, threads=1):  # noqa: B008  (frozen)
    opened = RenderWorker(0, settings, limits, threads, str(folder))
    try:
        yield opened
    finally:
        opened.close()


def when_rendering(pid, action):
    """Do something to a Blender process once it has started on its job, from another thread."""

    def watch():
        while not _renders(pid):
            time.sleep(0.005)
        action(pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _renders(pid):
    """Whether the process has begun a view: Blender has told its stderr so."""
    with open(f"/proc/{pid}/fd/2", "rb") as file:
        return b"Saved" in file.read()


def test_a_sample_is_valid_and_depends_on_no_neighbor(worker, tmp_path):
    first, second = box_glb(tmp_path / "a.glb", size=(1, 2, 3)), box_glb(tmp_path / "b.glb", size=(2, 1, 1))
    with worker() as opened:
        opened.render_one(task(first))
        after = opened.render_one(task(second))
    with worker(threads=2) as opened:
        alone = opened.render_one(task(second))
    assert after.tar == alone.tar
    assert alone.outcome.status == "ok"
    assert alone.outcome.attempts == 1
    assert alone.outcome.peak_rss_mb > 100
    sample = unpack(alone.tar)
    assert list(sample) == member_names("b")
    meta = validate_sample(sample, "test")
    assert meta.resolution == 16
    assert meta.renderer["version"].startswith("Blender 4.5")


def test_a_killed_blender_is_tried_again_and_gives_the_same(worker, tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker() as opened:
        whole = opened.render_one(task(path))
        watcher = when_rendering(opened.pid(), lambda pid: os.kill(pid, signal.SIGSEGV))
        again = opened.render_one(task(path))
        watcher.join()
    assert again.outcome.attempts == 2
    assert again.outcome.status == "ok"
    assert again.tar == whole.tar


def test_a_stopped_blender_meets_its_deadline(worker, tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker() as opened:
        opened.render_one(task(path))
        stopped = opened.pid()
        opened._limits = Limits(timeout_s=6.0)
        watcher = when_rendering(stopped, lambda pid: os.kill(pid, signal.SIGSTOP))
        again = opened.render_one(task(path))
        watcher.join()
        assert again.outcome.status == "ok"
        assert again.outcome.attempts == 2
        assert not os.path.exists(f"/proc/{stopped}")


def test_what_hangs_each_time_is_recorded_and_the_next_object_renders(worker, tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker(Limits(timeout_s=0.05)) as opened:
        hung = opened.render_one(task(path)).outcome
        assert (hung.status, hung.stage, hung.error_class, hung.attempts) == ("failed", "worker", "Timeout", 2)
        assert hung.exit_signal == signal.SIGKILL
        assert "0.05 s" in hung.message
        opened._limits = Limits(timeout_s=60.0)
        assert opened.render_one(task(path)).outcome.status == "ok"


def test_too_much_memory_is_recorded(worker, tmp_path):
    with worker(Limits(timeout_s=60.0, memory_mb=10.0)) as opened:
        outcome = opened.render_one(task(box_glb(tmp_path / "a.glb"))).outcome
    assert (outcome.status, outcome.error_class, outcome.exit_signal) == ("failed", "MemoryLimit", signal.SIGKILL)
    assert "the limit is 10 MB" in outcome.message


def test_a_bad_object_is_not_tried_twice_and_a_spent_process_is_replaced(worker, tmp_path):
    good = box_glb(tmp_path / "a.glb")
    (tmp_path / "text.glb").write_text("no model")
    with worker(Limits(timeout_s=60.0, recycle_after=2)) as opened:
        bad = opened.render_one(task(tmp_path / "text.glb")).outcome
        assert (bad.status, bad.stage, bad.attempts) == ("failed", "import", 1)
        process = opened.pid()
        result = opened.render_one(task(good))
        assert result.outcome.status == "ok", result.outcome
        assert len(unpack(result.tar)) == 33
        assert opened.pid() is None
        assert not os.path.exists(f"/proc/{process}")
        missing = opened.render_one(task(tmp_path / "gone.glb")).outcome
        assert (missing.status, missing.stage, missing.error_class) == ("failed", "source", "FileNotFoundError")
        assert opened.pid() is None, "a file that is not there needs no Blender"


def test_procedural_objects_render(worker, tmp_path):
    from render.procedural.catalog import uid_of

    asset = Asset(uid_of(3, 0), "procedural", "CC0-1.0", "us", procedural_index=3)
    with worker() as opened:
        result = opened.render_one(RenderTask(asset, 0, "shard-000000"))
    assert result.outcome.status == "ok", result.outcome
    meta = validate_sample(unpack(result.tar), "test")
    assert max(view.alpha_coverage for view in meta.views["fixed"]) > 0.05


def test_a_process_that_cannot_start_is_a_recorded_failure(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # the child finds no standard library
    with worker() as opened:
        outcome = opened.render_one(task(box_glb(tmp_path / "a.glb"))).outcome
    assert (outcome.status, outcome.stage, outcome.error_class) == ("failed", "worker", "Crash")
    assert "did not start" in outcome.message


def test_a_path_that_leads_out_of_the_folder_is_never_opened(worker, tmp_path):
    box_glb(tmp_path / "secret.glb")
    (tmp_path / "models").mkdir()
    with open_worker(tmp_path / "models") as opened:
        outcome = opened.render_one(RenderTask(Asset("x", "test", file="../secret.glb"), 0, "shard-000000")).outcome
        assert opened.pid() is None
    assert (outcome.status, outcome.stage) == ("failed", "source")
    assert "is outside of" in outcome.message


def test_what_cannot_be_read_fails_at_once_and_alone(worker, tmp_path):
    """A FIFO never ends, a link leads to itself, and a name is not UTF-8: no Blender is started for any of them."""
    os.mkfifo(tmp_path / "fifo.glb")
    (tmp_path / "loop.glb").symlink_to("loop.glb")
    expected = {"fifo.glb": "NotRegularFile", "loop.glb": "SymlinkLoop", "caf\\xe9.glb": "NameNotUtf8"}
    with worker() as opened:
        for name, kind in expected.items():
            outcome = opened.render_one(RenderTask(Asset("x", "test", file=name), 0, "shard-000000")).outcome
            assert (outcome.status, outcome.stage, outcome.error_class) == ("failed", "source", kind)
        assert opened.pid() is None


def test_the_recorded_digest_covers_referenced_files(worker, tmp_path):
    text = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n"
    digests = []
    for name, color in (("red", "1 0 0"), ("again", "1 0 0"), ("blue", "0 0 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.obj").write_text(text)
        (tmp_path / name / "m.mtl").write_text(f"newmtl m\nKd {color}\n")
    with worker() as opened:
        for name in ("red", "again", "blue"):
            asset = Asset(name, "test", file=f"{name}/m.obj")
            outcome = opened.render_one(RenderTask(asset, 0, "shard-000000")).outcome
            assert outcome.status == "ok", outcome
            digests.append(outcome.asset_sha256)
    assert digests[0] == digests[1] != digests[2]


def test_a_batch_keeps_order_and_brings_the_log(worker, tmp_path):
    good = box_glb(tmp_path / "a.glb")
    (tmp_path / "b.glb").write_text("no model")
    with worker() as opened:
        batch = opened.render([task(tmp_path / "b.glb"), task(good)])
    assert [result.outcome.status for result in batch.results] == ["failed", "ok"]
    assert batch.seconds > 0
    assert "Cycles on CPU" in batch.log
    assert "b: import: ModelError" in batch.log
    assert len(batch.results[1].outcome.asset_sha256) == 64


def test_a_process_above_its_memory_mark_is_replaced(worker, tmp_path):
    with worker(Limits(timeout_s=60.0, recycle_rss_mb=1.0)) as opened:
        assert opened.render_one(task(box_glb(tmp_path / "a.glb"))).outcome.status == "ok"
        assert opened.pid() is None


def test_the_source_holds_what_its_objects_refer_to(worker, tmp_path):
    """The boundary is the source's folder, not the folder of the model."""
    source = ROOT / "tests" / "golden" / "files" / "o40_shapenet"
    shutil.copytree(source, tmp_path / "source")
    asset = Asset("chair", "test", "CC0-1.0", "nobody", file="source/models/model_normalized.obj")
    with worker() as opened:
        complete = opened.render_one(RenderTask(asset, 0, "shard-000000"))
    asset = Asset("chair", "test", "CC0-1.0", "nobody", file="model_normalized.obj")
    with open_worker(tmp_path / "source" / "models") as opened:
        without = opened.render_one(RenderTask(asset, 0, "shard-000000"))
    assert "missing-texture" not in complete.outcome.flags
    assert "missing-texture" in without.outcome.flags


@pytest.mark.parametrize("threads", [1, 2])
def test_blender_has_a_fixed_hash_seed_and_no_idle_threads_of_numpy(worker, threads):
    """Two custom attributes of different width failed or passed by the hash seed of the process."""
    with worker(threads=threads) as opened:
        opened.ready()
        with open(f"/proc/{opened.pid()}/environ", "rb") as file:
            environment = file.read().split(b"\0")
    assert b"PYTHONHASHSEED=0" in environment
    assert f"OMP_NUM_THREADS={threads}".encode() in environment  # idle threads of OpenBLAS would busy-wait
