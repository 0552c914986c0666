"""Number of steps, batch size and learning rate of a training run, without any torch code."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

import tyro

from dataset.errors import UserError

T = TypeVar("T")
PresetOnly = Annotated[T, tyro.conf.Fixed, tyro.conf.Suppress]
"""A field that only a preset sets; it is not a command-line option."""


@dataclass(frozen=True)
class Schedule:
    """Number of optimizer steps, batch size and learning rate of a training run with AdamW."""

    steps: int
    """Number of optimizer steps."""
    objects: Annotated[int, tyro.conf.arg(name="batch-size")]
    """Number of objects per step, summed over all GPUs and accumulated micro-batches."""
    accumulation: Annotated[int, tyro.conf.arg(name="grad-accum-steps")]
    """Number of micro-batches into which a GPU divides its objects of a step. A larger number needs less memory."""
    peak_lr: Annotated[float, tyro.conf.arg(name="lr")]
    """Peak learning rate."""
    decay: PresetOnly[Literal["constant", "linear"]]  # linear: from the peak to 0 at the last step
    warmup_steps: PresetOnly[int]  # cut to a tenth of `steps` if it does not fit (with a notice)

    def __post_init__(self) -> None:
        """Raise UserError, naming the command-line option, when the value of a field is out of range."""
        require_positive({"--steps": self.steps, "--batch-size": self.objects, "--grad-accum-steps": self.accumulation})
        if not 0 < self.peak_lr < math.inf:
            raise UserError(
                f"--lr is {self.peak_lr}; it must be a finite number above 0 (the paper uses 1e-4 and 5e-5)"
            )


def require_positive(options: dict[str, int | None]) -> None:
    """Raise UserError, naming the option, when the value of an option is below 1.

    Args:
        options: Values by option name, such as "--steps". None: the option is not used, which is valid.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")


def warmup_of(schedule: Schedule) -> int:
    """Return the number of steps in which the learning rate rises to its peak.

    This is the schedule's `warmup_steps`, or a tenth of the schedule's `steps` if `warmup_steps` is not smaller than
    `steps`.
    """
    if schedule.warmup_steps < schedule.steps:
        return schedule.warmup_steps
    return schedule.steps // 10


def learning_rate(schedule: Schedule, step: int) -> float:
    """Return the learning rate at step `step` (from 0): a linear warm-up, then constant or decaying linearly to 0."""
    warmup = warmup_of(schedule)
    if step < warmup:
        return schedule.peak_lr * (step + 1) / warmup
    if schedule.decay == "constant":
        return schedule.peak_lr
    return schedule.peak_lr * max(schedule.steps - step, 0) / (schedule.steps - warmup)


def notices(schedule: Schedule) -> tuple[str, ...]:
    """Return log messages: one if the warm-up is shortened because the run has too few steps, otherwise none."""
    warmup = warmup_of(schedule)
    if warmup == schedule.warmup_steps:
        return ()
    return (f"the warm-up of {schedule.warmup_steps} steps does not fit into {schedule.steps} steps; using {warmup}",)


def is_divisible(schedule: Schedule, world: int) -> bool:
    """Return whether the objects of a step can be divided evenly among `world` ranks and their micro-batches."""
    return schedule.objects >= 1 and schedule.objects % (world * schedule.accumulation) == 0


def most_ranks(schedules: Iterable[Schedule], limit: int) -> int:
    """Return the largest number of ranks, at most `limit`, that divides the steps of all schedules; 1 if none does."""
    stages = list(schedules)
    return max((world for world in range(1, limit + 1) if all(is_divisible(each, world) for each in stages)), default=1)


def objects_per_micro_batch(schedule: Schedule, world: int) -> int:
    """Return the number of objects in a micro-batch of one rank.

    Raises UserError when the objects of a step cannot be divided evenly among `world` ranks and their micro-batches.
    """
    if not is_divisible(schedule, world):
        raise UserError(
            f"--batch-size {schedule.objects} does not divide into {world} ranks x {schedule.accumulation} "
            "micro-batches per rank (--grad-accum-steps); change --batch-size or --grad-accum-steps"
        )
    return schedule.objects // (world * schedule.accumulation)


def batch_in_shares(schedule: Schedule, world: int, kind: str) -> str:
    """Describe the batch size, for example "768 objects per step = 48 per GPU x 4 GPUs x 4 accumulated".

    Args:
        schedule: The schedule of the run.
        world: Number of ranks.
        kind: The word to use for a rank: "GPU" or "process".
    """
    share, many = objects_per_micro_batch(schedule, world), "es" if kind.endswith("s") else "s"
    ranks = f"{world} {kind}{many if world > 1 else ''}"
    return f"{schedule.objects} objects per step = {share} per {kind} x {ranks} x {schedule.accumulation} accumulated"


def override(schedule: Schedule, *, steps: int | None = None, objects: int | None = None) -> Schedule:
    """Return the schedule with another number of steps or another number of objects per step.

    None keeps the schedule's own number. Raises UserError when a number is below 1.
    """
    return replace(
        schedule,
        steps=schedule.steps if steps is None else steps,
        objects=schedule.objects if objects is None else objects,
    )
