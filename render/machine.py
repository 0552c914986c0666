"""How much of a machine, or of a Ray cluster, there is to render on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEMORY_SHARE: Final = 0.8  # of the machine, divided among the workers, is the default limit of an object
SMALLEST_LIMIT_MB: Final = 2048.0


@dataclass(frozen=True)
class Size:
    """Of a machine, or of a cluster as it is now."""

    cores: int
    gpus: int
    memory_bytes: int


def machine_size() -> Size:
    """What this process may use of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return Size(cores, gpus, int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def cluster_size() -> Size:
    """Of the Ray cluster that this process is connected to."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Size(int(total.get("CPU", 1)), int(total.get("GPU", 0)), int(total.get("memory", 2**30)))


def memory_limit_mb(size: Size, threads: int) -> float:
    """The default limit of one object, on the assumption that workers fill this machine's cores."""
    share = size.memory_bytes * MEMORY_SHARE * min(1.0, threads / size.cores)
    return max(SMALLEST_LIMIT_MB, share / 2**20)
