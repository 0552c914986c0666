"""The loss log of a run, `losses.csv`: one row per step, appended during the run.

Columns: `step` (steps done), `seconds` of the loop so far (all parts of an interrupted run together), `views_per_s`
since the row before, then the losses by name. Losses and steps are the same whenever the run is repeated; the two
columns of time are not, and nothing but tables and curves is made of them. A resumed run starts from its
checkpoint and drops the rows after it, so that each step is listed once.
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
METRICS: Final = "metrics.json"  # what `metrics` writes; named here for those who only read, without torch
TIMES: Final = ("seconds", "views_per_s")
_FLUSH_S: Final = 2.0  # how much older the file may be than the run, for whoever looks at it meanwhile

LossRow = dict[str, float]


@dataclass(frozen=True)
class Losses:
    """What a record holds. A value that a row lacks is absent from it."""

    columns: tuple[str, ...] = ("step", *TIMES)
    rows: tuple[LossRow, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The losses' names."""
        return self.columns[3:]

    def of(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of a column, where it has them."""
        found = [(row["step"], row[name]) for row in self.rows if name in row]
        return [step for step, _ in found], [value for _, value in found]


def read_losses(path: Path) -> Losses:
    """The record at `path`, none if there is no file. A last line that was not finished is left out.

    Raises UserError, naming the line, if the file is something else.
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
        raise UserError(f"{path} is not a record of losses (its first line is {','.join(header)!r}); move it away")
    try:
        rows = [
            {name: float(value) for name, value in zip(header, line, strict=True) if value} | {"step": float(line[0])}
            for line in lines
        ]
    except ValueError as error:
        raise UserError(f"{path} holds a line that is no row of {','.join(header)} ({error}); move it away") from error
    return Losses(tuple(header), tuple(rows))


class LossLog:
    """Appends to a record. Rows reach the disk every few seconds, and at the latest by `flush`."""

    def __init__(self, path: Path, first: int, views_until: Callable[[int], int]) -> None:
        """Continue the record at `path` after `first` steps; rows of later steps are dropped.

        `views_until`: how many views so many steps render.
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
        """A row: the losses of the last of `step` steps. They are numbers of the host: nothing here waits for a GPU."""
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
        """All that was recorded is on the disk when this returns: to be called before a checkpoint is written."""
        self._flush_buffer()
        os.fsync(self._file.fileno())

    def close(self) -> None:
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
    """A `LossLog` that is closed, all of it on the disk, however the block ends."""
    history = LossLog(path, first, views_until)
    try:
        yield history
    finally:
        history.close()


def _csv(columns: tuple[str, ...], rows: list[LossRow]) -> str:
    """Lines of numbers that read back as they were."""
    return "".join(",".join(_number(row[name]) if name in row else "" for name in columns) + "\n" for row in rows)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
