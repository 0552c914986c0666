"""The state at step 0, and the weights of the losses in the total."""

from dataclasses import replace

import pytest
import torch

from distill.sds.checkpoint import new_distillation
from distill.sds.loop import train_step
from distill.sds.schedule import PRESETS, orientation_weight
from tests.support.distill_toy import SETTINGS, make_guidance


@pytest.mark.parametrize(("preset", "grid_lr", "mlp_lr"), [("paper", 1e-2, 1e-3), ("tiny", 3e-2, 1e-2)])
def test_the_grid_and_the_mlps_have_their_own_learning_rates(preset, grid_lr, mlp_lr):
    """AdamW (0.9, 0.99), epsilon 1e-15 and weight decay 0.01, as in the release."""
    state = new_distillation(replace(PRESETS[preset], nerf=SETTINGS.nerf), "cpu")
    grid, mlps = state.optimizer.param_groups
    assert [id(p) for p in grid["params"]] == [id(p) for p in state.field.grid.parameters()]
    networks = (state.field.density_mlp, state.field.albedo_mlp)
    assert [id(p) for p in mlps["params"]] == [id(p) for network in networks for p in network.parameters()]
    assert (grid["lr"], mlps["lr"]) == (grid_lr, mlp_lr)
    for group in (grid, mlps):
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.99), 1e-15, 0.01)


def test_each_group_moves_by_its_learning_rate():
    """The first step of AdamW is the learning rate times the sign of the gradient, plus the weight decay."""
    state = new_distillation(SETTINGS, "cpu")
    before = {name: value.clone() for name, value in state.field.state_dict().items()}
    train_step(state, SETTINGS, make_guidance(), 0)
    for name, rate in (("grid.table", SETTINGS.grid_learning_rate), ("albedo_mlp.output.weight", 1e-2)):
        decayed = before[name] * (1 - rate * SETTINGS.weight_decay)
        moved = (state.field.state_dict()[name] - decayed).abs().max().item()
        assert moved == pytest.approx(rate, rel=1e-3)


def test_the_total_is_the_weighted_sum_of_the_losses():
    settings = replace(SETTINGS, sds_weight=0.7)
    state = new_distillation(settings, "cpu")
    for step in range(4):
        result = train_step(state, settings, make_guidance(), step)
    weight = orientation_weight(settings, 3)
    orient = weight * result.losses["orient"]
    assert orient > 0.01
    torch.testing.assert_close(result.total, 0.7 * result.losses["sds"] + orient)


def test_the_orientation_loss_changes_the_field():
    fields = []
    for weight in (0.0, 300.0):
        settings = replace(SETTINGS, orientation_weight=weight)
        state = new_distillation(settings, "cpu")
        for step in range(3):
            train_step(state, settings, make_guidance(), step)
        fields.append(state.field.grid.table.detach())
    assert not torch.equal(*fields)
