"""A running step of a rehearsal: its process, its log and its peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from benchmarks.rehearsal.memory import GpuMemory, tree_rss_bytes
from benchmarks.rehearsal.plan import Step
from benchmarks.rehearsal.timed_log import TimedLog
from dataset.io.paths import ROOT

STOP_S: Final = 10.0  # from SIGTERM to SIGKILL


class Process(Protocol):
    """A process; the methods are those of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status, or the negative number of the signal that killed the process; None if it runs."""

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""


Start = Callable[[Sequence[str], Mapping[str, str], int], Process]
"""Function that starts a command: what follows `python -m`, environment variables to set, descriptor for the output."""


def start_python(arguments: Sequence[str], environment: Mapping[str, str], output: int) -> Process:
    """Start a command as a new Python process.

    Args:
        arguments: What follows `python -m`: the name of a module and its arguments.
        environment: Environment variables to set.
        output: File descriptor for stdout and stderr.
    """
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
    )


def environment_of(gpu: GpuMemory | None) -> dict[str, str]:
    """Return environment variables with which a process sees only one GPU, or none, and writes its output at once."""
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi counts
    visible = {"CUDA_VISIBLE_DEVICES": ""} if gpu is None else {**order, "CUDA_VISIBLE_DEVICES": gpu.identifier}
    return {"PYTHONUNBUFFERED": "1", **visible}


class RunningStep:
    """A step that has been started.

    Args:
        step: The step.
        log: File for the output.
        start: Function that starts the process.
        gpu: The GPU that the step uses, and whose memory is measured from now on; None: the step sees no GPU.
    """

    def __init__(self, step: Step, log: Path, start: Start, gpu: GpuMemory | None) -> None:
        self.step, self.log = step, TimedLog(log)
        self.seconds, self.peak_rss_bytes = 0.0, 0
        self._gpu = gpu
        if gpu is not None:
            gpu.take_peak_bytes()
        with self.log.opened() as output:
            self.process = start(step.arguments, environment_of(gpu), output)

    def poll(self) -> int | None:
        """Measure the memory. Return the exit status (see `Process.poll`) if the process has ended, otherwise None."""
        status = self.process.poll()
        self.seconds = self.log.seconds()
        if status is None:
            self.peak_rss_bytes = max(self.peak_rss_bytes, tree_rss_bytes(self.process.pid) or 0)
        else:
            self.log.finish()
        return status

    def take_peak_gpu_bytes(self) -> int | None:
        """Return the peak memory of the GPU since the start, by all processes; None if the step does not use a GPU."""
        return None if self._gpu is None else self._gpu.take_peak_bytes()


def stop(running: Sequence[RunningStep]) -> None:
    """Send SIGTERM to the processes of steps, and SIGKILL to those that have not ended `STOP_S` seconds later."""
    for step in running:
        step.process.terminate()
    deadline = time.monotonic() + STOP_S
    for step in running:
        while step.process.poll() is None:
            if time.monotonic() > deadline:
                step.process.kill()
            time.sleep(0.05)
        step.log.finish()
