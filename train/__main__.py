"""Training: `python -m train stage1|stage2|autoencoder|tower`. The same command again resumes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.reading.damage import Damage
from dataset.reading.filters import Filters
from dataset.reading.latent_set import open_views
from train.components.autoencoder import ensure_autoencoder
from train.components.image_encoder import ensure_tower
from train.config.presets import (
    PRESETS,
    AutoencoderRecipe,
    PresetName,
    Recipe,
    TowerRecipe,
    choose_test_share,
    override,
    with_options,
)
from train.convert.resolve import model_folder
from train.data.loader import need_pictures, open_training_set
from train.data.splits import divide
from train.distributed.process_group import Parallel
from train.launch import Launch, start
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.run_config import Run, check, describe, tell
from train.model.image_encoder import SmallTower
from train.model.reference import ReferenceUse
from train.sample import pick_device


@dataclass(frozen=True)
class Common:
    """What every training needs."""

    out: Path
    """Run folder: becomes a model folder when stage 1 or 2 finishes."""
    shards: str = "data/shards"
    """Shard set to train on: a folder or an fsspec URL. Stages 1 and 2 take a latent set (train.encode) as well."""
    preset: PresetName = "tiny"
    """paper: App. B, from a converted MVDream (--base). tiny: 64-pixel pictures, everything from nothing."""
    steps: int | None = None
    """Optimiser steps, in place of the preset's."""
    batch_size: int | None = None
    """Objects a step, in place of the preset's."""
    seed: int = 0
    """Seed of weights, views, noise and order."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    test_share: float | None = None
    """Share of the objects, by a hash of their uids, that are kept for `python -m train.evaluate` and that no training
    sees; 0.05 if not given, 0 trains on them too. The same for all parts of a model. Sets of fewer than 20 objects are
    trained on as a whole."""
    dry_run: bool = False
    """Print the resolved configuration as JSON and stop."""


@dataclass(frozen=True)
class Stage(Common):
    """Shared by both stages."""

    base: Path | None = None
    """Model folder to start from: a converted checkpoint for stage 1 (tiny needs none), stage 1's run for stage 2."""
    cameras: Literal["relative", "absolute"] | None = None
    """Camera labels: relative to the reference, as the paper has them, or absolute, for objects that all face the same
    way. If not given: the base's, and relative from nothing."""
    accumulation: int | None = None
    """Micro-batches a step, in place of the preset's: more of them need less memory."""
    lr: float | None = None
    """Peak learning rate, in place of the preset's."""
    compile: CompileChoice = "auto"
    """Compile the UNet: whole is fastest, blocks starts sooner, none runs it as written; graphs, for one GPU and small
    networks, is whole replayed as CUDA graphs. auto: whole on a GPU (blocks with --parallel fsdp), none on a CPU. May
    change when a run goes on."""
    blocks: BlocksChoice = "auto"
    """Code of the UNet's blocks: fused runs group norm, shift and SiLU as one kernel (it needs Triton), lean is that of
    diffusers without its copies. auto: fused where compiled for a GPU, else diffusers. May change on resuming."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; the last two stay."""
    archive_every: int | None = None
    """Steps between checkpoints that stay for good; none if not given."""
    picture_every: int | None = None
    """Steps between pictures in samples/ (reference | truth | samples at guidance 3 and at the model's own scale)."""
    log_every: int | None = None
    """Steps between readings: the printed line, the bar, TensorBoard."""
    items_per_object: int | None = None
    """Times that an epoch takes each object, with another reference every time; the preset's 1 if not given. More make
    better use of what is read."""
    without_flags: tuple[str, ...] = ()
    """Leave out objects with one of these quality flags: clipped, near-black, near-white, low-coverage, ..."""
    min_coverage: float = 0.0
    """Leave out objects that cover less than this share of their pictures, on average."""
    max_coverage: float = 1.0
    """Leave out objects that cover more than this share of their pictures, on average."""
    licences: tuple[str, ...] = ()
    """Use only objects of these licences, as the manifest names them (CC0-1.0, CC-BY-4.0, ...); all if not given."""
    uids: Path | None = None
    """Use only the objects of this text file, one uid a line."""
    max_damaged_share: float | None = None
    """Share of the objects that may be damaged and are passed over; 0.001 if not given. One more is an error."""
    readers: int | None = None
    """Threads that read and decode views; 2 if not given."""
    sample_posterior: bool = False
    """Draw latents from the VAE's posteriors instead of taking their means."""
    validation: Literal["auto", "on", "off"] = "auto"
    """Hold one object in twenty, by a hash of its uid, out of training and measure the loss on them. auto: sets of
    fewer than 20 objects are trained on as a whole. off: these are trained on; test objects (--test-share) are not."""
    validate_every: int | None = None
    """Steps between validations: the loss on held-out objects by timestep."""
    min_snr_gamma: float | None = None
    """Min-SNR loss weights with this gamma (5 is usual); plain Eq. 5 and 6 if not given."""
    velocity_cap: float | None = None
    """Loss weights 1 / alpha_bar, this at most (20, say): what has much noise, where shape is decided, counts more."""
    average_decay: float | None = None
    """Keep averaged weights with this decay (0.9999, say); the finished model, the pictures and the validation have
    them. Off if not given."""
    activation_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less GPU memory, slower."""
    stop_at_bad_loss: bool = False
    """Stop at the first loss that is not finite; if not given, after ten updates in a row that were left out."""
    wandb: str | None = None
    """W&B project to log to beside TensorBoard; the wandb package must be installed."""
    workers: int = 1
    """Processes that train together, each on a GPU of its own; more than one are started with Ray Train and share the
    same --batch-size. torchrun's processes are taken without it."""
    parallel: Parallel = "ddp"
    """With several processes: ddp, each holds the whole model; fsdp, weights and optimiser are split among them (less
    memory, more communication). Checkpoints are the same files."""
    address: str | None = None
    """Ray cluster to train on, auto for the one that this machine belongs to; --out must then be a folder that all of
    its machines mount at the same path, and --device cuda asks for their GPUs. Ray on this machine if not given."""
    max_failures: int = 3
    """Deaths of workers after which training starts again from the last checkpoint, before it gives up."""


