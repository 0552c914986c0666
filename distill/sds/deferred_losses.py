"""What steps report: their losses, and whether they were numbers. On a GPU they are read some steps later, together.

So the host never waits for a step. An update that must not be made is left out on the device
(`train.layers.compile.update`); the run ends when that is read, at the latest before the next checkpoint is written.
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from dataset.errors import UserError

READ_EVERY: Final = 50  # steps, on a GPU; elsewhere reading costs nothing


class StepResult(NamedTuple):
    """Scalars of a step, on the device."""

    losses: dict[str, Tensor]
    """By name, unweighted."""
    total: Tensor
    gradient_norm: Tensor


class Readings:
    """Results of steps that the host has not looked at yet."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._waiting: list[tuple[int, StepResult]] = []

    def add(self, step: int, result: StepResult) -> None:
        """Keep the result of a step."""
        self._waiting.append((step, result))

    def read(self, now: bool = False) -> list[tuple[int, dict[str, float]]]:
        """(step, losses by name) of the steps since the last reading, if there are enough of them or it is time.

        Raises UserError if a loss or a gradient was no number.
        """
        if not self._waiting or not (now or len(self._waiting) >= self._every):
            return []
        waiting, self._waiting = self._waiting, []
        rows = torch.stack([torch.stack(_numbers(result)) for _, result in waiting]).tolist()
        found = []
        for (step, result), (total, norm, *losses) in zip(waiting, rows, strict=True):
            check_finite(step, total, norm)
            found.append((step, dict(zip(result.losses, losses, strict=True))))
        return found


def _numbers(result: StepResult) -> list[Tensor]:
    return [number.detach() for number in (result.total, result.gradient_norm, *result.losses.values())]


def check_finite(step: int, total: float, gradient_norm: float) -> None:
    """Raise UserError if a step's loss or its gradient is no number."""
    if not (math.isfinite(total) and math.isfinite(gradient_norm)):
        raise UserError(
            f"step {step}: the loss is {total}, its gradient's norm {gradient_norm}; the last checkpoint is kept: "
            "try another --seed or a smaller --guidance-scale with another --out"
        )
