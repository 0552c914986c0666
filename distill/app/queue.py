"""A queue of commands, each run in its own process: one command at a time per device.

A command that fails or crashes does not affect the others. Its last message is kept. The queue knows nothing about web
pages, so its state is the same for every browser.
"""

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from dataset.errors import UserError
from dataset.io.paths import ROOT

logger = logging.getLogger(__name__)

TaskStatus = Literal["waiting", "running", "finished", "failed", "stopped"]
MAX_WAITING: Final = 100
_STOP_S: Final = 60.0  # how long `close` waits for a command to write its checkpoint
_LOG_TAIL: Final = 20_000  # bytes at the end of a log that are searched for the error message


@dataclass(frozen=True)
class TaskState:
    """The state of a task when it was asked for."""

    name: str
    status: TaskStatus
    message: str = ""
    """Why a task failed or stopped; empty otherwise."""
    before: int = 0
    """Number of tasks that will start before this waiting task."""


@dataclass
class _Task:
    name: str
    command: Callable[[str], Sequence[str]]
    log: Path
    status: TaskStatus = "waiting"
    message: str = ""
    process: subprocess.Popen[bytes] | None = None
    stops: int = 0


@dataclass
class _Shared:
    """What the threads share. `changed` guards it."""

    tasks: dict[str, _Task] = field(default_factory=dict)
    waiting: list[_Task] = field(default_factory=list)
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)


class TaskQueue:
    """Runs tasks in the order in which they were submitted, one at a time per device.

    Tasks have unique names. Submitting the name of a task that has ended starts the task again.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        """Start one thread per device.

        Args:
            devices: Names of the devices, which are passed to the commands.
        """
        self._shared = _Shared()
        self._threads = [threading.Thread(target=self._work, args=(device,), daemon=True) for device in devices]
        for thread in self._threads:
            thread.start()

    def submit(self, name: str, command: Callable[[str], Sequence[str]], log: Path) -> bool:
        """Append a task to the queue. A task of this name that is waiting or running is left as it is.

        Returns whether the task was appended.

        Args:
            name: Name of the task.
            command: Function from the name of a device to the command line.
            log: File that receives the output of the command.

        Raises:
            UserError: too many tasks are waiting, or the queue is closed.
        """
        with self._shared.changed:
            before = self._shared.tasks.get(name)
            if before is not None and before.status in ("waiting", "running"):
                return False
            if self._shared.closed:
                raise UserError("the app is shutting down; start it again")
            if len(self._shared.waiting) >= MAX_WAITING:
                raise UserError(f"{MAX_WAITING} tasks are waiting already; wait until some have ended, or stop some")
            task = _Task(name, command, log)
            self._shared.tasks[name] = task
            self._shared.waiting.append(task)
            self._shared.changed.notify_all()
            return True

    def state(self, name: str) -> TaskState | None:
        """Return the state of the task `name`, or None if no such task was submitted."""
        with self._shared.changed:
            task = self._shared.tasks.get(name)
            return None if task is None else self._state(task)

    def states(self) -> list[TaskState]:
        """Return the states of all tasks, in the order of their first submission."""
        with self._shared.changed:
            return [self._state(task) for task in self._shared.tasks.values()]

    def stop(self, name: str) -> None:
        """Stop a task, which keeps what it has written. A task that has ended is left as it is.

        A waiting task does not start. A running command receives SIGTERM, and can then write a checkpoint. A second
        call kills the command.
        """
        with self._shared.changed:
            task = self._shared.tasks.get(name)
            if task is None:
                return
            if task.status == "waiting":
                self._shared.waiting.remove(task)
                task.status, task.message = "stopped", "not started"
                self._shared.changed.notify_all()
            elif task.status == "running" and task.process is not None:
                task.process.send_signal(signal.SIGKILL if task.stops else signal.SIGTERM)
                task.stops += 1

    def wait(self, name: str, timeout_s: float) -> TaskState | None:
        """Wait until a task has ended, for at most `timeout_s` seconds, and return its state."""
        deadline = time.monotonic() + timeout_s
        with self._shared.changed:
            while (task := self._shared.tasks.get(name)) is not None and task.status in ("waiting", "running"):
                if not self._shared.changed.wait(max(0.0, deadline - time.monotonic())):
                    break
            return None if task is None else self._state(task)

    def close(self) -> None:
        """Stop all tasks, and wait until the running commands have ended. Commands that do not end are killed."""
        with self._shared.changed:
            self._shared.closed = True
            names = [task.name for task in self._shared.tasks.values()]
            self._shared.changed.notify_all()
        for name in names:
            self.stop(name)
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for name in names:
            self.stop(name)
        for thread in self._threads:
            thread.join()

    def _state(self, task: _Task) -> TaskState:
        before = self._shared.waiting.index(task) if task.status == "waiting" else 0
        return TaskState(task.name, task.status, task.message, before)

    def _work(self, device: str) -> None:
        while True:
            with self._shared.changed:
                while not self._shared.waiting and not self._shared.closed:
                    self._shared.changed.wait()
                if self._shared.closed:
                    return
                task = self._shared.waiting.pop(0)
                task.status = "running"
                message = self._start(task, device)
            if task.process is not None:
                task.process.wait()
                message = _failure(task.process.returncode, task.log)
            with self._shared.changed:
                stopped = task.stops > 0 and message
                task.status = "stopped" if stopped else "failed" if message else "finished"
                task.message = "" if stopped else message
                task.process = None
                self._shared.changed.notify_all()
            logger.info("%s: %s%s", task.name, task.status, f": {task.message}" if task.message else "")

    def _start(self, task: _Task, device: str) -> str:
        """Start the command of a task. Return an error message if it cannot start, otherwise an empty string."""
        try:
            task.log.parent.mkdir(parents=True, exist_ok=True)
            with task.log.open("wb") as log:
                task.process = subprocess.Popen(
                    list(task.command(device)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    start_new_session=True,  # Ctrl-C in the terminal of the app goes through `close`
                )
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"the command cannot start ({error}); check the free disk space and memory"
        return ""


def _failure(status: int, log: Path) -> str:
    """Return why a command with this exit status failed, from the end of its log; empty if it succeeded."""
    if status == 0:
        return ""
    if status < 0 and -status not in (signal.SIGTERM, signal.SIGINT):
        hint = "; the machine may be out of memory" if -status == signal.SIGKILL else ""
        return f"the process was killed by signal {-status} ({signal.Signals(-status).name}){hint}; resume the run"
    try:
        text = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    except OSError as error:
        return f"the command ended with status {status}, and its log cannot be read ({error})"
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"the command ended with status {status} and no message"])[-1]
