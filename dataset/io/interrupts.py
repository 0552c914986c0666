"""Let Ctrl-C and SIGTERM end a long loop after its current step, and a process end with its parent process."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG: Final = 1


@contextmanager
def stop_after_step(*, second_raises: bool = True) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets. The caller must check the event after every step.

    Only the main thread receives signals; in another thread, the event is never set. The previous signal handlers are
    restored at the end of the `with` block.

    Args:
        second_raises: Whether a second Ctrl-C or SIGTERM raises KeyboardInterrupt at once.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()
        if second_raises:
            for each in STOP_SIGNALS:
                signal.signal(each, signal.default_int_handler)

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent process ends (Linux only).

    If the parent process has ended already, this process exits at once.

    Args:
        parent: Process ID of the parent process.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit("the parent process has exited")
