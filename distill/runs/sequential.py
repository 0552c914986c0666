"""Run several jobs in this process, one after the other. A failed run does not stop the other runs.

`distill.runs.ray_workers` runs jobs in parallel in several processes instead.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dataset.errors import UserError, one_line
from distill.runs.job import Job, run_job
from distill.sds.loop import Watch
from train.model.multiview import MultiViewModel

logger = logging.getLogger(__name__)

RunStatus = Literal["done", "skipped", "failed", "stopped"]


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: its status, its duration, the number of faces of its mesh, and the reason if it was not done."""

    name: str
    status: RunStatus
    seconds: float = 0.0
    faces: int | None = None
    reason: str = ""
    trace: str = ""
    """The stack trace of an unexpected error, else empty."""


def attempt(
    job: Job,
    loaded: Callable[[], MultiViewModel],
    device: torch.device,
    *,
    title: str = "distill",
    watch: Watch | None = None,
) -> RunOutcome:
    """Run one job and return its outcome. An error of the run is stored in the outcome, not raised.

    Args:
        job: The run. It is skipped if it is finished already.
        loaded: Function that returns the model. It is called only after the run folder has been checked.
        device: Device of the run.
        title: Description of the progress bar.
        watch: Function that is called after each step with the number of steps done, and returns True to stop the run.
            With `watch`, there is no progress bar.
    """
    started = time.monotonic()
    try:
        if (faces := job.finished_faces) is not None:
            return RunOutcome(job.name, "skipped", faces=faces, reason=f"{job.out} is finished")
        faces = run_job(job, loaded, device, title=title, watch=watch)
        return RunOutcome(job.name, "done", time.monotonic() - started, faces)
    except UserError as error:
        return RunOutcome(job.name, "failed", time.monotonic() - started, reason=str(error))
    except KeyboardInterrupt:
        return RunOutcome(job.name, "stopped", time.monotonic() - started, reason="resumes from its checkpoint")
    except Exception as error:  # noqa: BLE001 - it is reported with its stack trace, and the other runs continue
        reason = f"{type(error).__name__}: {one_line(error)}"
        return RunOutcome(job.name, "failed", time.monotonic() - started, reason=reason, trace=traceback.format_exc())


def run_sequentially(
    jobs: Sequence[Job], loaded: Callable[[], MultiViewModel], device: torch.device
) -> Iterator[RunOutcome]:
    """Run jobs one after the other, and yield the outcome of each job when it ends.

    If a run is stopped (for example by Ctrl-C), the remaining jobs are not started, and their outcomes are "stopped".

    Args:
        jobs: The runs.
        loaded: Function that returns the model. It is called once for each run that is not finished yet, after its run
            folder has been checked.
        device: Device of the runs.
    """
    for i, job in enumerate(jobs):
        outcome = attempt(job, loaded, device, title=f"{job.name} ({i + 1}/{len(jobs)})")
        yield outcome
        if outcome.status == "stopped":
            yield from (not_started(left) for left in jobs[i + 1 :])
            return


def not_started(job: Job) -> RunOutcome:
    """Return the outcome "stopped" for a job that was not started because the command was stopped."""
    return RunOutcome(job.name, "stopped", reason="not started")


def log_outcome(outcome: RunOutcome, out: Path) -> None:
    """Log one line about a run that has just ended. After an unexpected error, the stack trace is logged first.

    Args:
        outcome: The outcome of the run.
        out: The run folder.
    """
    match outcome.status:
        case "done":
            mesh = out / "mesh.glb"
            logger.info("%s: %d faces in %.0f s: %s", outcome.name, outcome.faces, outcome.seconds, mesh)
        case "skipped":
            logger.info("%s: skipped: %s (remove its mesh.glb to run it again)", outcome.name, outcome.reason)
        case "stopped":
            logger.info("%s: stopped: %s", outcome.name, outcome.reason)
        case "failed":
            trace = f"{outcome.trace}\n" if outcome.trace else ""
            logger.error("%s%s: failed: %s", trace, outcome.name, outcome.reason)


def outcome_table(outcomes: Iterable[RunOutcome]) -> str:
    """Return a text table of the outcomes of runs: a header line, then one line per run."""
    rows = [("run", "status", "seconds", "faces", "reason")]
    for outcome in outcomes:
        faces = "" if outcome.faces is None else str(outcome.faces)
        rows.append((outcome.name, outcome.status, f"{outcome.seconds:.0f}", faces, " ".join(outcome.reason.split())))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {status:<{widths[1]}}  {seconds:>{widths[2]}}  {faces:>{widths[3]}}  {reason}".rstrip()
        for name, status, seconds, faces, reason in rows
    )
