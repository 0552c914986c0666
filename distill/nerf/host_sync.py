"""Numbers that the host must know before it can go on: how many samples there are, say.

A GPU works through its queue while the host prepares the next entries; reading a number makes the host wait. So there
are few of these, and torch's guard against accidental ones (`torch.cuda.set_sync_debug_mode`) lets them pass.
"""

from typing import Any

import torch
from torch import Tensor


def read_counts(numbers: Tensor) -> list[int]:
    """The integers of a tensor [k], once the device has them."""
    if numbers.device.type != "cuda":
        return [int(number) for number in numbers.tolist()]
    copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copy.copy_(numbers, non_blocking=True)
    there: Any = torch.cuda.current_stream(numbers.device).record_event()
    there.synchronize()
    return [int(number) for number in copy.tolist()]


def read_count(number: Tensor) -> int:
    """The integer of a tensor []."""
    return read_counts(number.reshape(1))[0]
