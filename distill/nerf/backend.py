"""Choose between Triton kernels (CUDA GPUs) and plain torch (everything else) for field and renderer.

Both give the same results; the torch code is the reference that the kernels are tested against.
"""

import logging
from functools import cache
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@cache
def has_kernels(device_type: str) -> bool:
    """Whether tensors on this type of device use the Triton kernels; logs a warning once if they do not."""
    reason = missing_for(device_type, find_spec("triton") is not None)
    if reason:
        logger.warning("hash grid, marching and compositing run in plain torch: %s", reason)
    return not reason


def missing_for(device_type: str, installed: bool) -> str:
    """The reason why kernels cannot be used on a device type, given whether Triton is installed; empty if they can."""
    if device_type != "cuda":
        return f"the Triton kernels need a CUDA GPU, this is {device_type}"
    return "" if installed else "Triton is not installed"
