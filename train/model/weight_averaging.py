"""Exponential moving average of the UNet's weights over the training steps. The paper does not average weights.

In the paper, the abbreviation EMA means Explicit Multi-view Attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Average = Mapping[str, Tensor]  # by parameter name, on the parameter's device


def start_average(unet: nn.Module) -> Average:
    """Return the averaged weights before the first step: a copy of the UNet's parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def decay_at(step: int, decay: float) -> float:
    """Return the decay to use after step `step` (from 0): min(decay, (1 + n) / (10 + n)), where n = step + 1.

    The smaller decay of the first steps limits the influence of the initial weights in short runs. The formula is that
    of TensorFlow's `ExponentialMovingAverage(num_updates=n)` and diffusers' `EMAModel.get_decay`.
    """
    done = step + 1
    return min(decay, (1 + done) / (10 + done))


@torch.no_grad()
def update_average(average: Average, unet: nn.Module, step: int, decay: float) -> None:
    """Update the averaged weights in place: average <- d * average + (1 - d) * weights, d = decay_at(step, decay).

    Args:
        average: Averaged weights by parameter name.
        unet: UNet with the weights after the step.
        step: Number of the step, from 0. Steps whose update was skipped are counted too.
        decay: Largest decay, between 0 and 1.
    """
    parameters = dict(unet.named_parameters())
    torch._foreach_lerp_(list(average.values()), [parameters[name] for name in average], 1 - decay_at(step, decay))


@contextmanager
def averaged(unet: nn.Module, average: Average | None) -> Iterator[None]:
    """Inside the block, the UNet has the averaged weights; afterwards the UNet's own weights are restored exactly.

    If `average` is None, nothing is changed.
    """
    _swap(unet, average)
    try:
        yield
    finally:
        _swap(unet, average)


@torch.no_grad()
def _swap(unet: nn.Module, average: Average | None) -> None:
    if average is None:
        return
    for name, parameter in unet.named_parameters():
        own = parameter.clone()
        parameter.copy_(average[name])
        average[name].copy_(own)
