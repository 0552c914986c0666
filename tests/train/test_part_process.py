"""Parts of the bundled model in processes of their own: their options, failures, end, and the whole model."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dataset.errors import UserError
from tests.support.make_shards import make_shard_set
from tests.support.paths import ROOT
from tests.support.tiny_model_micro import RECIPE
from tests.support.train_micro import CPU
from train import part_process, tiny_model
from train.model.multiview import load_model
from train.part_process import PartProcess, part_processes, wait_for, words_of
from train.tiny_model import TinyModelArgs, number_of_workers, parse


def test_options_survive_the_way_through_a_command_line(tmp_path: Path) -> None:
    assert words_of(TinyModelArgs()) == []
    args = TinyModelArgs(
        "s3://bucket/set",
        work=tmp_path / "a b",
        seed=3,
        steps_scale=0.5,
        cameras="relative",
        unknown=(tmp_path / "u", tmp_path / "v"),
        drawings=tmp_path / "d",
        part="decoder",
    )
    assert parse(words_of(args)) == args
    words = [*words_of(args, without=("part",)), "--part", "autoencoder", "--device", "cuda:1"]
    assert parse(words) == replace(args, part="autoencoder", device="cuda:1")
    assert words_of(TinyModelArgs(work=Path("here"))) == ["--work", str(Path.cwd() / "here")]


def test_a_part_gets_the_folders_of_the_command_whatever_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ["--shards", str(tmp_path / "data/tiny"), "--work", str(tmp_path / "data/tiny-model")]
    assert tiny_model._words(TinyModelArgs(workers=2, device="cpu")) == expected
    assert tiny_model._words(TinyModelArgs("s3://bucket/set"))[:2] == ["--shards", "s3://bucket/set"]


@pytest.mark.parametrize(("gpus", "expected"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_the_number_of_gpus_divides_the_objects_of_a_step(gpus, expected, monkeypatch):
    """RECIPE has 4 objects per step, in stage 1 in two micro-batches."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    args, cuda = TinyModelArgs(), torch.device("cuda")
    assert number_of_workers(args, RECIPE, cuda) == expected
    assert number_of_workers(replace(args, part="stage1"), RECIPE, cuda) == 1
    assert number_of_workers(args, RECIPE, torch.device("cuda:0")) == 1
    assert number_of_workers(args, RECIPE, CPU) == 1
    assert number_of_workers(replace(args, workers=2), RECIPE, CPU) == 2
    for workers, message in (
        (0, "--workers is 0; it must be at least 1"),
        (3, "--workers is 3, but the micro-batches .* among 3 processes; give 2"),
        (4, "--workers is 4, but the micro-batches .* among 4 processes; give 2"),
    ):
        with pytest.raises(UserError, match=message):
            number_of_workers(replace(args, workers=workers), RECIPE, CPU)
    with pytest.raises(UserError, match=f"--workers is {gpus + 1}, but this machine has {gpus} GPUs"):
        number_of_workers(replace(args, workers=gpus + 1), RECIPE, cuda)
    with pytest.raises(UserError, match="--device cuda:0 is one GPU, but --workers is 2"):
        number_of_workers(replace(args, workers=2), RECIPE, torch.device("cuda:0"))
    with pytest.raises(UserError, match="--part latents is the work of one process"):
        number_of_workers(replace(args, workers=2, part="latents"), RECIPE, CPU)


@pytest.mark.integration
def test_a_part_that_fails_ends_the_wait_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long_part.py").write_text("import time; time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(part_process, "MODULE", "long_part")
    long, started = PartProcess("autoencoder", [], "cpu", tmp_path / "long.log"), time.monotonic()
    monkeypatch.setattr(part_process, "MODULE", "no_such_module")
    failure = r"training the decoder failed .*decoder.log ends with: .*No module named"
    with pytest.raises(UserError, match=failure), part_processes({"decoder": "cpu"}, [], tmp_path) as processes:
        wait_for([long, *processes])
    assert not long.is_finished()
    long.terminate()
    long.end()
    assert time.monotonic() - started < 30
    with pytest.raises(UserError, match="training the autoencoder failed with exit status -15"):
        long.is_finished()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent")
@pytest.mark.integration
def test_a_part_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "long_part.py").write_text(
        "import os, time\nfrom train.part_process import end_with_parent\nend_with_parent()\n"
        "open(os.environ['NUMBER'] + '.tmp', 'w').write(str(os.getpid()))\n"
        "os.rename(os.environ['NUMBER'] + '.tmp', os.environ['NUMBER'])\ntime.sleep(100)\n"
    )
    code = (
        "import time; from pathlib import Path; from train import part_process as p; p.MODULE = 'long_part'\n"
        f"p.PartProcess('decoder', [], 'cpu', Path({str(tmp_path / 'decoder.log')!r})); time.sleep(100)"
    )
    number = tmp_path / "number"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBER": str(number)}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while not number.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    status = Path(f"/proc/{number.read_text()}/status")
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_last_state_of_a_progress_bar_is_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_process.subprocess, "Popen", lambda *_, **__: None)
    part = PartProcess("decoder", [], "cpu", tmp_path / "decoder.log")
    assert part.last_line() == "(nothing)"
    (tmp_path / "decoder.log").write_text("begin\nstep 1/9\rstep 2/9\r\n\n")
    assert part.last_line() == "step 2/9"


@pytest.mark.slow
def test_two_processes_make_the_components_of_one_and_a_whole_model(tmp_path: Path) -> None:
    """With Ray's workers for the stages. Their noise is not that of one process, but the components are the same."""
    shards = make_shard_set(tmp_path / "set", 24, 32)
    for name, workers in (("alone", "1"), ("several", "2")):
        words = ["--shards", str(shards), "--work", str(tmp_path / name), "--out", str(tmp_path / name / "model")]
        command = [sys.executable, "-m", "tests.support.tiny_model_micro", *words, "--workers", workers]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--device", "cpu"], check=True, cwd=ROOT, env=environment)
    for part in ("vae", "image_tower", "decoder"):
        weights, expected = (
            load_file(next((tmp_path / name / "stage1" / part).glob("*.safetensors"))) for name in ("several", "alone")
        )
        torch.testing.assert_close(weights, expected)
    logs = {path.name for path in (tmp_path / "several" / "logs").iterdir()}
    assert logs == {"autoencoder.log", "image-encoder.log", "decoder.log"}
    assert not (tmp_path / "alone" / "logs").exists()
    models = [load_model(tmp_path / name / "model", CPU) for name in ("several", "alone")]
    assert models[0].spec == models[1].spec
    unets = [model.unet.state_dict() for model in models]
    assert unets[0].keys() == unets[1].keys()
    assert not torch.equal(unets[0]["conv_in.weight"], unets[1]["conv_in.weight"])
    assert (tmp_path / "several" / "model" / "known" / "known.safetensors").is_file()
