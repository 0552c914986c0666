"""Report the progress of a run in log lines, a progress bar, TensorBoard and, optionally, W&B.

Losses and gradient norms of several steps stay on the device until they are read together, because reading them at
every step would make the host wait for the GPU at every step.
"""

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from torch import Tensor

from dataset.errors import UserError
from train.device import DeferredScalars
from train.loop.disk_full import is_disk_full, warn_not_written

WANDB_ID_FILE: Final = "wandb-run.txt"  # stores the id of the W&B run, so that a resumed run continues its curves
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """Loss, gradient norm and number of target views of one step, read from the device."""

    step: int  # number of the step, from 0
    loss: float
    gradient_norm: float
    images: int  # target views


@dataclass(frozen=True)
class Reading:
    """The results of the steps since the last reading, oldest first, and the seconds that these steps took."""

    results: list[StepResult]
    seconds: float
    waited_s: float  # seconds of waiting for data
    flops: float = 0.0  # FLOPs of the UNet; 0 if not counted

    @property
    def views_per_s(self) -> float:
        """Number of target views per second on which the model was trained."""
        return sum(result.images for result in self.results) / max(self.seconds, 1e-9)

    @property
    def data_wait_share(self) -> float:
        """Fraction of the time during which the loop waited for data, 0 to 1."""
        return self.waited_s / max(self.seconds, 1e-9)


class Meter:
    """Collects the results of steps on the device, and measures the time between readings of these results."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Create a meter without results. `clock` is a function that returns the current time in seconds."""
        self._clock = clock
        self._results = DeferredScalars[tuple[int, int]]()  # by step and number of images
        self.restart()

    def restart(self) -> None:
        """Restart the time measurement, to leave out time that was not spent on training."""
        self._started, self._waited_s, self._flops = self._clock(), 0.0, 0.0

    def wait_for(self, micro_batches: Iterator[T]) -> T:
        """Return the next item of `micro_batches`, and count the time until it is available as waiting for data."""
        started = self._clock()
        views = next(micro_batches)
        self._waited_s += self._clock() - started
        return views

    def add(self, step: int, loss: Tensor, gradient_norm: Tensor, images: int, flops: float = 0.0) -> None:
        """Add the result of a step without reading it from the device.

        Args:
            step: Number of the step, from 0.
            loss: Mean loss of the step, a scalar tensor.
            gradient_norm: Norm of the gradients before clipping, a scalar tensor.
            images: Number of target views of the step, summed over all ranks.
            flops: Floating-point operations of the UNet in the step on this rank; 0 if they are not counted.
        """
        self._results.add((step, images), loss.detach().float(), gradient_norm.detach().float())
        self._flops += flops

    def read(self) -> Reading:
        """Return the results added since the last reading, read in one transfer, and restart the time measurement.

        The host waits for the device.
        """
        results = [StepResult(step, loss, norm, images) for (step, images), (loss, norm) in self._results.read()]
        reading = Reading(results, self._clock() - self._started, self._waited_s, self._flops)
        self.restart()
        return reading


