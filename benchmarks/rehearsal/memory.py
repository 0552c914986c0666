"""Measure the memory of a process and its descendants (Linux), and of a GPU (nvidia-smi)."""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
PERIOD_S: Final = 0.5  # between two calls of nvidia-smi


def tree_rss_bytes(root: int, proc: Path = PROC) -> int | None:
    """Return the resident memory of a process and all its descendants in bytes; None on other systems than Linux.

    Memory that processes share is counted once per process. A process that has ended has 0 bytes.

    Args:
        root: Process id of the process.
        proc: Folder of the proc file system.
    """
    if not (proc / "self").exists():
        return None
    parents, pages = {}, {}
    for entry in proc.iterdir():
        if entry.name.isdecimal() and len(fields := _stat_fields(entry)) > 21:
            parents[int(entry.name)], pages[int(entry.name)] = int(fields[1]), int(fields[21])
    return PAGE_BYTES * sum(count for pid, count in pages.items() if _descends(pid, root, parents))


def _stat_fields(process: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the program's name; an empty list if the process has ended."""
    try:
        return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root


class GpuMemory:
    """Memory in use on one GPU, which nvidia-smi measures twice per second in a `with` block.

    `identifier` is the GPU's index or UUID, as in CUDA_VISIBLE_DEVICES. `name` is the GPU's name.
    """

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.name = self._query("name")
        self._idle_mib = self._highest_mib = self._used_mib()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> "GpuMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def take_peak_bytes(self) -> int:
        """Return the highest memory in use since the last call, less what was in use before the `with` block."""
        highest, self._highest_mib = self._highest_mib, 0
        return max(0, highest - self._idle_mib) * 2**20

    def _measure(self) -> None:
        while not self._over.wait(PERIOD_S):
            self._highest_mib = max(self._highest_mib, self._used_mib())

    def _used_mib(self) -> int:
        used = self._query("memory.used")
        return int(used) if used.isdecimal() else 0

    def _query(self, field: str) -> str:
        command = ["nvidia-smi", f"--id={self.identifier}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""


def first_gpu() -> GpuMemory | None:
    """Return the first GPU that this process may use; None if there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    identifier = "0" if visible is None else visible.split(",")[0].strip()
    if not identifier or shutil.which("nvidia-smi") is None:
        return None
    gpu = GpuMemory(identifier)
    return gpu if gpu.name else None
