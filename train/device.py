"""Choose a device, copy tensors to it, and set the precision and attention kernels used on it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dataset.errors import UserError

K = TypeVar("K")

# Fastest first on a Hopper GPU; if one does not support a shape, the next one is used.
ATTENTION: Final = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def pick_device(name: str) -> torch.device:
    """Return the device with this name: auto, cpu, cuda, cuda:1, ... or mps. auto: a GPU if there is one, else the CPU.

    Raises UserError when the name is unknown or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; use --device auto, cpu, cuda or cuda:NUMBER") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not supported; use --device auto, cpu or cuda")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r}: this machine has no Apple GPU; use --device auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r}: no CUDA GPU is visible; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r}: there are {torch.cuda.device_count()} GPUs, numbered from 0; use a smaller number"
        )
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of any shape to a device. A copy from the CPU to a GPU is asynchronous, from pinned memory."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """Inside the block, torch computes with bf16 autocast and the fastest attention on a GPU, with float32 on a CPU."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", torch.bfloat16), fastest_attention(device):
        yield


def fastest_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Inside the block, attention on a GPU uses the first kernel of `ATTENTION` that supports the tensors' shapes.

    On a CPU, torch chooses the kernel.
    """
    if device.type != "cuda":
        return nullcontext()
    chosen: AbstractContextManager[Any] = sdpa_kernel(ATTENTION, set_priority=True)
    return chosen


class DeferredScalars(Generic[K]):
    """Collects scalar tensors of several steps on the device, and reads all of them in one transfer.

    Reading each scalar when it is computed would make the host wait for the GPU at every step.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[K, tuple[Tensor, ...]]] = []

    def __len__(self) -> int:
        """Return the number of steps that were added since the last `read`."""
        return len(self._steps)

    def add(self, key: K, *scalars: Tensor) -> None:
        """Add the scalar tensors of a step. `key` identifies the step in the result of `read`."""
        self._steps.append((key, scalars))

    def read(self) -> list[tuple[K, list[float]]]:
        """Return (key, values) of each step added since the last call, oldest first. The host waits for the device."""
        steps, self._steps = self._steps, []
        scalars = [scalar for _, of_step in steps for scalar in of_step]
        values = iter(torch.stack(scalars).tolist() if scalars else [])
        return [(key, [next(values) for _ in of_step]) for key, of_step in steps]
