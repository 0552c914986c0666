"""Losses and gradient norms of steps, read from the GPU several steps later, together.

The host therefore never waits for a step. The device itself skips an update with a non-finite loss or gradient
(`train.layers.compile.update`); the run ends when the host reads it, at the latest before the next checkpoint.
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from dataset.errors import UserError

READ_EVERY: Final = 50  # steps, on a GPU; elsewhere reading costs nothing


class DistillStepResult(NamedTuple):
    """Scalars of a step, on the device."""

    losses: dict[str, Tensor]
    """By name, unweighted."""
    total: Tensor
    gradient_norm: Tensor


class DeferredLosses:
    """Results of steps that the host has not read yet."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._waiting: list[tuple[int, DistillStepResult]] = []

    def add(self, step: int, result: DistillStepResult) -> None:
        """Keep the result of a step."""
        self._waiting.append((step, result))

    def read(self, now: bool = False) -> list[tuple[int, dict[str, float]]]:
        """(step, losses by name) since the last call, once `every` steps have been added or if `now`.

        Raises UserError if a loss or a gradient was not finite.
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


def _numbers(result: DistillStepResult) -> list[Tensor]:
    return [number.detach() for number in (result.total, result.gradient_norm, *result.losses.values())]


def check_finite(step: int, total: float, gradient_norm: float) -> None:
    """Check a step's loss and gradient norm.

    Raises:
        UserError: one of them is NaN or infinite.
    """
    if not (math.isfinite(total) and math.isfinite(gradient_norm)):
        raise UserError(
            f"step {step}: the loss is {total}, its gradient's norm {gradient_norm}; the last checkpoint is kept: "
            "try another --seed or a smaller --guidance-scale with another --out"
        )
