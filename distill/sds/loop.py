"""The optimization loop: optimize a field with the SDS loss, write checkpoints and previews, and resume stopped runs.

A run folder contains `checkpoint.safetensors` (field, occupancy grid and optimizer, with the number of steps and the
request in its header), `losses.csv` and `previews/`. All random numbers are drawn from (seed, step), so a resumed run
gives the same result as an uninterrupted one: on a CPU bit for bit, on a GPU up to rounding and to the choice of one
step's samples (`distill.sds.march_ahead`).
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from dataset.io.interrupts import stop_after_step
from dataset.io.progress import ProgressBar
from distill.nerf.field import Field
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_marched
from distill.nerf.shading import PointLight, lit, orientation_loss
from distill.sds.checkpoint import CHECKPOINT, Distillation, new_distillation, resume, save_checkpoint
from distill.sds.deferred_losses import READ_EVERY, DeferredLosses, DistillStepResult, check_finite
from distill.sds.guidance import Guidance, sds_loss
from distill.sds.loss_log import LOSSES, open_loss_log
from distill.sds.march_ahead import MarchAhead, MarchedStep, march_step
from distill.sds.reference_loss import reference_loss
from distill.sds.schedule import DistillSettings, RandomPurpose, torch_stream, views_until
from train.device import to_device
from train.layers.compile import update

logger = logging.getLogger(__name__)

PREVIEWS: Final = "previews"  # folder inside a run folder
Watch = Callable[[int], bool]
"""Called after each step with the number of steps done; return True to stop the run."""
WritePreview = Callable[[Field, Occupancy, DistillSettings, Path], None]
"""Writes an image of the field to a path."""


def distill(
    settings: DistillSettings,
    guidance: Guidance,
    folder: Path,
    *,
    request: Mapping[str, Any],
    device: torch.device | str = "cpu",
    title: str = "distill",
    watch: Watch | None = None,
    write_preview: WritePreview | None = None,
) -> Distillation:
    """Run a distillation, or resume it from the checkpoint in the run folder, and return its final state.

    Args:
        settings: Settings of the distillation.
        guidance: Image encoder, denoiser and noise schedule of the SDS loss.
        folder: The run folder.
        request: All values that determine the result, as JSON values. They are stored in checkpoints, and a checkpoint
            with other values is refused.
        device: Device of the field and the renderer.
        title: Description of the progress bar.
        watch: Function that is called after each step with the number of steps done, and returns True to stop the run.
            With `watch`, there is no progress bar.
        write_preview: Function that writes an image of the field, called every `settings.preview_every` steps.

    Raises:
        UserError: the run folder contains a checkpoint of another request, or a loss is not finite.
        KeyboardInterrupt: Ctrl-C, SIGTERM or `watch` stopped the run. The current step was finished and a checkpoint
            was written.
    """
    state = new_distillation(settings, device)
    deferred = DeferredLosses(READ_EVERY if skips_updates_on_device(state.optimizer) else 1)
    first = resume(state, folder / CHECKPOINT, request)
    ahead = MarchAhead(state, settings, len(guidance.alphas_cumprod))
    with (
        stop_after_step() as interrupted,
        open_loss_log(folder / LOSSES, first, partial(views_until, settings)) as loss_log,
        ProgressBar(total=settings.steps, initial=first, desc=title, unit="step", disable=watch is not None) as bar,
    ):
        for step in range(first, settings.steps):
            deferred.add(step, train_step(state, settings, guidance, step, ahead))
            done, stop = step + 1, interrupted.is_set() or (watch is not None and watch(step + 1))
            saving = stop or done == settings.steps or done % settings.checkpoint_every == 0
            for read_step, losses in deferred.read(now=saving):
                loss_log.record(read_step + 1, losses)
                bar.set_postfix({name: f"{loss:.3g}" for name, loss in losses.items()}, refresh=False)
            bar.update()
            if saving:
                loss_log.flush()
                save_checkpoint(state, folder / CHECKPOINT, done, request)
            if stop:
                raise KeyboardInterrupt
            if write_preview is not None and done % settings.preview_every == 0:
                preview = folder / PREVIEWS / f"step-{done:06d}.png"
                write_preview(state.field, state.occupancy, settings, preview)
                if done - first <= settings.preview_every and watch is None:
                    logger.info("%s: the first preview", preview)
    return state


def train_step(
    state: Distillation, settings: DistillSettings, guidance: Guidance, step: int, ahead: MarchAhead | None = None
) -> DistillStepResult:
    """Do one step of the optimization, in place.

    If the loss or its gradient is not finite, the field and the optimizer stay unchanged. On a GPU the device itself
    skips the update, and `DeferredLosses` raises the error later.

    Args:
        state: The state of the distillation.
        settings: Settings of the distillation.
        guidance: Image encoder, denoiser and noise schedule of the SDS loss.
        step: Index of the step, counted from 0.
        ahead: Object that marches the rays of the next step while a GPU computes this one. None: rays are marched at
            the beginning of their step.

    Returns:
        The losses and the gradient norm of the step, on the device.

    Raises:
        UserError: the loss or its gradient is not finite (on a CPU).
    """
    state.occupancy.update(step, state.field.density, settings.seed)
    num_timesteps = len(guidance.alphas_cumprod)
    marched = ahead.take(step) if ahead else march_step(state, settings, step, num_timesteps)
    losses = _losses(state, settings, guidance, marched, step)
    total = settings.sds_weight * losses["sds"] + marched.plan.orientation_weight * losses["orient"]
    if "reference" in losses:
        total = total + settings.reference_weight * losses["reference"]
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    if ahead is not None:
        ahead.start(step + 1)
    gradients = [parameter.grad for parameter in state.field.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if skips_updates_on_device(state.optimizer):
        update(state.optimizer, total.detach(), norm)
    else:
        check_finite(step, total.item(), norm.item())
        state.optimizer.step()
    return DistillStepResult({name: loss.detach() for name, loss in losses.items()}, total.detach(), norm)


def skips_updates_on_device(optimizer: torch.optim.AdamW) -> bool:
    """Return whether the optimizer is fused, so that the GPU can skip an update without waiting for the host."""
    return bool(optimizer.defaults["fused"])


def _losses(
    state: Distillation, settings: DistillSettings, guidance: Guidance, marched: MarchedStep, step: int
) -> dict[str, Tensor]:
    """Return the unweighted losses: SDS (Eq. 7), orientation (Eq. 8), and the reference loss if its weight is not 0."""
    plan, device = marched.plan, state.field.grid.table.device
    light = PointLight(to_device(torch.from_numpy(plan.light_position).float(), device), plan.ambient)
    shade = lit(plan.shading, light)
    rendered = render_marched(state.field, marched.marched, plan.resolution, settings=settings.march, shade=shade)
    sds = sds_loss(
        guidance.encode(rendered.rgb.permute(0, 3, 1, 2)),
        plan.views,
        guidance,
        plan.timesteps,
        torch_stream(settings.seed, step, RandomPurpose.NOISE),
        form=settings.sds_form,
        rescale=settings.sds_rescale,
    )
    losses = {"sds": sds, "orient": orientation_loss(rendered.away, rendered.alpha)}
    if settings.reference_weight:
        if guidance.reference is None:
            raise ValueError(
                "the setting reference_weight is not 0, but the guidance has no reference view; set Guidance.reference"
            )
        losses["reference"] = reference_loss(
            state.field,
            guidance.reference,
            plan.resolution,
            settings=settings.march,
            occupancy=state.occupancy,
            generator=torch_stream(settings.seed, step, RandomPurpose.REFERENCE),
        )
    return losses
