"""Bad objects may crash their Blender process, but must not affect the next object."""

import os
import shutil
import signal
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from dataset.format.manifest import Asset
from render.settings import Settings
from render.workers.blender_process import Limits
from render.workers.messages import RenderTask
from render.workers.worker import RenderWorker
from tests.support.fault_models import boxed, png, textured
from tests.support.fault_zoo import zoo
from tests.support.make_models import box_glb

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
TINY = Settings(resolution=8, samples=1)
# one file for each way to fail, of the many that tests/integration/test_zoo.py goes through in one process
CHOSEN = {
    "bad_truncated",
    "bad_meshless",
    "deep_nodes",
    "draco_garbage",
    "scale_overflows",
    "zeros_of_2_31",
    "transparent",
    "texture_missing",
    "texture_bomb",
    "unsafe_bin_link",
    "garbage_fbx",
}


def task(path, root="/"):
    file = path.absolute().relative_to(root).as_posix()
    return RenderTask(Asset(path.stem, "test", "CC0-1.0", "nobody", file=file), 0, "shard-000000")


@contextmanager
def worker(limits=Limits(timeout_s=120.0), root="/"):  # noqa: B008  (frozen)
    opened = RenderWorker(0, TINY, limits, 1, root=str(root))
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def every_process_meets(opened, number):
    """Send a signal to each Blender process of a worker once it has rendered its first view."""
    over, met = threading.Event(), set()

    def watch():
        while not over.wait(0.005):
            pid = opened.pid()
            if pid not in met and _renders(pid):
                met.add(pid)
                os.kill(pid, number)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield met
    finally:
        over.set()
        thread.join()


