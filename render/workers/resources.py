"""The CPU cores, GPUs and memory of this machine or of a Ray cluster."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)
MEMORY_SHARE: Final = 0.8  # of the machine, divided among the workers, is the default limit of an object
SMALLEST_LIMIT_MB: Final = 2048.0
_NVIDIA_GPUS: Final = Path("/proc/driver/nvidia/gpus")  # one folder per GPU


@dataclass(frozen=True)
class MachineSize:
    """The number of CPU cores and GPUs and the memory of a machine, or of all nodes of a cluster together."""

    cores: int
    gpus: int
    memory_bytes: int
    cores_per_node: int  # of the largest node


def machine_size() -> MachineSize:
    """Return the resources of this machine that this process may use. CUDA_VISIBLE_DEVICES can exclude GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = len(list(_NVIDIA_GPUS.glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
    return MachineSize(cores, gpus, int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), cores)


def cluster_size() -> MachineSize:
    """Return the size of the Ray cluster that this process is connected to."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus, memory = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "memory"))
    if not any(cores):
        logger.warning("no node of the cluster has a CPU yet; set --workers and --threads for the expected size")
    return MachineSize(max(1, sum(cores)), gpus, memory, max([1, *cores]))


def memory_limit_mb(size: MachineSize, threads: int) -> float:
    """Return the default memory limit per Blender process in MB, assuming that the workers use all cores of a machine.

    Args:
        size: The machine.
        threads: Number of CPU threads per Blender process.
    """
    share = size.memory_bytes * MEMORY_SHARE * min(1.0, threads / size.cores)
    return max(SMALLEST_LIMIT_MB, share / 2**20)
