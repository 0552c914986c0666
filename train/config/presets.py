"""Presets and schedules. `paper` is App. B; where it is silent or contradicts itself, the value says what we chose.

A recipe is all that decides a result beside the data, the seed and the starting model; it is written into the run.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from dataset.errors import UserError
from dataset.images.prepare import OBJECT_FILL
from dataset.reading.damage import MAX_DAMAGED_SHARE
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE
from train.data.sampling import count_pairs
from train.model.image_encoder import NamedTower, SmallTower, TowerSpec
from train.model.multiview import UNetShape
from train.model.reference import ReferenceUse

PresetName = Literal["paper", "tiny"]


@dataclass(frozen=True)
class Schedule:
    """How long, how much, how fast. Learning rates are of AdamW."""

    steps: int  # optimiser steps
    objects: int  # a step, over all ranks and accumulated micro-batches
    accumulation: int  # micro-batches a step
    peak_lr: float
    decay: Literal["constant", "linear"]  # linear: from the peak to 0 at the last step
    warmup_steps: int  # cut to a tenth of `steps` where it would not fit (and that is announced)


@dataclass(frozen=True)
class AutoencoderRecipe:
    """A small AutoencoderKL; each width after the first halves the picture."""

    latent_channels: int
    widths: tuple[int, ...]
    blocks_per_level: int
    kl_weight: float  # of the mean KL divergence a latent number, beside a mean absolute error a colour
    schedule: Schedule


@dataclass(frozen=True)
class TowerRecipe:
    """Training of a small image tower; see `train.components.image_encoder`."""

    temperature: float
    contrast_weight: float  # of telling objects apart
    thumbnail_size: int  # the reconstruction head's picture, pixels a side
    reconstruction_weight: float
    novel_view_weight: float  # of painting the object's other view, for its camera; 0: it is not asked
    schedule: Schedule
    mirror: bool = False  # half the objects are their mirror images, seen from the other side


@dataclass(frozen=True)
class Recipe:
    """Everything a training run does."""

    name: PresetName
    image_size: int
    tower: TowerSpec
    guidance_scale: float  # default of sampling with the trained model
    stage1: Schedule
    stage2: Schedule
    # Only for training from scratch; None: the starting model brings these parts
    unet: UNetShape | None
    autoencoder: AutoencoderRecipe | None
    tower_training: TowerRecipe | None
    num_views: int = 4  # targets of the multi-view branch, orthogonal
    single_view_chance: float = 0.3  # 4.1: 30% single-view branch, 70% multi-view
    drop_chance: float = 0.1  # of the image token, for classifier-free guidance; the release's, not in the paper
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    clip_norm: float = 1.0  # ours: the paper names none
    min_snr_gamma: float | None = None  # weight the loss by timestep (`train.loop.loss`); not in the paper
    velocity_cap: float | None = None  # weight it towards noise, so many times at most (`train.loop.loss`); likewise
    average_decay: float | None = (
        None  # average the weights (`train.model.weight_averaging`) and export those; not in the paper
    )
    activation_checkpointing: bool = False  # recompute activations: less memory, a third more work, the same result
    cameras: Literal["relative", "absolute"] | None = (
        None  # labels (`train.model.multiview`); None: the base's, else relative
    )
    reference: ReferenceUse = "attention"  # what stage 2 makes of the reference's latent; others are ablations
    validation: Literal["auto", "on", "off"] = "auto"  # hold objects out (`train.data.splits`); auto: small sets do not
    test_share: float = TEST_SHARE  # of the objects, which no part of the model sees; small sets have none
    items_per_object: int = 1  # in an epoch, each with another reference
    sample_posterior: bool = False  # draw latents from the VAE's posteriors, as Stable Diffusion did; else their means
    # What does not change the result: reading, and steps between things
    readers: int = 2  # threads
    max_damaged_share: float = MAX_DAMAGED_SHARE  # of the objects, passed over (`dataset.reading.damage`)
    checkpoint_every: int = 500
    keep_checkpoints: int = 2  # the last ones
    archive_every: int | None = None  # these stay for good
    picture_every: int = 500
    validate_every: int = 500
    log_every: int = 20
    stop_at_bad_loss: bool = False  # else `train.loop.nan_guard.MAX_SKIPPED` in a row


PAPER: Final = Recipe(
    name="paper",
    image_size=256,
    tower=NamedTower("ViT-H-14", "laion2b_s32b_b79k"),
    # App. B has "10, the same as during training": guidance is a matter of sampling, training only drops the token
    guidance_scale=10.0,
    # 768 and 128 count objects, as MVDream's batch does (it may also be read as images); 4 views each in the multi-view
    # branch, one in the single-view branch. 768 = per-GPU x GPUs x 4 accumulated.
    stage1=Schedule(steps=50_000, objects=768, accumulation=4, peak_lr=1e-4, decay="constant", warmup_steps=10_000),
    # "Other settings are consistent with the first stage" makes the warm-up twice as long as the stage: cut to a tenth.
    # 4.1 says "about 1 day", App. B "about 5 hours"; the number of steps is given once, 5k.
    stage2=Schedule(steps=5_000, objects=128, accumulation=1, peak_lr=5e-5, decay="linear", warmup_steps=10_000),
    unet=None,
    autoencoder=None,
    tower_training=None,
)

_TINY_AUTOENCODER: Final = AutoencoderRecipe(
    latent_channels=8,
    widths=(32, 64, 64),
    blocks_per_level=1,
    kl_weight=1e-4,
    schedule=Schedule(steps=2_000, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=20),
)
_TINY_TOWER: Final = TowerRecipe(
    temperature=0.1,
    contrast_weight=1.0,
    thumbnail_size=16,
    reconstruction_weight=10.0,
    novel_view_weight=0.0,
    schedule=Schedule(steps=300, objects=16, accumulation=1, peak_lr=5e-4, decay="linear", warmup_steps=20),
)

TINY: Final = Recipe(
    name="tiny",
    image_size=64,
    tower=SmallTower(
        embed_dim=256, image_size=64, patch_size=8, width=192, layers=6, head_width=32, object_fill=OBJECT_FILL
    ),
    guidance_scale=3.0,
    stage1=Schedule(steps=2_000, objects=4, accumulation=1, peak_lr=4e-4, decay="constant", warmup_steps=100),
    stage2=Schedule(steps=400, objects=4, accumulation=1, peak_lr=2e-4, decay="linear", warmup_steps=40),
    unet=UNetShape(
        latent_channels=8,
        latent_size=16,
        widths=(64, 128, 192),
        attention=(True, True, True),
        blocks_per_level=1,
        head_width=32,
        token_width=256,
        norm_groups=16,
    ),
    autoencoder=_TINY_AUTOENCODER,
    tower_training=_TINY_TOWER,
)

# What `train.tiny_model` makes of it on a GPU: longer, and in batches that a GPU notices.
EMBEDDED: Final = replace(
    TINY,
    cameras="absolute",  # its objects face the same way
    autoencoder=replace(
        _TINY_AUTOENCODER,
        schedule=Schedule(steps=4_000, objects=128, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=100),
    ),
    tower_training=replace(
        _TINY_TOWER,
        contrast_weight=0.0,  # telling objects apart scatters them: neighbours no longer look alike (docs/LOG.md)
        thumbnail_size=32,
        novel_view_weight=10.0,
        mirror=True,
        schedule=Schedule(steps=8_000, objects=128, accumulation=1, peak_lr=1e-3, decay="linear", warmup_steps=100),
    ),
    stage1=Schedule(steps=14_000, objects=128, accumulation=1, peak_lr=6e-4, decay="constant", warmup_steps=500),
    stage2=Schedule(steps=4_000, objects=128, accumulation=1, peak_lr=4e-4, decay="linear", warmup_steps=200),
    velocity_cap=20.0,  # at 1,200 steps 22 % less error at timesteps 750 to 999, 15 % more below 250 (docs/LOG.md)
    average_decay=0.999,
    checkpoint_every=1_000,
    validate_every=2_000,
    picture_every=2_000,
    readers=4,
)

PRESETS: Final[dict[PresetName, Recipe]] = {"paper": PAPER, "tiny": TINY}


def warmup_of(schedule: Schedule) -> int:
    """Steps of warm-up in use: a warm-up as long as the run or longer is cut to a tenth of it."""
    if schedule.warmup_steps < schedule.steps:
        return schedule.warmup_steps
    return schedule.steps // 10


def learning_rate(schedule: Schedule, step: int) -> float:
    """Rate of optimiser step `step` (from 0): a linear rise to the peak, then constant or a linear fall to 0."""
    warmup = warmup_of(schedule)
    if step < warmup:
        return schedule.peak_lr * (step + 1) / warmup
    if schedule.decay == "constant":
        return schedule.peak_lr
    return schedule.peak_lr * max(schedule.steps - step, 0) / (schedule.steps - warmup)


def notices(schedule: Schedule) -> tuple[str, ...]:
    """What the run does otherwise than its schedule says, for the person at the keyboard."""
    warmup = warmup_of(schedule)
    if warmup == schedule.warmup_steps:
        return ()
    return (f"a warm-up of {schedule.warmup_steps} steps does not fit into {schedule.steps}: cut to {warmup}",)


def objects_per_micro_batch(schedule: Schedule, world: int) -> int:
    """Objects of one rank's micro-batch; the whole batch must divide evenly."""
    shares = world * schedule.accumulation
    if schedule.objects < 1 or schedule.objects % shares:
        raise UserError(
            f"a batch of {schedule.objects} objects does not divide into {world} ranks x {schedule.accumulation} "
            "accumulated micro-batches; change --batch-size or --accumulation"
        )
    return schedule.objects // shares


