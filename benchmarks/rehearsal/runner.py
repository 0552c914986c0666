"""Run the steps of a rehearsal as processes, and measure the time and the memory of each step."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.rehearsal.memory import GpuMemory, tree_rss_bytes
from benchmarks.rehearsal.plan import Step
from dataset.errors import UserError
from dataset.io.paths import ROOT

POLL_S: Final = 0.2
LAST_LINES: Final = 15


class StepFailed(UserError):
    """A step of the rehearsal failed. `step` is the name of the step."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class StepCost:
    """Time and peak memory of a step. The memory is None where it cannot be measured, or without a GPU."""

    name: str
    seconds: float
    peak_rss_gib: float | None
    peak_gpu_gib: float | None


def run_steps(
    steps: Sequence[Step], logs: Path, *, gpu: GpuMemory | None = None, keep: bool = False
) -> Iterator[StepCost]:
    """Run all steps, one after the other, print each step and its cost, and yield the costs.

    Args:
        steps: The steps, in order.
        logs: Folder of the log files, which is created.
        gpu: The GPU to measure and the only one that the steps see; None: the steps do not use a GPU.
        keep: Keep the files that no later step reads.

    Raises:
        StepFailed: A step ended with an error, or did not write its output.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {step.name}: python -m {shlex.join(step.arguments)}", flush=True)
        cost = run_step(step, logs / f"{number}-{step.name}.log", gpu=gpu)
        on_gpu = "" if cost.peak_gpu_gib is None else f", {gib(cost.peak_gpu_gib)} on the GPU"
        print(f"      {cost.seconds:.1f} s, {gib(cost.peak_rss_gib)} of host memory{on_gpu}", flush=True)
        yield cost
        for path in () if keep else step.obsolete:
            remove(path)


def run_step(step: Step, log: Path, *, gpu: GpuMemory | None = None) -> StepCost:
    """Run one step, with its output in a log file. For the arguments, see `run_steps`.

    Raises:
        StepFailed: The step ended with an error, or did not write its output. The message contains the name of the
            log file and the last lines of the log.
        KeyboardInterrupt: A signal stopped the rehearsal. The step was stopped, too.
    """
    command = [sys.executable, "-m", *step.arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **_only_gpu(gpu)}
    if gpu is not None:
        gpu.take_peak_bytes()
    start, peak = time.monotonic(), 0
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT) as child,
    ):
        try:
            while not _has_ended(child):
                peak = max(peak, tree_rss_bytes(child.pid) or 0)
        except BaseException:
            child.terminate()
            raise
    seconds = time.monotonic() - start
    if child.returncode or not step.makes.exists():
        raise StepFailed(step.name, _failure(step, child.returncode, log, seconds))
    return StepCost(
        step.name, round(seconds, 1), _in_gib(peak or None), None if gpu is None else _in_gib(gpu.take_peak_bytes())
    )


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Wait for a short time, and return whether the process has ended."""
    try:
        child.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _only_gpu(gpu: GpuMemory | None) -> Mapping[str, str]:
    """Return environment variables with which a process sees only one GPU, or none."""
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi counts
    return {"CUDA_VISIBLE_DEVICES": ""} if gpu is None else {**order, "CUDA_VISIBLE_DEVICES": gpu.identifier}


def _failure(step: Step, status: int, log: Path, seconds: float) -> str:
    if status < 0:
        killed_for_memory = " (the machine may be out of memory)" if -status == signal.SIGKILL else ""
        reason = f"was killed by {signal.Signals(-status).name}{killed_for_memory}"
    elif status:
        reason = f"ended with exit status {status}"
    else:
        reason = f"did not write {step.makes}"
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    shown = "\n".join(f"    {line}" for line in lines) or "    (the log is empty)"
    return (
        f"the step {step.name} of the rehearsal {reason} after {seconds:.1f} s. Correct the error, then repeat the "
        f"rehearsal. The last lines of its log {log}:\n{shown}"
    )


def table(costs: Sequence[StepCost]) -> str:
    """Return a table of the seconds and the peak memory of each step, and of all steps together."""
    total = StepCost(
        "total", sum(cost.seconds for cost in costs), _most(costs, "peak_rss_gib"), _most(costs, "peak_gpu_gib")
    )
    rows = [f"{'step':<12}{'seconds':>9}{'host memory':>14}{'GPU memory':>13}"]
    for cost in (*costs, total):
        rows.append(f"{cost.name:<12}{cost.seconds:>9.1f}{gib(cost.peak_rss_gib):>14}{gib(cost.peak_gpu_gib):>13}")
    return "\n".join(rows)


def _most(costs: Sequence[StepCost], name: str) -> float | None:
    values: list[Any] = [value for cost in costs if (value := getattr(cost, name)) is not None]
    return max(values, default=None)


def gib(value: float | None) -> str:
    """Return an amount of memory in GiB as text; a dash for None."""
    return "-" if value is None else f"{value:.1f} GiB"


def _in_gib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**30, 2)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
