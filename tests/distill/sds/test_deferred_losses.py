"""Deferred losses: every non-finite loss is noticed, and no bad checkpoint is written."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dataset.errors import UserError
from distill.nerf import rays
from distill.nerf.field import read_tensors
from distill.sds import loop
from distill.sds.checkpoint import CHECKPOINT, Distillation, new_distillation
from distill.sds.deferred_losses import DeferredLosses, DistillStepResult
from distill.sds.guidance import Guidance
from distill.sds.loop import distill, train_step
from tests.support.distill_toy import SETTINGS, make_guidance

NAN = float("nan")


def result(total: float, norm: float = 1.0) -> DistillStepResult:
    return DistillStepResult(
        {"sds": torch.tensor(total), "orient": torch.tensor(0.5)}, torch.tensor(total), torch.tensor(norm)
    )


def test_results_are_read_together_in_order():
    readings = DeferredLosses(every=3)
    found = []
    for step in range(7):
        readings.add(step, result(float(step)))
        found.append([number for number, _ in readings.read()])
    assert found == [[], [], [0, 1, 2], [], [], [3, 4, 5], []]
    assert readings.read(now=True) == [(6, {"sds": 6.0, "orient": 0.5})]
    assert readings.read(now=True) == []


@pytest.mark.parametrize(
    ("total", "norm", "complaint"),
    [(NAN, 1.0, "step 4: the loss is nan"), (1.0, float("inf"), "step 4: .* norm inf")],
)
def test_what_is_no_number_is_found_by_its_step(total, norm, complaint):
    readings = DeferredLosses(every=100)
    for step in range(8):
        readings.add(step, result(total, norm) if step == 4 else result(1.0))
    with pytest.raises(UserError, match=complaint):
        readings.read(now=True)


def fused(settings, device) -> Distillation:
    """A state whose optimizer can skip an update, as on a GPU."""
    state = new_distillation(settings, device)
    groups = [{"params": group["params"], "lr": group["lr"]} for group in state.optimizer.param_groups]
    optimizer = torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.adam_epsilon, weight_decay=settings.weight_decay, fused=True
    )
    return replace(state, optimizer=optimizer)


def broken_at(call: int) -> Guidance:
    """Guidance that returns NaN at its call number `call`."""
    good, calls = make_guidance(), 0

    def encode(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return good.encode(images) * (NAN if calls == call else 1)

    return replace(good, encode=encode)


def test_a_bad_update_is_left_out_on_the_device():
    state, guidance = fused(SETTINGS, "cpu"), broken_at(2)
    train_step(state, SETTINGS, guidance, 1)
    before = {name: tensor.clone() for name, tensor in state.field.state_dict().items()}
    steps = [float(moments["step"]) for moments in state.optimizer.state_dict()["state"].values()]
    bad = train_step(state, SETTINGS, guidance, 3)
    assert bad.total.isnan()
    for name, tensor in state.field.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert [float(moments["step"]) for moments in state.optimizer.state_dict()["state"].values()] == steps
    assert train_step(state, SETTINGS, guidance, 5).total.isfinite()
    assert not torch.equal(state.field.grid.table, before["grid.table"])


@pytest.mark.parametrize("bad_call", [5, 6])
def test_a_bad_step_ends_the_run_before_the_next_checkpoint(tmp_path, monkeypatch, bad_call):
    monkeypatch.setattr(loop, "new_distillation", fused)
    monkeypatch.setattr(loop, "READ_EVERY", 100)
    with pytest.raises(UserError, match=f"step {bad_call - 1}: the loss is nan.*last checkpoint is kept"):
        distill(SETTINGS, broken_at(bad_call), tmp_path, request={})
    tensors, header = read_tensors(tmp_path / CHECKPOINT)
    assert header["step"] == "4"
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize(("min_transmittance", "numbers"), [(1e-2, 1), (0.0, 0)])
def test_a_step_asks_the_host_for_at_most_one_number(monkeypatch, min_transmittance, numbers):
    """The number of visible samples, if hidden ones are left out, and, with kernels, of samples in occupied cells.

    Losses stay on the device.
    """
    settings = replace(SETTINGS, march=replace(SETTINGS.march, min_transmittance=min_transmittance))
    reads = []
    count = rays.read_count
    monkeypatch.setattr(rays, "read_count", lambda number: reads.append(number) or count(number))
    result = train_step(fused(settings, "cpu"), settings, make_guidance(), 1)
    assert len(reads) == numbers
    assert all(isinstance(loss, Tensor) and not loss.requires_grad for loss in result.losses.values())