def batch_in_shares(schedule: Schedule, world: int, kind: str) -> str:
    """How the batch is made up, as "768 objects a step = 48 a GPU x 4 GPUs x 4 accumulated"; `kind` is GPU."""
    share, many = objects_per_micro_batch(schedule, world), "es" if kind.endswith("s") else "s"
    ranks = f"{world} {kind}{many if world > 1 else ''}"
    return f"{schedule.objects} objects a step = {share} a {kind} x {ranks} x {schedule.accumulation} accumulated"


def with_options(
    recipe: Recipe,
    *,
    min_snr_gamma: float | None,
    velocity_cap: float | None,
    average_decay: float | None,
    activation_checkpointing: bool,
    validation: Literal["auto", "on", "off"],
    checkpoint_every: int | None,
    archive_every: int | None,
    picture_every: int | None,
    validate_every: int | None,
    log_every: int | None,
    stop_at_bad_loss: bool,
    items_per_object: int | None = None,
    sample_posterior: bool = False,
    readers: int | None = None,
    max_damaged_share: float | None = None,
    test_share: float | None = None,
) -> Recipe:
    """The recipe with the options given on the command line; None is the preset's own."""
    if min_snr_gamma is not None and not 0 < min_snr_gamma < math.inf:
        raise UserError(f"--min-snr-gamma is {min_snr_gamma}; it must be above 0 (its authors take 5)")
    if velocity_cap is not None and not 1 < velocity_cap < math.inf:
        raise UserError(f"--velocity-cap is {velocity_cap}; it must be above 1 (20, say)")
    if min_snr_gamma is not None and velocity_cap is not None:
        raise UserError("--min-snr-gamma and --velocity-cap both weight the loss by timestep; give one of them")
    if average_decay is not None and not 0 < average_decay < 1:
        raise UserError(f"--average-decay is {average_decay}; it must lie between 0 and 1 (0.9999, say)")
    if items_per_object is not None and not 1 <= items_per_object <= (pairs := count_pairs(recipe.num_views)):
        raise UserError(
            f"--items-per-object is {items_per_object}; an object has 1 to {pairs} pairs of a reference and "
            f"{recipe.num_views} targets"
        )
    if max_damaged_share is not None and not 0 <= max_damaged_share < 1:
        raise UserError(f"--max-damaged-share is {max_damaged_share}; it must be from 0 to below 1 (0.001, say)")
    return replace(
        recipe,
        test_share=choose_test_share(recipe, test_share),
        items_per_object=recipe.items_per_object if items_per_object is None else items_per_object,
        sample_posterior=recipe.sample_posterior or sample_posterior,
        readers=_every("--readers", readers, recipe.readers),
        max_damaged_share=recipe.max_damaged_share if max_damaged_share is None else max_damaged_share,
        min_snr_gamma=recipe.min_snr_gamma if min_snr_gamma is None else min_snr_gamma,
        velocity_cap=recipe.velocity_cap if velocity_cap is None else velocity_cap,
        average_decay=recipe.average_decay if average_decay is None else average_decay,
        activation_checkpointing=recipe.activation_checkpointing or activation_checkpointing,
        validation=validation,
        checkpoint_every=_every("--checkpoint-every", checkpoint_every, recipe.checkpoint_every),
        archive_every=recipe.archive_every if archive_every is None else _every("--archive-every", archive_every, 1),
        picture_every=_every("--picture-every", picture_every, recipe.picture_every),
        validate_every=_every("--validate-every", validate_every, recipe.validate_every),
        log_every=_every("--log-every", log_every, recipe.log_every),
        stop_at_bad_loss=recipe.stop_at_bad_loss or stop_at_bad_loss,
    )


