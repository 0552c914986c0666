"""Each command that writes an output is refused, by one line, while another process writes the same output."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataset.errors import UserError
from distill.__main__ import main as distill
from distill.config import DistillArgs
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.evaluate import evaluate_assets
from distill.runs import job, plan
from tests.support.distill_micro import SETTINGS, draw, quick_results
from tests.support.paths import ROOT
from tests.support.train_micro import micro_run
from train.__main__ import AutoencoderOptions, run_component
from train.evaluate.evaluate import NovelViewArgs, evaluate_novel_views
from train.export import ExportArgs, export
from train.launch import Launch, start
from train.sample import SampleArgs
from train.sample import run as sample

pytestmark = pytest.mark.usefixtures("one_thread")
HOLD = """
import sys
from pathlib import Path
from dataset.io import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2]), sys.argv[3]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(kind: str, out: Path, writer: str) -> Iterator[int]:
    """Another process that holds the lock; its process id."""
    line = [sys.executable, "-c", HOLD, kind, str(out), writer]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(line, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate()


def refused(kind: str, out: Path, writer: str, run: Callable[[], object]) -> None:
    """Check that `run` is refused and writes nothing while another process writes."""
    with held(kind, out, writer) as pid:
        with pytest.raises(UserError, match=f"another {writer} is writing {out}: process {pid} on ") as error:
            run()
        assert "\n" not in str(error.value)
        left = [path.name for path in (out if out.is_dir() else out.parent).iterdir()]
        assert left in (["lock"], [f".{out.name}.lock"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "out"


def test_training(base: Path, shards: Path, out: Path) -> None:
    run = micro_run(shards, out, 1, base=base)
    refused("locked_folder", out, "training", lambda: start(run, Launch()))
    start(run, Launch())
    assert (out / "model.json").is_file()
    assert not (out / "lock").exists()


def test_training_of_a_component(shards: Path, out: Path) -> None:
    args = AutoencoderOptions(out=out, shards=str(shards), device="cpu", steps=1)
    refused("locked_folder", out, "training", lambda: run_component(args))


def test_only_rank_0_locks(base: Path, shards: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("train.launch._start", lambda *arguments: called.append(arguments))
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with held("locked_folder", out, "training"):
        start(micro_run(shards, out, 1, base=base), Launch())
    assert len(called) == 1


def test_sampling(base: Path, out: Path, tmp_path: Path) -> None:
    png = out.with_suffix(".png")
    image = draw(tmp_path / "red.png", (200, 30, 30))
    args = SampleArgs(image, base, png, views=1, ddim_steps=1, device="cpu")
    refused("locked_file", png, "sampling", lambda: sample(args))
    sample(args)
    assert [path.name for path in png.parent.iterdir()] == [png.name]


def test_export_also_removes_what_a_killed_one_left(base: Path, out: Path) -> None:
    refused("locked_file", out, "export", lambda: export(ExportArgs(base, out)))
    (out.parent / f".{out.name}.99.tmp").mkdir()
    (out.parent / f".{out.name}.99.tmp" / "big").write_bytes(b"x")
    (out.parent / f".{out.name}.b.99.tmp").mkdir()  # of another output
    export(ExportArgs(base, out))
    assert sorted(path.name for path in out.parent.iterdir()) == [f".{out.name}.b.99.tmp", out.name]


def test_evaluation_of_views(base: Path, shards: Path, out: Path) -> None:
    args = NovelViewArgs((base,), str(shards), out, split="all", max_objects=1, baselines=False, device="cpu")
    refused("locked_folder", out, "evaluation", lambda: evaluate_novel_views(args))


def test_evaluation_of_assets(shards: Path, out: Path, tmp_path: Path) -> None:
    args = AssetEvaluationArgs(str(shards), (tmp_path,), ("x",), compare_reference="without", out=out, device="cpu")
    refused("locked_folder", out, "evaluation", lambda: evaluate_assets(args))


def test_distillation_locks_each_run(
    base: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(job, "write_results", quick_results)
    image = draw(tmp_path / "red.png", (200, 30, 30))
    one = DistillArgs(image=(image,), model=base, out=out, device="cpu")
    refused("locked_folder", out, "distillation", lambda: distill(one))
    two = DistillArgs(image=(image,), num_seeds=2, model=base, out=tmp_path / "two", device="cpu")
    with held("locked_folder", two.out / "red-seed-0", "distillation") as pid:
        assert distill(two) == 1
    printed, _ = capsys.readouterr()
    assert (
        f"another distillation is writing {two.out / 'red-seed-0'}: process {pid} on {os.uname().nodename}" in printed
    )
    assert (two.out / "red-seed-1/mesh.glb").is_file()
    assert distill(two) == 0
