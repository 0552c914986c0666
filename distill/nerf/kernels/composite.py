"""Triton kernels for compositing, with the same formulas as `distill.nerf.compositing`.

Each program handles one ray. It iterates over blocks of samples and keeps running sums.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from distill.nerf.rays import MAX_OPTICAL_DEPTH

_BLOCK: Final = 32  # most rays have a few tens of samples


def weight_kernel(density: Tensor, starts: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Compute `distill.nerf.compositing.ray_weights` with a Triton kernel.

    Args:
        density: Density per world unit of each of m samples, [m].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        step: Length of a ray marching step in world units.

    Returns:
        The weight [m] of each sample and the transmittance [m] in front of each sample.
    """
    weights, transmittance = density.new_empty(len(density)), density.new_empty(len(density))
    _launch(_weight_kernel, starts, density.contiguous(), weights, transmittance, step, MAX_OPTICAL_DEPTH)
    return weights, transmittance


def sum_kernel(weights: Tensor, values: Tensor, starts: Tensor) -> Tensor:
    """Compute `distill.nerf.compositing.weighted_sums` with a Triton kernel.

    Args:
        weights: Weight [m] of each sample.
        values: The k values of each of m samples, [m, k].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.

    Returns:
        The sum of the weighted values along each ray, [n, k].
    """
    width = values.shape[1]
    sums = values.new_zeros(len(starts) - 1, width)
    _launch(_sum_kernel, starts, weights, values.contiguous(), sums, width, triton.next_power_of_2(width))
    return sums


def gradient_kernel(
    grad: Tensor, values: Tensor, starts: Tensor, weights: Tensor, transmittance: Tensor, *, step: float, attached: int
) -> tuple[Tensor, Tensor]:
    """Compute `distill.nerf.compositing.composite_gradients` with a Triton kernel.

    Args:
        grad: Gradient [n, k] of the loss with respect to the weighted sums along n rays.
        values: The k values of each of m samples, [m, k].
        starts: Index of the first sample of each of n rays, [n + 1]; the last entry is m.
        weights: Weight [m] of each sample.
        transmittance: Transmittance [m] in front of each sample.
        step: Length of a ray marching step in world units.
        attached: Number of columns at the start of `values` through which the gradient flows to the density.

    Returns:
        The gradients of the loss with respect to the density [m] and the values [m, k].
    """
    width = values.shape[1]
    by_density, by_values = _like(weights), _like(values)
    tensors = (grad.contiguous(), values.contiguous(), weights, transmittance, by_density, by_values)
    _launch(_gradient_kernel, starts, *tensors, step, attached, width, triton.next_power_of_2(width))
    return by_density, by_values


def _like(tensor: Tensor) -> Tensor:
    """Return an uninitialized contiguous tensor of the same shape, type and device."""
    return tensor.new_empty(tensor.shape)


def _launch(kernel: Any, starts: Tensor, *arguments: Any) -> None:
    rays = len(starts) - 1
    if rays:
        with torch.cuda.device_of(starts):  # kernels are launched on the current device
            kernel[(rays,)](starts, *arguments, _BLOCK, num_warps=1)


@triton.jit
def _weight_kernel(starts, density, weights, transmittance, step, MAX_OPTICAL_DEPTH: tl.constexpr, BLOCK: tl.constexpr):
    ray = tl.program_id(0)
    first, end = tl.load(starts + ray), tl.load(starts + ray + 1)
    before = tl.sum(tl.zeros((BLOCK,), density.dtype.element_ty), 0)
    for begin in range(first, end, BLOCK):
        sample = begin + tl.arange(0, BLOCK)
        here = sample < end
        optical = tl.load(density + sample, mask=here, other=0) * step
        optical = tl.minimum(optical, MAX_OPTICAL_DEPTH, propagate_nan=tl.PropagateNan.ALL)
        light = tl.exp(-(before + tl.cumsum(optical, 0) - optical))
        tl.store(transmittance + sample, light, mask=here)
        tl.store(weights + sample, light * (1 - tl.exp(-optical)), mask=here)
        before += tl.sum(optical, 0)


@triton.jit
def _sum_kernel(starts, weights, values, sums, WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    ray = tl.program_id(0)
    first, end = tl.load(starts + ray), tl.load(starts + ray + 1)
    column = tl.arange(0, PADDED)
    total = tl.zeros((PADDED,), values.dtype.element_ty)
    for begin in range(first, end, BLOCK):
        sample = begin + tl.arange(0, BLOCK)
        weight = tl.load(weights + sample, mask=sample < end, other=0)
        there = (sample < end)[:, None] & (column < WIDTH)[None, :]
        value = tl.load(values + sample[:, None] * WIDTH + column[None, :], mask=there, other=0)
        total += tl.sum(weight[:, None] * value, 0)
    tl.store(sums + ray.to(tl.int64) * WIDTH + column, total, mask=column < WIDTH)


@triton.jit
def _gradient_kernel(
    starts, grad, values, weights, transmittance, by_density, by_values, step,
    ATTACHED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0)
    first, end = tl.load(starts + ray), tl.load(starts + ray + 1)
    column = tl.arange(0, PADDED)
    upstream = tl.load(grad + ray.to(tl.int64) * WIDTH + column, mask=column < WIDTH, other=0)
    attached = tl.where(column < ATTACHED, upstream, 0.0)
    behind = tl.sum(tl.zeros((BLOCK,), values.dtype.element_ty), 0)
    for block in range(0, tl.cdiv(end - first, BLOCK)):
        sample = end - 1 - (block * BLOCK + tl.arange(0, BLOCK))  # from the last sample of the ray to the first
        here = sample >= first
        there = here[:, None] & (column < WIDTH)[None, :]
        cell = sample[:, None] * WIDTH + column[None, :]
        value = tl.load(values + cell, mask=there, other=0)
        weight = tl.load(weights + sample, mask=here, other=0)
        light = tl.load(transmittance + sample, mask=here, other=0)
        gain = tl.sum(value * attached[None, :], 1)
        share = weight * gain
        hidden = behind + tl.cumsum(share, 0) - share
        tl.store(by_density + sample, step * ((light - weight) * gain - hidden), mask=here)
        tl.store(by_values + cell, weight[:, None] * upstream[None, :], mask=there)
        behind += tl.sum(share, 0)
