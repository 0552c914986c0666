"""The runs in the output folder of the app: those of the app and those of the command line."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from dataset.io.lock import LOCK_NAME
from distill.app.queue import TaskState, TaskStatus
from distill.view.run import StoredRun, find_runs, read_run

WORDS: dict[TaskStatus, str] = {
    "waiting": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "failed": "Failed",
    "stopped": "Stopped",
}


@dataclass(frozen=True)
class RunState:
    """The state of a run when it was read."""

    name: str
    folder: Path
    status: TaskStatus
    message: str
    """A sentence for the user, such as the time left, or why the run failed."""
    stored: StoredRun | None
    """The files of the run; None if there are none yet or they cannot be read."""
    elsewhere: bool = False
    """Whether another process than this app runs it, such as `make distill`."""

    @property
    def can_stop(self) -> bool:
        """Whether the app can stop the run."""
        return self.status in ("waiting", "running") and not self.elsewhere

    @property
    def can_resume(self) -> bool:
        """Whether the app can resume the run."""
        return self.status in ("stopped", "failed")


def run_folders(out: Path) -> dict[str, Path]:
    """Return the run folders in the output folder by name, the newest first.

    Folders that lie outside `out`, to which a symbolic link leads, are left out.
    """
    top = out.resolve()
    try:
        found = find_runs([out])
    except UserError:  # there is no run yet
        return {}
    inside = {name: folder for name, folder in found.items() if folder.resolve().is_relative_to(top) and folder != top}
    return dict(sorted(inside.items(), key=lambda each: _modified(each[1]), reverse=True))


def read_state(name: str, folder: Path, task: TaskState | None) -> RunState:
    """Return the state of a run from its files and from its task in the queue.

    Args:
        name: Name of the run.
        folder: The run folder, which need not exist yet.
        task: The state of the run's task; None if this app has not started the run.
    """
    if task is not None and task.status == "waiting":
        ahead = f"; {task.before} before it" if task.before else ""
        return RunState(name, folder, "waiting", f"waits for the device{ahead}", _stored(name, folder)[0])
    stored, problem = _stored(name, folder)
    running = task is not None and task.status == "running"
    if running or is_locked(folder):
        where = "" if running else " (outside of this app)"
        return RunState(name, folder, "running", _progress(stored) + where, stored, elsewhere=not running)
    failure = (task.message or "failed") if task is not None and task.status == "failed" else ""
    if stored is not None and stored.finished:  # also if its mesh could not be made again
        return RunState(name, folder, "finished", failure, stored)
    if failure:
        return RunState(name, folder, "failed", failure, stored)
    if problem:
        return RunState(name, folder, "failed", problem, None)
    return RunState(name, folder, "stopped", _resumable(stored), stored)


def is_locked(folder: Path) -> bool:
    """Return whether a live process of this machine holds the lock of a run folder."""
    try:
        words = (folder / LOCK_NAME).read_text().split()
    except (OSError, UnicodeDecodeError):
        return False
    if len(words) != 4 or not words[1].isdecimal():  # "process PID on HOST"
        return False
    if words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def free_seed(seeds: Sequence[int], seed: int) -> int:
    """Return the first seed after `seed` that is not in `seeds`."""
    while (seed := seed + 1) in seeds:
        pass
    return seed


def _stored(name: str, folder: Path) -> tuple[StoredRun | None, str]:
    """Return the files of a run, or None and why they cannot be read; an empty reason if there are none."""
    if not folder.is_dir():
        return None, ""
    try:
        return read_run(folder, name), ""
    except UserError as error:
        return None, str(error)


def _progress(stored: StoredRun | None) -> str:
    if stored is None or not stored.config:
        return "starting: loads the model"
    if stored.finished:
        return "makes the mesh again"
    if stored.steps and stored.step >= stored.steps:
        return "all steps are done; refines the colors and writes the mesh and the video"
    return stored.status


def _resumable(stored: StoredRun | None) -> str:
    if stored is None or not stored.step:
        return "no step was done yet"
    of = f" of {stored.steps:,}" if stored.steps else ""
    return f"at step {stored.step:,}{of}; it can be resumed here or with the command below"


def _modified(folder: Path) -> float:
    paths = [folder / "config.json", folder / "input.png"]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
