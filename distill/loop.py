"""The one loop of distillation: field + guidance -> field, with checkpoints, previews and resume.

A run folder holds `checkpoint.safetensors` (field, occupancy grid, optimiser; its header: the step and what was asked),
`losses.csv` and `previews/`. Everything random is drawn from (seed, step), so running again continues as if nothing had
happened: to the bit on a CPU.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.errors import UserError
from distill.guidance import Guidance, sds_loss
from distill.history import LOSSES, recorded
from distill.look import write_preview
from distill.march import render_views
from distill.schedule import DistillSettings, Draw, StepPlan, plan_step, torch_stream, views_until
from distill.shade import Light, lit, orientation_loss
from distill.state import CHECKPOINT, Distillation, new_distillation, resume, save_checkpoint


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
    with (
        _interrupts() as interrupted,
        recorded(folder / LOSSES, first, partial(views_until, settings)) as history,
        tqdm(total=settings.steps, initial=first, desc="distill", unit="step") as bar,
    ):
        for step in range(first, settings.steps):
            losses = train_step(state, settings, guidance, step)
            bar.set_postfix({name: f"{loss:.3g}" for name, loss in losses.items()}, refresh=False)
            bar.update()
            done, stop = step + 1, interrupted()
            history.record(done, losses)
            if stop or done == settings.steps or done % settings.checkpoint_every == 0:
                history.flush()
                save_checkpoint(state, folder / CHECKPOINT, done, asked)
            if stop:
                raise KeyboardInterrupt
            if done % settings.preview_every == 0:
                write_preview(state.field, state.occupancy, settings, folder / "previews" / f"step-{done:06d}.png")
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
