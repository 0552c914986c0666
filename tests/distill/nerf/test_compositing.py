"""Compare packed compositing and its gradients with the definition and with nerfacc."""

import math

import pytest
import torch
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from distill.nerf.compositing import composite, ray_weights
from distill.nerf.rays import ray_of_samples

STEP = 0.1
COUNTS = (0, 3, 1, 0, 9, 0)


def starts_of(counts: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def samples(counts: tuple[int, ...] = COUNTS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(sum(counts), generator=generator, dtype=torch.float64) * 20
    values = torch.randn(sum(counts), 4, generator=generator, dtype=torch.float64)
    return density, values, starts_of(counts)


def by_nerfacc(density: Tensor, values: Tensor, counts: tuple[int, ...], detached: int) -> Tensor:
    """The batched form of nerfacc on padded samples; its packed form needs CUDA."""
    shape = (len(counts), max(1, *counts))
    ray = ray_of_samples(starts_of(counts), len(density))
    place = torch.cat([torch.arange(count) for count in counts])
    padded = density.new_zeros(shape).index_put((ray, place), density)
    begin = torch.zeros_like(padded)
    weights, _, _ = render_weight_from_density(begin, begin + STEP, padded)
    weights = weights[ray, place]
    attached = values.shape[1] - detached
    return torch.cat(
        [
            accumulate_along_rays(weights, values[:, :attached], ray, len(counts)),
            accumulate_along_rays(weights.detach(), values[:, attached:], ray, len(counts)),
        ],
        -1,
    )


def test_weights_are_the_definition():
    density = torch.tensor([1.0, 3.0, 0.5, 2.0, 7.0])
    weights, transmittance = ray_weights(density, starts_of((2, 0, 3)), STEP)
    light, expected = 1.0, []
    for i in range(5):
        light = 1.0 if i in (0, 2) else light
        opacity = 1 - math.exp(-float(density[i]) * STEP)
        expected.append((light * opacity, light))
        light *= 1 - opacity
    torch.testing.assert_close(torch.stack([weights, transmittance], -1), torch.tensor(expected))


@pytest.mark.parametrize("detached", [0, 1])
def test_sums_and_gradients_are_nerfaccs(detached):
    density, values, starts = samples()
    density.requires_grad_()
    values.requires_grad_()
    expected = by_nerfacc(density, values, COUNTS, detached)
    found = composite(density, values, starts, STEP, detached)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(found, (density, values), grad), torch.autograd.grad(expected, (density, values), grad)
    )


def test_gradients_are_those_of_finite_differences():
    density, values, starts = samples((0, 2, 4))
    inputs = (density.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda density, values: composite(density, values, starts, STEP), inputs)


def test_detached_values_leave_the_density_alone():
    density, values, starts = samples()
    density.requires_grad_()
    summed = composite(density, values, starts, STEP, detached=4)
    (gradient,) = torch.autograd.grad(summed.sum(), density)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0)])
def test_nothing_sums_to_nothing(counts):
    density, values, starts = samples(counts)
    density.requires_grad_()
    summed = composite(density, values.requires_grad_(), starts, STEP)
    assert torch.equal(summed, torch.zeros(len(counts), 4, dtype=torch.float64))
    summed.sum().backward()
    assert density.grad is not None
    assert density.grad.shape == (0,)


def test_opaque_samples_spoil_nothing_in_later_rays():
    """The cumulative sum spans all rays: a value of 1e30 would leave no precision for the others."""
    density, values, starts = samples()
    alone = composite(density, values, starts, STEP)
    density[0] = 1e30
    beside = composite(density, values, starts, STEP)
    torch.testing.assert_close(beside[2:], alone[2:], atol=1e-12, rtol=0)
    torch.testing.assert_close(beside[1], values[0])  # ray 1 ends at its first sample


def test_long_runs_stay_exact_in_float32():
    counts = (40,) * 5000
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(sum(counts), generator=generator) * 30
    weights, _ = ray_weights(density, starts_of(counts), STEP)
    last, _ = ray_weights(density[-40:], starts_of((40,)), STEP)
    torch.testing.assert_close(weights[-40:], last, atol=1e-7, rtol=0)
