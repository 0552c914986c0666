"""What a run says of itself: a line, the bar, TensorBoard, and W&B where asked for.

Losses and gradient norms stay on the device until they are read, all in one transfer: reading each as it comes would
stop the GPU at every step.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import torch
from torch import Tensor

from dataset.errors import UserError
from train.loop.disk_full import is_disk_full, warn_not_written

WANDB_ID_FILE: Final = "wandb-run.txt"  # so that a resumed run continues its curves
T = TypeVar("T")


@dataclass(frozen=True)
class StepResult:
    """One step, read from the device."""

    step: int  # from 0
    loss: float
    gradient_norm: float
    images: int  # target views


@dataclass(frozen=True)
class Reading:
    """The steps since the last reading, oldest first, and how the time went."""

    results: list[StepResult]
    seconds: float
    waited_s: float  # for data
    flops: float = 0.0  # of the UNet; 0 where nobody counts

    @property
    def views_per_s(self) -> float:
        """Target views trained on per second."""
        return sum(result.images for result in self.results) / max(self.seconds, 1e-9)

    @property
    def data_wait_share(self) -> float:
        """Share of the time that the loop stood waiting for views, 0 to 1."""
        return self.waited_s / max(self.seconds, 1e-9)


class Meter:
    """Collects steps without reading them, and measures the time between readings."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._waiting: list[tuple[int, Tensor, Tensor, int]] = []
        self.restart()

    def restart(self) -> None:
        """Begin to measure now: what came between the last reading and this is nobody's training time."""
        self._started, self._waited_s, self._flops = self._clock(), 0.0, 0.0

    def wait_for(self, micro_batches: Iterator[T]) -> T:
        """The next micro-batch, and how long it let the loop wait."""
        started = self._clock()
        views = next(micro_batches)
        self._waited_s += self._clock() - started
        return views

    def add(self, step: int, loss: Tensor, gradient_norm: Tensor, images: int, flops: float = 0.0) -> None:
        """Note a step; `loss` and `gradient_norm` are numbers still on the device."""
        self._waiting.append((step, loss, gradient_norm, images))
        self._flops += flops

    def read(self) -> Reading:
        """All noted steps in one transfer, which waits for the device; the measured time begins anew."""
        waiting, self._waiting = self._waiting, []
        numbers = [number.detach().float() for _, loss, norm, _ in waiting for number in (loss, norm)]
        values: list[float] = torch.stack(numbers).tolist() if numbers else []
        results = [
            StepResult(step, loss, norm, images)
            for (step, _, _, images), loss, norm in zip(waiting, values[::2], values[1::2], strict=True)
        ]
        reading = Reading(results, self._clock() - self._started, self._waited_s, self._flops)
        self.restart()
        return reading


@dataclass(frozen=True)
class TrainingStatus:
    """What matters of a run at a reading."""

    steps: int  # done
    total_steps: int
    seen_images: int
    loss: float  # mean since the last reading
    learning_rate: float
    gradient_norm: float  # of the last step
    views_per_s: float
    data_wait_share: float
    eta_s: float
    share_of_peak: float | None = None  # of the device's matrix products; None where it was not measured

    def line(self) -> str:
        """The one line."""
        eta = timedelta(seconds=round(self.eta_s))
        peak = "" if self.share_of_peak is None else f"share of peak {self.share_of_peak:.1%}  "
        return (
            f"step {self.steps:,}/{self.total_steps:,}  images {self.seen_images:,}  loss {self.loss:.4f}  "
            f"lr {self.learning_rate:.2e}  grad norm {self.gradient_norm:.3g}  views/s {self.views_per_s:.3g}  "
            f"{peak}data wait {self.data_wait_share:.1%}  ETA {eta}"
        )

    def on_bar(self) -> dict[str, str]:
        """The bar's end; steps and time left are on it already."""
        peak = {} if self.share_of_peak is None else {"peak": f"{self.share_of_peak:.0%}"}
        return {
            "images": f"{self.seen_images:,}",
            "loss": f"{self.loss:.4f}",
            "lr": f"{self.learning_rate:.1e}",
            "norm": f"{self.gradient_norm:.3g}",
            "views/s": f"{self.views_per_s:.3g}",
            **peak,
            "wait": f"{self.data_wait_share:.0%}",
        }

    def scalars(self) -> dict[str, float]:
        """What belongs to the whole interval; loss, norm and rate are logged for every step."""
        peak = {} if self.share_of_peak is None else {"share_of_peak": self.share_of_peak}
        return {
            "views_per_s": self.views_per_s,
            **peak,
            "data_wait_share": self.data_wait_share,
            "seen_images": float(self.seen_images),
            "eta_s": self.eta_s,
        }


class Log(Protocol):
    """Writes named numbers of a step."""

    def __call__(self, values: Mapping[str, float], step: int) -> None: ...


@contextmanager
def open_log(out: Path, first_step: int, wandb_project: str | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """TensorBoard, and W&B when a project is given. What an interrupted run wrote beyond its checkpoint is hidden.

    A full disk ends TensorBoard's curves, not the run, and that is said.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    wandb_run = None if wandb_project is None else _start_wandb(out, wandb_project, config)
    _wait_for_later_name(out / "tensorboard")
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)
    full = False

    def log(values: Mapping[str, float], step: int) -> None:
        nonlocal full
        if wandb_run is not None:
            wandb_run.log(dict(values), step=step)
        if full:
            return
        try:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
        except OSError as error:
            full = _full(out, error)

    try:
        yield log
    finally:
        try:
            writer.close()
        except OSError as error:
            _full(out, error)
        if wandb_run is not None:
            wandb_run.finish()


def _wait_for_later_name(folder: Path) -> None:
    """Wait, for up to a second, until a new event file gets a later time in its name than those in `folder`.

    TensorBoard reads event files in the order of their names, `events.out.tfevents.SECONDS.HOST.PID.COUNT`. COUNT is
    not padded, so that of two files of one second the later one may be read first, and the earlier one then hides it.
    """
    times = [name.split(".")[3] for name in (path.name for path in folder.glob("events.out.tfevents.*.*"))]
    latest = max((int(time_) for time_ in times if time_.isdigit()), default=0)
    now = time.time()
    if int(now) == latest:
        time.sleep(latest + 1 - now)


@contextmanager
def silent_log() -> Iterator[Log]:
    """For ranks that log nothing."""
    yield lambda values, step: None


def _full(out: Path, error: OSError) -> bool:
    if not is_disk_full(error):
        raise error
    warn_not_written(f"{out / 'tensorboard'}: all curves from here on", error)
    return True


def import_wandb() -> Any:
    """The wandb package. Raises UserError where it cannot be imported."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(f"--wandb: cannot import wandb ({error}); `pip install wandb`, or leave --wandb out") from error


def _start_wandb(out: Path, project: str, config: Mapping[str, Any]) -> Any:
    id_file = out / WANDB_ID_FILE
    known = id_file.read_text().strip() if id_file.is_file() else None
    run = import_wandb().init(
        project=project, name=out.name, id=known, resume="allow", dir=str(out), config=dict(config)
    )
    id_file.write_text(f"{run.id}\n")
    print(f"W&B: this run goes to project {project} as {run.id}")
    return run
