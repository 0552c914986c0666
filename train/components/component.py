"""Train a component (autoencoder or image encoder) before the diffusion model, and write the component's folder."""

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
from dataset.io.resume import differences, settings_differ
from train.config.schedules import Schedule, learning_rate
from train.layers.compile import separate_gradients

SETTINGS_FILE: Final = "training.json"  # written last
_LR_FACTOR: Final = "lr_factor"  # key of a parameter group of the optimizer: factor applied to the learning rate


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random generator for the CPU inside the block, then restore the generator's state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def optimize(
    name: str,
    parameters: Iterable[nn.Parameter],
    schedule: Schedule,
    loss_of_step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    *,
    pretrained: Iterable[nn.Parameter] = (),
    pretrained_lr_factor: float = 1.0,
) -> None:
    """Train the parameters of one component with AdamW.

    Args:
        name: Name of the component, for the progress bar and error messages.
        parameters: Parameters to train from random initial values.
        schedule: Number of steps and learning rates.
        loss_of_step: Function of the step number (from 0). Returns the loss (a scalar tensor), and named values to show
            in the progress bar.
        pretrained: Parameters with pretrained initial values.
        pretrained_lr_factor: Factor of the learning rate of the pretrained parameters.

    Raises:
        UserError: A gradient is not finite.
    """
    fresh, slow = list(parameters), list(pretrained)
    trained, groups = [*fresh, *slow], [{"params": fresh, _LR_FACTOR: 1.0}]
    if slow:
        groups.append({"params": slow, _LR_FACTOR: pretrained_lr_factor})
    optimizer = torch.optim.AdamW(groups, lr=schedule.peak_lr, weight_decay=1e-2)
    with _tf32(trained[0].device):
        _train_steps(name, trained, optimizer, schedule, loss_of_step)


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    """Inside the block, compute float32 matrix products on a GPU in TF32, as torch does for convolutions by default."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _train_steps(
    name: str,
    trained: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    loss_of_step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
) -> None:
    progress = ProgressBar(range(schedule.steps), desc=name, unit="step", mininterval=1.0)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step) * group[_LR_FACTOR]
        loss, shown = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        separate_gradients(trained)
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        if not bool(torch.isfinite(norm)):
            raise UserError(
                f"training of the {name}: the gradient of step {step} is not finite; lower `peak_lr` of the {name} in "
                "train/config/presets.py"
            )
        optimizer.step()
        progress.set_postfix({key: f"{value:.4f}" for key, value in shown.items()}, refresh=False)


def is_whole(folder: Path) -> bool:
    """Return whether the folder contains a component whose training has finished, with any settings."""
    return (folder / SETTINGS_FILE).is_file()


def is_trained(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether the folder contains a component trained with `settings`; False if the folder is missing.

    Raises:
        UserError: The folder contains no finished component, or a component that was trained with other settings.
    """
    path = folder / SETTINGS_FILE
    if not is_whole(folder):
        if folder.exists():
            raise UserError(
                f"{folder} exists, but contains no finished component ({SETTINGS_FILE} is missing); remove the folder, "
                "or give another --out"
            )
        return False
    changed = differences(json.loads(path.read_text()), json.loads(json.dumps(settings)))
    if changed:
        raise UserError(
            settings_differ(f"Training of {folder}", changed.values(), f"Remove {folder}, or give another --out.")
        )
    return True


def write_part(folder: Path, settings: Mapping[str, Any], save: Callable[[Path], None]) -> None:
    """Write a component's folder under a temporary name, then rename the folder to `folder`.

    Args:
        folder: Folder to write, which must not exist.
        settings: Training settings, stored in training.json.
        save: Function of a folder. Writes the component's files into this folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    save(temporary)
    (temporary / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    os.replace(temporary, folder)
