"""Choose between Triton kernels (on CUDA GPUs) and plain torch (elsewhere) for the field and the renderer.

Both give the same results up to rounding; the kernels are tested against the torch code.
"""

import logging
from functools import cache
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@cache
def has_kernels(device_type: str) -> bool:
    """Return whether tensors on this type of device use the Triton kernels.

    Log once if they use plain torch instead.
    """
    reason = missing_for(device_type, find_spec("triton") is not None)
    if reason:
        logger.info("hash grid, ray marching and compositing run in plain torch: %s", reason)
    return not reason


def missing_for(device_type: str, installed: bool) -> str:
    """Return why the kernels cannot be used on a device type; empty if they can.

    `installed` tells whether Triton is installed.
    """
    if device_type != "cuda":
        return f"the Triton kernels need a CUDA GPU, but the device is {device_type}"
    return "" if installed else "Triton is not installed"
