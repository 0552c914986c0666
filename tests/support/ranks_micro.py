"""The micro recipe on several gloo processes of this machine."""

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn

from tests.support.train_micro import CPU, micro_run
from train.distributed.process_group import Ranks, init_process_group
from train.layers.compile import update
from train.loop import loop, sample_sheet
from train.loop.loop import train
from train.loop.run_config import TrainingRun

STEPS = 6


def in_ranks(world: int, job: Callable[..., None], *args: Any) -> None:
    """Run `job(rank, world, rendezvous folder, *args)` in `world` new processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(job, (world, folder, *args), nprocs=world)  # type: ignore[no-untyped-call]


def ranks_run(shards: Path, out: Path, base: Path | None, **recipe: Any) -> TrainingRun:
    """STEPS steps of stage 1 from a base."""
    run = micro_run(shards, out, STEPS, base=base)
    return replace(run, recipe=replace(run.recipe, **recipe))


def train_in_turn(rank: int, world: int, folder: str, *jobs: tuple[str, TrainingRun, str]) -> None:
    """Run several trainings in the same processes; a job is (ddp or fsdp, run, event)."""
    torch.set_num_threads(1)
    sample_sheet.SAMPLE_STEPS = 2  # type: ignore[misc]
    for number, (parallel, run, event) in enumerate(jobs):
        meeting = f"file://{folder}/meeting-{number}"
        with init_process_group(
            rank, world, CPU, "fsdp" if parallel == "fsdp" else "ddp", init_method=meeting
        ) as ranks:
            _train(run, ranks, event)


def _train(run: TrainingRun, ranks: Ranks, event: str) -> None:
    if event == "averaged":
        loop.averages_after_backward = lambda compute, ranks: True
    if event == "poisoned" and ranks.rank == 1:
        _poison_step(2)
    if event != "stopped":
        train(run, ranks)
        loop.update, loop._loss = update, _plain_loss
        loop.averages_after_backward = _averages_after_backward
        return
    if ranks.rank == 1:  # the one that does not write
        _ask_to_stop_at(2)
    try:
        train(run, ranks)
    except KeyboardInterrupt:
        loop.update = update
        return
    raise AssertionError("no rank stopped")


_plain_loss = loop._loss
_averages_after_backward = loop.averages_after_backward


def _poison_step(step: int) -> None:
    def poisoned(run: Any, model: Any, views: Any, draw: Any, step_key: Any) -> Any:
        loss = _plain_loss(run, model, views, draw, step_key)
        # The loss alone, not its gradient: nothing but the other ranks' word can tell
        return loss + (torch.tensor(float("inf")) if step_key.step == step else 0.0)

    loop._loss = poisoned


def _ask_to_stop_at(step: int) -> None:
    steps: list[int] = []

    def asks(*args: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        update(*args)

    loop.update = asks
