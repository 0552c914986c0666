"""Run commands: report bad input in one message with exit status 2, and end quietly on signals and closed pipes."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from dataset.log import configure_logging


class UserError(ValueError):
    """An error that the user can correct, such as bad input. The message says what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """Return an error's text on one line of at most 200 characters, for use in a message."""
    return " ".join(str(error).split())[:200]


def run_cli(main: Callable[[], int | None]) -> None:
    """Run the function `main` of a command and end the process with an exit status.

    The exit status is the number that `main` returns (None is 0), or one of these:

    - 2 on bad input (UserError), after printing the message
    - 130 on Ctrl-C and 143 on SIGTERM, after printing one line
    - 141, without output, when the reader of stdout is gone, as in `python -m dataset info X | head -1`

    While `main` runs, messages of all packages go to stderr (`configure_logging`). Characters that stdout cannot encode
    are escaped, such as those of a file name that is not UTF-8.
    """
    configure_logging()
    _escape_unprintable(sys.stdout)
    try:
        status = _status(main)
    except BrokenPipeError:
        if not _reader_is_gone(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit succeeds
        status = 141
    sys.exit(status)


def _status(main: Callable[[], int | None]) -> int | str | None:
    """Run `main`, report its errors and return the exit status."""
    terminated = threading.Event()
    try:
        with _sigterm_as_ctrl_c(terminated):
            status: int | str | None = main() or 0
    except SystemExit as ended:  # --help, or wrong options
        status = ended.code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        word, status = ("terminated", 143) if terminated.is_set() else ("interrupted", 130)
        print(f"{word}; run the same command again to resume", file=sys.stderr)
    sys.stdout.flush()
    return status


@contextmanager
def _sigterm_as_ctrl_c(terminated: threading.Event) -> Iterator[None]:
    """On SIGTERM during the `with` block, set the event `terminated` and raise KeyboardInterrupt in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            terminated.set()
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a forked child ends as if there were no handler
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _escape_unprintable(stream: TextIO) -> None:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _reader_is_gone(stream: TextIO) -> bool:
    """Return whether `stream` is a pipe whose reading end is closed."""
    poll = select.poll()
    with suppress(OSError, ValueError):  # not a file of the system
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False
