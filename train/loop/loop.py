"""The training loop of both stages. Start reading at `train`.

A run folder contains config.json (written first), checkpoints/, samples/ and tensorboard/, and vae/ and image_tower/ if
the run trains these components. At the end, the parts of the model and model.json are written, so that the run folder
is a model folder too. The same command resumes an interrupted run, with the same final weights as without interruption.

The host waits for the GPU only when it reads results (`train.loop.logging`), every `log_every` steps and before a
checkpoint. The device itself skips the update of a non-finite step; the host detects this at the next reading.

Several ranks (`train.distributed.process_group`) run this same loop, each on its own micro-batches. Rank 0 writes,
logs, validates and samples. All decisions depend on values that are equal on all ranks (the mean loss, the gradient
norm, whether to stop), so all ranks do the same steps.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dataset.io.interrupts import stop_after_step
from dataset.io.progress import ProgressBar
from dataset.reading.damage import Damage
from dataset.reading.latent_set import LatentSet
from train.components.component import is_whole
from train.config.schedules import batch_in_shares, learning_rate, objects_per_micro_batch
from train.data.latent_cache import cache_if_small
from train.data.latents import TrainingBatch, check_latents
from train.data.loader import BatchLoader
from train.data.sampling import DiffusionNoise, StepKey, add_embedding_noise, draw_noise
from train.data.splits import split_set
from train.data.training_set import TrainingSet, open_training_set, require_enough_objects, require_images
from train.distributed.fsdp import whole_model
from train.distributed.gradients import average_gradients, broadcast_weights
from train.distributed.process_group import ALONE, Ranks, accumulating, clip_norm, wrap_ddp_or_fsdp
from train.layers.compile import (
    Compute,
    announcement,
    choose_compute,
    make_optimizer,
    prepare,
    separate_gradients,
    uncompiled,
    update,
)
from train.loop.checkpoint import CheckpointWriter, Keep, Progress, restore_checkpoint
from train.loop.disk_full import continue_without, require_disk_space
from train.loop.flops import MfuMeter, mfu_meter, number_of_frames
from train.loop.initial_model import initial_model
from train.loop.logging import Log, Meter, Reading, TrainingStatus, open_log, silent_log
from train.loop.loss import encode_views, predict, training_loss
from train.loop.nan_guard import count_steps
from train.loop.run_config import TrainingRun, check_run, describe, log_notices, write_or_check_config
from train.loop.sample_sheet import write_sample_sheet
from train.loop.validation import validate
from train.model.multiview import SPEC_FILE, MultiViewModel, save_model
from train.model.reference import prepare_for_reference
from train.model.weight_averaging import Average, start_average, update_average

Due = Literal["line", "checkpoint", "validation", "samples", "stop"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSetup:
    """The objects that the training loop uses: settings, model, optimizer, data and ranks."""

    run: TrainingRun
    model: MultiViewModel
    optimizer: torch.optim.AdamW
    average: Average | None
    loader: BatchLoader
    held_out: BatchLoader | None  # the objects that are not trained on
    damage: Damage
    compute: Compute = field(default_factory=Compute)
    mfu_meter: MfuMeter | None = None  # on a GPU
    ranks: Ranks = ALONE
    wrapped_unet: nn.Module | None = None  # the module to call for the loss (DDP's wrapper); None: the UNet itself
    averages_gradients: bool = False  # average the gradients after the backward pass, because no wrapper does

    @property
    def trained(self) -> MultiViewModel:
        """The model that computes the loss: `model`, with its UNet replaced by `wrapped_unet` unless that is None."""
        return self.model if self.wrapped_unet is None else replace(self.model, unet=self.wrapped_unet)


def train(run: TrainingRun, ranks: Ranks = ALONE) -> list[float]:
    """Train to the last step of a run and write the model. A run that was interrupted is resumed.

    Args:
        run: Settings of the run.
        ranks: The rank of this process among all ranks of the run.

    Returns:
        The mean loss of each step that this call did.

    Raises:
        UserError: The run cannot start, or must stop because losses or gradients are not finite.
        KeyboardInterrupt: A signal stopped the run. A checkpoint was written.
    """
    with ranks.rank0_stdout():
        check_run(run, ranks.world)
        shards = _open(run, ranks.world)
        with ranks.rank0_first():
            if ranks.first:
                write_or_check_config(run, shards)
        ranks.check_shared(run.out)
        if (run.out / SPEC_FILE).is_file():
            logger.info("%s: this run is finished already", run.out)
            return []
        log_notices(run)
        kind = "GPU" if run.device.type == "cuda" else "process"
        logger.info("%s", batch_in_shares(run.schedule, ranks.world, kind))
        return _train(run, shards, ranks)


def _train(run: TrainingRun, shards: TrainingSet, ranks: Ranks) -> list[float]:
    setup = _set_up(run, shards, ranks)
    schedule, recipe = run.schedule, run.recipe
    unet, optimizer, average = setup.model.unet, setup.optimizer, setup.average
    progress = restore_checkpoint(run.out, unet, optimizer, average)
    setup = _resume_data(setup, progress)
    first_step, losses, meter, began = progress.steps, list[float](), Meter(), time.perf_counter()
    micro_batches = noised_micro_batches(setup, first_step, schedule.steps)
    keep = Keep(recipe.keep_checkpoints, recipe.archive_every)
    with ExitStack() as stack:
        logged = open_log(run.out, first_step, run.wandb, describe(run, shards)) if ranks.first else silent_log()
        log, stop = stack.enter_context(logged), stack.enter_context(stop_after_step(second_raises=False))
        checkpoints = stack.enter_context(CheckpointWriter(run.out, keep, writes=ranks.first))
        steps_left = range(first_step, schedule.steps)
        shown: dict[str, Any] = {"initial": first_step, "unit": "step", "disable": not ranks.first}
        bar = ProgressBar(steps_left, f"stage {run.stage}", schedule.steps, **shown)
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(schedule, step)
            _step(setup, meter, micro_batches, step)
            if average is not None and recipe.average_decay is not None:
                update_average(average, unet, step, recipe.average_decay)

            due = _due(run, step + 1, ranks.stopping(stop.is_set(), step + 1, recipe.log_every))
            if not due:
                continue
            reading = meter.read()
            setup.damage.merge(ranks.gather(setup.damage.reasons))
            progress = count_steps(
                progress, reading.results, setup.loader, run.out, stop_at_bad_loss=recipe.stop_at_bad_loss
            )
            losses += [result.loss for result in reading.results]
            status = _status(setup, progress, reading, (time.perf_counter() - began) / (progress.steps - first_step))
            _write_log(log, run, reading, status)
            bar.set_postfix(status.on_bar(), refresh=False)
            if "line" in due:
                logger.info("%s", status.line())
            checkpoints.poll()
            if "checkpoint" in due:
                saved = replace(progress, stream=setup.loader.state(progress.steps), damaged=setup.damage.reasons)
                checkpoints.save(unet, optimizer, saved, average)
            _validate_and_sample(setup, log, progress.steps, due)
            if "stop" in due and progress.steps < schedule.steps:
                raise KeyboardInterrupt
            meter.restart()
    setup.damage.log_all()
    if checkpoints.failures:
        logger.warning("%d checkpoints were not written, because the disk was full", checkpoints.failures)
    if average is not None:
        logger.info("the model has the averaged weights (decay %g)", recipe.average_decay)
    with (
        whole_model(setup.model, average, here=ranks.first) as model,
        require_disk_space(f"{run.out}: the finished model"),
    ):
        if model is not None:
            save_model(model, run.out)
    ranks.wait()
    logger.info("wrote %s", run.out)
    return losses


def _open(run: TrainingRun, world: int) -> TrainingSet:
    """Open the run's set. Raises UserError if it has too few objects, or has latents but components must be trained."""
    shards = open_training_set(run.shards, run.filters, world)
    if run.base is None and not all(is_whole(run.out / part) for part in ("vae", "image_tower")):
        require_images(shards, "a model trained from scratch")
    return shards


