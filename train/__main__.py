"""Train a model: `python -m train stage1|stage2|autoencoder|image-encoder`. Repeat the command to resume a run."""

import argparse
import io
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import tyro
from tyro.conf import OmitArgPrefixes

from dataset.errors import UserError, run_cli
from dataset.io.lock import locked_folder
from dataset.io.old_flags import rename_old_flags
from dataset.io.option_checks import check_seed
from dataset.io.options import HiddenDefault
from dataset.reading.damage import Damage
from dataset.reading.filters import TEST_SHARE, Filters
from dataset.reading.latent_set import open_views
from train.components.autoencoder import ensure_autoencoder
from train.components.image_encoder import ensure_image_encoder
from train.config.presets import PRESETS, AutoencoderRecipe, ImageEncoderRecipe, PresetName, Recipe
from train.config.schedules import Schedule, override
from train.convert.resolve import model_folder
from train.data.splits import split_set
from train.data.training_set import open_training_set, require_images
from train.device import pick_device
from train.launch import Launch, start
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.run_config import TrainingRun, check_run, describe, log_notices
from train.model.image_encoder import OpenClipEncoder
from train.model.reference import ReferenceMode

logger = logging.getLogger(__name__)

# Old name -> new name; the old ones will be removed
RENAMED: Final = {
    "--base": "--init-from",
    "--accumulation": "--grad-accum-steps",
    "--archive-every": "--keep-every",
    "--picture-every": "--sample-every",
    "--items-per-object": "--repeats-per-object",
    "--licences": "--licenses",
    "--max-damaged-share": "--max-corrupt-fraction",
    "--readers": "--num-workers",
    "--reference": "--reference-mode",
    "--stop-at-bad-loss": "--fail-on-nan",
    "--tower-steps": "--image-encoder-steps",
    "--no-stop-at-bad-loss": "--no-fail-on-nan",
}


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that all commands of `python -m train` have in common."""

    out: Path
    """Run folder. It becomes a model folder when stage 1 or 2 finishes."""
    shards: str = "data/shards"
    """Shard set to train on: a folder or an fsspec URL. Stages 1 and 2 also take a latent set (train.encode)."""
    seed: int = 0
    """Seed of the initial weights, views, noise and data order."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print the resolved configuration as JSON and exit."""


@dataclass(frozen=True, kw_only=True)
class StageOptions(CommonOptions):
    """Options of the commands `stage1` and `stage2`."""

    recipe: OmitArgPrefixes[Recipe]
    schedule: OmitArgPrefixes[Schedule]
    launch: OmitArgPrefixes[Launch] = field(default_factory=Launch)
    init_from: HiddenDefault[Path | None] = None
    """Model folder to start from. Stage 1: a converted checkpoint (optional with --preset tiny). Stage 2: the run
    folder of stage 1."""
    compile: CompileChoice = "auto"
    """How to compile the UNet. none: eager. blocks: starts sooner. levels: for --parallel fsdp. whole: fastest. graphs:
    like whole, replayed as CUDA graphs; for small networks. auto: whole on a GPU (levels with --parallel fsdp), none on
    a CPU. This option may change when a run resumes."""
    blocks: BlocksChoice = "auto"
    """Implementation of the UNet's blocks. diffusers: the original. lean: the same without its tensor copies. fused:
    also runs group norm, shift and SiLU as one kernel (needs Triton). auto: fused if compiled for a GPU, otherwise
    diffusers. This option may change when a run resumes."""
    without_flags: HiddenDefault[tuple[str, ...]] = ()
    """Leave out objects with any of these quality flags: clipped, near-black, near-white, low-coverage, ..."""
    min_coverage: float = 0.0
    """Leave out objects that cover, on average, less than this fraction of their images."""
    max_coverage: float = 1.0
    """Leave out objects that cover, on average, more than this fraction of their images."""
    licenses: HiddenDefault[tuple[str, ...]] = ()
    """Use only objects with these licenses, named as in the manifest (CC0-1.0, CC-BY-4.0, ...). Default: all."""
    uids: HiddenDefault[Path | None] = None
    """Use only the objects listed in this text file, one uid per line."""
    where: HiddenDefault[Annotated[str | None, tyro.conf.arg(metavar="EXPRESSION")]] = None
    """Use only objects for which this expression is true, such as "texture > 0.1 and not flat". Most columns are
    scores, which `python -m dataset curate` must have computed; docs/dataset.md lists the columns."""
    wandb: HiddenDefault[str | None] = None
    """Also log to this W&B project. Requires the wandb package."""


