"""The loss log of a run, `losses.csv`: one row per step, appended during the run.

The columns are `step` (number of steps done), `seconds` (time in the loop so far, summed over the parts of an
interrupted run), `views_per_s` (rendered views per second since the previous row) and then one column per loss. On a
CPU, a repeated run has the same steps and losses, but different `seconds` and `views_per_s`. A resumed run drops the
rows after its checkpoint, so that each step is listed once.
"""

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.io.files import write_file_atomic

LOSSES: Final = "losses.csv"
METRICS: Final = "metrics.json"  # written by `distill.output.summary`; defined here so that readers need no torch
TIMES: Final = ("seconds", "views_per_s")
_FLUSH_S: Final = 2.0  # longest time until a row is written to disk

LossRow = dict[str, float]


@dataclass(frozen=True)
class Losses:
    """The content of a loss log. A row has no entry for a loss that was not computed in its step."""

    columns: tuple[str, ...] = ("step", *TIMES)
    rows: tuple[LossRow, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses in the log, in the order of their columns."""
        return self.columns[3:]

    def of(self, name: str) -> tuple[list[float], list[float]]:
        """Return two lists for the column `name`: the steps of the rows that have a value in it, and these values."""
        pairs = [(row["step"], row[name]) for row in self.rows if name in row]
        return [step for step, _ in pairs], [value for _, value in pairs]


def read_losses(path: Path) -> Losses:
    """Read a loss log. An incomplete last line is dropped.

    Args:
        path: The file losses.csv. If it does not exist, the result has no rows.

    Raises:
        UserError: the file is not a loss log, or a line does not match the columns of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Losses()
    whole, _, _ = text.rpartition("\n")
    if not whole:
        return Losses()
    header, *lines = csv.reader(io.StringIO(whole))
    if tuple(header[:3]) != ("step", *TIMES):
        raise UserError(
            f"{path} is not a loss log: its first line is {','.join(header)!r}, but must start with "
            f"{','.join(('step', *TIMES))!r}; remove the file from the run folder"
        )
    try:
        rows = [
            {name: float(value) for name, value in zip(header, line, strict=True) if value} | {"step": float(line[0])}
            for line in lines
        ]
    except ValueError as error:
        raise UserError(
            f"a line of the loss log {path} does not match the columns {','.join(header)} ({error}); remove the file "
            "from the run folder"
        ) from error
    return Losses(tuple(header), tuple(rows))


class LossLog:
    """An open loss log, to which rows are appended. Rows are written to disk every few seconds and by `flush`."""

    def __init__(self, path: Path, first: int, views_until: Callable[[int], int]) -> None:
        """Open a loss log to append rows. If the file does not exist, it is created.

        Args:
            path: The file losses.csv.
            first: Number of steps done before the first new row. Rows of later steps are dropped from the file.
            views_until: Function from a number of steps k to the total number of views that the first k steps of the
                run render.
        """
        self._path, self._step, self._views_until = path, first, views_until
        before = read_losses(path)
        self._columns = before.columns
        self._rows: list[LossRow] = [row for row in before.rows if row["step"] <= first]
        seconds = self._rows[-1].get("seconds", 0.0) if self._rows else 0.0
        self._last = time.perf_counter()
        self._started = self._last - seconds
        self._rewrite()
        self._file = path.open("a", encoding="utf-8", newline="")

    def record(self, step: int, losses: Mapping[str, float]) -> None:
        """Append a row.

        Args:
            step: Number of steps done, including the step of this row.
            losses: The losses of this step, by name.
        """
        now = time.perf_counter()
        views = self._views_until(step) - self._views_until(self._step)
        times = {"seconds": round(now - self._started, 3), "views_per_s": round(views / max(now - self._last, 1e-9), 2)}
        row: LossRow = {"step": step, **times, **losses}
        self._rows.append(row)
        if row.keys() - set(self._columns):
            self._widen(row)
        else:
            self._file.write(_csv(self._columns, [row]))
        if now - self._flushed >= _FLUSH_S:
            self._flush_buffer()
        self._step, self._last = step, now

    def flush(self) -> None:
        """Write all rows to disk. This must be called before a checkpoint is written."""
        self._flush_buffer()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file losses.csv."""
        self._file.close()

    def _flush_buffer(self) -> None:
        self._file.flush()
        self._flushed = time.perf_counter()

    def _widen(self, row: LossRow) -> None:
        """Add a column for each loss that the file does not have yet."""
        self._columns = (*self._columns, *(name for name in row if name not in self._columns))
        self._file.close()
        self._rewrite()
        self._file = self._path.open("a", encoding="utf-8", newline="")

    def _rewrite(self) -> None:
        text = ",".join(self._columns) + "\n" + _csv(self._columns, self._rows)
        write_file_atomic(self._path, text.encode())
        self._flushed = time.perf_counter()


@contextmanager
def open_loss_log(path: Path, first: int, views_until: Callable[[int], int]) -> Iterator[LossLog]:
    """Open a `LossLog` for a `with` block, and close it at the end of the block, also after an error.

    Args:
        path: The file losses.csv.
        first: Number of steps done before the first new row. Rows of later steps are dropped from the file.
        views_until: Function from a number of steps k to the total number of views that the first k steps of the run
            render.
    """
    loss_log = LossLog(path, first, views_until)
    try:
        yield loss_log
    finally:
        loss_log.close()


def _csv(columns: tuple[str, ...], rows: list[LossRow]) -> str:
    """Format rows as CSV lines; floats are read back exactly."""
    return "".join(",".join(_number(row[name]) if name in row else "" for name in columns) + "\n" for row in rows)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
