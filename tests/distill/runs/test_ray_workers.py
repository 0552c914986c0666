"""Several distillations on Ray workers: crashes, stops, and two real workers."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.images.prepare import prepare_image
from distill.config import DistillRequest
from distill.nerf.field import read_header
from distill.runs import ray_workers
from distill.runs.job import Job
from distill.runs.sequential import RunOutcome
from distill.sds.checkpoint import CHECKPOINT
from tests.support.distill_micro import SETTINGS, draw, rows, same_field
from tests.support.paths import ROOT

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]


def a_job(folder: Path, name: str, steps: int = 3) -> Job:
    prepared = prepare_image(draw(folder / "thing.png", (9, 9, 9)), 32)
    settings = replace(SETTINGS, steps=steps)
    request = DistillRequest("", "", "tiny", 15.0, 3.0, settings)
    return Job(name, folder / "thing.png", prepared, folder / name, folder, "", request)


class Stub(ray_workers.DistillWorker):
    """A worker whose runs only do what their names say."""

    def ready(self):
        return None

    def run(self, job):
        (job.out / "ran").open("a").write("begun\n")
        if job.name.startswith("beside_") and not self._other_begins(job):
            return RunOutcome(job.name, "failed", reason="no other run began meanwhile")
        for done in range(1, job.request.settings.steps + 1):
            if self._watch(job.name, done):
                return RunOutcome(job.name, "stopped", reason="resumes from its checkpoint")
            time.sleep(0.05)
            first_time = len((job.out / "ran").read_text().splitlines()) == 1
            if job.name.startswith("dies") and ("always" in job.name or first_time):
                os._exit(1)
        if "mistake" in job.name:
            return RunOutcome(job.name, "failed", reason="KeyError", trace="Traceback ...")
        return RunOutcome(job.name, "done", 1.0)

    def _other_begins(self, job):
        """Wait until the run that `beside_` names begins, on another worker."""
        deadline = time.monotonic() + 120
        while not (begun := (job.out.parent / job.name.removeprefix("beside_") / "ran").exists()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return begun


class Unfit(ray_workers.DistillWorker):
    def __init__(self, *given):
        raise RuntimeError("no GPU here")


class WithoutModel(ray_workers.DistillWorker):
    def ready(self):
        return "node-7: no model"


@pytest.mark.slow
def test_workers_that_die_are_replaced_and_every_run_has_an_outcome(tmp_path, monkeypatch, capsys):
    names = ["beside_dies_once", "dies_once", "b", "dies_always", "mistake", "c"]
    jobs = [a_job(tmp_path, name) for name in names]
    (tmp_path / "c").write_text("in the way")
    monkeypatch.setattr(ray_workers, "DistillWorker", Stub)
    found = {outcome.name: outcome for outcome in ray_workers.on_workers(jobs, "cpu", 2, None)}
    assert {name: outcome.status for name, outcome in found.items()} == {
        **{"beside_dies_once": "done", "dies_once": "done", "b": "done"},
        **{"dies_always": "failed", "mistake": "failed", "c": "failed"},
    }
    assert "died 2 times" in found["dies_always"].reason
    assert "cannot be created (File exists)" in found["c"].reason
    assert "dies_once: its worker died" in capsys.readouterr().err
    for kind, says in ((Unfit, "3 workers in a row did not start.*no GPU here"), (WithoutModel, "node-7: no model")):
        monkeypatch.setattr(ray_workers, "DistillWorker", kind)
        with pytest.raises(UserError, match=says):
            list(ray_workers.on_workers(jobs[:2], "cpu", 2, None))


class OnGpu(ray_workers.DistillWorker):
    """A worker whose outcome names the GPU that Ray assigned to it. Each run waits for the others to begin."""

    def ready(self):
        return None

    def run(self, job):
        (job.out / "begun").touch()
        deadline = time.monotonic() + 120
        while len(list(job.out.parent.glob("*/begun"))) < len(list(job.out.parent.glob("run-*"))):
            if self._name != "cuda" or time.monotonic() > deadline:
                return RunOutcome(job.name, "failed", reason="the runs do not begin at the same time on GPUs")
            time.sleep(0.05)
        return RunOutcome(job.name, "done", reason=os.environ["CUDA_VISIBLE_DEVICES"])


@pytest.mark.parametrize(("workers", "gpus", "share"), [(2, 2, 1), (3, 2, 2), (16, 2, 8), (1, 4, 1), (3, 0, 1)])
def test_workers_are_spread_over_the_gpus(workers, gpus, share):
    assert ray_workers.workers_per_gpu(workers, gpus) == share


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_all_workers_run_at_once_and_every_gpu_is_used(workers, tmp_path, monkeypatch):
    """Two GPUs that do not exist: Ray only counts them."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(ray_workers, "DistillWorker", OnGpu)
    jobs = [a_job(tmp_path, f"run-{number}") for number in range(workers)]
    outcomes = list(ray_workers.on_workers(jobs, "cuda", workers, None))
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert sorted(outcome.reason for outcome in outcomes) == [gpu for gpu in "01" for _ in range(workers // 2)]


@pytest.mark.slow
def test_a_stop_reaches_the_workers(tmp_path, monkeypatch):
    jobs = [a_job(tmp_path, name, steps) for name, steps in (("short", 1), ("long", 2000), ("later", 2000))]
    monkeypatch.setattr(ray_workers, "DistillWorker", Stub)
    found = {}
    for outcome in ray_workers.on_workers(jobs, "cpu", 2, None):
        found[outcome.name] = outcome
        if outcome.name == "short":
            signal.raise_signal(signal.SIGTERM)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "short": "done",
        "long": "stopped",
        "later": "stopped",
    }


@pytest.mark.slow
def test_two_cpu_workers_for_real(tmp_path, base):
    """The command, stopped by a signal and resumed, gives the same fields as sequential runs."""
    images = [str(draw(tmp_path / name, colour)) for name, colour in (("r.png", (200, 9, 9)), ("b.png", (9, 9, 200)))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def started(out: str, workers: int) -> subprocess.Popen[str]:
        line = ["--image", *images, "--model", str(base), "--out", str(tmp_path / out), "--steps", "30"]
        line += ["--device", "cpu", "--preview-every", "10", "--workers", str(workers)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            [sys.executable, "-m", "distill", *line],
            cwd=ROOT,
            env=environment,
            text=True,
            start_new_session=True,
            **pipes,
        )

    child = started("spread", 2)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "spread").glob("*/previews/*.png")):
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to every process of the group
    printed, _ = child.communicate(timeout=300)
    assert child.returncode == 130, printed
    assert "stopping: every run finishes its step" in printed
    found = {name: row[0] for name, row in rows(printed).items() if name.endswith("-seed-0")}
    assert found.keys() == {"r-seed-0", "b-seed-0"}
    assert "stopped" in found.values()
    assert 10 <= max(int(read_header(path)["step"]) for path in (tmp_path / "spread").glob(f"*/{CHECKPOINT}")) < 30
    child = started("spread", 2)
    printed, _ = child.communicate(timeout=600)
    assert child.returncode == 0, printed
    assert "the first preview of" in printed
    alone = started("turn", 1)
    printed, _ = alone.communicate(timeout=600)
    assert alone.returncode == 0, printed
    for name in ("r-seed-0", "b-seed-0"):
        assert same_field(tmp_path / "spread" / name, tmp_path / "turn" / name)


def test_only_long_runs_are_compiled_by_default(tmp_path):
    job = a_job(tmp_path, "a", steps=2999)
    assert job.effective_compile == "none"
    assert replace(job, compile="blocks").effective_compile == "blocks"
    assert a_job(tmp_path, "a", steps=3000).effective_compile == "auto"
