"""Both stages, golden losses, exact resume after SIGKILL, checkpoints, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dataset.errors import UserError
from tests.make_shards import make_shard_set
from tests.train_micro import CPU, GOLDEN_STEPS, MICRO, golden_losses, micro_run
from train.__main__ import Stage1, Stage2, resolve
from train.checkpoint import Progress, restore_checkpoint, save_checkpoint
from train.loop import MAX_SKIPPED, _update, check, train
from train.model import load_model
from train.recipe import PAPER

GOLDEN = Path(__file__).parent / "golden" / "train_losses.json"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("data") / "set", 6, 32)


@pytest.fixture(scope="module")
def stage1(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stage1"
    train(micro_run(shards, out, 6))
    return out


def _weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_golden_losses(tmp_path: Path) -> None:
    """20 steps of each stage; 1e-3 relative allows other CPUs. See tests/train_micro.py to regenerate."""
    golden = json.loads(GOLDEN.read_text())
    losses = golden_losses(tmp_path)
    for stage in ("stage1", "stage2"):
        assert len(losses[stage]) == GOLDEN_STEPS
        assert losses[stage] == pytest.approx(golden[stage], rel=1e-3)


def test_a_finished_run_is_a_model_folder_with_all_it_promises(stage1: Path) -> None:
    model = load_model(stage1, CPU)
    assert model.spec.cameras == "relative"
    assert sorted(p.name for p in (stage1 / "checkpoints").iterdir()) == ["step-000000004", "step-000000006"]
    assert list((stage1 / "tensorboard").iterdir())
    config = json.loads((stage1 / "config.json").read_text())
    assert (config["stage"], config["seed"], config["recipe"]["stage1"]["steps"]) == (1, 7, 6)
    with Image.open(stage1 / "samples" / "step-000000006.png") as picture:
        assert picture.width > picture.height  # 9 columns, 4 rows


def test_the_same_command_again_changes_nothing(stage1: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _weights(stage1)
    assert train(micro_run(shards, stage1, 6)) == []
    assert "finished already" in capsys.readouterr().out
    assert _same(before, _weights(stage1))


def test_killed_and_repeated_ends_in_the_weights_of_an_uninterrupted_run(
    stage1: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.train_micro", "stage1", str(shards), str(out), "6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while not (out / "checkpoints" / "step-000000002").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert not (out / "model.json").exists()
    losses = train(micro_run(shards, out, 6))
    assert 0 < len(losses) < 6
    assert _same(_weights(stage1), _weights(out))


def test_terminated_runs_leave_a_checkpoint_of_their_last_step(
    stage1: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"

    def asks_to_stop(optimiser: torch.optim.Optimizer, progress: Progress, norm: float) -> Progress:
        if progress.steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return _update(optimiser, progress, norm)

    monkeypatch.setattr("train.loop._update", asks_to_stop)
    with pytest.raises(KeyboardInterrupt):
        train(micro_run(shards, out, 6))
    assert (out / "checkpoints" / "step-000000003").is_dir()  # between the regular ones
    monkeypatch.undo()
    assert len(train(micro_run(shards, out, 6))) == 3
    assert _same(_weights(stage1), _weights(out))


def test_stage_2_starts_from_stage_1_and_keeps_its_parts(stage1: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "stage2"
    losses = train(micro_run(shards, out, 3, stage=2, base=stage1))
    assert len(losses) == 3
    before, after = load_model(stage1, CPU), load_model(out, CPU)
    assert not _same(before.unet.state_dict(), after.unet.state_dict())
    for part in ("vae", "image_tower"):
        assert _same(getattr(before, part).state_dict(), getattr(after, part).state_dict())
    assert before.spec == after.spec


def test_another_run_in_the_folder_is_refused(stage1: Path, shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, stage1, 6)
    with pytest.raises(UserError, match=r"seed was 7, now 8"):
        train(replace(run, seed=8))
    with pytest.raises(UserError, match=r"recipe\.stage1\.steps was 6, now 7"):
        train(micro_run(shards, stage1, 7))
    with pytest.raises(UserError, match=r"data\."):
        train(replace(run, shards=str(make_shard_set(tmp_path / "other", 6, 32, seed=1))))
    assert train(replace(run, recipe=replace(run.recipe, picture_every=3))) == []


def test_what_cannot_start_says_what_is_missing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.convert"):
        check(replace(micro_run(shards, tmp_path, 2), recipe=PAPER))
    with pytest.raises(UserError, match="--base"):
        check(micro_run(shards, tmp_path, 2, stage=2))
    with pytest.raises(UserError, match="accumulation"):
        check(replace(micro_run(shards, tmp_path, 2), recipe=replace(MICRO, stage1=replace(MICRO.stage1, objects=3))))
    with pytest.raises(UserError, match=r"model\.json is missing"):
        train(micro_run(shards, tmp_path / "x", 2, stage=2, base=tmp_path))


def _toy() -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def _step(module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    module(torch.ones(1, 3)).square().sum().backward()
    optimiser.step()


def test_checkpoints_restore_weights_and_moments_and_only_the_last_stay(tmp_path: Path) -> None:
    module, optimiser = _toy()
    for steps in range(1, 4):
        _step(module, optimiser)
        save_checkpoint(tmp_path, module, optimiser, Progress(steps, 0), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000000002", "step-000000003"]
    again, its_optimiser = _toy()
    assert restore_checkpoint(tmp_path, again, its_optimiser) == Progress(3, 0)
    for _ in range(2):
        _step(module, optimiser)
        _step(again, its_optimiser)
    assert _same(module.state_dict(), again.state_dict())


def test_a_damaged_checkpoint_is_named_and_a_half_written_one_ignored(tmp_path: Path) -> None:
    module, optimiser = _toy()
    _step(module, optimiser)
    folder = save_checkpoint(tmp_path, module, optimiser, Progress(1, 0), keep=2)
    (tmp_path / "checkpoints" / ".step-000000002.tmp").mkdir()
    assert restore_checkpoint(tmp_path, *_toy()).steps == 1
    (folder / "unet.safetensors").write_bytes(b"xx")
    with pytest.raises(UserError, match=r"step-000000001: damaged"):
        restore_checkpoint(tmp_path, *_toy())


def test_updates_with_a_non_finite_gradient_are_left_out_and_end_the_run() -> None:
    module, optimiser = _toy()
    _step(module, optimiser)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    progress = Progress(0, 0)
    for _ in range(MAX_SKIPPED - 1):
        progress = _update(optimiser, progress, float("nan"))
    assert progress == Progress(MAX_SKIPPED - 1, MAX_SKIPPED - 1)
    assert _same(before, module.state_dict())
    with pytest.raises(UserError, match="in a row"):
        _update(optimiser, progress, float("inf"))
    assert _update(optimiser, progress, 1.0) == Progress(MAX_SKIPPED, 0)
    assert not _same(before, module.state_dict())


def test_command_line_values_replace_the_presets() -> None:
    run = resolve(Stage1(out=Path("x"), steps=5, batch_size=6, accumulation=3, autoencoder_steps=2, tower_steps=1))
    assert (run.schedule.steps, run.schedule.objects, run.schedule.accumulation) == (5, 6, 3)
    assert run.recipe.autoencoder is not None
    assert run.recipe.autoencoder.schedule.steps == 2
    second = resolve(Stage2(out=Path("x"), preset="paper", checkpoint_every=9))
    assert (second.stage, second.schedule, second.recipe.checkpoint_every) == (2, PAPER.stage2, 9)
    with pytest.raises(UserError, match="trains no parts"):
        resolve(Stage1(out=Path("x"), preset="paper", tower_steps=1))
    with pytest.raises(UserError, match="--picture-every is 0"):
        resolve(Stage1(out=Path("x"), picture_every=0))
