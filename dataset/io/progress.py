"""Show progress as a bar on a terminal; in a pipe or a log file, as one plain line every few seconds."""

import io
import sys
import time
from typing import Any, Final

from tqdm import tqdm

PLAIN_EVERY_S: Final = 5.0
_PLAIN_FORMAT: Final = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}"


class ProgressBar(tqdm):  # type: ignore[type-arg]
    """A tqdm bar that also works in a pipe or a log file.

    On a terminal it behaves like `tqdm`. Elsewhere it writes plain lines to stderr without carriage returns: at most
    one every PLAIN_EVERY_S seconds, and one at the end. Unlike in `tqdm`, `disable=None` means `disable=False`.
    """

    def __init__(self, *args: Any, disable: bool | None = False, **kwargs: Any) -> None:
        self._plain = not (kwargs.get("file") or sys.stderr).isatty()
        self._written_at, self._ending = time.monotonic(), False
        self._written_n: float = -1
        if self._plain:
            kwargs |= {"bar_format": _PLAIN_FORMAT, "mininterval": PLAIN_EVERY_S, "miniters": 1}
        super().__init__(*args, disable=bool(disable), **kwargs)  # type: ignore[call-overload]

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar on a terminal. Elsewhere, write a plain line, at most one every PLAIN_EVERY_S seconds."""
        if not self._plain:
            super().display(msg, pos)
            return
        due = self._ending or time.monotonic() - self._written_at >= PLAIN_EVERY_S
        if due and self.n != self._written_n:
            self._written_at, self._written_n = time.monotonic(), self.n
            self.fp.write(str(self).removeprefix(": ") + "\n")
            self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar from a terminal before other text is written. When not on a terminal, do nothing."""
        if not self._plain:
            super().clear(nolock)

    def close(self) -> None:
        """End the bar. When not on a terminal, write a last plain line."""
        if self._plain and not self.disable:
            self._ending = True
            self.display()
            self.fp = io.StringIO()  # tqdm would end a bar that was never drawn
        super().close()