@dataclass(frozen=True)
class Stage1(Stage):
    """Stage 1 (Eq. 5): from text- to image-conditioned; preset tiny trains missing parts first, then the UNet."""

    autoencoder_steps: int | None = None
    """Steps of the autoencoder where it is trained first."""
    tower_steps: int | None = None
    """Steps of the image tower where it is trained first."""


@dataclass(frozen=True)
class Stage2(Stage):
    """Stage 2 (Eq. 6): the clean reference joins the noisy views in attention (Explicit Multi-view Attention)."""

    reference: ReferenceUse = "attention"
    """How the reference picture is seen: attention is the paper's Explicit Multi-view Attention. none: not at all, the
    ablation of its Fig. 7. channels: joined to each view's input channels, ours after Fig. 8; such a model needs the
    picture itself when it samples."""


@dataclass(frozen=True)
class Autoencoder(Common):
    """Train the preset's autoencoder alone into OUT/vae; stage 1 with the same --out takes it up."""


@dataclass(frozen=True)
class Tower(Common):
    """Train the preset's image tower alone into OUT/image_tower; stage 1 with the same --out takes it up."""


Command = Stage1 | Stage2 | Autoencoder | Tower


def resolve(args: Stage1 | Stage2) -> Run:
    """The run that a command line asks for."""
    recipe = PRESETS[args.preset]
    steps, objects, accumulation = args.steps, args.batch_size, args.accumulation
    if isinstance(args, Stage1):
        recipe = replace(
            _with_part_steps(recipe, args),
            stage1=override(recipe.stage1, steps=steps, objects=objects, accumulation=accumulation, peak_lr=args.lr),
        )
    else:
        recipe = replace(
            recipe,
            stage2=override(recipe.stage2, steps=steps, objects=objects, accumulation=accumulation, peak_lr=args.lr),
            reference=args.reference,
        )
    recipe = with_options(
        replace(recipe, cameras=args.cameras),
        min_snr_gamma=args.min_snr_gamma,
        velocity_cap=args.velocity_cap,
        average_decay=args.average_decay,
        activation_checkpointing=args.activation_checkpointing,
        validation=args.validation,
        items_per_object=args.items_per_object,
        sample_posterior=args.sample_posterior,
        readers=args.readers,
        max_damaged_share=args.max_damaged_share,
        test_share=args.test_share,
        checkpoint_every=args.checkpoint_every,
        archive_every=args.archive_every,
        picture_every=args.picture_every,
        validate_every=args.validate_every,
        log_every=args.log_every,
        stop_at_bad_loss=args.stop_at_bad_loss,
    )
    stage: Literal[1, 2] = 1 if isinstance(args, Stage1) else 2
    remote = args.address is not None and args.device == "cuda"  # the workers' machines have it, this one need not
    device = torch.device("cuda") if remote else pick_device(args.device)
    base = None if args.base is None else model_folder(args.base)
    filters = Filters(args.without_flags, args.min_coverage, args.max_coverage, args.licences, args.uids)
    return Run(
        stage,
        recipe,
        args.shards,
        args.out,
        base,
        seed=args.seed,
        device=device,
        wandb=args.wandb,
        filters=filters,
        compile=args.compile,
        blocks=args.blocks,
    )


