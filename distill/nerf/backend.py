"""Choose the implementation of the field and the renderer: Triton kernels on CUDA GPUs, plain torch elsewhere.

Both implementations give the same results up to rounding errors; the kernels are tested against the torch code.
"""

import logging
from functools import cache
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@cache
def has_kernels(device_type: str) -> bool:
    """Return whether tensors on a type of device, such as "cuda" or "cpu", are processed by the Triton kernels.

    If the kernels cannot be used, the reason is logged once.
    """
    reason = missing_for(device_type, find_spec("triton") is not None)
    if reason:
        logger.info("hash grid, ray marching and compositing run in plain torch: %s", reason)
    return not reason


def missing_for(device_type: str, installed: bool) -> str:
    """Return the reason why the Triton kernels cannot be used, or an empty string if they can be used.

    Args:
        device_type: Type of the device, such as "cuda" or "cpu".
        installed: Whether Triton is installed.
    """
    if device_type != "cuda":
        return f"the Triton kernels need a CUDA GPU, but the device is {device_type}"
    return "" if installed else "Triton is not installed"
