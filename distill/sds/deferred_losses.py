"""Losses and gradient norms that are read from the GPU for several steps at once, so that the host rarely waits.

The device itself skips an update if its loss or gradient is not finite (`train.layers.compile.update`). The run stops
when the host reads that loss, which happens before the next checkpoint at the latest.
"""

import math
from typing import Final, NamedTuple

from torch import Tensor

from dataset.errors import UserError
from train.device import DeferredScalars

READ_EVERY: Final = 50  # steps between reads on a GPU; on a CPU reading costs nothing


class DistillStepResult(NamedTuple):
    """The scalars of a step, still on the device."""

    losses: dict[str, Tensor]
    """Unweighted losses by name."""
    total: Tensor
    gradient_norm: Tensor


class DeferredLosses:
    """Results of steps that the host has not read yet."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._waiting = DeferredScalars[tuple[int, list[str]]]()  # by step and names of its losses

    def add(self, step: int, result: DistillStepResult) -> None:
        """Store the result of a step for a later read."""
        self._waiting.add((step, list(result.losses)), *_scalars(result))

    def read(self, now: bool = False) -> list[tuple[int, dict[str, float]]]:
        """Read the stored results if they are from at least `every` steps, or in any case if `now`.

        Returns:
            (step, losses by name) of each step that was read.

        Raises:
            UserError: a loss or a gradient was not finite.
        """
        if not self._waiting or not (now or len(self._waiting) >= self._every):
            return []
        results = []
        for (step, names), (total, norm, *losses) in self._waiting.read():
            check_finite(step, total, norm)
            results.append((step, dict(zip(names, losses, strict=True))))
        return results


def _scalars(result: DistillStepResult) -> list[Tensor]:
    return [scalar.detach() for scalar in (result.total, result.gradient_norm, *result.losses.values())]


def check_finite(step: int, total: float, gradient_norm: float) -> None:
    """Check a step's loss and gradient norm.

    Raises:
        UserError: one of them is NaN or infinite.
    """
    if not (math.isfinite(total) and math.isfinite(gradient_norm)):
        raise UserError(
            f"step {step}: the loss is {total} and its gradient norm {gradient_norm}; start again in another "
            "--out, with another --seed or a smaller --guidance-scale (the last checkpoint is kept)"
        )
