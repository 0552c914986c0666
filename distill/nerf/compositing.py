"""Compositing of packed samples along rays, with a custom backward pass.

The formulas are those of nerfacc (`render_weight_from_density`, `accumulate_along_rays`; Max, "Optical Models for
Direct Volume Rendering", 1995). Sample i of a ray has the weight w_i = T_i (1 - exp(-density_i * step)), where the
transmittance T_i is the product of exp(-density_j * step) over the samples j before it. The composited value of a ray
is sum_i w_i v_i. The functions are plain torch and run on any device; `kernels.composite` does the same on a GPU.

Samples are packed and sorted by ray: those of ray r are `starts[r]` to `starts[r + 1] - 1`.
Axis letters: `n` rays, `m` samples, `k` values of a sample.
"""

from typing import Any

import torch
from torch import Tensor

from distill.nerf.backend import has_kernels
from distill.nerf.rays import MAX_OPTICAL_DEPTH, ray_of_samples


def composite(density: Tensor, values: Tensor, starts: Tensor, step: float, detached: int = 0) -> Tensor:
    """Sum values along rays with the weights of volume rendering.

    Args:
        density: Density per world unit of each of m samples, [m].
        values: The k values of each sample, [m, k], such as its color.
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        step: Length of a ray marching step in world units.
        detached: Number of columns at the end of `values` through which no gradient flows to the density.

    Returns:
        Weighted sums [n, k] along each ray.
    """
    summed: Tensor = _Composite.apply(density, values, starts, (step, detached))
    return summed


class _Composite(torch.autograd.Function):
    """Autograd function of `composite`.

    Saves the weights; the backward pass sums from the end of each ray to its start.
    """

    @staticmethod
    def forward(ctx: Any, density: Tensor, values: Tensor, starts: Tensor, plan: tuple[float, int]) -> Tensor:
        step, detached = plan
        weights, transmittance = ray_weights(density, starts, step)
        ctx.save_for_backward(values, starts, weights, transmittance)
        ctx.plan = (step, values.shape[1] - detached)
        if has_kernels(values.device.type):
            from distill.nerf.kernels.composite import sum_kernel

            return sum_kernel(weights, values, starts)
        return weighted_sums(weights, values, starts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        values, starts, weights, transmittance = ctx.saved_tensors
        step, attached = ctx.plan
        gradients = composite_gradients
        if has_kernels(values.device.type):
            from distill.nerf.kernels.composite import gradient_kernel

            gradients = gradient_kernel
        density, by_values = gradients(grads[0], values, starts, weights, transmittance, step=step, attached=attached)
        return density, by_values, None, None


@torch.no_grad()
def ray_weights(density: Tensor, starts: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Return the volume rendering weight [m] of each sample and the transmittance [m] in front of each sample.

    Args:
        density: Density per world unit of each of m samples, [m].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        step: Length of a ray marching step in world units.
    """
    if has_kernels(density.device.type):
        from distill.nerf.kernels.composite import weight_kernel

        return weight_kernel(density, starts, step)
    return weights_of(density, starts, step)


def weights_of(density: Tensor, starts: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Compute `ray_weights` in plain torch, with a cumulative sum over the samples of all rays in float64.

    Args:
        density: Density per world unit of each of m samples, [m].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        step: Length of a ray marching step in world units.

    Returns:
        The weight [m] of each sample and the transmittance [m] in front of each sample.
    """
    optical = (density * step).clamp(max=MAX_OPTICAL_DEPTH)
    before = _sums_before(optical, starts)
    transmittance = torch.exp(-before).to(density.dtype)
    return transmittance * (1 - torch.exp(-optical)), transmittance


def weighted_sums(weights: Tensor, values: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of the weighted values along each ray, [n, k], computed in plain torch.

    Args:
        weights: Weight [m] of each sample.
        values: The k values of each of m samples, [m, k].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
    """
    sums = values.new_zeros(len(starts) - 1, values.shape[1])
    return sums.index_add_(0, ray_of_samples(starts, len(weights)), weights[:, None] * values)


def composite_gradients(
    grad: Tensor, values: Tensor, starts: Tensor, weights: Tensor, transmittance: Tensor, *, step: float, attached: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the loss with respect to the density [m] and the values [m, k] of `composite`.

    They are computed in plain torch. Let g_i be the dot product of the first `attached` columns of `grad` and of the
    values of sample i. Then the gradient with respect to density i is step (T_(i+1) g_i - sum_{j > i} w_j g_j).

    Args:
        grad: Gradient [n, k] of the loss with respect to the weighted sums that `composite` returned for n rays.
        values: The k values of each of m samples, [m, k].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        weights: Weight [m] of each sample, from `ray_weights`.
        transmittance: Transmittance [m] in front of each sample, from `ray_weights`.
        step: Length of a ray marching step in world units.
        attached: Number of columns at the start of `values` through which the gradient flows to the density.
    """
    at_sample = grad[ray_of_samples(starts, len(weights))]
    gain = (at_sample[:, :attached] * values[:, :attached]).sum(-1)
    share = weights * gain
    behind = _sums_before(share.flip(0), len(weights) - starts.flip(0)).flip(0).to(share.dtype)
    return step * ((transmittance - weights) * gain - behind), weights[:, None] * at_sample


def _sums_before(values: Tensor, starts: Tensor) -> Tensor:
    """Return, for each sample, the sum of the `values` [m] of earlier samples on the same ray, in float64."""
    wide = values.double()
    running = wide.cumsum(0) - wide
    first = starts[:-1].clamp(max=max(0, len(values) - 1))  # rays without samples are not used below
    return running - running[first[ray_of_samples(starts, len(values))]]
