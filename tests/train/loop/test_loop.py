"""Both stages, golden losses, exact resume after SIGKILL, checkpoints, refusals."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dataset.errors import UserError
from tests.support.make_shards import make_shard_set
from tests.support.paths import GOLDEN_FOLDER, ROOT
from tests.support.train_micro import AVERAGE_DECAY, CPU, GOLDEN_STEPS, MICRO, golden_losses, micro_run
from train.config.presets import PAPER
from train.config.schedules import learning_rate
from train.data.sampling import draw_branch
from train.layers.compile import update
from train.loop import checkpoint, loop
from train.loop.loop import train
from train.loop.run_config import check_run
from train.model.multiview import MultiViewModel, load_model

GOLDEN = GOLDEN_FOLDER / "train_losses.json"

pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")


@pytest.fixture(scope="module")
def stage1(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stage1"
    train(micro_run(shards, out, 6))
    return out


@pytest.fixture(scope="module")
def averaged_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = micro_run(shards, tmp_path_factory.mktemp("runs") / "averaged", 6)
    train(replace(run, recipe=replace(run.recipe, average_decay=AVERAGE_DECAY)))
    return run.out


def _weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.integration
def test_golden_losses(tmp_path: Path) -> None:
    """20 steps of each stage; 1e-3 relative allows other CPUs. See tests/support/train_micro.py to regenerate."""
    golden = json.loads(GOLDEN.read_text())
    losses = golden_losses(tmp_path)
    for stage in ("stage1", "stage2"):
        assert len(losses[stage]) == GOLDEN_STEPS
        assert losses[stage] == pytest.approx(golden[stage], rel=1e-3)


def test_absolute_labels_are_kept_by_the_model_and_a_base_can_change_to_them(
    shards: Path, stage1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = micro_run(shards, tmp_path / "first", 1)
    train(replace(first, recipe=replace(first.recipe, cameras="absolute")))
    train(micro_run(shards, tmp_path / "second", 1, stage=2, base=tmp_path / "first"))
    assert "was trained with absolute camera labels; this run uses them too" in capsys.readouterr().err
    changed = micro_run(shards, tmp_path / "changed", 1, stage=2, base=stage1)
    train(replace(changed, recipe=replace(changed.recipe, cameras="absolute")))
    assert "was trained with relative camera labels; this run uses absolute labels" in capsys.readouterr().err
    for name in ("first", "second", "changed"):
        assert load_model(tmp_path / name, CPU).spec.cameras == "absolute"


def test_a_finished_run_is_a_model_folder_with_all_it_promises(stage1: Path) -> None:
    model = load_model(stage1, CPU)
    assert model.spec.cameras == "relative"
    assert sorted(p.name for p in (stage1 / "checkpoints").iterdir()) == ["step-000000004", "step-000000006"]
    assert list((stage1 / "tensorboard").iterdir())
    config = json.loads((stage1 / "config.json").read_text())
    assert (config["stage"], config["seed"], config["recipe"]["stage1"]["steps"]) == (1, 7, 6)
    with Image.open(stage1 / "samples" / "step-000000006.png") as image:
        assert image.width > image.height  # 9 columns, 4 rows


def test_the_same_command_again_changes_nothing(stage1: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _weights(stage1)
    assert train(micro_run(shards, stage1, 6)) == []
    assert "finished already" in capsys.readouterr().err
    assert _same(before, _weights(stage1))


@pytest.mark.integration
@pytest.mark.parametrize("averaging", [False, True])
def test_killed_and_repeated_ends_in_the_weights_of_an_uninterrupted_run(
    stage1: Path, averaged_run: Path, shards: Path, tmp_path: Path, averaging: bool
) -> None:
    """Killed at any moment after the first checkpoint: in a step, while the thread writes the next one, ..."""
    out, delay_s = tmp_path / "killed", random.uniform(0, 0.15)
    print(f"killed {delay_s:.3f} s after the first checkpoint")
    command = [
        sys.executable,
        "-m",
        "tests.support.train_micro",
        "averaged" if averaging else "stage1",
        shards,
        out,
        "6",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 90
        while not (out / "checkpoints" / "step-000000002").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
    assert not (out / "model.json").exists()
    run = micro_run(shards, out, 6)
    losses = train(replace(run, recipe=replace(run.recipe, average_decay=AVERAGE_DECAY if averaging else None)))
    assert len(losses) < 6
    whole = averaged_run if averaging else stage1
    assert _same(_weights(whole), _weights(out))
    for name in ("unet", "optimiser", *(["average"] if averaging else [])):
        last = f"checkpoints/step-000000006/{name}.safetensors"
        assert _same(load_file(whole / last), load_file(out / last))


def test_terminated_runs_leave_a_checkpoint_of_their_last_step(
    stage1: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, steps = tmp_path / "stopped", []

    def asks_to_stop(optimizer: torch.optim.AdamW, loss: Tensor, norm: Tensor) -> None:
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(optimizer, loss, norm)

    monkeypatch.setattr(loop, "update", asks_to_stop)
    with pytest.raises(KeyboardInterrupt):
        train(micro_run(shards, out, 6))
    assert (out / "checkpoints" / "step-000000003").is_dir()  # between the regular ones
    monkeypatch.undo()
    assert len(train(micro_run(shards, out, 6))) == 3
    assert _same(_weights(stage1), _weights(out))


def test_the_optimizer_is_adamw_with_the_values_of_the_recipe(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[dict[str, Any]] = []

    def watched(optimizer: torch.optim.AdamW, loss: Tensor, norm: Tensor) -> None:
        groups.extend({**group, "type": type(optimizer)} for group in optimizer.param_groups)
        update(optimizer, loss, norm)

    monkeypatch.setattr(loop, "update", watched)
    run = micro_run(shards, tmp_path / "out", 3)
    train(replace(run, recipe=replace(run.recipe, betas=(0.8, 0.95), weight_decay=0.03)))
    assert [group["lr"] for group in groups] == pytest.approx([learning_rate(run.schedule, step) for step in range(3)])
    for group in groups:
        assert group["type"] is torch.optim.AdamW
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-8, 0.03)


def test_stage_2_starts_from_stage_1_and_keeps_its_parts(stage1: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "stage2"
    losses = train(micro_run(shards, out, 3, stage=2, base=stage1))
    assert len(losses) == 3
    before, after = load_model(stage1, CPU), load_model(out, CPU)
    assert not _same(before.unet.state_dict(), after.unet.state_dict())
    for part in ("vae", "image_encoder"):
        assert _same(getattr(before, part).state_dict(), getattr(after, part).state_dict())
    assert before.spec == after.spec


def test_another_run_in_the_folder_is_refused(stage1: Path, shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, stage1, 6)
    with pytest.raises(UserError, match=r"seed was 7, is now 8"):
        train(replace(run, seed=8))
    with pytest.raises(UserError, match=r"recipe\.stage1\.steps was 6, is now 7"):
        train(micro_run(shards, stage1, 7))
    with pytest.raises(UserError, match=r"data\."):
        train(replace(run, shards=str(make_shard_set(tmp_path / "other", 6, 32, seed=1))))
    with pytest.raises(UserError, match=r"recipe\.stage1\.peak_lr was 0\.001, is now 0\.5"):
        train(replace(run, recipe=replace(run.recipe, stage1=replace(run.recipe.stage1, peak_lr=0.5))))
    with pytest.raises(UserError, match=r"recipe\.reference was 'attention', is now 'none'"):
        train(replace(run, recipe=replace(run.recipe, reference="none")))
    with pytest.raises(UserError, match=r"recipe\.average_decay was None, is now 0\.9"):
        train(replace(run, recipe=replace(run.recipe, average_decay=0.9)))
    free = {"picture_every": 3, "log_every": 1, "archive_every": 2, "activation_checkpointing": True}
    assert train(replace(run, compile="whole", recipe=replace(run.recipe, **free))) == []  # type: ignore[arg-type]


def test_what_cannot_start_says_what_is_missing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.convert"):
        check_run(replace(micro_run(shards, tmp_path, 2), recipe=PAPER))
    with pytest.raises(UserError, match="--init-from"):
        check_run(micro_run(shards, tmp_path, 2, stage=2))
    with pytest.raises(UserError, match=r"stage1: contains no finished stage 1 .*make train-stage1"):
        check_run(micro_run(shards, tmp_path, 2, stage=2, base=tmp_path / "stage1"))
    with pytest.raises(UserError, match="grad-accum-steps"):
        check_run(
            replace(micro_run(shards, tmp_path, 2), recipe=replace(MICRO, stage1=replace(MICRO.stage1, objects=3)))
        )
    with pytest.raises(UserError, match=r"model\.json is missing"):
        train(micro_run(shards, tmp_path / "x", 2, stage=2, base=tmp_path))


def test_a_full_disk_costs_a_checkpoint_not_the_run(
    stage1: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, full = checkpoint.save_file, [2, 6]

    def save_file(tensors: dict[str, Tensor], path: Path) -> None:
        if any(f"step-{steps:09d}" in str(path) for steps in full):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        plain(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    out = tmp_path / "run"
    train(micro_run(shards, out, 6))
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-000000004"]
    assert _same(_weights(stage1), _weights(out))
    printed = capsys.readouterr().err
    assert printed.count("NOT WRITTEN") == 2
    assert "2 checkpoints were not written" in printed


def test_no_room_for_the_model_is_an_error_and_the_same_command_finishes(
    stage1: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: MultiViewModel, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "save_model", full)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="the finished model could not be written, because the disk is full"):
        train(micro_run(shards, out, 6))
    monkeypatch.undo()
    assert train(micro_run(shards, out, 6)) == []
    assert _same(_weights(stage1), _weights(out))


def test_averaging_exports_the_average_and_changes_nothing_else(stage1: Path, averaged_run: Path) -> None:
    last = "checkpoints/step-000000006"
    assert _same(load_file(stage1 / last / "unet.safetensors"), load_file(averaged_run / last / "unet.safetensors"))
    average = load_file(averaged_run / last / "average.safetensors")
    assert _same(_weights(averaged_run), average)
    assert not _same(average, _weights(stage1))
    assert not (stage1 / last / "average.safetensors").exists()


def test_recomputed_activations_change_nothing(stage1: Path, shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, tmp_path / "run", 6)
    train(replace(run, recipe=replace(run.recipe, activation_checkpointing=True)))
    assert _same(_weights(stage1), _weights(run.out))


def test_min_snr_changes_the_weights(stage1: Path, shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, tmp_path / "run", 6)
    train(replace(run, recipe=replace(run.recipe, min_snr_gamma=5.0)))
    assert not _same(_weights(stage1), _weights(run.out))


def test_a_line_is_printed_every_so_many_steps(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = micro_run(shards, tmp_path / "run", 6)
    assert len(train(replace(run, recipe=replace(run.recipe, log_every=4)))) == 6
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["4/6", "6/6"]
    saved = json.loads((run.out / "checkpoints" / "step-000000006" / "progress.json").read_text())
    views = [
        4 * (4 if draw_branch(run.seed, step, run.recipe.single_view_chance) == "multi" else 1) for step in range(6)
    ]
    assert saved["seen_images"] == sum(views)
    assert f"images {sum(views)} " in lines[-1]


def test_wandb_that_is_not_there_is_refused_before_anything_is_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        train(replace(micro_run(shards, tmp_path / "run", 6), wandb="views"))
    assert not (tmp_path / "run").exists()