def choose_test_share(recipe: Recipe, given: float | None) -> float:
    """`--test-share`, or the preset's. Raises UserError when it leaves nothing to train on."""
    if given is not None and not 0 <= given < 1 - VALIDATION_SHARE:
        raise UserError(
            f"--test-share is {given}; it must be from 0 to below {1 - VALIDATION_SHARE:g} (0.05, say): "
            f"{VALIDATION_SHARE:.0%} of the objects are for validation"
        )
    return recipe.test_share if given is None else given


def _every(option: str, given: int | None, default: int) -> int:
    if given is not None and given < 1:
        raise UserError(f"{option} is {given}; it must be at least 1")
    return default if given is None else given


def override(
    schedule: Schedule,
    *,
    steps: int | None = None,
    objects: int | None = None,
    accumulation: int | None = None,
    peak_lr: float | None = None,
) -> Schedule:
    """The schedule with the values given on the command line."""
    changed = replace(
        schedule,
        steps=schedule.steps if steps is None else steps,
        objects=schedule.objects if objects is None else objects,
        accumulation=schedule.accumulation if accumulation is None else accumulation,
        peak_lr=schedule.peak_lr if peak_lr is None else peak_lr,
    )
    if not 0 < changed.peak_lr < math.inf:
        raise UserError(f"--lr is {changed.peak_lr}; it must be a number above 0 (the paper's are 1e-4 and 5e-5)")
    for name in ("steps", "objects", "accumulation"):
        if getattr(changed, name) < 1:
            raise UserError(f"{name} is {getattr(changed, name)}; it must be at least 1")
    return changed
