"""A log file of the output of a process, in which each line begins with the seconds since the start."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

END_S: Final = 5.0  # longest wait for the end of the output after the end of the process


class TimedLog:
    """A log file, which a thread writes. The time starts when the object is created.

    Args:
        path: The file, which is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = time.monotonic()
        source, self._output = os.pipe()
        self._writer = threading.Thread(target=self._write, args=(source,), daemon=True)
        self._writer.start()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Yield the file descriptor for the output of a process, which must be started in the `with` block."""
        try:
            yield self._output
        finally:
            os.close(self._output)

    def finish(self) -> None:
        """Wait until the whole output is in the file. Call this when the process has ended.

        If another process keeps the output open, the wait ends after `END_S` seconds.
        """
        self._writer.join(END_S)

    def _write(self, source: int) -> None:
        with (
            open(source, encoding="utf-8", errors="replace") as lines,
            self.path.open("w", encoding="utf-8", buffering=1) as file,
        ):
            for line in lines:  # a carriage return also ends a line
                with suppress(OSError):  # a full disk, which must not block the process
                    file.write(f"{self.seconds():7.1f} s  {line.rstrip()}\n")
