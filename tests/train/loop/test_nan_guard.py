"""Non-finite losses and gradients: their updates are skipped and counted, and several in a row stop the run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.reading.epoch_order import Order
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import micro_run
from train.data.latents import TrainingBatch
from train.data.sampling import DiffusionNoise, StepKey
from train.layers.compile import update
from train.loop import loop
from train.loop.checkpoint import Progress
from train.loop.logging import StepResult
from train.loop.loop import train
from train.loop.nan_guard import MAX_SKIPPED, count_step, stop_reason
from train.loop.run_config import TrainingRun
from train.model.multiview import MultiViewModel

pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")


def _toy() -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Everything an update changes."""
    moments = [tensor for p in module.parameters() for tensor in optimizer.state[p].values()]
    return [tensor.clone() for tensor in (*module.state_dict().values(), *moments)]


@pytest.mark.parametrize(("loss", "norm"), [("nan", "nan"), ("inf", "1"), ("1", "inf")])
def test_an_update_is_left_out_as_a_whole_when_loss_or_gradient_is_not_finite(loss: str, norm: str) -> None:
    module, optimizer = _toy()
    for _ in range(2):
        module(torch.ones(1, 3)).square().sum().backward()
        update(optimizer, torch.tensor(1.0), torch.tensor(1.0))
    before = _state(module, optimizer)
    update(optimizer, torch.tensor(float(loss)), torch.tensor(float(norm)))
    assert all(torch.equal(first, second) for first, second in zip(before, _state(module, optimizer), strict=True))
    update(optimizer, torch.tensor(1.0), torch.tensor(1.0))
    assert not any(torch.equal(first, second) for first, second in zip(before, _state(module, optimizer), strict=True))


def test_steps_left_out_are_counted_in_a_row() -> None:
    progress, bad = Progress(0, 0), float("nan")
    for step in range(MAX_SKIPPED):
        assert stop_reason(progress, StepResult(step, 1.0, 1.0, 4), True) is None
        progress = count_step(progress, StepResult(step, 1.0, bad, 4))
    assert progress == Progress(MAX_SKIPPED, MAX_SKIPPED, 4 * MAX_SKIPPED)
    assert "in a row" in str(stop_reason(progress, StepResult(MAX_SKIPPED - 1, 1.0, bad, 4), False))
    assert count_step(progress, StepResult(MAX_SKIPPED, 1.0, 1.0, 4)) == Progress(
        MAX_SKIPPED + 1, 0, 4 * MAX_SKIPPED + 4
    )
    one = Progress(1, 1)
    assert stop_reason(one, StepResult(0, bad, bad, 4), False) is None
    assert "loss of step 0 is nan" in str(stop_reason(one, StepResult(0, bad, bad, 4), True))


def _poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    """Make the losses of these steps non-finite."""
    plain = loop._loss

    def poisoned(
        run: TrainingRun, model: MultiViewModel, views: TrainingBatch, draw: DiffusionNoise, step_key: StepKey
    ) -> Tensor:
        loss = plain(run, model, views, draw, step_key)
        return loss * float("nan") if first <= step_key.step <= last and step_key.micro == 1 else loss

    monkeypatch.setattr(loop, "_loss", poisoned)


def test_a_bad_step_is_left_out_and_training_goes_on(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _poison(monkeypatch, 2, 3)
    run = micro_run(shards, tmp_path / "run", 6)
    losses = train(replace(run, recipe=replace(run.recipe, log_every=6, checkpoint_every=6)))
    assert [math.isfinite(loss) for loss in losses] == [True, True, False, False, True, True]
    assert capsys.readouterr().err.count("update skipped") == 2
    weights = load_file(run.out / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    moments = load_file(run.out / "checkpoints" / "step-000000006" / "optimiser.safetensors")
    assert {float(tensor) for name, tensor in moments.items() if name.startswith("step.")} == {4.0}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_run_that_must_stop_names_the_objects(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr("train.loop.nan_guard.MAX_SKIPPED", 3)
    _poison(monkeypatch, 1, 99)
    run = micro_run(shards, tmp_path / "run", 6)
    recipe = replace(run.recipe, stop_at_bad_loss=at_once, log_every=2, checkpoint_every=1000)
    with pytest.raises(UserError, match=r"training stopped, because .*bad-batch\.json lists the objects .* --lr "):
        train(replace(run, recipe=recipe))
    found = json.loads((run.out / "bad-batch.json").read_text())
    step = 1 if at_once else 3
    assert (found["step"], found["loss"]) == (step, "nan")
    order = Order(ShardSet(shards).samples_per_shard, run.seed)
    expected = [ShardSet(shards).uid(*order.item(i)[1:]) for i in range(step * 4, step * 4 + 4)]
    assert found["micro_batches"] == [expected[:2], expected[2:]]
