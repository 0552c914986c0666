"""Shorter schedules of a distillation, to measure how much time they save and how much quality they cost.

`distill_bench --schedule NAME` measures the time, `oracle_assets --schedule NAME` the quality with a perfect denoiser.
For the quality with a model, `python -m distill.evaluate --steps N` has the schedule `fast`. None of the others is an
option of `python -m distill`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from distill.sds.schedule import DistillSettings


@dataclass(frozen=True)
class Schedule:
    """How a schedule differs from the full one. All schedules are fractions of the run and shrink with it."""

    steps: float = 1.0  # number of steps, relative to the full schedule
    learning_rates: float = 1.0  # relative to the full schedule
    coarse_fraction: float | None = None  # None: as in the full schedule
    anneal_fraction: float | None = None  # smaller: the timesteps fall faster and are low for longer


SCHEDULES: Final[Mapping[str, Schedule]] = {
    "full": Schedule(),
    "fast": Schedule(steps=0.5),
    "fast-rates": Schedule(steps=0.5, learning_rates=1.5),
    "fast-coarse": Schedule(steps=0.5, coarse_fraction=0.6),
    "fast-anneal": Schedule(steps=0.5, anneal_fraction=0.6),
    "faster": Schedule(steps=0.35, learning_rates=1.5),
}


def shortened(settings: DistillSettings, name: str) -> DistillSettings:
    """Return settings with the schedule `name` of `SCHEDULES`."""
    schedule = SCHEDULES[name]
    return replace(
        settings,
        steps=max(2, round(schedule.steps * settings.steps)),
        coarse_fraction=settings.coarse_fraction if schedule.coarse_fraction is None else schedule.coarse_fraction,
        anneal_fraction=settings.anneal_fraction if schedule.anneal_fraction is None else schedule.anneal_fraction,
        grid_learning_rate=schedule.learning_rates * settings.grid_learning_rate,
        mlp_learning_rate=schedule.learning_rates * settings.mlp_learning_rate,
    )
