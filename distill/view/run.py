"""What there is of a run in its folder, whether it is finished, under way or was stopped."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from distill.sds.loss_log import LOSSES, METRICS, Losses, read_losses

_SIGNS: Final = ("input.png", LOSSES, "mesh.glb")  # a folder with one of these is a run's
_DEPTH: Final = 3  # how far below a given folder runs are looked for
_QUIET_S: Final = 120.0  # without a new row for so long, a run may have been stopped


@dataclass(frozen=True)
class Run:
    """A run, read once: what `folder` held at that moment."""

    name: str
    folder: Path
    config: dict[str, Any]
    """Empty if there is no config.json yet."""
    losses: Losses
    metrics: dict[str, Any]
    """Empty if there are none yet."""
    previews: tuple[tuple[int, Path], ...]
    """Steps and pictures."""
    quiet_s: float | None
    """How long ago the losses were last written; None if there are none."""

    @property
    def steps(self) -> int | None:
        """How many steps were asked for, where known."""
        asked = self.config.get("settings", {}).get("steps")
        return int(asked) if asked else None

    @property
    def step(self) -> int:
        """How many steps are known to be done."""
        return int(self.losses.rows[-1]["step"]) if self.losses.rows else 0

    @property
    def finished(self) -> bool:
        """Whether its mesh and the report on it are there: the last things that a run writes."""
        return bool(self.mesh) and self.file("mesh.glb") is not None

    @property
    def mesh(self) -> dict[str, Any]:
        """The report on the mesh, empty before there is one."""
        return dict(self.metrics.get("mesh") or self.config.get("mesh") or {})

    def file(self, name: str) -> Path | None:
        """A result by its name, if it is there already."""
        path = self.folder / name
        return path if path.is_file() else None

    @property
    def status(self) -> str:
        """Where it stands, in a few words."""
        steps = f"{self.step:,} of {self.steps:,}" if self.steps else f"{self.step:,}"
        if self.finished:
            return f"finished: {self.steps:,} steps" if self.steps else "finished"
        if self.steps and self.step >= self.steps:
            return "distilled; no mesh (yet)"
        if self.quiet_s is None:
            return "starting"
        if self.quiet_s > _QUIET_S:
            return f"step {steps}, nothing new for {duration(self.quiet_s)}; run the same command to resume it"
        return f"step {steps}{self._left()}"

    def _left(self) -> str:
        rows = self.losses.rows[-20:]
        if not self.steps or len(rows) < 2:
            return ""
        pace = (rows[-1]["seconds"] - rows[0]["seconds"]) / (rows[-1]["step"] - rows[0]["step"])
        return f", about {duration(pace * (self.steps - self.step))} left"


def read_run(folder: Path, name: str) -> Run:
    """Raises UserError if a file of the run cannot be understood."""
    record = folder / LOSSES
    previews = sorted((folder / "previews").glob("step-*.png"))
    return Run(
        name,
        folder,
        config=_read_json(folder / "config.json"),
        losses=read_losses(record),
        metrics=_read_json(folder / METRICS),
        previews=tuple((int(path.stem.removeprefix("step-")), path) for path in previews),
        quiet_s=max(0.0, time.time() - record.stat().st_mtime) if record.exists() else None,
    )


def find_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders of runs in order: those given and the runs up to `_DEPTH` below them, named by their way from what the
    given ones have in common.

    Raises UserError for a path that is no folder, or a folder without runs.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give one that python -m distill wrote (its --out)")
        runs = list(_runs_in(folder.resolve(), _DEPTH))
        if not runs:
            raise UserError(f"{folder} holds no run ({', '.join(_SIGNS)}: none is there); give the --out of a run")
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
        raise UserError(f"{path} is not JSON ({error}); repeat the run's command, which writes it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no JSON object; repeat the run's command, which writes it again")
    return values


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
