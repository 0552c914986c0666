"""The one loop of distillation: field + guidance -> field, with checkpoints, previews and resume.

A run folder holds `checkpoint.safetensors` (field, occupancy grid, optimiser; its header: the step and what was asked)
and `previews/`. Everything random is drawn from (seed, step), so running again continues as if nothing had happened:
to the bit on a CPU.
"""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dataset.errors import UserError
from distill.field import Field, read_header, read_tensors, write_tensors
from distill.guidance import Guidance, sds_loss
from distill.march import Occupancy, render_views
from distill.schedule import DistillSettings, Draw, StepPlan, plan_step, torch_stream
from distill.shade import Light, lit, orientation_loss
from distill.turntable import Render, write_views

CHECKPOINT: Final = "checkpoint.safetensors"
PREVIEW_ELEVATION_DEG: Final = 15.0


@dataclass(frozen=True)
class Distillation:
    """The state of a run."""

    field: Field
    occupancy: Occupancy
    optimizer: torch.optim.AdamW


def new_distillation(settings: DistillSettings, device: torch.device | str) -> Distillation:
    """The state at step 0: a function of the settings."""
    field = Field(settings.nerf, torch_stream(settings.seed, 0, Draw.FIELD)).to(device)
    occupancy = Occupancy(field.radius, settings.march).to(device)
    mlps = [*field.density_mlp.parameters(), *field.albedo_mlp.parameters()]
    groups = [
        {"params": list(field.grid.parameters()), "lr": settings.grid_learning_rate},
        {"params": mlps, "lr": settings.mlp_learning_rate},
    ]
    optimizer = torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.adam_epsilon, weight_decay=settings.weight_decay
    )
    return Distillation(field, occupancy, optimizer)


def distill(
    settings: DistillSettings,
    guidance: Guidance,
    folder: Path,
    *,
    asked: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> Distillation:
    """Run, or continue, the distillation in `folder` and return its final state.

    `asked` (JSON) says what determines the result; a checkpoint of something else is a UserError. Ctrl-C finishes the
    step, writes a checkpoint and raises KeyboardInterrupt.
    """
    state = new_distillation(settings, device)
    first = resume(state, folder / CHECKPOINT, asked)
    with _interrupts() as interrupted, tqdm(total=settings.steps, initial=first, desc="distill", unit="step") as bar:
        for step in range(first, settings.steps):
            losses = train_step(state, settings, guidance, step)
            bar.set_postfix({name: f"{loss:.3g}" for name, loss in losses.items()}, refresh=False)
            bar.update()
            done, stop = step + 1, interrupted()
            if stop or done == settings.steps or done % settings.checkpoint_every == 0:
                save_checkpoint(state, folder / CHECKPOINT, done, asked)
            if stop:
                raise KeyboardInterrupt
            if done % settings.preview_every == 0:
                write_preview(state, settings, folder / "previews" / f"step-{done:06d}.png")
    return state


def train_step(state: Distillation, settings: DistillSettings, guidance: Guidance, step: int) -> dict[str, float]:
    """One step of optimisation; returns its losses by name.

    Raises UserError, field and optimiser unchanged, if the loss or its gradient is no number.
    """
    plan = plan_step(settings, step, len(guidance.alphas_cumprod))
    state.occupancy.update(step, state.field.density, settings.seed)
    losses = _losses(state, settings, guidance, plan, step)
    total = settings.sds_weight * losses["sds"] + plan.orientation_weight * losses["orient"]
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    gradients = [parameter.grad for parameter in state.field.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not (math.isfinite(total.item()) and math.isfinite(norm.item())):
        raise UserError(
            f"step {step}: the loss is {total.item()}, its gradient's norm {norm.item()}; the last checkpoint is kept: "
            "try another --seed or a smaller --guidance-scale with another --out"
        )
    state.optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}


def _losses(
    state: Distillation, settings: DistillSettings, guidance: Guidance, plan: StepPlan, step: int
) -> dict[str, Tensor]:
    """Eq. 7 and Eq. 8, unweighted."""
    device = state.field.grid.table.device
    light = Light(torch.as_tensor(plan.light_position, dtype=torch.float32, device=device), plan.ambient)
    rendered = render_views(
        state.field,
        plan.views.c2w,
        plan.views.fov_deg,
        plan.resolution,
        settings=settings.march,
        occupancy=state.occupancy,
        shade=lit(plan.shading, light),
        generator=torch_stream(settings.seed, step, Draw.JITTER),
        device=device,
    )
    sds = sds_loss(
        guidance.encode(rendered.rgb.permute(0, 3, 1, 2)),
        plan.views,
        guidance,
        plan.timesteps,
        torch_stream(settings.seed, step, Draw.NOISE),
        form=settings.sds_form,
        rescale=settings.sds_rescale,
    )
    return {"sds": sds, "orient": orientation_loss(rendered.away, rendered.alpha)}


def save_checkpoint(state: Distillation, path: Path, step: int, asked: Mapping[str, Any]) -> None:
    """Write everything that the steps from `step` on need; the file appears whole or not at all."""
    header = {"step": str(step), "asked": json.dumps(asked, sort_keys=True)}
    write_tensors(path, _tensors(state), header)


def check_same(path: Path, asked: Mapping[str, Any]) -> None:
    """Raise UserError if there is a checkpoint at `path` of a run that was asked something else."""
    if not path.exists():
        return
    changed = _differences(json.loads(read_header(path)["asked"]), json.loads(json.dumps(asked)))
    if changed:
        raise UserError(
            f"{path} was made with other settings ({', '.join(changed)}); repeat that command or choose another --out"
        )


def resume(state: Distillation, path: Path, asked: Mapping[str, Any]) -> int:
    """Load a checkpoint into `state`, if there is one, and return the step to go on from."""
    check_same(path, asked)
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
    """Every tensor of a run by name; an optimiser's are `optimizer.PARAMETER.KEY`."""
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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names, with dots, of what differs between two JSON objects."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(prefix + name)
    return found


def write_preview(state: Distillation, settings: DistillSettings, path: Path) -> None:
    """A sheet of four views: colours and, below, normals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours, normals = renderers(state, settings, settings.coarse_resolution)
    write_views(
        colours,
        path,
        distance=view_distance(settings),
        elevation_deg=PREVIEW_ELEVATION_DEG,
        views=4,
        extra_rows=(normals,),
    )


def view_fov_deg(settings: DistillSettings) -> float:
    """The field of view for looking at a result: the middle of what it was distilled with."""
    return sum(settings.cameras.fov_deg) / 2


def view_distance(settings: DistillSettings) -> float:
    """The camera distance for looking at a result, with `view_fov_deg`."""
    return sum(settings.cameras.half_frame) / 2 / math.tan(math.radians(view_fov_deg(settings)) / 2)


def renderers(state: Distillation, settings: DistillSettings, resolution: int) -> tuple[Render, Render]:
    """Functions of camera-to-world [f, 4, 4]: colours, and normals mapped to [0, 1] on white; [f, h, w, 3]."""

    @torch.no_grad()
    def both(c2w: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rendered = render_views(
            state.field,
            c2w,
            view_fov_deg(settings),
            resolution,
            settings=settings.march,
            occupancy=state.occupancy,
            device=state.field.grid.table.device,
        )
        normals = 0.5 * (rendered.normal + rendered.alpha[..., None]) + 1 - rendered.alpha[..., None]
        return rendered.rgb.cpu().numpy(), normals.cpu().numpy()

    return lambda c2w: both(c2w)[0], lambda c2w: both(c2w)[1]


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is only noted, so that a step finishes; the second interrupts at once."""
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)
