"""Losses and gradients that are not finite: their updates are left out, and a run that gets nothing else stops."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tqdm import tqdm

from dataset.errors import UserError
from train.data.loader import Feed
from train.loop.checkpoint import Progress
from train.loop.logging import StepResult

MAX_SKIPPED: Final = 10  # updates in a row left out before a run gives up
BAD_BATCH_FILE: Final = "bad-batch.json"


def account(progress: Progress, result: StepResult) -> Progress:
    """Progress after a step that has been read; an update that was left out is said."""
    seen = progress.seen_images + result.images
    if math.isfinite(result.loss) and math.isfinite(result.gradient_norm):
        return Progress(result.step + 1, 0, seen)
    skipped = progress.skipped_in_a_row + 1
    tqdm.write(
        f"step {result.step}: loss {result.loss}, gradient norm {result.gradient_norm}: "
        f"update left out ({skipped} in a row)"
    )
    return Progress(result.step + 1, skipped, seen)


def why_stop(progress: Progress, result: StepResult, stop_at_bad_loss: bool) -> str | None:
    """Why the run must end after this step, if it must."""
    if stop_at_bad_loss and not math.isfinite(result.loss):
        return f"the loss of step {result.step} is {result.loss}"
    if progress.skipped_in_a_row >= MAX_SKIPPED:
        return f"{progress.skipped_in_a_row} updates in a row had a loss or gradient that was not finite"
    return None


def account_all(
    progress: Progress, results: Sequence[StepResult], feed: Feed, out: Path, *, stop_at_bad_loss: bool
) -> Progress:
    """`account` of all steps read. Raises UserError, with the batch's uids on disk, when the run must end."""
    for result in results:
        progress = account(progress, result)
        reason = why_stop(progress, result, stop_at_bad_loss)
        if reason is not None:
            path = out / BAD_BATCH_FILE
            if feed.rank == 0:
                write_bad_batch(out, result, uids_of_step(feed, result.step), reason)
            raise UserError(
                f"{reason}: stopped; {path} names the objects of step {result.step}. Look at them; if they are sound, "
                "the learning rate is too high: give a lower one with --lr and start again in another --out"
            )
    return progress


def uids_of_step(feed: Feed, step: int) -> list[list[str]]:
    """The uids of each micro-batch of a step, all ranks' together."""
    first = step * feed.accumulation
    starts = [feed.item(number) for number in range(first, first + feed.accumulation)]
    orders = [replace(feed, rank=rank).order for rank in range(feed.world)]
    return [
        [feed.shards.uid(*order.item(i)[1:]) for i in range(start, start + feed.objects) for order in orders]
        for start in starts
    ]


def write_bad_batch(out: Path, result: StepResult, uids: Sequence[Sequence[str]], reason: str) -> Path:
    """OUT/bad-batch.json; non-finite numbers as text, because JSON has none."""
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
