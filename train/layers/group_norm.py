"""Group normalization as one channels-last operation, which can also add a shift before and apply SiLU after.

    y = silu((x + shift - mean) / deviation * weight + bias)

Under autocast, torch's group norm runs in float32 and returns a contiguous result, so compiled code transposes
before and after each call. This operation is opaque to the compiler; input and output are bf16, sums are float32. It
uses Triton kernels on a CUDA GPU (`train.layers.group_norm_triton`) and torch functions elsewhere.
"""

import math
from typing import Any, Final, cast

import torch
from torch import Tensor, library
from torch.nn import functional

_LAST: Final = torch.channels_last


def _has_kernels(x: Tensor) -> bool:
    return x.is_cuda


@library.custom_op("isotropic3d::group_norm", mutates_args=())
def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    """Normalize `x` in groups of channels. Optionally add a shift before, and apply SiLU after.

    Args:
        x: Input [n, c, h, w]: n images with c channels.
        weight: Scale [c].
        bias: Offset [c].
        shift: Values [n, c] that are added to `x` first, or None.
        groups: Number of groups.
        eps: Small number added to the variance.
        silu: Whether to apply SiLU after the normalization.

    Returns:
        First, the output [n, c, h, w], channels last. Second, statistics for `group_norm_backward`, float32
        [2, n, groups]: the mean (index 0) and 1 / standard deviation (index 1) of each group.
    """
    x = x.contiguous(memory_format=_LAST)
    if _has_kernels(x):
        from train.layers.group_norm_triton import forward

        return forward(x, weight, bias, None if shift is None else shift.contiguous(), groups, eps, silu)
    shifted = _shifted(x, shift)
    flat = shifted.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)
    mean = flat.mean(-1)
    scale = torch.rsqrt((flat - mean[..., None]).square().mean(-1) + eps)
    out = functional.group_norm(shifted, groups, weight.to(shifted.dtype), bias.to(shifted.dtype), eps)
    out = functional.silu(out) if silu else out
    return out.to(x.dtype).contiguous(memory_format=_LAST), torch.stack([mean, scale])


@library.custom_op("isotropic3d::group_norm_backward", mutates_args=())
def group_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, statistics: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the loss with respect to `x`, `weight`, `bias` and `shift` of `group_norm`.

    The gradient with respect to `shift` is an empty tensor if `shift` is None.

    Args:
        grad: Gradient of the loss with respect to the result of `group_norm`, [n, c, h, w].
        x: Input of `group_norm`, [n, c, h, w].
        weight: Scale [c].
        bias: Offset [c].
        shift: Shift [n, c], or None.
        statistics: The second result of `group_norm`: mean and 1 / standard deviation, [2, n, groups].
        silu: Whether SiLU was applied.
    """
    x, grad = x.contiguous(memory_format=_LAST), grad.contiguous(memory_format=_LAST)
    if _has_kernels(x):
        from train.layers.group_norm_triton import backward

        shift = None if shift is None else shift.contiguous()
        by_x, by_shift, parts = backward(grad, x, weight, bias, shift, statistics, silu)
        by_bias, by_weight = parts[0].sum((0, 1)), parts[1].sum((0, 1))
    else:
        by_x, by_weight, by_bias, by_shift = _gradients(grad, x, weight, bias, shift, statistics, silu)
    by_shift = x.new_empty(0, 0) if shift is None else by_shift.to(shift.dtype)
    return by_x, by_weight.to(weight.dtype), by_bias.to(bias.dtype), by_shift


def _shifted(x: Tensor, shift: Tensor | None) -> Tensor:
    """Return `x` plus the shift, in float32 or wider."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x if shift is None else x + shift.to(x.dtype)[:, :, None, None]


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, statistics: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients in torch with the formulas of the kernels. All tensors are [n, g, c / g, pixels]."""
    groups = statistics.shape[-1]
    shape = (len(x), groups, x.shape[1] // groups, x.shape[2] * x.shape[3])
    mean, scale = (values[:, :, None, None] for values in statistics)
    normal = (_shifted(x, shift).reshape(shape) - mean) * scale
    factor, offset = (values.to(normal.dtype).reshape(1, groups, -1, 1) for values in (weight, bias))
    slope = grad.to(normal.dtype).reshape(shape)
    if silu:
        value = normal * factor + offset
        share = torch.sigmoid(value)
        slope = slope * share * (1 + value * (1 - share))
    product = slope * normal
    by_bias, by_weight = (values.sum((0, 3)).flatten() for values in (slope, product))
    by_x = scale * (
        slope * factor
        - (slope * factor).mean((2, 3), keepdim=True)
        - normal * (product * factor).mean((2, 3), keepdim=True)
    )
    by_shift = x.new_zeros(0, 0) if shift is None else by_x.sum(3).flatten(1)
    return by_x.reshape(x.shape).to(x.dtype).contiguous(memory_format=_LAST), by_weight, by_bias, by_shift


@group_norm.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.empty_like(x, memory_format=_LAST), x.new_empty(2, len(x), groups, dtype=wide)


@group_norm_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, statistics: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_shift = x.new_empty(0, 0) if shift is None else torch.empty_like(shift)
    return torch.empty_like(x, memory_format=_LAST), torch.empty_like(weight), torch.empty_like(bias), by_shift


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, shift, _, _, silu = inputs
    ctx.save_for_backward(x, weight, bias, shift, output[1])
    ctx.silu = silu
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, shift, statistics = ctx.saved_tensors
    operation = cast(Any, group_norm_backward)
    by_x, by_weight, by_bias, by_shift = operation(grad, x, weight, bias, shift, statistics, ctx.silu)
    return by_x, by_weight, by_bias, None if shift is None else by_shift, None, None, None


group_norm.register_autograd(_differentiate, setup_context=_keep)
