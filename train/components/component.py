"""What the trainings of the small parts share: one plain loop, and a part folder that is whole or absent."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.io.progress import ProgressBar
from train.config.schedules import Schedule, learning_rate

SETTINGS_FILE: Final = "training.json"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights drawn inside depend on the seed alone, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def optimize(
    name: str,
    parameters: Iterable[nn.Parameter],
    schedule: Schedule,
    loss_of_step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
) -> None:
    """AdamW over the schedule. `loss_of_step` gives the loss and what the progress bar shows beside it."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=schedule.peak_lr, weight_decay=1e-2)
    with _tf32(trained[0].device):
        _descend(name, trained, optimiser, schedule, loss_of_step)


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    """On a GPU, float32 matrix products in TF32 inside, as its convolutions are anyway."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _descend(
    name: str,
    trained: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    loss_of_step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
) -> None:
    progress = ProgressBar(range(schedule.steps), desc=name, unit="step", mininterval=1.0)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step)
        loss, shown = loss_of_step(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        if not bool(torch.isfinite(norm)):
            raise UserError(f"{name}: the gradient of step {step} is not finite; lower the learning rate of its recipe")
        optimiser.step()
        progress.set_postfix({key: f"{value:.4f}" for key, value in shown.items()}, refresh=False)


def is_whole(folder: Path) -> bool:
    """Whether the folder holds a finished part, whatever its settings."""
    return (folder / SETTINGS_FILE).is_file()


def is_trained(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds this part already. Raises UserError when it was trained with other settings."""
    path = folder / SETTINGS_FILE
    if not is_whole(folder):
        if folder.exists():
            raise UserError(f"{folder}: holds something that was not trained here; give another --out")
        return False
    found = json.loads(path.read_text())
    wanted = json.loads(json.dumps(settings))
    changed = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if changed:
        raise UserError(
            f"{folder}: trained with other settings ({', '.join(changed)}); remove it or give another --out"
        )
    return True


def write_part(folder: Path, settings: Mapping[str, Any], save: Callable[[Path], None]) -> None:
    """Write a part into a temporary folder beside its place, then rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    save(temporary)
    (temporary / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    os.replace(temporary, folder)
