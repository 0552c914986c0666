"""Train parts of the bundled model in processes of their own, at the same time as others."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from dataset.io.interrupts import exit_with_parent
from dataset.io.paths import ROOT

logger = logging.getLogger(__name__)

MODULE: Final = "train.tiny_model"
REPORT_S: Final = 30.0  # between two reports of the progress
TICK_S: Final = 0.2
END_S: Final = 30.0  # longest wait for a process to end after SIGTERM
_TAIL: Final = 4096  # bytes
_PARENT: Final = "ISOTROPIC3D_PARENT"  # environment variable: process id of the process that started a part


class PartProcess:
    """A process that runs a part of `python -m train.tiny_model`. Its output goes to a log file.

    Args:
        part: Name of the part, a value of --part.
        words: Options of the command.
        device: Device of the process, such as cuda:1.
        log: File to which the output is appended.
    """

    def __init__(self, part: str, words: Sequence[str], device: str, log: Path) -> None:
        self.part, self._log = part, log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", MODULE, *words, "--part", part, "--device", device]
        with log.open("ab") as file:
            environment = {**os.environ, _PARENT: str(os.getpid())}
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        logger.info("training the %s on %s; its output is in %s", part, device, log)

    def is_finished(self) -> bool:
        """Return whether the process has ended. Raises UserError when it failed."""
        code = self._process.poll()
        if code:
            raise UserError(
                f"training the {self.part} failed with exit status {code}; {self._log} ends with: {self.last_line()}"
            )
        return code == 0

    def last_line(self) -> str:
        """Return the last line of the log file, without the earlier states of a progress bar."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")

    def terminate(self) -> None:
        """Send SIGTERM to the process if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()

    def end(self) -> None:
        """Wait until the process has ended after `terminate`; after END_S seconds send SIGKILL."""
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_with_parent() -> None:
    """Let this process end with the process that started it as a `PartProcess`. Other processes are not affected."""
    if parent := os.environ.pop(_PARENT, None):
        exit_with_parent(int(parent))


@contextmanager
def part_processes(devices: Mapping[str, str], words: Sequence[str], logs: Path) -> Iterator[list[PartProcess]]:
    """Start a process per part. Those that still run at the end of the `with` block are ended.

    Args:
        devices: The device of each part, by the name of the part.
        words: Options of the command.
        logs: Folder of the log files.
    """
    started: list[PartProcess] = []
    try:
        for part, device in devices.items():
            started.append(PartProcess(part, words, device, logs / f"{part}.log"))
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.end()


def wait_for(processes: Sequence[PartProcess]) -> None:
    """Wait until all processes have ended, and report their progress every REPORT_S seconds.

    Raises UserError as soon as one fails.
    """
    reported = time.monotonic()
    while running := [process for process in processes if not process.is_finished()]:
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            for process in running:
                logger.info("%s: %s", process.part, process.last_line())
        time.sleep(TICK_S)


def words_of(args: Any, *, without: Sequence[str] = ()) -> list[str]:
    """Return the command-line options that differ from the defaults of a dataclass of options, with absolute paths.

    Args:
        args: The options. Their values are numbers, texts, paths, or tuples of paths.
        without: Names of the fields to leave out.
    """
    words = []
    for field in fields(args):
        value = getattr(args, field.name)
        default = () if field.default is MISSING else field.default
        if field.name not in without and value != default:
            values = value if isinstance(value, tuple) else (value,)
            texts = [str(value.absolute() if isinstance(value, Path) else value) for value in values]
            words += [f"--{field.name.replace('_', '-')}", *texts]
    return words
