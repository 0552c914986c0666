"""`python -m render` as a person runs it: real Ray, real Blender, tiny pictures."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from dataset.check.verify import verify
from dataset.format.outcomes import read_outcomes
from dataset.format.shards import read_index
from dataset.io.files import url_to_fs
from tests.support.make_models import bad_models, box_glb
from tests.support.paths import ROOT
from tests.support.render_command import MARK, command, contents, processes_marked, render, wait_for

pytestmark = pytest.mark.integration

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Four good objects and five bad ones, in three shards; and what each bad one must be recorded with."""
    folder = tmp_path_factory.mktemp("models")
    for i in range(4):
        box_glb(folder / f"{'abyz'[i]}_good.glb", size=(1, 0.2 + 0.2 * i, 0.5))
    return folder, bad_models(folder)


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    shards = tmp_path_factory.mktemp("sets") / "uninterrupted"
    return shards, render(f"folder:{models[0]}", shards, "--workers", "1")


def test_bad_files_are_recorded_and_the_rest_complete(models, finished):
    shards, run = finished
    assert run.returncode == 1
    rows = {row.uid: row for row in read_outcomes(*url_to_fs(shards))}
    assert {uid: row.error_class for uid, row in rows.items() if row.status == "failed"} == models[1]
    assert read_index(shards).objects == 4
    assert verify(str(shards)) == []
    assert not (shards / ".staging").exists()
    for uid, kind in models[1].items():
        assert f"failed: {uid}: {rows[uid].stage}: {kind}" in run.stderr


def test_killed_and_repeated_is_as_if_never_killed(models, finished, tmp_path):
    shards, mark = tmp_path / "set", uuid.uuid4().hex
    options = ("--workers", "2")
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            command(f"folder:{models[0]}", shards, *options),
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, MARK: mark},
        )
        assert wait_for(lambda: list(shards.glob(".staging/*/*.part")) + list(shards.glob("*.tar")), 120)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not (shards / "index.json").exists()
    assert wait_for(lambda: not processes_marked(mark), 20), "Blender outlives a killed driver"
    again = render(f"folder:{models[0]}", shards, *options)
    assert again.returncode == 1
    assert contents(shards) == contents(finished[0])


@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_with_one_line_and_leaves_no_temporary_folder(models, tmp_path, sent, status, word):
    shards, scratch = tmp_path / "set", tmp_path / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"}
    line = command(f"folder:{models[0]}", shards, "--workers", "1")
    driver = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    assert wait_for(lambda: list(shards.glob(".staging/*/*.part")) + list(shards.glob("*.tar")), 120)
    driver.send_signal(sent)
    told = driver.communicate(timeout=60)[1]
    assert driver.returncode == status
    assert told.splitlines()[-1] == f"{word}; run the same command again to resume"
    assert not [text for text in ("Traceback", "***", "Stack") if text in told]
    assert wait_for(lambda: remove_stale(scratch) or not list(scratch.glob("isotropic3d-*")), 20)


def remove_stale(scratch):
    """What the next start does first."""
    code = "from dataset.io.scratch import remove_stale_folders; remove_stale_folders()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "TMPDIR": str(scratch)})


def test_repeating_a_finished_command_changes_nothing_and_other_settings_are_refused(models, finished):
    shards, _ = finished
    before = contents(shards)
    source = f"folder:{models[0]}"
    assert render(source, shards, "--workers", "3").returncode == 1
    assert contents(shards) == before
    other = render(source, shards, "--seed", "1")
    assert other.returncode == 2
    lines = other.stderr.strip().splitlines()
    first, *settings, remedy = lines[[line.startswith("error: ") for line in lines].index(True) :]
    assert first.startswith("error: ")
    assert first.endswith("was started with other settings:")
    assert settings[-1] == "  seed was 0, is now 1"
    assert "Repeat the first command" in remedy
    assert "Traceback" not in other.stderr
    assert contents(shards) == before


@pytest.mark.slow
def test_failed_objects_can_be_retried_after_mending_them(tmp_path):
    """The file was replaced by one of the same size, so that the request is the same."""
    folder, shards = tmp_path / "models", tmp_path / "set"
    box_glb(folder / "a.glb")
    good = box_glb(folder / "b.glb", size=(1, 2, 1)).read_bytes()
    (folder / "b.glb").write_bytes(b"x" * len(good))
    assert render(f"folder:{folder}", shards, "--workers", "1").returncode == 1
    (folder / "b.glb").write_bytes(good)
    mended = render(f"folder:{folder}", shards, "--workers", "1", "--retry", "failed")
    assert mended.returncode == 0, mended.stderr
    assert "1 failed objects will be rendered again" in mended.stderr
    assert read_index(shards).objects == 2
    assert verify(str(shards)) == []


def test_files_that_stop_a_naive_reader_are_failed_objects_and_a_replaced_one_is_noticed(tmp_path):
    folder, shards = tmp_path / "models", tmp_path / "set"
    box_glb(folder / "a.glb")
    os.mkfifo(folder / "fifo.glb")
    (folder / "loop.glb").symlink_to("loop.glb")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.glb")).write_bytes((folder / "a.glb").read_bytes())
    run = render(f"folder:{folder}", shards, "--workers", "1")
    assert run.returncode == 1, run.stderr
    rows = {row.uid: row for row in read_outcomes(*url_to_fs(shards))}
    failed = {uid: row.error_class for uid, row in rows.items() if row.status == "failed"}
    assert failed == {"fifo": "NotRegularFile", "loop": "SymlinkLoop", "caf_": "NameNotUtf8"}
    assert rows["a"].status == "ok"
    assert verify(str(shards)) == []
    same_size = bytearray((folder / "a.glb").read_bytes())
    same_size[-1] ^= 1
    (folder / "a.glb").write_bytes(same_size)
    again = render(f"folder:{folder}", shards, "--workers", "1")
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"error: {shards}: a.glb was replaced after object 0 (a)")


def test_dry_run_prints_the_plan_and_writes_nothing(models, tmp_path):
    run = render(f"folder:{models[0]}", tmp_path / "set", "--dry-run")
    assert run.returncode == 0
    assert "9 objects" in run.stdout
    assert "3 of up to 3 objects" in run.stdout
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resolution", "2"), "--resolution is 2"),
        (("--workers", "0"), "--workers is 0"),
        (("--timeout-s", "0"), "--timeout-s is 0"),
        (("--hdri", "/no/such/folder"), "/no/such/folder"),
        (("--objects-per-shard", "0"), "--objects-per-shard is 0"),
    ],
)
def test_bad_options_are_one_line(models, tmp_path, options, message):
    run = render(f"folder:{models[0]}", tmp_path / "set", *options)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "set").exists()