@dataclass(frozen=True, kw_only=True)
class Stage1(StageOptions):
    """Stage 1 (Eq. 5): fine-tune a text-conditioned model to condition on an image.

    With --preset tiny, train all parts of the model from scratch, beginning with the autoencoder and the image encoder.
    """

    autoencoder_steps: HiddenDefault[int | None] = None
    """Number of optimizer steps of the autoencoder, if stage 1 trains it first. Default: the preset's number."""
    image_encoder_steps: HiddenDefault[int | None] = None
    """Number of optimizer steps of the image encoder, if stage 1 trains it first. Default: the preset's number."""


@dataclass(frozen=True, kw_only=True)
class Stage2(StageOptions):
    """Stage 2 (Eq. 6): train the model of stage 1 to attend to the reference image (Explicit Multi-view Attention)."""

    reference_mode: ReferenceMode = "attention"
    """How the model uses the reference image's latent. attention: the paper's Explicit Multi-view Attention. none: not
    at all (the ablation of Fig. 7). channels: concatenated to the input channels of each view (as in Fig. 8); such a
    model also needs the reference image for sampling."""
    reference_drop_chance: HiddenDefault[float | None] = None
    """Fraction of the steps in which the model does not get the reference image's latent, chosen at random, so that it
    also learns to work from the embedding alone. Default: the preset's fraction (paper: 0, tiny: 0.3)."""


