"""Set how the threads of OpenMP wait for work, so that several processes can share the cores of one machine."""

import os
from typing import Final

WAIT_POLICY: Final = "OMP_WAIT_POLICY"
_CHOICES: Final = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # for the OpenMP libraries of all compilers


def let_threads_sleep() -> None:
    """Make OpenMP threads sleep while they wait for work, unless an environment variable already sets how they wait.

    By default, the threads run an empty loop for milliseconds after each parallel loop and occupy cores that other
    processes need. Call this function before torch is imported, because torch's OpenMP library reads the environment
    only once; `train/__init__.py` and `distill/__init__.py` do so. The number of threads and all results stay the same.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ[WAIT_POLICY] = "PASSIVE"
