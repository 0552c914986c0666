"""Copy integers that the host needs, such as the number of samples, from the GPU.

The host waits for the GPU at each copy, so copies are rare. `torch.cuda.set_sync_debug_mode`, which detects accidental
synchronization, does not report the copies of this module.
"""

from typing import Any

import torch
from torch import Tensor


def read_counts(numbers: Tensor) -> list[int]:
    """Copy the integers of a tensor [k] to the host as a list. On a GPU, this waits until the GPU has computed them."""
    if numbers.device.type != "cuda":
        return [int(number) for number in numbers.tolist()]
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copy.copy_(numbers, non_blocking=True)
    event: Any = torch.cuda.current_stream(numbers.device).record_event()
    event.synchronize()
    return [int(number) for number in copy.tolist()]


def read_count(number: Tensor) -> int:
    """Copy the integer of a scalar tensor to the host. On a GPU, this waits until the GPU has computed it."""
    return read_counts(number.reshape(1))[0]
