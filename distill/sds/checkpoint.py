"""The state of a distillation, and checkpoints from which a run resumes exactly.

A checkpoint is the file `checkpoint.safetensors`, which contains the tensors of the field, the occupancy grid and the
optimizer. Its header contains the number of steps done (key `step`) and the request of the run (key `asked`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from dataset.errors import UserError
from dataset.io.resume import differences, settings_differ
from distill.nerf.field import Field, read_header, read_tensors, write_tensors
from distill.nerf.occupancy import Occupancy
from distill.sds.schedule import WITHOUT_EFFECT, DistillSettings, RandomPurpose, torch_stream

CHECKPOINT: Final = "checkpoint.safetensors"


@dataclass(frozen=True)
class Distillation:
    """The state of a distillation: the field, its occupancy grid and the optimizer of its parameters."""

    field: Field
    occupancy: Occupancy
    optimizer: torch.optim.AdamW


def new_distillation(settings: DistillSettings, device: torch.device | str) -> Distillation:
    """Return the state of a distillation before its first step. It depends only on the settings.

    Args:
        settings: Settings of the distillation.
        device: Device of the field and the occupancy grid.
    """
    field = Field(settings.nerf, torch_stream(settings.seed, 0, RandomPurpose.FIELD)).to(device)
    occupancy = Occupancy(field.radius, settings.march).to(device)
    mlps = [*field.density_mlp.parameters(), *field.albedo_mlp.parameters()]
    groups = [
        {"params": list(field.grid.parameters()), "lr": settings.grid_learning_rate},
        {"params": mlps, "lr": settings.mlp_learning_rate},
    ]
    fused: Any = True if torch.device(device).type == "cuda" else None  # one kernel, which can skip an update
    optimizer = torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.adam_epsilon, weight_decay=settings.weight_decay, fused=fused
    )
    return Distillation(field, occupancy, optimizer)


def save_checkpoint(state: Distillation, path: Path, step: int, request: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        state: The state after `step` steps.
        path: The checkpoint file.
        step: Number of steps done.
        request: The request of the run, as JSON values.
    """
    header = {"step": str(step), "asked": json.dumps(request, sort_keys=True)}
    write_tensors(path, _tensors(state), header)


def check_same_request(path: Path, request: Mapping[str, Any]) -> None:
    """Check that a checkpoint belongs to a given request. Settings that do not affect the result may differ.

    Args:
        path: The checkpoint file, which need not exist.
        request: The request, as JSON values.

    Raises:
        UserError: the checkpoint was made with other settings.
    """
    if not path.exists():
        return
    changed = differences(json.loads(read_header(path)["asked"]), json.loads(json.dumps(request)), WITHOUT_EFFECT)
    if changed:
        raise UserError(
            settings_differ(
                str(path), changed.values(), "Repeat the command with the earlier settings, or choose another --out."
            )
        )


def resume(state: Distillation, path: Path, request: Mapping[str, Any]) -> int:
    """Load a checkpoint, if it exists, into the state of a distillation.

    Args:
        state: The state, which is changed in place.
        path: The checkpoint file, which need not exist.
        request: The request of the run, as JSON values. It must agree with the request in the checkpoint, except for
            settings that do not affect the result.

    Returns:
        The number of steps done; 0 without a checkpoint.

    Raises:
        UserError: the checkpoint was made with other settings or is damaged.
    """
    check_same_request(path, request)
    if not path.exists():
        return 0
    tensors, header = read_tensors(path)
    state.field.load_state_dict(_under("field.", tensors))
    state.occupancy.load_state_dict(_under("occupancy.", tensors))
    saved = state.optimizer.state_dict()
    saved["state"] = _nested(_under("optimizer.", tensors))
    state.optimizer.load_state_dict(saved)
    return int(header["step"])


def _tensors(state: Distillation) -> dict[str, Tensor]:
    """Return all tensors of a state by name. Tensors of the optimizer are named `optimizer.PARAMETER.KEY`."""
    moments = state.optimizer.state_dict()["state"]
    return {
        **{f"field.{name}": tensor for name, tensor in state.field.state_dict().items()},
        **{f"occupancy.{name}": tensor for name, tensor in state.occupancy.state_dict().items()},
        **{f"optimizer.{index}.{key}": tensor for index, keys in moments.items() for key, tensor in keys.items()},
    }


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _nested(moments: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        index, key = name.split(".")
        nested.setdefault(int(index), {})[key] = tensor
    return nested
