"""Find the folders of distillation runs, and read the files of runs that are finished, running or stopped."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from distill.sds.loss_log import LOSSES, METRICS, Losses, read_losses

_SIGNS: Final = ("input.png", LOSSES, "mesh.glb")  # a folder with one of these files is a run
_DEPTH: Final = 3  # levels below a given folder that are searched for runs
_QUIET_S: Final = 120.0  # a run that has not written a row for this long may have been stopped


@dataclass(frozen=True)
class StoredRun:
    """The files of a run folder, as they were when the folder was read."""

    name: str
    folder: Path
    config: dict[str, Any]
    """Contents of config.json; empty if there is none yet."""
    losses: Losses
    metrics: dict[str, Any]
    """Contents of metrics.json; empty if there is none yet."""
    previews: tuple[tuple[int, Path], ...]
    """The step and the image file of each preview."""
    quiet_s: float | None
    """Seconds since the losses were last written; None if no losses are written yet."""

    @property
    def steps(self) -> int | None:
        """The number of steps that the run was started with; None if config.json does not exist yet."""
        steps = self.config.get("settings", {}).get("steps")
        return int(steps) if steps else None

    @property
    def step(self) -> int:
        """The number of steps done, according to the last line of the loss log."""
        return int(self.losses.rows[-1]["step"]) if self.losses.rows else 0

    @property
    def finished(self) -> bool:
        """Whether the run is finished: mesh.glb and the statistics of the mesh, which are written last, exist."""
        return bool(self.mesh) and self.file("mesh.glb") is not None

    @property
    def mesh(self) -> dict[str, Any]:
        """The statistics of the mesh; empty if there is no mesh yet."""
        return dict(self.metrics.get("mesh") or self.config.get("mesh") or {})

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the input image, which are stored with the run."""
        return tuple(map(str, self.config.get("warnings") or self.metrics.get("warnings") or ()))

    def file(self, name: str) -> Path | None:
        """Return the path of the file `name` in the run folder, or None if this file does not exist yet."""
        path = self.folder / name
        return path if path.is_file() else None

    @property
    def status(self) -> str:
        """The state of the run in a few words, such as "step 40 of 400, about 12 min left"."""
        steps = f"{self.step:,} of {self.steps:,}" if self.steps else f"{self.step:,}"
        if self.finished:
            return f"finished: {self.steps:,} steps" if self.steps else "finished"
        if self.steps and self.step >= self.steps:
            return "distilled; no mesh yet"
        if self.quiet_s is None:
            return "starting"
        if self.quiet_s > _QUIET_S:
            return f"step {steps}, no new step for {format_duration(self.quiet_s)}; run the same command to resume it"
        return f"step {steps}{self._left()}"

    def _left(self) -> str:
        rows = self.losses.rows[-20:]
        if not self.steps or len(rows) < 2:
            return ""
        pace = (rows[-1]["seconds"] - rows[0]["seconds"]) / (rows[-1]["step"] - rows[0]["step"])
        return f", about {format_duration(pace * (self.steps - self.step))} left"


def read_run(folder: Path, name: str) -> StoredRun:
    """Read the files of a run.

    Args:
        folder: The run folder.
        name: Name of the run on its page.

    Raises:
        UserError: a file of the run is not valid.
    """
    record = folder / LOSSES
    previews = sorted((folder / "previews").glob("step-*.png"))
    return StoredRun(
        name,
        folder,
        config=_read_json(folder / "config.json"),
        losses=read_losses(record),
        metrics=_read_json(folder / METRICS),
        previews=tuple((int(path.stem.removeprefix("step-")), path) for path in previews),
        quiet_s=max(0.0, time.time() - record.stat().st_mtime) if record.exists() else None,
    )


def find_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Find run folders: the given folders themselves, and folders up to three levels below them.

    Args:
        folders: The folders to search.

    Returns:
        The path of each run folder by the name of the run. The name is the path of the run folder relative to the
        deepest folder that contains all of `folders`.

    Raises:
        UserError: a path is not a folder, or a folder contains no run.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the output folder (--out) of `python -m distill`")
        runs = list(_runs_in(folder.resolve(), _DEPTH))
        if not runs:
            raise UserError(
                f"{folder} contains no run folder, which has one of the files {', '.join(_SIGNS)}; give the output "
                "folder (--out) of `python -m distill`"
            )
        found += runs
    common = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    return {common.name if run == common else run.relative_to(common).as_posix(): run for run in found}


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / sign).is_file() for sign in _SIGNS):
        yield folder
    elif depth:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.name.startswith("."):
                yield from _runs_in(inner, depth - 1)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); delete this file and repeat `python -m distill`"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not contain a JSON object; delete this file and repeat `python -m distill`")
    return values


def format_duration(seconds: float) -> str:
    """Return a duration in seconds as text in a suitable unit, such as "99 s", "2 min" or "2.0 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
