"""Count steps whose loss or gradient is not finite, and stop the run after ten such steps in a row."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from train.data.loader import BatchLoader
from train.loop.checkpoint import Progress
from train.loop.logging import StepResult

MAX_SKIPPED: Final = 10  # updates skipped in a row before the run stops
BAD_BATCH_FILE: Final = "bad-batch.json"

logger = logging.getLogger(__name__)


def count_step(progress: Progress, result: StepResult) -> Progress:
    """Return the progress of the run after one more step.

    `progress` is the progress before this step, and `result` is the result of this step. If the loss or the gradient
    norm is not finite, the update of the weights was skipped, and the step is logged.
    """
    seen_images = progress.seen_images + result.images
    if math.isfinite(result.loss) and math.isfinite(result.gradient_norm):
        return Progress(result.step + 1, 0, seen_images)
    skipped = progress.skipped_in_a_row + 1
    logger.warning(
        "step %d: loss %s, gradient norm %s: update skipped (%d in a row)",
        result.step,
        result.loss,
        result.gradient_norm,
        skipped,
    )
    return Progress(result.step + 1, skipped, seen_images)


def stop_reason(progress: Progress, result: StepResult, stop_at_bad_loss: bool) -> str | None:
    """Return a text that says why the run must stop after a step. Return None if the run may continue.

    Args:
        progress: Progress of the run after the step.
        result: Result of the step.
        stop_at_bad_loss: Whether a single loss that is not finite stops the run (--fail-on-nan).
    """
    if stop_at_bad_loss and not math.isfinite(result.loss):
        return f"the loss of step {result.step} is {result.loss}"
    if progress.skipped_in_a_row >= MAX_SKIPPED:
        return f"{progress.skipped_in_a_row} updates in a row had a non-finite loss or gradient"
    return None


def count_steps(
    progress: Progress, results: Sequence[StepResult], loader: BatchLoader, out: Path, *, stop_at_bad_loss: bool
) -> Progress:
    """Return the progress of the run after several more steps.

    Args:
        progress: Progress of the run before these steps.
        results: Results of the steps, oldest first.
        loader: Loader of the micro-batches, from which the uids of the objects of a step are determined.
        out: Run folder.
        stop_at_bad_loss: Whether a single loss that is not finite stops the run (--fail-on-nan).

    Raises:
        UserError: The run must stop after one of the steps. The uids of the objects of this step are written to
            bad-batch.json in the run folder.
    """
    for result in results:
        progress = count_step(progress, result)
        reason = stop_reason(progress, result, stop_at_bad_loss)
        if reason is not None:
            path = out / BAD_BATCH_FILE
            if loader.rank == 0:
                write_bad_batch(out, result, uids_of_step(loader, result.step), reason)
            raise UserError(
                f"training stopped, because {reason}. {path} lists the objects of step {result.step}; look at their "
                "images. If the images are fine, the learning rate is too high: start a new run with a lower --lr and "
                "another --out"
            )
    return progress


def uids_of_step(loader: BatchLoader, step: int) -> list[list[str]]:
    """Return the uids of the objects of step `step` (from 0) on all ranks, as one list per micro-batch."""
    first = step * loader.accumulation
    starts = [loader.item(number) for number in range(first, first + loader.accumulation)]
    orders = [replace(loader, rank=rank).order for rank in range(loader.world)]
    return [
        [loader.shards.uid(*order.item(i)[1:]) for i in range(start, start + loader.objects) for order in orders]
        for start in starts
    ]


def write_bad_batch(out: Path, result: StepResult, uids: Sequence[Sequence[str]], reason: str) -> Path:
    """Write bad-batch.json into the run folder and return the path of this file.

    Args:
        out: Run folder.
        result: Result of the step that stopped the run. Numbers that are not finite are stored as text.
        uids: Uids of the step's objects, one list per micro-batch.
        reason: Why the run stopped.
    """
    path = out / BAD_BATCH_FILE
    content = {
        "reason": reason,
        "step": result.step,
        "loss": _number(result.loss),
        "gradient_norm": _number(result.gradient_norm),
        "micro_batches": [list(batch) for batch in uids],
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
