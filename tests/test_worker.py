"""The Blender process and its keeper: crashes, hangs and memory cost one object; pictures depend on nothing else."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from dataset.schema import member_names, validate_sample
from render.job import unpack
from render.settings import Settings
from render.sources import Asset
from render.worker import Limits, Task, Worker
from tests.make_models import box_glb

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
TINY = Settings(resolution=16, samples=1)


def task(path):
    return Task(Asset(path.stem, "test", "CC0-1.0", "nobody", path=str(path)), 0, "shard-000000")


@contextmanager
def worker(limits=Limits(timeout_s=60.0), settings=TINY, threads=1):  # noqa: B008  (frozen)
    opened = Worker(0, settings, limits, threads)
    try:
        yield opened
    finally:
        opened.close()


def members(result, tmp_path):
    (tmp_path / "sample.tar").write_bytes(result.tar)
    return unpack(tmp_path / "sample.tar")


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


def test_a_sample_is_valid_and_depends_on_no_neighbour(tmp_path):
    first, second = box_glb(tmp_path / "a.glb", size=(1, 2, 3)), box_glb(tmp_path / "b.glb", size=(2, 1, 1))
    with worker() as opened:
        opened.render(task(first))
        after = opened.render(task(second))
    with worker(threads=2) as opened:
        alone = opened.render(task(second))
    assert after.tar == alone.tar
    assert alone.outcome.status == "ok"
    assert alone.outcome.attempts == 1
    assert alone.outcome.peak_rss_mb > 100
    sample = members(alone, tmp_path)
    assert list(sample) == member_names("b")
    meta = validate_sample(sample, "test")
    assert meta.resolution == 16
    assert meta.renderer["version"].startswith("Blender 4.5")


def test_a_killed_blender_is_tried_again_and_gives_the_same(tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker() as opened:
        whole = opened.render(task(path))
        watcher = when_rendering(opened.pid(), lambda pid: os.kill(pid, signal.SIGSEGV))
        again = opened.render(task(path))
        watcher.join()
    assert again.outcome.attempts == 2
    assert again.outcome.status == "ok"
    assert again.tar == whole.tar


def test_a_stopped_blender_meets_its_deadline(tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker() as opened:
        opened.render(task(path))
        stopped = opened.pid()
        opened._limits = Limits(timeout_s=6.0)
        watcher = when_rendering(stopped, lambda pid: os.kill(pid, signal.SIGSTOP))
        again = opened.render(task(path))
        watcher.join()
        assert again.outcome.status == "ok"
        assert again.outcome.attempts == 2
        assert not os.path.exists(f"/proc/{stopped}")


def test_what_hangs_each_time_is_recorded_and_the_next_object_renders(tmp_path):
    path = box_glb(tmp_path / "a.glb")
    with worker(Limits(timeout_s=0.05)) as opened:
        hung = opened.render(task(path)).outcome
        assert (hung.status, hung.stage, hung.error_class, hung.attempts) == ("failed", "worker", "Timeout", 2)
        assert hung.exit_signal == signal.SIGKILL
        assert "0.05 s" in hung.message
        opened._limits = Limits(timeout_s=60.0)
        assert opened.render(task(path)).outcome.status == "ok"


def test_too_much_memory_is_recorded(tmp_path):
    with worker(Limits(timeout_s=60.0, memory_mb=10.0)) as opened:
        outcome = opened.render(task(box_glb(tmp_path / "a.glb"))).outcome
    assert (outcome.status, outcome.error_class, outcome.exit_signal) == ("failed", "MemoryLimit", signal.SIGKILL)
    assert "the limit is 10 MB" in outcome.message


def test_a_bad_object_is_not_tried_twice_and_a_spent_process_is_replaced(tmp_path):
    good = box_glb(tmp_path / "a.glb")
    (tmp_path / "text.glb").write_text("no model")
    with worker(Limits(timeout_s=60.0, recycle_after=2)) as opened:
        bad = opened.render(task(tmp_path / "text.glb")).outcome
        assert (bad.status, bad.stage, bad.attempts) == ("failed", "import", 1)
        process = opened.pid()
        result = opened.render(task(good))
        assert result.outcome.status == "ok", result.outcome
        assert len(members(result, tmp_path)) == 33
        assert opened.pid() is None
        assert not os.path.exists(f"/proc/{process}")
        missing = opened.render(task(tmp_path / "gone.glb")).outcome
        assert (missing.status, missing.stage, missing.error_class) == ("failed", "source", "FileNotFoundError")
        assert opened.pid() not in (None, process)


def test_procedural_objects_render(tmp_path):
    from render.procedural.catalog import uid_of

    asset = Asset(uid_of(3, 0), "procedural", "CC0-1.0", "us", procedural_index=3)
    with worker() as opened:
        result = opened.render(Task(asset, 0, "shard-000000"))
    assert result.outcome.status == "ok", result.outcome
    meta = validate_sample(members(result, tmp_path), "test")
    assert max(view.alpha_coverage for view in meta.views["fixed"]) > 0.05


def test_a_process_that_cannot_start_is_a_recorded_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # the child finds no standard library
    with worker() as opened:
        outcome = opened.render(task(box_glb(tmp_path / "a.glb"))).outcome
    assert (outcome.status, outcome.stage, outcome.error_class) == ("failed", "worker", "Crash")
    assert "did not start" in outcome.message


def test_objaverse_objects_come_from_the_packages_cache_and_a_failed_download_costs_one(tmp_path, monkeypatch):
    cache = tmp_path / ".objaverse" / "hf-objaverse-v1"
    box_glb(cache / "glbs" / "000-001" / "aa.glb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # any download is refused at once
    with worker() as opened:
        lost, found = (
            opened.render(
                Task(Asset(uid, "objaverse", "CC-BY-4.0", "Ann", objaverse_path=f"glbs/000-001/{uid}.glb"), 0, "s")
            )
            for uid in ("bb", "aa")
        )
    assert (lost.outcome.status, lost.outcome.stage, lost.outcome.error_class) == ("failed", "source", "URLError")
    assert found.outcome.status == "ok"