def _renders(pid):
    """Whether the process has finished a view, according to its stderr."""
    try:
        with open(f"/proc/{pid}/fd/2", "rb") as file:
            return b"Saved" in file.read()
    except OSError:  # no process yet, or no more
        return False


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good object, and its sample when it is rendered alone."""
    path = box_glb(tmp_path_factory.mktemp("good") / "good.glb", size=(1, 0.6, 0.8))
    with worker() as opened:
        result = opened.render_one(task(path))
    assert result.outcome.status == "ok", result.outcome
    return path, result.tar


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_what_kills_blender_twice_is_given_up_and_explained(good, tmp_path, number):
    path, alone = good
    with worker() as opened:
        with every_process_meets(opened, number) as met:
            outcome = opened.render_one(task(box_glb(tmp_path / "a.glb"))).outcome
        assert len(met) == 2
        assert (outcome.status, outcome.stage, outcome.error_class) == ("failed", "worker", "Crash")
        assert (outcome.exit_signal, outcome.attempts) == (number, 2)
        assert number.name in outcome.message
        assert "Fra:1" in outcome.stderr_tail  # Blender's own words; how far it came meanwhile is chance
        assert opened.render_one(task(path)).tar == alone


def test_what_hangs_twice_is_given_up_and_explained(good, tmp_path):
    path, alone = good
    with worker(Limits(timeout_s=4.0)) as opened:
        with every_process_meets(opened, signal.SIGSTOP) as met:
            outcome = opened.render_one(task(box_glb(tmp_path / "a.glb"))).outcome
        assert (outcome.status, outcome.error_class, outcome.attempts) == ("failed", "Timeout", 2)
        assert outcome.exit_signal == signal.SIGKILL
        assert not [pid for pid in met if os.path.exists(f"/proc/{pid}")]
        opened._limits = Limits(timeout_s=120.0)
        assert opened.render_one(task(path)).tar == alone


def mesh_bomb(path, corners):
    """A small file of real triangles: many primitives share one buffer of indices."""
    gltf = boxed()
    mesh = gltf.document["meshes"][0]
    places = np.random.default_rng(0).normal(size=(60_000, 3)).astype(np.float32)
    attributes = {"POSITION": gltf.accessor(places, "VEC3")}
    indices = gltf.accessor(np.arange(60_000, dtype=np.uint16), "SCALAR")
    mesh["primitives"] = [{"attributes": attributes, "indices": indices, "material": 0}] * (corners // 60_000)
    return gltf.write(path)


def test_a_mesh_bomb_meets_the_memory_limit(good, tmp_path):
    path, alone = good
    bomb = mesh_bomb(tmp_path / "bomb.glb", corners=12_000_000)
    assert bomb.stat().st_size < 2_000_000
    with worker(Limits(timeout_s=120.0, memory_mb=600.0)) as opened:
        outcome = opened.render_one(task(bomb)).outcome
        assert (outcome.status, outcome.error_class, outcome.attempts) == ("failed", "MemoryLimit", 2)
        assert outcome.exit_signal == signal.SIGKILL
        assert 600 < outcome.peak_rss_mb < 4000
        assert "the limit is 600 MB" in outcome.message
        assert opened.render_one(task(path)).tar == alone


def keeps_to_its_outcomes(specimens, good, tmp_path):
    """Render each bad object and then the good one with one worker; the good sample must not change."""
    path, alone = good
    wrong, folder = [], tmp_path / "models"
    shutil.copy(path, folder)
    with worker(root=folder) as opened:
        for specimen in specimens:
            outcome = opened.render_one(task(specimen.path, folder)).outcome
            expected = ("failed" if specimen.error else "ok", specimen.error, 1)
            if (outcome.status, outcome.error_class, outcome.attempts) != expected:
                wrong.append((specimen.name, outcome))
            if bool(outcome.message) != bool(specimen.error) or not set(specimen.flags) <= set(outcome.flags):
                wrong.append((specimen.name, outcome))
            if opened.render_one(task(folder / path.name, folder)).tar != alone:
                wrong.append((specimen.name, "changes the next object"))
    assert not wrong


def test_a_folder_of_bad_files_costs_nothing_else(good, tmp_path):
    specimens = [specimen for specimen in zoo(tmp_path / "models") if specimen.name in CHOSEN]
    assert len(specimens) == len(CHOSEN)
    keeps_to_its_outcomes(specimens, good, tmp_path)


@pytest.mark.slow
def test_the_whole_zoo_costs_nothing_else(good, tmp_path):
    keeps_to_its_outcomes(zoo(tmp_path / "models"), good, tmp_path)


@pytest.mark.slow
def test_a_16k_texture_renders_in_bounded_memory_and_leaves_none_behind(good, tmp_path):
    path, alone = good
    large = textured(png(16384, 16384)).write(tmp_path / "large.glb")
    with worker(Limits(timeout_s=600.0)) as opened:
        outcome = opened.render_one(task(large)).outcome
        assert outcome.status == "ok", outcome
        assert outcome.peak_rss_mb < 2000
        after = opened.render_one(task(path))
        assert after.tar == alone
        assert after.outcome.peak_rss_mb < 700
    with worker(Limits(timeout_s=600.0, memory_mb=800.0)) as opened:
        assert opened.render_one(task(large)).outcome.error_class == "MemoryLimit"


@pytest.mark.slow
def test_a_file_of_200_mb_renders_in_bounded_memory(tmp_path):
    path = box_glb(tmp_path / "a.glb")
    data = path.read_bytes()
    size, length = 200_000_000, struct.unpack_from("<I", data, 12)[0]
    binary = 20 + length  # where the BIN chunk begins
    grown = data[:8] + struct.pack("<I", size) + data[12:binary] + struct.pack("<I", size - binary - 8)
    with path.open("wb") as file:
        file.write(grown + data[binary + 4 :])
        file.truncate(size)
    with worker(Limits(timeout_s=600.0)) as opened:
        outcome = opened.render_one(task(path)).outcome
    assert outcome.status == "ok", outcome
    assert outcome.peak_rss_mb < 1200


def flat(emission, **pbr):
    """A box of one material."""
    gltf = boxed()
    material = {"emissiveFactor": [emission] * 3, "pbrMetallicRoughness": pbr}
    gltf.document["extensionsUsed"] = ["KHR_materials_specular"]
    material["extensions"] = {"KHR_materials_specular": {"specularFactor": 0}}
    gltf.document["materials"] = [material] * 6
    return gltf


def test_black_and_white_objects_are_flagged(tmp_path):
    black = {"baseColorFactor": [0, 0, 0, 1], "metallicFactor": 0, "roughnessFactor": 1}
    with worker() as opened:
        for emission, flag in ((0, "near-black"), (1, "near-white")):
            outcome = opened.render_one(task(flat(emission, **black).write(tmp_path / f"{flag}.glb"))).outcome
            assert outcome.status == "ok", outcome
            assert flag in outcome.flags
        grey = {"baseColorFactor": [0.3, 0.3, 0.3, 1], "metallicFactor": 0}
        flags = opened.render_one(task(flat(0, **grey).write(tmp_path / "grey.glb"))).outcome.flags
    assert set(flags) <= {"clipped", "noisy"}  # with one sample per pixel
