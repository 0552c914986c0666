"""Read integers from the GPU that the host needs, such as the number of samples.

Each read makes the host wait for the GPU, so there are few. They are not flagged by torch's detection of accidental
synchronization (`torch.cuda.set_sync_debug_mode`).
"""

from typing import Any

import torch
from torch import Tensor


def read_counts(numbers: Tensor) -> list[int]:
    """Copy the integers of a tensor [k] to the host; waits for the device."""
    if numbers.device.type != "cuda":
        return [int(number) for number in numbers.tolist()]
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copy.copy_(numbers, non_blocking=True)
    there: Any = torch.cuda.current_stream(numbers.device).record_event()
    there.synchronize()
    return [int(number) for number in copy.tolist()]


def read_count(number: Tensor) -> int:
    """Copy the integer of a scalar tensor to the host; waits for the device."""
    return read_counts(number.reshape(1))[0]
