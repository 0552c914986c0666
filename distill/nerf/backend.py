"""What the inner loops of field and renderer are computed with: Triton kernels on a CUDA GPU, elsewhere plain torch.

Both compute the same; the torch one is the reference that the kernels are tested against.
"""

import logging
from functools import cache
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@cache
def has_kernels(device_type: str) -> bool:
    """Whether tensors of this type of device go through the Triton kernels; where not, that is said once."""
    reason = missing_for(device_type, find_spec("triton") is not None)
    if reason:
        logger.warning("hash grid, marching and compositing run in plain torch: %s", reason)
    return not reason


def missing_for(device_type: str, installed: bool) -> str:
    """Why there are no kernels for a type of device, given whether Triton is installed; empty if there are."""
    if device_type != "cuda":
        return f"the Triton kernels need a CUDA GPU, this is {device_type}"
    return "" if installed else "Triton is not installed"
