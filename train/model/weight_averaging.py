"""Averaged weights: an exponential moving average of the UNet's parameters over the steps (no part of the paper).

Not to be mixed up with the paper's EMA, Explicit Multi-view Attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Average = Mapping[str, Tensor]  # by parameter name, on the parameter's device


def start_average(unet: nn.Module) -> Average:
    """The average before the first step: the parameters themselves."""
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def decay_at(step: int, decay: float) -> float:
    """Decay after step `step` (from 0): min(decay, (1 + n) / (10 + n)) with n = step + 1 steps done.

    The ramp (TensorFlow's `ExponentialMovingAverage(num_updates=n)`, also in diffusers' `EMAModel.get_decay`) keeps the
    first weights from standing out in short runs.
    """
    done = step + 1
    return min(decay, (1 + done) / (10 + done))


@torch.no_grad()
def update_average(average: Average, unet: nn.Module, step: int, decay: float) -> None:
    """average <- d average + (1 - d) parameters. A step whose update was left out counts with the weights it left."""
    parameters = dict(unet.named_parameters())
    torch._foreach_lerp_(list(average.values()), [parameters[name] for name in average], 1 - decay_at(step, decay))


@contextmanager
def averaged(unet: nn.Module, average: Average | None) -> Iterator[None]:
    """Inside, the UNet has the averaged weights; afterwards its own again, bit by bit. None: nothing changes."""
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
