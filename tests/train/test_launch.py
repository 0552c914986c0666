"""Ray Train for real on this machine: a worker is killed, and the run ends in the weights of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dataset.errors import UserError
from dataset.reading.filters import Filters
from tests.support.make_shards import make_shard_set
from tests.support.paths import ROOT
from tests.support.train_micro import micro_model, micro_run
from tests.support.train_ray import STEPS
from train import launch
from train.launch import Launch, start
from train.model.multiview import save_model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    make_shard_set(folder / "set", 6, 32)
    save_model(micro_model(), folder / "base")
    return folder


def command(folder: Path, name: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tests.support.train_ray",
        str(folder / "set"),
        str(folder / name),
        str(folder / "base"),
    ]


def begun(folder: Path, name: str, steps: int) -> subprocess.Popen[str]:
    """The run, when its checkpoint of so many steps is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    child = subprocess.Popen(command(folder, name), cwd=ROOT, env=environment, text=True, **pipes)
    deadline = time.monotonic() + 600
    while not (folder / name / "checkpoints" / f"step-{steps:09d}").exists():
        assert child.poll() is None, child.communicate()[0]
        if time.monotonic() > deadline:
            child.terminate()
            pytest.fail(f"no checkpoint of step {steps}: {child.communicate()[0]}")
        time.sleep(0.02)
    return child


def workers(child: subprocess.Popen[str]) -> list[int]:
    """Process numbers of Ray's workers that train, descendants of the run."""
    found = [p for p in Path("/proc").iterdir() if p.name.isdigit() and b"RayTrainWorker" in _read(p / "cmdline")]
    return [int(process.name) for process in found if child.pid in _ancestors(process)]


def _ancestors(process: Path) -> list[int]:
    parents = []
    while fields := _read(process / "stat").rpartition(b")")[2].split():
        parents.append(int(fields[1]))
        process = Path("/proc") / str(parents[-1])
    return parents


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile, or is nobody's parent
        return b""


def same(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_a_killed_worker_restarts_all_from_the_last_checkpoint(folder):
    """SIGKILL of one of two workers, against the same run undisturbed: the same steps, the same bits."""
    whole = subprocess.run(command(folder, "whole"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    child = begun(folder, "killed", 8)
    found = workers(child)
    assert len(found) == 2
    os.kill(found[1], signal.SIGKILL)
    printed, _ = child.communicate(timeout=600)
    assert child.returncode == 0, printed
    assert printed.count("objects per step = 1 per process x 2 processes x 2 accumulated") == 2  # begun twice
    last = f"checkpoints/step-{STEPS:09d}"
    for name in ("unet", "optimiser"):
        assert same(folder / "whole" / last / f"{name}.safetensors", folder / "killed" / last / f"{name}.safetensors")
    progress = [json.loads((folder / run / last / "progress.json").read_text()) for run in ("whole", "killed")]
    assert progress[0]["steps"] == STEPS
    assert progress[0]["seen_images"] == progress[1]["seen_images"]


@pytest.mark.slow
def test_sigterm_to_the_driver_leaves_a_checkpoint_and_resumes(folder):
    child = begun(folder, "stopped", 4)
    child.send_signal(signal.SIGTERM)
    printed, _ = child.communicate(timeout=120)
    assert child.returncode == 130, printed
    out = folder / "stopped"
    steps = max(int(path.name[-9:]) for path in (out / "checkpoints").iterdir())
    assert 4 <= steps < STEPS
    assert not (out / "model.json").exists()
    assert not (out / ".stop").exists()
    again = subprocess.run(command(folder, "stopped"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (out / "model.json").exists()


def test_one_process_and_torchruns_processes_need_no_ray(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "train", lambda run, *ranks: asked.append(run))
    run = micro_run(tmp_path, tmp_path, 6)
    start(run, Launch())
    assert asked == [run]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--workers 3, but torchrun started 2"):
        start(run, Launch(workers=3))
    with pytest.raises(UserError, match="--address auto is for Ray"):
        start(run, Launch(address="auto"))
    with pytest.raises(UserError, match="--device cuda:1 is one GPU for 2 processes"):
        start(replace(run, device=torch.device("cuda:1")), Launch())


@pytest.mark.parametrize(("device", "said"), [("cuda", True), ("cuda:1", False), ("cpu", False)])
def test_a_run_on_one_of_several_gpus_says_so(device, said, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(launch, "train", lambda run: None)
    with caplog.at_level("INFO"):
        start(replace(micro_run(tmp_path, tmp_path / "out", 6), device=torch.device(device)), Launch())
    assert ("training on one of this machine's 4 GPUs; --workers 2 uses 2 of them" in caplog.messages) is said


def test_ray_workers_find_every_path_of_the_run_from_their_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = replace(micro_run(Path("set"), Path("out"), 6, base=Path("base")), filters=Filters(uids=Path("uids.txt")))
    found = launch._with_whole_paths(run)
    assert (found.shards, found.out, found.base) == (str(tmp_path / "set"), tmp_path / "out", tmp_path / "base")
    assert found.filters == Filters(uids=tmp_path / "uids.txt")
    assert launch._with_whole_paths(replace(run, base=None, filters=Filters())).filters == Filters()


def test_what_cannot_start_on_several_is_refused_before_ray(tmp_path):
    run = micro_run(tmp_path, tmp_path / "out", 6)
    with pytest.raises(UserError, match="does not divide into 3 ranks"):
        start(run, Launch(workers=3))
    with pytest.raises(UserError, match="--workers is 0 and --max-failures is 3; they must be at least 1 and 0"):
        start(run, Launch(workers=0))
    if torch.cuda.device_count() < 2:
        with pytest.raises(UserError, match="GPUs; give --address"):
            start(replace(run, device=torch.device("cuda")), Launch(workers=2))
    assert not (tmp_path / "out").exists()
