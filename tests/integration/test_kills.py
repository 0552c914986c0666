"""After any process was killed at any moment, the resumed set is complete and byte-identical."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest

from dataset.check.verify import verify
from dataset.format.outcomes import read_outcomes
from dataset.io.files import url_to_fs
from tests.support.make_models import box_glb
from tests.support.paths import ROOT
from tests.support.render_command import MARK, command, contents, wait_for

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
OBJECTS = 10
KILLS = 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for i in range(OBJECTS):
        box_glb(folder / f"box{i:02d}.glb", size=(1, 0.2 + 0.05 * i, 0.5))
    (folder / "poison.glb").write_text("not a model")
    return folder


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory):
    shards = tmp_path_factory.mktemp("sets") / "uninterrupted"
    run = subprocess.run(line(models, shards, 1), cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    return contents(shards)


def line(models, shards, workers):
    return command(f"folder:{models}", shards, "--workers", str(workers))


def start(models, shards, log, mark, workers=2):
    with log.open("ab") as file:
        return subprocess.Popen(
            line(models, shards, workers), cwd=ROOT, stdout=file, stderr=file, env={**os.environ, MARK: mark}
        )


def marked(mark, name):
    """Ids of the run's processes whose command line holds `name`."""
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                with open(f"/proc/{folder}/environ", "rb") as file:
                    ours = f"{MARK}={mark}".encode() in file.read()
                with open(f"/proc/{folder}/cmdline", "rb") as file:
                    if ours and name in file.read():
                        found.append(int(folder))
            except OSError:  # ended meanwhile
                continue
    return found


def is_whole(shards, reference):
    rows = read_outcomes(*url_to_fs(shards))
    assert [row.position for row in rows] == list(range(OBJECTS + 1))
    assert [row.uid for row in rows if row.status != "ok"] == ["poison"]
    assert verify(str(shards)) == []
    assert contents(shards) == reference
    return True


def test_twenty_kills_of_the_driver_at_random_moments(models, reference, tmp_path):
    seed = int(os.environ.get("ISOTROPIC3D_KILL_SEED", "0"))
    moments, mark, kills, sets = random.Random(seed), uuid.uuid4().hex, 0, 0
    whole_s = time.monotonic()
    assert start(models, tmp_path / "timed", tmp_path / "log", mark).wait() == 1
    whole_s = time.monotonic() - whole_s
    while kills < KILLS:
        shards = tmp_path / f"set{sets}"
        driver = start(models, shards, tmp_path / "log", mark, workers=1 + kills % 3)
        try:
            status = driver.wait(moments.uniform(0.0, whole_s))
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            kills += 1
            assert wait_for(lambda: not marked(mark, b"render.blender"), 30), "Blender outlives a killed driver"
        else:
            assert status == 1, (tmp_path / "log").read_text()[-2000:]
            assert is_whole(shards, reference)
            sets += 1
    last = tmp_path / f"set{sets}"
    assert start(models, last, tmp_path / "log", mark).wait() == 1
    assert is_whole(last, reference)


@pytest.mark.parametrize("victim", [b"ray::RenderWorker", b"raylet/raylet", b"gcs_server"])
def test_ray_killed_under_the_driver(models, reference, tmp_path, victim):
    shards, mark, log = tmp_path / "set", uuid.uuid4().hex, tmp_path / "log"
    driver = start(models, shards, log, mark)
    assert wait_for(lambda: list(shards.glob(".staging/*/*.part")) + list(shards.glob("*.tar")), 120)
    for pid in marked(mark, victim)[:1]:
        os.kill(pid, signal.SIGKILL)
    try:
        status = driver.wait(240)
    finally:
        driver.kill()
    if victim == b"gcs_server":  # Ray ends the driver with it: the same command resumes
        assert status != 0
        assert start(models, shards, log, mark).wait() == 1
    else:
        assert status == 1, log.read_text()[-2000:]
    assert is_whole(shards, reference)


def test_two_drivers_on_one_output(models, reference, tmp_path):
    shards, mark, log = tmp_path / "set", uuid.uuid4().hex, tmp_path / "log"
    first = start(models, shards, log, mark)
    assert wait_for((shards / ".staging" / "lock").exists, 60)
    second = subprocess.run(line(models, shards, 1), cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.strip().splitlines()[-1].startswith("error: another rendering is writing")
    assert first.wait() == 1
    assert is_whole(shards, reference)


def test_a_full_disk_ends_in_one_line_and_resumes(models, reference, tmp_path):
    """A real file system of 2 MB that is too full for a set."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        (disk / "ballast").write_bytes(bytes(1_850_000))
        full = subprocess.run(line(models, disk / "set", 2), cwd=ROOT, capture_output=True, text=True, check=False)
        assert full.returncode == 2
        assert "No space left on device" in full.stderr.strip().splitlines()[-1]
        (disk / "ballast").unlink()
        again = subprocess.run(line(models, disk / "set", 2), cwd=ROOT, capture_output=True, text=True, check=False)
        assert again.returncode == 1, again.stderr
        assert is_whole(disk / "set", reference)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_tests_see_a_difference(models, reference, tmp_path):
    shards = tmp_path / "set"
    other = [*line(models, shards, 1), "--seed", "1"]
    assert subprocess.run(other, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 1
    with pytest.raises(AssertionError):
        is_whole(shards, reference)
    assert sys.platform == "linux"
