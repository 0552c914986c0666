"""Losses and gradient norms that are read from the GPU for several steps at once, so that the host rarely waits.

If the loss or the gradient of a step is not finite, the GPU itself skips the update of the parameters
(`train.layers.compile.update`). The run stops when the host reads this loss, which happens before the next checkpoint
at the latest.
"""

import math
from typing import Final, NamedTuple

from torch import Tensor

from dataset.errors import UserError
from train.device import DeferredScalars

READ_EVERY: Final = 50  # steps between reads on a GPU; on a CPU reading costs nothing


class DistillStepResult(NamedTuple):
    """The losses and the gradient norm of a step, as scalar tensors that are still on the device."""

    losses: dict[str, Tensor]
    """Unweighted losses by name."""
    total: Tensor
    gradient_norm: Tensor


class DeferredLosses:
    """Results of steps that the host has not read yet.

    They are read together, once the results of `every` steps (an argument of the constructor) are stored.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._waiting = DeferredScalars[tuple[int, list[str]]]()  # by step and names of its losses

    def add(self, step: int, result: DistillStepResult) -> None:
        """Store the result of a step, so that it is read later. `step` is the index of the step, counted from 0."""
        self._waiting.add((step, list(result.losses)), *_scalars(result))

    def read(self, now: bool = False) -> list[tuple[int, dict[str, float]]]:
        """Read the stored results from the device, if there are enough of them.

        Args:
            now: Read the results even if there are fewer than `every`.

        Returns:
            For each step whose result was read, its index, counted from 0, and its losses by name. Empty if none was
            read.

        Raises:
            UserError: the loss or the gradient norm of a step is NaN or infinite.
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
    """Check that the loss and the gradient norm of a step are finite.

    Args:
        step: Index of the step, counted from 0.
        total: The weighted sum of all losses.
        gradient_norm: The norm of the gradient of this sum.

    Raises:
        UserError: the loss or the gradient norm is NaN or infinite.
    """
    if not (math.isfinite(total) and math.isfinite(gradient_norm)):
        raise UserError(
            f"step {step}: the loss is {total} and the gradient norm {gradient_norm}, but both must be finite; "
            "start again with another --out, and with another --seed or a smaller --guidance-scale (the last "
            "checkpoint is kept)"
        )