@dataclass(frozen=True)
class TrainingStatus:
    """The values that a run reports for the steps since the previous report."""

    steps: int  # done
    total_steps: int
    seen_images: int
    loss: float  # mean since the last reading
    learning_rate: float
    gradient_norm: float  # of the last step
    views_per_s: float
    data_wait_share: float
    eta_s: float
    mfu: float | None = None  # model FLOPs utilization, 0 to 1; None if it is not measured

    def line(self) -> str:
        """Return the line for the log."""
        eta = timedelta(seconds=round(self.eta_s))
        mfu = "" if self.mfu is None else f"MFU {self.mfu:.1%}  "
        return (
            f"step {self.steps:,}/{self.total_steps:,}  images {self.seen_images:,}  loss {self.loss:.4f}  "
            f"lr {self.learning_rate:.2e}  grad norm {self.gradient_norm:.3g}  views/s {self.views_per_s:.3g}  "
            f"{mfu}data wait {self.data_wait_share:.1%}  ETA {eta}"
        )

    def on_bar(self) -> dict[str, str]:
        """Return the values, as text by name, that the progress bar shows beside number of steps and remaining time."""
        mfu = {} if self.mfu is None else {"MFU": f"{self.mfu:.0%}"}
        return {
            "images": f"{self.seen_images:,}",
            "loss": f"{self.loss:.4f}",
            "lr": f"{self.learning_rate:.1e}",
            "norm": f"{self.gradient_norm:.3g}",
            "views/s": f"{self.views_per_s:.3g}",
            **mfu,
            "wait": f"{self.data_wait_share:.0%}",
        }

    def scalars(self) -> dict[str, float]:
        """Return the values to log once per report, by name.

        Loss, gradient norm and learning rate are not included, because they are logged for every step.
        """
        mfu = {} if self.mfu is None else {"mfu": self.mfu}
        return {
            "views_per_s": self.views_per_s,
            **mfu,
            "data_wait_share": self.data_wait_share,
            "seen_images": float(self.seen_images),
            "eta_s": self.eta_s,
        }


class Log(Protocol):
    """Protocol of a function that logs values, by name, for a step."""

    def __call__(self, values: Mapping[str, float], step: int) -> None: ...


@contextmanager
def open_log(out: Path, first_step: int, wandb_project: str | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """Yield a function that logs values to TensorBoard and, if a project is given, to W&B.

    If the disk is full, a warning is logged once, TensorBoard gets no further values, and the run continues.

    Args:
        out: Run folder; TensorBoard's files are written to its subfolder tensorboard/.
        first_step: First step that will be logged. Values that an interrupted run logged from this step on are hidden.
        wandb_project: Name of the W&B project. None: do not log to W&B.
        config: Settings of the run, for W&B.

    Raises:
        UserError: A project is given, and the package wandb is not installed.
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
            full = _warn_disk_full(out, error)

    try:
        yield log
    finally:
        try:
            writer.close()
        except OSError as error:
            _warn_disk_full(out, error)
        if wandb_run is not None:
            wandb_run.finish()


def _wait_for_later_name(folder: Path) -> None:
    """Wait, for up to a second, until a new event file gets a name with a later time than the event files in `folder`.

    TensorBoard reads event files in the order of their names, `events.out.tfevents.SECONDS.HOST.PID.COUNT`. COUNT is
    not padded with zeros. Of two files written in the same second, the newer file may therefore be read first, and the
    older file then hides the values of the newer file.
    """
    times = [name.split(".")[3] for name in (path.name for path in folder.glob("events.out.tfevents.*.*"))]
    latest = max((int(time_) for time_ in times if time_.isdigit()), default=0)
    now = time.time()
    if int(now) == latest:
        time.sleep(latest + 1 - now)


@contextmanager
def silent_log() -> Iterator[Log]:
    """Yield a log function that does nothing. Ranks other than 0 use this function."""
    yield lambda values, step: None


def _warn_disk_full(out: Path, error: OSError) -> bool:
    if not is_disk_full(error):
        raise error
    warn_not_written(f"{out / 'tensorboard'}: all curves from now on", error)
    return True


def import_wandb() -> Any:
    """Return the imported package wandb. Raises UserError when the package cannot be imported."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            f"--wandb: cannot import the package wandb ({error}); run `pip install wandb`, or leave out --wandb"
        ) from error


def _start_wandb(out: Path, project: str, config: Mapping[str, Any]) -> Any:
    id_file = out / WANDB_ID_FILE
    run_id = id_file.read_text().strip() if id_file.is_file() else None
    run = import_wandb().init(
        project=project, name=out.name, id=run_id, resume="allow", dir=str(out), config=dict(config)
    )
    id_file.write_text(f"{run.id}\n")
    logger.info("W&B: this run is logged to project %s as %s", project, run.id)
    return run