@dataclass(frozen=True, kw_only=True)
class ComponentOptions(CommonOptions):
    """Options of the commands `autoencoder` and `image-encoder`, which each train one component of a model."""

    preset: PresetName = "tiny"
    """Preset that defines the component. Only tiny has components to train."""
    steps: HiddenDefault[int | None] = None
    """Number of optimizer steps. Default: the preset's number."""
    batch_size: HiddenDefault[int | None] = None
    """Number of objects per step. Default: the preset's number."""
    test_share: float = TEST_SHARE
    """Fraction of the objects to reserve for testing. These objects are never trained on. Use the same value for both
    stages."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(ComponentOptions):
    """Train only the preset's autoencoder and write it to OUT/vae.

    Stage 1 with the same --out uses this autoencoder.
    """


@dataclass(frozen=True, kw_only=True)
class ImageEncoderOptions(ComponentOptions):
    """Train only the preset's image encoder and write it to OUT/image_tower.

    Stage 1 with the same --out uses this image encoder.
    """


TrainCommand = Stage1 | Stage2 | AutoencoderOptions | ImageEncoderOptions


def parse(argv: Sequence[str]) -> TrainCommand:
    """Parse a command line without the program's name. --preset determines the defaults of the other options.

    Raises:
        UserError: The value of an option is out of range.
        SystemExit: --help was given, or the command line is malformed.
    """
    argv = rename_old_flags(_rename_old_command(argv), RENAMED)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", default="tiny")
    recipe = PRESETS.get(finder.parse_known_args(argv)[0].preset, PRESETS["tiny"])
    stage1 = Stage1(out=tyro.MISSING, recipe=recipe, schedule=recipe.stage1)
    stage2 = Stage2(out=tyro.MISSING, recipe=recipe, schedule=recipe.stage2)
    commands: Any = (
        Annotated[Stage1, tyro.conf.subcommand("stage1", default=stage1)]
        | Annotated[Stage2, tyro.conf.subcommand("stage2", default=stage2)]
        | Annotated[AutoencoderOptions, tyro.conf.subcommand("autoencoder")]
        | Annotated[ImageEncoderOptions, tyro.conf.subcommand("image-encoder")]
    )
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            parsed: TrainCommand = tyro.cli(commands, prog="python -m train", args=argv)
    except SystemExit as exit_:
        if (error := _user_error(exit_)) is not None:
            raise error from None
        sys.stderr.write(errors.getvalue())
        raise
    return parsed


def _rename_old_command(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the command `tower` replaced by its new name, `image-encoder`."""
    if list(argv[:1]) != ["tower"]:
        return list(argv)
    logger.info("note: the command `tower` is now `image-encoder`; the old name will be removed")
    return ["image-encoder", *argv[1:]]


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the UserError among the causes of `error`; None if there is none.

    An options class raises a UserError for an invalid value. tyro replaces this UserError by SystemExit.
    """
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def resolve(args: Stage1 | Stage2) -> TrainingRun:
    """Return the training run that the parsed options of stage 1 or stage 2 describe.

    Raises UserError when an option is out of range, or when the model of --init-from cannot be found or converted.
    """
    check_seed("--seed", args.seed)
    recipe = args.recipe
    if isinstance(args, Stage1):
        recipe = replace(_with_component_steps(recipe, args), stage1=args.schedule)
    else:
        recipe = replace(recipe, stage2=args.schedule, reference=args.reference_mode)
        if args.reference_drop_chance is not None:
            recipe = replace(recipe, reference_drop_chance=args.reference_drop_chance)
    remote = args.launch.address is not None and args.device == "cuda"  # the GPUs are on the workers' machines
    return TrainingRun(
        1 if isinstance(args, Stage1) else 2,
        recipe,
        args.shards,
        args.out,
        None if args.init_from is None else model_folder(args.init_from),
        seed=args.seed,
        device=torch.device("cuda") if remote else pick_device(args.device),
        wandb=args.wandb,
        filters=Filters(
            args.without_flags, args.min_coverage, args.max_coverage, args.licenses, args.uids, where=args.where
        ),
        compile=args.compile,
        blocks=args.blocks,
    )


def _with_component_steps(recipe: Recipe, args: Stage1) -> Recipe:
    """Return the recipe with the numbers of steps that `--autoencoder-steps` and `--image-encoder-steps` give.

    Raises UserError when one of these options is given, but the recipe uses a pretrained autoencoder and image encoder.
    """
    if recipe.autoencoder is None or recipe.tower_training is None:
        if args.autoencoder_steps is not None or args.image_encoder_steps is not None:
            raise UserError(
                f"--preset {recipe.name} uses a pretrained autoencoder and image encoder; drop --autoencoder-steps "
                "and --image-encoder-steps"
            )
        return recipe
    autoencoder = replace(
        recipe.autoencoder, schedule=override(recipe.autoencoder.schedule, steps=args.autoencoder_steps)
    )
    image_encoder = replace(
        recipe.tower_training, schedule=override(recipe.tower_training.schedule, steps=args.image_encoder_steps)
    )
    return replace(recipe, autoencoder=autoencoder, tower_training=image_encoder)


def run_stage(args: Stage1 | Stage2) -> None:
    """Train stage 1 or stage 2. With --dry-run, only print the configuration of the run as JSON."""
    run = resolve(args)
    check_run(run, args.launch.workers)
    if args.dry_run:
        log_notices(run)
        print(json.dumps(describe(run, open_training_set(run.shards, run.filters)), indent=2))
        return
    start(run, args.launch)


def run_component(args: AutoencoderOptions | ImageEncoderOptions) -> None:
    """Train the autoencoder or the image encoder of a preset. With --dry-run, only print the training settings.

    Raises UserError when the autoencoder and the image encoder of the preset are pretrained.
    """
    check_seed("--seed", args.seed)
    preset = replace(PRESETS[args.preset], test_share=args.test_share)
    component: AutoencoderRecipe | ImageEncoderRecipe | None = (
        preset.autoencoder if isinstance(args, AutoencoderOptions) else preset.tower_training
    )
    if component is None or isinstance(preset.tower, OpenClipEncoder):
        raise UserError(
            f"--preset {preset.name} uses a pretrained autoencoder and image encoder, which are not trained; give "
            "--preset tiny"
        )
    component = replace(component, schedule=override(component.schedule, steps=args.steps, objects=args.batch_size))
    device = pick_device(args.device)
    if args.dry_run:
        print(component)
        return
    training, _ = split_set(open_views(args.shards), preset.validation, preset.test_share)
    shards = require_images(training, "a component of the model")
    damage = Damage(len(shards), preset.max_damaged_share)
    with locked_folder(args.out, "training"):
        if isinstance(component, AutoencoderRecipe):
            ensure_autoencoder(
                args.out / "vae", shards, component, preset.image_size, seed=args.seed, device=device, damage=damage
            )
        else:
            ensure_image_encoder(
                args.out / "image_tower", shards, preset.tower, component, seed=args.seed, device=device, damage=damage
            )


def main() -> None:
    """Parse the arguments of `python -m train` and run the chosen command."""
    args = parse(sys.argv[1:])
    if isinstance(args, (Stage1, Stage2)):
        run_stage(args)
    else:
        run_component(args)


if __name__ == "__main__":
    run_cli(main)
