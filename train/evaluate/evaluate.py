"""Evaluate novel views: the options of the command, the methods to compare, and the function that runs it all."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.html.formats import format_object_count
from dataset.io.lock import locked_folder
from dataset.io.option_checks import check_number
from dataset.io.options import HiddenDefault
from dataset.io.progress import ProgressBar
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import file_sha256, model_folder
from train.device import pick_device
from train.evaluate.baselines import Gallery, open_gallery
from train.evaluate.novel_views import EvaluationObject, draw_rings, read_evaluation_object, through_autoencoder
from train.evaluate.perceptual.lpips import load_perceptual
from train.evaluate.perceptual.squeezenet import SQUEEZENET_NOTE, load_feature_distance
from train.evaluate.protocol import protocol, training_notes
from train.evaluate.report import write_report
from train.evaluate.results import Method, Record, open_record
from train.evaluate.score import SampledMethod, ScoringContext, score_methods
from train.evaluate.selection import folder_sha256, name_models, open_images, part_of, select_objects
from train.evaluate.tables import METRICS, summarize, tables
from train.model.ddim import ddim_timesteps, sampling_settings
from train.model.multiview import BUNDLED_MODEL, MultiViewModel, read_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NovelViewArgs:
    """Sample novel views with one or several models. Compare these views with the true views of a shard set.

    The results are written as JSON, as Markdown tables and as an HTML page.
    """

    model: tuple[Path, ...] = (BUNDLED_MODEL,)
    """Model folders (finished training runs), checkpoint files or Hub names. Each is compared with the first."""
    shards: str = "data/shards"
    """Shard set with the true views: a folder or an fsspec URL."""
    out: Path = Path("data/evaluation")
    """Output folder. If it contains an evaluation with the same settings, that evaluation is resumed."""
    split: Literal["test", "validation", "all"] = "test"
    """Objects to evaluate, chosen by a hash of the uid. test: objects that were never trained on. all: for sets that no
    model was trained on."""
    max_objects: HiddenDefault[int | None] = None
    """Maximum number of objects, spread evenly over the split. Default: all."""
    num_seeds: int = 2
    """Number of rings (sets of 16 views) sampled per object, each from different noise."""
    ddim_steps: int = 50
    """Number of DDIM steps."""
    guidance_scale: HiddenDefault[float | None] = None
    """Scale of classifier-free guidance. Default: each model's own."""
    compare_reference: Literal["both", "without", "with"] = "both"
    """Whether to condition the model on the reference image in addition to its embedding. with: yes, as a clean frame
    as in stage 2, or as input channels if the model was trained with them. without: no, as in the paper. both: evaluate
    both ways."""
    baselines: bool = True
    """Also evaluate the mean image and the nearest object of the training split, and the true views passed through the
    autoencoder of the first model."""
    training_shards: HiddenDefault[str | None] = None
    """Shard set whose training split the baselines use. Default: the set of --shards."""
    perceptual: HiddenDefault[Path | None] = None
    """Weights of SqueezeNet, from python -m train.evaluate.perceptual.squeezenet. Adds a perceptual distance."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print what would be evaluated and exit."""


def evaluate_novel_views(args: NovelViewArgs) -> None:
    """Sample and score the rings that the output folder does not contain yet, write all results and print a table.

    Raises:
        UserError: An option is invalid, a set or model cannot be read, or the output folder contains an evaluation with
            other settings.
    """
    _check(args)
    shards, device = open_images(args.shards), pick_device(args.device)
    places = select_objects(shards, args.split, args.max_objects)
    uids = [shards.uid(*place) for place in places]
    names, folders = name_models(args.model), [model_folder(model) for model in args.model]
    groups = [(folder, model_methods(args, name, folder)) for name, folder in zip(names, folders, strict=True)]
    methods, notes = [sampled.method for _, group in groups for sampled in group], list[str]()
    size = read_evaluation_object(shards, places[0]).size
    if args.baselines:
        training = part_of(open_images(args.training_shards or args.shards), "train")
        notes.append(f"The baselines use the {len(training)} objects of the training split of {training.url}.")
        baselines = baseline_methods(training, args.out, folders[0], size)
        groups[0][1].extend(baselines)  # the first model computes the embeddings
        methods += [sampled.method for sampled in baselines]
    for name, folder in zip(names, folders, strict=True):
        notes += training_notes(name, folder, args.split)
    rings = len(uids) * sum(method.seeds for method in methods)
    plan = f"{len(uids)} of {len(shards)} objects ({args.split}), {len(methods)} methods, {rings} rings of 16 views"
    if args.dry_run:
        print("\n".join([plan, *map("note: {}".format, notes), *(f"would measure: {m.title}" for m in methods)]))
        return
    lpips, lpips_note = load_perceptual(device)
    perceptual = {} if lpips is None else {"lpips": lpips}
    common: dict[str, Any] = {"objects": shards.fingerprint, "lpips": lpips is not None}
    if args.perceptual:
        perceptual["squeezenet"] = load_feature_distance(args.perceptual, device)
        common["squeezenet"] = file_sha256(args.perceptual)
        notes.append(SQUEEZENET_NOTE)
    for line in (plan, *map("note: {}".format, [*notes, lpips_note])):
        logger.info("%s", line)
    with locked_folder(args.out, "evaluation"):
        record = open_record(args.out, common, methods)
        context = ScoringContext(record, shards, places, device, perceptual)
        with ProgressBar(total=rings, desc="evaluate", unit="ring") as progress:
            for folder, group in groups:
                score_methods(context, group, folder, progress)
        print(_write(args, record, methods, uids, [*protocol(size, args.num_seeds), lpips_note, *notes]))


