"""The views, the noise and the clean reference of a step; they are functions of the step key."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.camera import relative_camera
from tests.support.train_micro import micro_model, zero_camera
from train.data.sampling import (
    DiffusionNoise,
    Inputs,
    StepKey,
    diffusion_loss,
    draw_branch,
    draw_noise,
    draw_repeat,
    draw_views,
    prepare_inputs,
)
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import add_noise, alpha_bar_at, noise_schedule


@pytest.fixture(scope="module")
def model() -> MultiViewModel:
    return micro_model()


def _draw(batch: int = 2, frames: int = 3, dropped: tuple[bool, ...] = (False, False)) -> DiffusionNoise:
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, frames, 4, 8, 8, generator=g)
    return DiffusionNoise(torch.tensor([3, 700][:batch]), noise, torch.tensor(dropped[:batch]))


def _prepare(reference: Tensor | None, draw: DiffusionNoise) -> Inputs:
    g = torch.Generator().manual_seed(1)
    targets, cameras = torch.randn(2, 3, 4, 8, 8, generator=g), torch.randn(2, 3, 16, generator=g)
    tokens = torch.randn(2, 1, 32, generator=g)
    front = None if reference is None else (reference, torch.tensor([[zero_camera()]] * 2))
    return prepare_inputs(targets, front, cameras, tokens, draw, alphas_cumprod=noise_schedule())


def test_branch_is_single_in_30_percent_of_steps_and_depends_on_seed_and_step() -> None:
    branches = [draw_branch(0, step, 0.3) for step in range(4000)]
    assert Counter(branches)["single"] / 4000 == pytest.approx(0.3, abs=0.025)
    assert branches == [draw_branch(0, step, 0.3) for step in range(4000)]
    assert branches != [draw_branch(1, step, 0.3) for step in range(4000)]
    assert {draw_branch(0, step, 0.0) for step in range(50)} == {"multi"}


def test_multi_view_targets_are_four_orthogonal_fixed_views_from_any_first_one() -> None:
    rng = np.random.default_rng(0)
    firsts, references = set(), set()
    for _ in range(300):
        reference, targets = draw_views(rng, "multi", 4)
        assert reference[0] == "random"
        assert [view_set for view_set, _ in targets] == ["fixed"] * 4
        assert [index - targets[0][1] for _, index in targets] == [0, 4, 8, 12]
        firsts.add(targets[0][1])
        references.add(reference[1])
    assert (firsts, references) == (set(range(4)), set(range(16)))


def test_single_view_target_is_any_other_random_view() -> None:
    rng = np.random.default_rng(0)
    distances = set()
    for _ in range(500):
        reference, targets = draw_views(rng, "single", 4)
        distances.add((targets[0][1] - reference[1]) % 16)
        assert (reference[0], len(targets), targets[0][0]) == ("random", 1, "random")
    assert distances == set(range(1, 16))


def test_items_of_an_object_have_other_references_and_every_pair_once() -> None:
    for branch, per_epoch in (("multi", 64), ("single", 240)):
        drawn = [draw_repeat(3, (2, 1, 0), repeat, branch, 4) for repeat in range(per_epoch)]  # type: ignore[arg-type]
        assert len({(reference, tuple(targets)) for reference, targets in drawn}) == per_epoch
        assert len({reference for reference, _ in drawn[:16]}) == 16
        assert all(reference not in targets for reference, targets in drawn)
        assert drawn == [draw_repeat(3, (2, 1, 0), repeat, branch, 4) for repeat in range(per_epoch)]  # type: ignore[arg-type]
    firsts = Counter(draw_repeat(3, (2, 1, 0), repeat, "multi", 4)[1][0][1] for repeat in range(16))
    assert firsts == {0: 4, 1: 4, 2: 4, 3: 4}
    first_items = {
        str(draw_repeat(seed, (epoch, 0, i), 0, "multi", 4)) for seed in (0, 1) for epoch in (0, 1) for i in range(9)
    }
    assert len(first_items) > 20


def test_the_reference_would_have_the_zero_label_relative_to_itself() -> None:
    np.testing.assert_array_equal(relative_camera(17.0, 120.0, 17.0, 120.0), np.array(zero_camera(), np.float32))
    assert np.abs(zero_camera()).sum() > 1


def test_noise_depends_on_every_part_of_the_position_and_on_nothing_else() -> None:
    latents = torch.zeros(4, 2, 3, 8, 8)
    base = draw_noise(StepKey(0, 0, 0, 0), latents.shape, 0.1)
    again = draw_noise(StepKey(0, 0, 0, 0), latents.shape, 0.1)
    assert torch.equal(base.noise, again.noise)
    assert torch.equal(base.timesteps, again.timesteps)
    for step_key in (StepKey(1, 0), StepKey(0, 1), StepKey(0, 0, 1), StepKey(0, 0, 0, 1)):
        assert not torch.equal(base.noise, draw_noise(step_key, latents.shape, 0.1).noise)


def test_draws_have_the_right_distribution() -> None:
    draw = draw_noise(StepKey(0, 0), (4000, 1, 1, 2, 2), 0.1)
    assert float(draw.dropped.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert (int(draw.timesteps.min()), int(draw.timesteps.max())) == (0, 999)
    assert float(draw.timesteps.float().mean()) == pytest.approx(499.5, abs=20)
    assert float(draw.noise.std()) == pytest.approx(1, abs=0.03)


def test_eq_3_against_its_formula() -> None:
    alphas = noise_schedule()
    z, eps, t = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 3, 4, 8, 8), torch.tensor([0, 999])
    noisy = add_noise(z, eps, alpha_bar_at(alphas, t, z.ndim))
    for i in range(2):
        a = float(alphas[t[i]])
        torch.testing.assert_close(noisy[i], a**0.5 * z[i] + (1 - a) ** 0.5 * eps[i], rtol=1e-5, atol=1e-6)


def test_stage_2_puts_the_clean_reference_in_front() -> None:
    """Eq. 4 and 6: z_v exactly, t_v = 0, pi_v the matrix of (0, 0)."""
    reference = torch.randn(2, 4, 8, 8)
    draw = _draw()
    with_reference, without = _prepare(reference, draw), _prepare(None, draw)
    assert (with_reference.num_frames, without.num_frames) == (4, 3)
    latents = with_reference.latents.view(2, 4, 4, 8, 8)
    assert torch.equal(latents[:, 0], reference)  # bit for bit: no noise, no scale of the schedule
    timesteps = with_reference.timesteps.view(2, 4)
    assert timesteps[:, 0].tolist() == [0, 0]
    assert timesteps[:, 1:].tolist() == [[3] * 3, [700] * 3]
    cameras = with_reference.cameras.view(2, 4, 16)
    assert cameras[:, 0].tolist() == [zero_camera()] * 2
    assert torch.equal(latents[:, 1:].flatten(0, 1), without.latents)
    assert torch.equal(cameras[:, 1:].flatten(0, 1), without.cameras)


def test_dropped_tokens_are_zeros() -> None:
    kept, dropped = _prepare(None, _draw()), _prepare(None, _draw(dropped=(True, False)))
    assert dropped.tokens[0].abs().sum() == 0
    assert torch.equal(dropped.tokens[1], kept.tokens[1])
    assert kept.tokens[0].abs().sum() > 0


def test_the_loss_ignores_the_references_prediction() -> None:
    noise = torch.randn(2, 3, 4, 8, 8)
    prediction = torch.randn(8, 4, 8, 8, requires_grad=True)
    loss = diffusion_loss(prediction, noise)
    expected = (prediction.view(2, 4, 4, 8, 8)[:, 1:] - noise).square().mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None
    gradient = prediction.grad.view(2, 4, 4, 8, 8)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1:].abs().min() > 0


def test_the_network_sees_the_reference_and_runs_without_it(model: MultiViewModel) -> None:
    draw = _draw()
    outputs = []
    for reference in (torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8), None):
        inputs = _prepare(reference, draw)
        with torch.no_grad():
            predicted = model.predict_noise(
                inputs.latents, inputs.timesteps, inputs.cameras, inputs.tokens, inputs.num_frames
            )
        outputs.append(predicted.view(2, -1, 4, 8, 8)[:, -3:])
    assert outputs[0].shape == outputs[2].shape
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
