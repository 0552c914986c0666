"""Many runs of one command, one after the other in this process. One that fails does not stop the others.

`workers` spreads them over several processes instead.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from dataset.errors import UserError, one_line
from distill.runs.job import Job, finished_faces, run
from distill.sds.loop import Watch
from train.model.multiview import MultiViewModel

Status = Literal["done", "skipped", "failed", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `trace` is that of a mistake of ours, else empty."""

    name: str
    status: Status
    seconds: float = 0.0
    faces: int | None = None
    reason: str = ""
    trace: str = ""


def attempt(
    job: Job,
    loaded: Callable[[], MultiViewModel],
    device: torch.device,
    *,
    title: str = "distill",
    watch: Watch | None = None,
) -> Outcome:
    """Run one job and return its outcome; errors are recorded, not raised."""
    started = time.monotonic()
    try:
        if (faces := finished_faces(job)) is not None:
            return Outcome(job.name, "skipped", faces=faces, reason=f"{job.out} is finished")
        faces = run(job, loaded, device, title=title, watch=watch)
        return Outcome(job.name, "done", time.monotonic() - started, faces)
    except UserError as error:
        return Outcome(job.name, "failed", time.monotonic() - started, reason=str(error))
    except KeyboardInterrupt:
        return Outcome(job.name, "stopped", time.monotonic() - started, reason="resumes from its checkpoint")
    except Exception as error:  # noqa: BLE001 - told with its trace; the other runs are worth going on with
        reason = f"{type(error).__name__}: {one_line(error)}"
        return Outcome(job.name, "failed", time.monotonic() - started, reason=reason, trace=traceback.format_exc())


def in_turn(jobs: Sequence[Job], loaded: Callable[[], MultiViewModel], device: torch.device) -> Iterator[Outcome]:
    """The runs one after the other. After one that was stopped the rest is not begun."""
    for i, job in enumerate(jobs):
        outcome = attempt(job, loaded, device, title=f"{job.name} ({i + 1}/{len(jobs)})")
        yield outcome
        if outcome.status == "stopped":
            yield from (not_begun(left) for left in jobs[i + 1 :])
            return


def not_begun(job: Job) -> Outcome:
    """Of a run that a stop came before."""
    return Outcome(job.name, "stopped", reason="not begun")


def say(outcome: Outcome, out: Path) -> None:
    """The line about a run that has just ended."""
    if outcome.trace:
        tqdm.write(outcome.trace, file=sys.stderr)
    told = {
        "done": f"{outcome.faces} faces in {outcome.seconds:.0f} s: {out / 'mesh.glb'}",
        "skipped": f"skipped: {outcome.reason} (remove its mesh.glb to have it made again)",
        "failed": f"FAILED: {outcome.reason}",
        "stopped": f"stopped: {outcome.reason}",
    }
    tqdm.write(f"{outcome.name}: {told[outcome.status]}")


def table(outcomes: Iterable[Outcome]) -> str:
    """A table of outcomes: a header line, then one line per run."""
    rows = [("run", "status", "seconds", "faces", "reason")]
    for outcome in outcomes:
        faces = "" if outcome.faces is None else str(outcome.faces)
        rows.append((outcome.name, outcome.status, f"{outcome.seconds:.0f}", faces, outcome.reason))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {status:<{widths[1]}}  {seconds:>{widths[2]}}  {faces:>{widths[3]}}  {reason}".rstrip()
        for name, status, seconds, faces, reason in rows
    )
