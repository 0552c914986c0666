"""Choose a device, copy tensors to it, and set the precision and attention kernels used on it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dataset.errors import UserError

# Fastest first on a Hopper GPU; each falls through to the next where it does not support a shape.
ATTENTION: Final = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r}: no CUDA GPU is visible; use --device cpu")
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the GPU: from page-locked memory, behind the work it has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """bf16 on a GPU (weights and optimiser stay float32) with the fastest attention; float32 on a CPU."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", torch.bfloat16), fastest_attention(device):
        yield


def fastest_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, attention takes the first of `ATTENTION` that can do it; on a CPU torch chooses."""
    if device.type != "cuda":
        return nullcontext()
    chosen: AbstractContextManager[Any] = sdpa_kernel(ATTENTION, set_priority=True)
    return chosen