def _with_part_steps(recipe: Recipe, args: Stage1) -> Recipe:
    """`--autoencoder-steps` and `--tower-steps`; without such parts in the preset they make no sense."""
    if recipe.autoencoder is None or recipe.tower_training is None:
        if args.autoencoder_steps is not None or args.tower_steps is not None:
            raise UserError(f"preset {recipe.name} trains no parts; drop --autoencoder-steps and --tower-steps")
        return recipe
    autoencoder = replace(
        recipe.autoencoder, schedule=override(recipe.autoencoder.schedule, steps=args.autoencoder_steps)
    )
    tower = replace(recipe.tower_training, schedule=override(recipe.tower_training.schedule, steps=args.tower_steps))
    return replace(recipe, autoencoder=autoencoder, tower_training=tower)


def run_stage(args: Stage1 | Stage2) -> None:
    """Train a stage, or print its configuration."""
    run = resolve(args)
    check(run, args.workers)
    if args.dry_run:
        tell(run)
        print(json.dumps(describe(run, open_training_set(run.shards, run.filters)), indent=2))
        return
    start(run, Launch(args.workers, args.parallel, args.address, args.max_failures))


def run_part(args: Autoencoder | Tower) -> None:
    """Train one part, or print its recipe."""
    preset = PRESETS[args.preset]
    part: AutoencoderRecipe | TowerRecipe | None = (
        preset.autoencoder if isinstance(args, Autoencoder) else preset.tower_training
    )
    if part is None or not isinstance(preset.tower, SmallTower):
        raise UserError(f"preset {preset.name} takes pretrained parts, it trains none; use --preset tiny")
    part = replace(part, schedule=override(part.schedule, steps=args.steps, objects=args.batch_size))
    device = pick_device(args.device)
    if args.dry_run:
        print(part)
        return
    training, _ = divide(open_views(args.shards), preset.validation, choose_test_share(preset, args.test_share))
    shards = need_pictures(training, "a part of the model")
    damage = Damage(len(shards), preset.max_damaged_share)
    if isinstance(part, AutoencoderRecipe):
        ensure_autoencoder(
            args.out / "vae", shards, part, preset.image_size, seed=args.seed, device=device, damage=damage
        )
    else:
        ensure_tower(args.out / "image_tower", shards, preset.tower, part, seed=args.seed, device=device, damage=damage)


def main() -> None:
    """Command line."""
    args = tyro.extras.subcommand_cli_from_dict(
        {"stage1": Stage1, "stage2": Stage2, "autoencoder": Autoencoder, "tower": Tower}, prog="python -m train"
    )
    if isinstance(args, (Stage1, Stage2)):
        run_stage(args)
    else:
        run_part(args)


if __name__ == "__main__":
    run_cli(main)
