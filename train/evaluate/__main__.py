"""Novel views from one picture's embedding against the truth, for any models and any shard set, beside baselines.

    python -m train.evaluate --model data/stage1 data/model --shards data/shards --out data/evaluation

From one view of each object of the split the model draws the 16 views of the fixed set at the truth's cameras. What is
written: `evaluation.json`, `evaluation.md`, `evaluation.html` with the pictures behind every number, and a line for
each scored ring in `results.jsonl`, from which the same command resumes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from dataset.errors import UserError, run_cli
from dataset.html.formats import format_object_count
from dataset.io.files import json_bytes, write_file_atomic
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import model_folder
from train.device import pick_device
from train.evaluate.baselines import Gallery, open_gallery
from train.evaluate.lpips import load_perceptual
from train.evaluate.novel_views import Float32, Truth, draw_rings, read_truth, through_autoencoder
from train.evaluate.page import write_evaluation_page
from train.evaluate.protocol import protocol, training_notes
from train.evaluate.results import Method, Record, open_record
from train.evaluate.score import Measuring, Row, measure
from train.evaluate.selection import choose, folder_sha256, name_models, open_pictures, part_of
from train.evaluate.tables import METRICS, plain, summarise, tables
from train.model.ddim import ddim_scheduler
from train.model.multiview import EMBEDDED_MODEL, MultiViewModel, read_spec


@dataclass(frozen=True)
class Evaluate:
    """Novel views of one or several models against the truth, as JSON, a Markdown table and an HTML page."""

    model: tuple[Path, ...] = (EMBEDDED_MODEL,)
    """Model folders (finished training runs), checkpoint files or Hub names; the first is what the others are compared
    with."""
    shards: str = "data/shards"
    """Shard set with the true views: a folder or an fsspec URL."""
    out: Path = Path("data/evaluation")
    """Folder to write; an evaluation found there with the same settings is resumed."""
    split: Literal["test", "validation", "all"] = "test"
    """Which objects, by a hash of their uids: test is what no training sees; all: for sets nobody trained on."""
    objects: int | None = None
    """At most so many objects, spread evenly over the split; all if not given."""
    seeds: int = 2
    """Rings drawn of each object, each from noise of its own."""
    steps: int = 50
    """DDIM steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance; each model's own default if not given."""
    reference: Literal["both", "without", "with"] = "both"
    """Whether the reference picture is before the model's eyes beside its embedding: with is stage 2's clean frame (or
    the input channels of a model that was trained so), without is the paper's way; both are two rows."""
    baselines: bool = True
    """Mean picture and nearest object of the training split, and what the first model's autoencoder leaves of the
    truth."""
    training_shards: str | None = None
    """Set whose training split the baselines take, where that is another one than --shards."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print what would be measured."""


def model_rows(args: Evaluate, name: str, folder: Path) -> list[Row]:
    """The rows of one model."""
    spec = read_spec(folder)
    scale = spec.guidance_scale if args.guidance_scale is None else args.guidance_scale
    settings = {"sha256": folder_sha256(folder), "steps": args.steps, "guidance_scale": scale}
    rows = []
    for shown in (False, True):
        if args.reference == ("without" if shown else "with"):
            continue
        how = "with the reference" if shown else "embedding alone"
        method = Method(
            f"{_slug(name)}.{'reference' if shown else 'alone'}",
            f"{name}, {how}",
            {**settings, "shown": shown},
            args.seeds,
        )
        rows.append(Row(method, partial(draw_rings, steps=args.steps, guidance_scale=scale, with_reference=shown)))
    return rows


def baseline_rows(shards: ShardSet, out: Path, folder: Path, size: int) -> list[Row]:
    """The rows of the baselines, over the training objects; the gallery is opened when it is first needed.

    Raises UserError when there are none.
    """
    if not len(shards):
        raise UserError(
            f"{shards.url}: holds no object of the training split for the baselines; name the set that the model was "
            "trained on with --training-shards, or give --no-baselines"
        )
    opened: list[Gallery] = []
    image_encoder = folder_sha256(folder, ("image_tower", "image_encoder"))

    def gallery(model: MultiViewModel) -> Gallery:
        if not opened:
            opened.append(open_gallery(shards, model, size, image_encoder, out / "training-objects.safetensors"))
        return opened[0]

    def mean(model: MultiViewModel, truths: Sequence[Truth], seed: int) -> list[Float32]:
        return [gallery(model).mean for _ in truths]

    def nearest(model: MultiViewModel, truths: Sequence[Truth], seed: int) -> list[Float32]:
        return [gallery(model).nearest_ring(model, truth) for truth in truths]

    def decoded(model: MultiViewModel, truths: Sequence[Truth], seed: int) -> list[Float32]:
        return [through_autoencoder(model, truth) for truth in truths]

    judge = {"sha256": folder_sha256(folder, ("vae", "image_tower", "image_encoder"))}
    training = {**judge, "training": shards.fingerprint}
    return [
        Row(Method("nearest-training-object", "nearest training object", training), nearest),
        Row(Method("mean-picture", "mean training picture", training), mean),
        Row(Method("autoencoder", "truth through the autoencoder", judge), decoded),
    ]


