"""Checkpoints of a run: `checkpoints/step-000000100/` with safetensors and JSON, whole or absent."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataset.errors import UserError

FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"step-(\d{9})")
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")  # AdamW's state of a parameter


@dataclass(frozen=True)
class Progress:
    """What a run remembers beside tensors: everything random is a function of the step."""

    steps: int  # finished
    skipped_in_a_row: int  # updates left out because the gradient was not finite


def save_checkpoint(
    out: Path, unet: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, *, keep: int
) -> Path:
    """Write the checkpoint of `progress.steps` under a temporary name, rename it; remove all but the last `keep`."""
    folder = out / FOLDER / f"step-{progress.steps:09d}"
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.detach().cpu() for name, tensor in unet.state_dict().items()}, temporary / "unet.safetensors"
    )
    save_file(_moments(unet, optimiser), temporary / "optimiser.safetensors")
    (temporary / "progress.json").write_text(json.dumps(asdict(progress)) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    for old in _checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return folder


def restore_checkpoint(out: Path, unet: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Load the newest checkpoint into the UNet and the optimiser; without one, nothing changes and no step is done."""
    found = _checkpoints(out)
    if not found:
        return Progress(0, 0)
    folder = found[-1]
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        unet.load_state_dict(load_file(folder / "unet.safetensors"))
        _restore_moments(unet, optimiser, load_file(folder / "optimiser.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: damaged ({reason}); remove it, and the run resumes from the one before") from error
    return progress


def _checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not (out / FOLDER).is_dir():
        return []
    return sorted(path for path in (out / FOLDER).iterdir() if _NAME.fullmatch(path.name))


def _moments(unet: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: Mapping[Tensor, Mapping[str, Any]] = optimiser.state
    return {
        f"{moment}.{name}": torch.as_tensor(state[parameter][moment]).detach().cpu()
        for name, parameter in unet.named_parameters()
        for moment in _MOMENTS
        if parameter in state
    }


def _restore_moments(unet: nn.Module, optimiser: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    for name, parameter in unet.named_parameters():
        if f"step.{name}" not in moments:
            continue
        # AdamW keeps `step` on the CPU, its moments beside the parameter
        optimiser.state[parameter] = {
            moment: moments[f"{moment}.{name}"].to("cpu" if moment == "step" else parameter.device)
            for moment in _MOMENTS
        }
