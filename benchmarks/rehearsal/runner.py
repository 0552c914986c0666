"""Run the steps of a rehearsal as processes, and measure the time and the memory of each step."""

import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.rehearsal.fork_server import ForkServer
from benchmarks.rehearsal.memory import GpuMemory
from benchmarks.rehearsal.plan import Step
from benchmarks.rehearsal.step_process import RunningStep, start_python, stop
from dataset.errors import UserError

POLL_S: Final = 0.1
LAST_LINES: Final = 15


class StepFailed(UserError):
    """A step of the rehearsal failed. `step` is the name of the step."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class StepCost:
    """Time and peak memory of a step. The memory is None where it cannot be measured, or if the step uses no GPU.

    The host memory is the resident memory of the step's processes. A forked step shares a part of it with the fork
    server, and has loaded the modules of all steps.
    """

    name: str
    seconds: float
    peak_rss_gib: float | None
    peak_gpu_gib: float | None


def run_steps(
    steps: Sequence[Step],
    logs: Path,
    *,
    gpu: GpuMemory | None = None,
    keep: bool = False,
    fork_server: ForkServer | None = None,
) -> Iterator[StepCost]:
    """Run all steps, print each step and its cost, and yield the costs.

    A step waits for the end of the steps before, unless it is marked to run beside them. If one of several running
    steps fails, the others are stopped.

    Args:
        steps: The steps, in order. Of steps that run at the same time, only one may use the GPU.
        logs: Folder of the log files, which is created.
        gpu: The GPU to measure and the only one that the steps see; None: the steps do not use a GPU.
        keep: Keep the files that no later step reads.
        fork_server: Server that forks for each step but the first and those beside it, which run while the server
            imports. None, or if the server has ended: each step is a new Python process.

    Raises:
        StepFailed: A step ended with an error, or did not write its output. The message contains the name of the
            log file and the last lines of the log.
        KeyboardInterrupt: A signal stopped the rehearsal. The steps were stopped, too.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for group in _groups(steps):
        forks = fork_server is not None and steps[0] not in group and fork_server.is_ready()
        start = fork_server.start if fork_server is not None and forks else start_python
        running: list[RunningStep] = []
        try:
            for step in group:
                number = steps.index(step) + 1
                print(f"[{number}/{len(steps)}] {step.name}: python -m {shlex.join(step.arguments)}", flush=True)
                log = logs / f"{number}-{step.name}.log"
                running.append(RunningStep(step, log, start, gpu if step.uses_gpu else None))
            yield from _costs(running)
        finally:
            stop(running)
        for path in [] if keep else [path for step in group for path in step.obsolete]:
            remove(path)


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Return the steps, in order, as lists of steps that run at the same time."""
    groups: list[list[Step]] = []
    for step in steps:
        if step.beside_previous and groups:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _costs(running: list[RunningStep]) -> Iterator[StepCost]:
    """Wait for steps, remove those that have ended from the list, and print and yield their costs."""
    while running:
        time.sleep(POLL_S)
        for current in list(running):
            status = current.poll()
            if status is None:
                continue
            running.remove(current)
            cost = _cost(current, status)
            on_gpu = "" if cost.peak_gpu_gib is None else f", {gib(cost.peak_gpu_gib)} on the GPU"
            memory = f"{gib(cost.peak_rss_gib)} of host memory{on_gpu}"
            print(f"      {cost.name}: {cost.seconds:.1f} s, {memory}", flush=True)
            yield cost


def _cost(ended: RunningStep, status: int) -> StepCost:
    """Return the cost of a step that has ended with an exit status. Raises StepFailed when the step failed."""
    step = ended.step
    if status or not step.makes.exists():
        raise StepFailed(step.name, _failure(step, status, ended.log.path, ended.seconds))
    peak_rss, peak_gpu = ended.peak_rss_bytes or None, ended.take_peak_gpu_bytes()
    return StepCost(step.name, round(ended.seconds, 1), _in_gib(peak_rss), _in_gib(peak_gpu))


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


def table(costs: Sequence[StepCost], elapsed_s: float) -> str:
    """Return a table of the seconds and the peak memory of each step.

    The last row contains the seconds of the whole rehearsal, `elapsed_s`, and the largest memory of a step. The sum of
    the steps' seconds can be larger than `elapsed_s`, because steps may run at the same time.
    """
    total = StepCost("total", elapsed_s, _most(costs, "peak_rss_gib"), _most(costs, "peak_gpu_gib"))
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