def run(args: Evaluate) -> None:
    """The command."""
    _check(args)
    shards, device = open_pictures(args.shards), pick_device(args.device)
    places = choose(shards, args.split, args.objects)
    uids = [shards.uid(*place) for place in places]
    names, folders = name_models(args.model), [model_folder(model) for model in args.model]
    groups = [(folder, model_rows(args, name, folder)) for name, folder in zip(names, folders, strict=True)]
    methods, notes = [row.method for _, rows in groups for row in rows], list[str]()
    size = read_truth(shards, *places[0]).size
    if args.baselines:
        training = part_of(open_pictures(args.training_shards or args.shards), "train")
        notes.append(f"The baselines take the {len(training)} objects of the training split of {training.url}.")
        baselines = baseline_rows(training, args.out, folders[0], size)
        groups[0][1].extend(baselines)  # by the first model's parts
        methods += [row.method for row in baselines]
    for name, folder in zip(names, folders, strict=True):
        notes += training_notes(name, folder, args.split)
    rings = len(uids) * sum(method.seeds for method in methods)
    print(f"{len(uids)} of {len(shards)} objects ({args.split}), {len(methods)} methods, {rings} rings of 16 views")
    for note in notes:
        print(f"note: {note}")
    if args.dry_run:
        print("\n".join(f"would measure: {method.title}" for method in methods))
        return
    perceptual, told = load_perceptual(device)
    print(f"note: {told}")
    common = {"objects": shards.fingerprint, "lpips": perceptual is not None}
    record = open_record(args.out, common, methods)
    measuring = Measuring(record, shards, places, device, perceptual)
    with tqdm(total=rings, desc="evaluate", unit="ring", mininterval=1.0) as bar:
        for folder, rows in groups:
            measure(measuring, rows, folder, bar)
    write_results(args, record, methods, uids, [*protocol(size, args.seeds), told, *notes])


def _check(args: Evaluate) -> None:
    for name, value in (("--objects", args.objects), ("--seeds", args.seeds)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if args.guidance_scale is not None and not np.isfinite(args.guidance_scale):
        raise UserError(f"--guidance-scale is {args.guidance_scale}; give a number (3, say)")
    if not args.model:
        raise UserError("--model names no model; give at least one model folder")
    ddim_scheduler(args.steps, torch.device("cpu"))  # refuses a number of steps that there is not


def write_results(
    args: Evaluate, record: Record, methods: Sequence[Method], uids: Sequence[str], notes: Sequence[str]
) -> None:
    """evaluation.json, evaluation.md and evaluation.html of what the record holds of these methods and objects."""
    rows = summarise(record, methods, uids)
    made = tables(rows, format_object_count(len(uids)))
    title = f"Novel views of {args.shards}"
    scales = sorted({m.settings["guidance_scale"] for m in methods if "guidance_scale" in m.settings})
    lead = (
        f"Split {args.split}: {format_object_count(len(uids))}; {args.seeds} seed{'s' if args.seeds > 1 else ''}, "
        f"{args.steps} DDIM steps, guidance "
        f"{' and '.join(f'{scale:g}' for scale in scales)}."
    )
    summary = {
        "shards": args.shards,
        "split": args.split,
        "objects": list(uids),
        "seeds": args.seeds,
        "steps": args.steps,
        "notes": list(notes),
        "metrics": {metric.name: metric.meaning for metric in METRICS},
        "methods": [{**row, "settings": dict(m.settings)} for row, m in zip(rows, methods, strict=True)],
    }
    write_file_atomic(args.out / "evaluation.json", json_bytes(plain(summary)))
    listed = "\n".join(f"- {note}" for note in notes)
    markdown = f"# {title}\n\n{lead}\n\n" + "\n".join(table.markdown() for table in made)
    write_file_atomic(args.out / "evaluation.md", f"{markdown}\n## How it was measured\n\n{listed}\n".encode())
    write_evaluation_page(
        args.out / "evaluation.html",
        title=title,
        lead=lead,
        tables=made,
        notes=notes,
        record=record,
        methods=methods,
        uids=uids,
    )
    print(made[0].markdown())
    print(f"wrote {args.out}/evaluation.json, evaluation.md and evaluation.html")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def main() -> None:
    """Command line."""
    run(tyro.cli(Evaluate, prog="python -m train.evaluate"))


if __name__ == "__main__":
    run_cli(main)