def _set_up(run: TrainingRun, shards: TrainingSet, ranks: Ranks = ALONE) -> TrainingSetup:
    recipe = run.recipe
    training, held_out = split_set(shards, recipe.validation, recipe.test_share)
    require_enough_objects(training, world=ranks.world)
    damage = Damage(len(training), recipe.max_damaged_share)
    with ranks.rank0_first():
        model = initial_model(run, training, damage)
    cache = None
    if isinstance(training, LatentSet):
        check_latents(training, model, sample_posterior=recipe.sample_posterior)
        cache = cache_if_small(training, model.spec.cameras)
    unet, on_gpu = prepare_for_reference(model.unet, run.reference).train(), run.device.type == "cuda"
    drops = run.reference_drop_chance > 0
    views = (1, recipe.num_views)
    meter = mfu_meter(unet, run.reference, views, run.device, drops_reference=drops) if on_gpu else None
    compute = choose_compute(
        run.device,
        run.compile,
        checkpointing=recipe.activation_checkpointing,
        split=ranks.sharded,
        blocks=run.blocks,
    )
    logger.info("%s", announcement(compute, run.device))
    prepare(unet, compute)
    averages = averages_after_backward(compute, ranks)
    if averages:
        broadcast_weights(unet, ranks)
    wrapped = unet if averages else wrap_ddp_or_fsdp(unet, ranks)
    optimizer = make_optimizer(
        unet.parameters(), compute, lr=run.schedule.peak_lr, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    return TrainingSetup(
        run,
        model,
        optimizer,
        average=None if recipe.average_decay is None else start_average(unet),
        loader=replace(_loader(run, training, model, damage, ranks), cache=cache),
        held_out=None if held_out is None else _loader(run, training, model, damage).of_objects(held_out),
        damage=damage,
        compute=compute,
        mfu_meter=meter,
        ranks=ranks,
        wrapped_unet=wrapped,
        averages_gradients=averages,
    )


def averages_after_backward(compute: Compute, ranks: Ranks) -> bool:
    """Return whether gradients are averaged after the backward pass, as CUDA graphs need, instead of by DDP."""
    return compute.compile == "graphs" and ranks.world > 1


def _resume_data(setup: TrainingSetup, progress: Progress) -> TrainingSetup:
    """Return the setup with the loader at the checkpoint's position in the data.

    The corrupt objects found before the checkpoint are added to the setup's record.
    """
    setup.damage.restore(progress.damaged)
    if progress.stream is None:
        return setup
    loader, message = setup.loader.resumed(progress.stream)
    if message:
        logger.info("%s", message)
    return replace(setup, loader=loader)


def _due(run: TrainingRun, steps: int, stopping: bool) -> frozenset[Due]:
    """Return which actions are due after `steps` steps. `stopping` is true if the run stops after this step."""
    recipe, last = run.recipe, steps == run.schedule.steps
    every: tuple[tuple[Due, int | None, bool], ...] = (
        ("line", recipe.log_every, last),
        ("checkpoint", recipe.checkpoint_every, stopping),
        ("checkpoint", recipe.archive_every, False),
        ("validation", recipe.validate_every, last),
        ("samples", recipe.picture_every, last),
        ("stop", None, stopping),
    )
    return frozenset(name for name, period, now in every if now or (period is not None and steps % period == 0))


def noised_micro_batches(
    setup: TrainingSetup, first_step: int, last_step: int
) -> Iterator[tuple[TrainingBatch, DiffusionNoise]]:
    """Yield the micro-batches of the steps `first_step` to `last_step` - 1 (from 0) with their random numbers.

    The loader's threads read the micro-batches ahead of time.
    """
    return setup.loader.ahead(partial(load_with_noise, setup.run, setup.model, setup.loader), first_step, last_step)


def load_with_noise(
    run: TrainingRun, model: MultiViewModel, loader: BatchLoader, number: int
) -> tuple[TrainingBatch, DiffusionNoise]:
    """Read a micro-batch, and draw its timesteps, its noise and the image tokens to drop.

    `number` is the number of the micro-batch, counted from 0 at the beginning of training.
    """
    views, size = loader.load(number), model.spec.latent_size
    channels = int(model.unet.config.out_channels)  # type: ignore[union-attr, arg-type]
    shape = (*views.cameras.shape[:2], channels, size, size)
    return views, draw_noise(loader.step_key(number), shape, run.recipe.drop_chance).pinned_for(model.device)


def _step(
    setup: TrainingSetup, meter: Meter, micro_batches: Iterator[tuple[TrainingBatch, DiffusionNoise]], step: int
) -> None:
    """Do optimizer step `step` (from 0) over its micro-batches, without reading results from the device."""
    run, model, ranks, accumulation = setup.run, setup.trained, setup.ranks, setup.run.schedule.accumulation
    setup.optimizer.zero_grad(set_to_none=True)
    loss, images, flops = torch.zeros((), device=model.device), 0, 0.0
    for micro in range(accumulation):
        views, draw = meter.wait_for(micro_batches)
        with accumulating(model.unet, ranks, last=setup.averages_gradients or micro == accumulation - 1):
            micro_loss = _loss(run, model, views, draw, StepKey(run.seed, step, micro, ranks.rank)) / accumulation
            micro_loss.backward()  # type: ignore[no-untyped-call]
            # In a single level, which FSDP2 compiles, no gradients were seen to share memory.
            if setup.compute.compile != "none" and not ranks.sharded:
                separate_gradients(setup.model.unet.parameters())
        loss += micro_loss.detach()
        objects, targets = views.cameras.shape[:2]
        images += objects * targets * ranks.world
        frames = number_of_frames(run.reference, targets, dropped=run.drops_reference(step))
        flops += objects * setup.mfu_meter.per_object[frames] if setup.mfu_meter else 0.0  # on this rank
    if setup.averages_gradients:
        average_gradients(model.unet.parameters(), ranks)
    ranks.mean(loss)  # so that all ranks skip the same updates
    norm = clip_norm(model.unet.parameters(), run.recipe.clip_norm)
    update(setup.optimizer, loss, norm)
    meter.add(step, loss, norm, images, flops)


def _validate_and_sample(setup: TrainingSetup, log: Log, steps: int, due: frozenset[Due]) -> None:
    """On rank 0, validate and write samples if these actions are due, with the averaged weights if there are any.

    The other ranks wait.
    """
    run = setup.run
    if not due & {"validation", "samples"}:
        return
    with uncompiled(setup.compute), whole_model(setup.model, setup.average, here=setup.ranks.first) as model:
        if model is not None and setup.held_out is not None and "validation" in due:
            for title, with_reference in (("validation", True), ("validation without reference", False)):
                if not with_reference and run.reference == "none":
                    continue
                losses = validate(model, setup.held_out, run.reference, with_reference=with_reference)
                log({f"{title.replace(' ', '_')}/{name}": value for name, value in losses.items()}, steps - 1)
                logger.info("%s  %s", title, "  ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        if model is not None and "samples" in due:
            with continue_without(f"{run.out}: samples of step {steps}"):
                write_sample_sheet(run, model, setup.held_out or setup.loader, steps)
    setup.ranks.wait()


def _loss(
    run: TrainingRun, model: MultiViewModel, views: TrainingBatch, drawn: DiffusionNoise, step_key: StepKey
) -> Tensor:
    """Return the loss of one micro-batch, a scalar tensor: Eq. 5 (stage 1) or Eq. 6 (stage 2)."""
    encoded = encode_views(model, views, run.reference, step_key if run.recipe.sample_posterior else None)
    if run.drops_reference(step_key.step):
        encoded = replace(encoded, reference=None)
    if run.recipe.embedding_noise > 0:
        encoded = replace(encoded, tokens=add_embedding_noise(encoded.tokens, run.recipe.embedding_noise, step_key))
    draw = drawn.on(model.device)
    predicted = predict(model.unet, encoded, draw, model.alphas_cumprod)
    recipe = run.recipe
    return training_loss(predicted, draw, model.alphas_cumprod, recipe.min_snr_gamma, recipe.velocity_cap)


def _status(setup: TrainingSetup, progress: Progress, reading: Reading, step_s: float) -> TrainingStatus:
    run, results, meter = setup.run, reading.results, setup.mfu_meter
    return TrainingStatus(
        steps=progress.steps,
        total_steps=run.schedule.steps,
        seen_images=progress.seen_images,
        loss=sum(result.loss for result in results) / len(results),
        learning_rate=learning_rate(run.schedule, progress.steps - 1),
        gradient_norm=results[-1].gradient_norm,
        views_per_s=reading.views_per_s,
        data_wait_share=reading.data_wait_share,
        eta_s=(run.schedule.steps - progress.steps) * step_s,
        mfu=None if meter is None else meter.mfu(reading.flops, reading.seconds),
    )


def _write_log(log: Log, run: TrainingRun, reading: Reading, status: TrainingStatus) -> None:
    """Log loss, gradient norm and learning rate of every step of a reading, and the other values at the last step."""
    for result in reading.results:
        rate = learning_rate(run.schedule, result.step)
        log({"loss": result.loss, "gradient_norm": result.gradient_norm, "learning_rate": rate}, result.step)
    log(status.scalars(), status.steps - 1)


def _loader(
    run: TrainingRun, shards: TrainingSet, model: MultiViewModel, damage: Damage | None = None, ranks: Ranks = ALONE
) -> BatchLoader:
    return BatchLoader(
        shards,
        run.seed,
        objects=objects_per_micro_batch(run.schedule, ranks.world),
        accumulation=run.schedule.accumulation,
        num_views=run.recipe.num_views,
        single_view_chance=run.recipe.single_view_chance,
        convention=model.spec.cameras,
        rank=ranks.rank,
        world=ranks.world,
        items_per_object=run.recipe.items_per_object,
        readers=run.recipe.readers,
        damage=damage,
    )
