"""The results of a command as one line of JSON, for other programs (`--json`)."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from distill.config import DistillArgs
from distill.mesh.export import MAIN_FILES
from distill.runs.finished import finished_run
from distill.runs.job import Job
from distill.runs.plan import run_folder, run_names
from distill.runs.sequential import RunOutcome, RunStatus
from distill.sds.loss_log import METRICS

_ENDED: Final[tuple[RunStatus, ...]] = ("done", "skipped")  # statuses of runs with results


class CommandReport:
    """Collects how the runs of a command end."""

    def __init__(self, args: DistillArgs) -> None:
        """Start the clock.

        Args:
            args: The options of the command.
        """
        self.args = args
        self.jobs: Sequence[Job] = ()
        self._outcomes: dict[str, RunOutcome] = {}
        self._planned: list[tuple[Path, int, str]] = []
        self._started = time.monotonic()

    def plan(self, args: DistillArgs) -> None:
        """Store the options again, after folders were replaced by the images in them."""
        self.args = args
        with suppress(UserError):  # the command has no runs, which `plan_command` reports
            self._planned = run_names(args)

    def end(self, outcome: RunOutcome) -> None:
        """Store how a run ended."""
        self._outcomes[outcome.name] = outcome

    @property
    def outcomes(self) -> list[RunOutcome]:
        """How the runs ended that have ended so far, in the order of the command."""
        return [self._outcomes[name] for _, _, name in self._planned if name in self._outcomes]

    def finished_folders(self) -> list[Path]:
        """Return the folders of the runs that have results."""
        return [run_folder(self.args, outcome.name) for outcome in self.outcomes if outcome.status in _ENDED]

    def line(self, status: RunStatus = "done", reason: str = "") -> str:
        """Return the report as one line of JSON (docs/distillation.md).

        Args:
            status: `failed` or `stopped` if an error or a signal ended the command, otherwise `done`.
            reason: The error that ended the command; empty if none did.
        """
        missing = RunOutcome("", "stopped" if status == "done" else status, reason=reason)
        runs = [
            self._run(image, seed, self._outcomes.get(name, replace(missing, name=name)))
            for image, seed, name in self._planned
        ]
        statuses = {run["status"] for run in runs}
        if status == "done":
            status = next((each for each in ("failed", "stopped") if each in statuses), "done")
        values = {
            "status": status,
            "error": reason or None,
            "seconds": round(time.monotonic() - self._started, 2),
            "runs": runs,
        }
        return json.dumps(values)

    def _run(self, image: Path, seed: int, outcome: RunOutcome) -> dict[str, Any]:
        folder = run_folder(self.args, outcome.name).absolute()
        job = next((job for job in self.jobs if job.name == outcome.name), None)
        ended = outcome.status in _ENDED
        metrics = _read_metrics(folder / METRICS) if ended else {}
        return {
            "name": outcome.name,
            "image": str(image),
            "seed": seed,
            "status": outcome.status,
            "error": None if ended else outcome.reason,
            "out": str(folder),
            "files": _mesh_files(folder, job) if ended else {},
            "faces": outcome.faces,
            "seconds": round(outcome.seconds, 2),
            "warnings": metrics.get("warnings", list(job.warnings) if job else []),
            "notices": list(job.prepared.notices) if job else [],
            "metrics": metrics,
        }


def _mesh_files(folder: Path, job: Job | None) -> dict[str, str]:
    """Return the path of the mesh file of each format. An OBJ file has its material and texture beside it."""
    run = finished_run(folder, job.request) if job else None
    return {kind: str(folder / MAIN_FILES[kind]) for kind in run.formats} if run else {}


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # of an older run, or damaged
        return {}
    return values if isinstance(values, dict) else {}