def model_methods(args: NovelViewArgs, name: str, folder: Path) -> list[SampledMethod]:
    """Return the methods to evaluate for one model: without the reference image, with the reference image, or both.

    Args:
        args: Options of the command.
        name: Short name of the model, for the tables.
        folder: Model folder.

    Raises:
        UserError: `folder` is not a model folder.
    """
    spec = read_spec(folder)
    scale = spec.guidance_scale if args.guidance_scale is None else args.guidance_scale
    settings = {
        "sha256": folder_sha256(folder),
        "steps": args.ddim_steps,
        "guidance_scale": scale,
        **sampling_settings(args.ddim_steps),
    }
    methods = []
    for with_reference in (False, True):
        if args.compare_reference == ("without" if with_reference else "with"):
            continue
        method = Method(
            f"{_slug(name)}.{'reference' if with_reference else 'alone'}",
            f"{name}, {'with the reference' if with_reference else 'embedding alone'}",
            {**settings, "shown": with_reference},
            args.num_seeds,
        )
        sample = partial(draw_rings, steps=args.ddim_steps, guidance_scale=scale, with_reference=with_reference)
        methods.append(SampledMethod(method, sample))
    return methods


def baseline_methods(shards: ShardSet, out: Path, folder: Path, size: int) -> list[SampledMethod]:
    """Return the baselines: nearest training object, mean training image, and autoencoded true views.

    The images and embeddings of the training objects are read or computed only when a ring is sampled.

    Args:
        shards: The training objects.
        out: Output folder of the evaluation.
        folder: Folder of the first model, whose image encoder and autoencoder are used.
        size: Height and width of the images in pixels.

    Raises:
        UserError: There are no training objects.
    """
    if not len(shards):
        raise UserError(
            f"{shards.url}: has no object of the training split, which the baselines need; give the set that the model "
            "was trained on with --training-shards, or give --no-baselines"
        )
    opened: list[Gallery] = []
    encoder_sha256 = folder_sha256(folder, ("image_tower", "image_encoder"))

    def gallery(model: MultiViewModel) -> Gallery:
        if not opened:
            opened.append(open_gallery(shards, model, size, encoder_sha256, out / "training-objects.safetensors"))
        return opened[0]

    def mean(model: MultiViewModel, truths: Sequence[EvaluationObject], seed: int) -> list[NDArray[np.float32]]:
        return [gallery(model).mean for _ in truths]

    def nearest(model: MultiViewModel, truths: Sequence[EvaluationObject], seed: int) -> list[NDArray[np.float32]]:
        return [gallery(model).nearest_ring(model, truth) for truth in truths]

    def decoded(model: MultiViewModel, truths: Sequence[EvaluationObject], seed: int) -> list[NDArray[np.float32]]:
        return [through_autoencoder(model, truth) for truth in truths]

    embedder = {"sha256": folder_sha256(folder, ("vae", "image_tower", "image_encoder"))}
    training = {**embedder, "training": shards.fingerprint}
    return [
        SampledMethod(Method("nearest-training-object", "nearest training object", training), nearest),
        SampledMethod(Method("mean-picture", "mean training image", training), mean),
        SampledMethod(Method("autoencoder", "truth through the autoencoder", embedder), decoded),
    ]


def _check(args: NovelViewArgs) -> None:
    check_number("--max-objects", args.max_objects, 1)
    check_number("--num-seeds", args.num_seeds, 1)
    check_number("--guidance-scale", args.guidance_scale)
    if not args.model:
        raise UserError("--model is empty; give at least one model folder")
    ddim_timesteps(args.ddim_steps)  # raises UserError for an invalid number of steps


def _write(
    args: NovelViewArgs, record: Record, methods: Sequence[Method], uids: Sequence[str], notes: Sequence[str]
) -> str:
    rows = summarize(record, methods, uids)
    seeds = f"{args.num_seeds} seed{'s' if args.num_seeds > 1 else ''}"
    scales = sorted({m.settings["guidance_scale"] for m in methods if "guidance_scale" in m.settings})
    return write_report(
        args.out,
        title=f"Novel views of {args.shards}",
        lead=(
            f"Split {args.split}: {format_object_count(len(uids))}; {seeds}, {args.ddim_steps} DDIM steps, "
            f"guidance {' and '.join(f'{scale:g}' for scale in scales)}."
        ),
        tables=tables(rows, format_object_count(len(uids))),
        notes=notes,
        details={
            "shards": args.shards,
            "split": args.split,
            "objects": list(uids),
            "seeds": args.num_seeds,
            "steps": args.ddim_steps,
        },
        metrics=METRICS,
        rows=rows,
        record=record,
        methods=methods,
        uids=uids,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)
