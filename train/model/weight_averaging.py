"""Exponential moving average of the UNet's weights over the training steps. The paper does not use one.

Not to be confused with the paper's EMA, Explicit Multi-view Attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Average = Mapping[str, Tensor]  # by parameter name, on the parameter's device


def start_average(unet: nn.Module) -> Average:
    """Return the average before the first step: a copy of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def decay_at(step: int, decay: float) -> float:
    """Return the decay after step `step` (from 0): min(decay, (1 + n) / (10 + n)) after n = step + 1 steps.

    The warmup limits the influence of the initial weights in short runs. It is the same as in TensorFlow's
    `ExponentialMovingAverage(num_updates=n)` and diffusers' `EMAModel.get_decay`.
    """
    done = step + 1
    return min(decay, (1 + done) / (10 + done))


@torch.no_grad()
def update_average(average: Average, unet: nn.Module, step: int, decay: float) -> None:
    """Update in place: average <- d average + (1 - d) parameters. A step whose update was skipped counts as well."""
    parameters = dict(unet.named_parameters())
    torch._foreach_lerp_(list(average.values()), [parameters[name] for name in average], 1 - decay_at(step, decay))


@contextmanager
def averaged(unet: nn.Module, average: Average | None) -> Iterator[None]:
    """Use the averaged weights inside the block, then restore the UNet's weights exactly. Does nothing for None."""
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
