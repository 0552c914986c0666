"""Evaluate distilled assets: pair each asset with its original object, compare the two and write the results."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from dataset.errors import UserError
from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.io.lock import locked_folder
from dataset.io.option_checks import part_slice
from dataset.io.progress import ProgressBar
from dataset.reading.rendered_object import Place, read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate.config import AssetEvaluationArgs, check_args
from distill.evaluate.consistency import Sampling, consistency_note, measure_consistency
from distill.evaluate.distill_objects import ObjectDistillation, distill_all, reference_view, write_reference_images
from distill.evaluate.ground_truth import read_mesh, read_true_mesh
from distill.evaluate.metrics import solid_of
from distill.evaluate.pairing import (
    FIELD,
    MESH,
    AssetEntry,
    Labels,
    Pair,
    check_unique,
    entries_of,
    pair_up,
    read_table,
)
from distill.evaluate.report import OUTLINES, AssetGroup, write_asset_report
from distill.evaluate.score import outlines, render_asset, shape_scores, view_scores
from distill.nerf.field import load_field
from distill.runs.plan import SharedOptions, default_preset, preset_settings
from distill.sds.schedule import newer_settings
from train.convert.resolve import file_sha256, model_folder
from train.device import pick_device
from train.evaluate.perceptual.lpips import Perceptual
from train.evaluate.perceptual.squeezenet import SQUEEZENET_NOTE, load_feature_distance
from train.evaluate.protocol import training_notes
from train.evaluate.results import REFERENCE, TRUTH, Method, Record, opaque, open_record
from train.evaluate.selection import PARTS, folder_sha256, name_models, open_images, select_objects, spread_evenly
from train.model.ddim import sampling_settings
from train.model.multiview import read_spec
from train.model.recognition.table import KNOWN_FOLDER
from train.model.reference import folder_reads_reference

RUNS: Final = "runs"  # folder of new distillations, and method key of existing ones

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillMethod:
    """One row of the result tables: a model, used with or without the reference image as additional input."""

    method: Method
    model: Path  # as given on the command line
    folder: Path
    with_reference: bool  # whether the model is conditioned on the image itself
    reference_weight: float = 0.0  # of the L2 loss at the reference view


@dataclass(frozen=True)
class AssetScoringContext:
    """Values that are needed to score any asset of an evaluation.

    These are the record, the shard set, the true meshes, the device and, if it is measured, the perceptual distance.
    """

    record: Record
    shards: ShardSet
    meshes: Mapping[str, Path]  # the true ones, by uid
    device: torch.device
    perceptual: Perceptual | None = None


def evaluate_assets(args: AssetEvaluationArgs) -> int:
    """Compare assets with their objects and write the results. With --model, distill the assets first.

    Returns:
        The exit status: 1 if a distillation failed, otherwise 0. The results omit objects whose distillation failed.

    Raises:
        UserError: an option is invalid, a file cannot be read, the image of a run is not a view of its object, or the
            output folder contains an evaluation with other settings.
        KeyboardInterrupt: a distillation was stopped.
    """
    check_args(args)
    shards = open_images(args.shards)
    with nullcontext() if args.dry_run or args.part else locked_folder(args.out, "evaluation"):
        return _evaluate_models(args, shards) if args.model else _evaluate_runs(args, shards)


def _evaluate_runs(args: AssetEvaluationArgs, shards: ShardSet) -> int:
    """Measure the assets of existing run folders."""
    entries = read_table(args.table) if args.table else entries_of(args.run, args.uid, args.view)
    check_unique(entries)
    places = {shards.uid(*place): place for place in spread_evenly(shards, len(shards))}
    if unknown := [entry.uid for entry in entries if entry.uid not in places]:
        raise UserError(
            f"the shard set {shards.url} has no object with the uid {', '.join(unknown[:3])}; give uids in this set"
        )
    pairs = [
        pair_up(entry, places[entry.uid], read_object(shards, places[entry.uid]), args.labels)
        for entry in ProgressBar(entries, desc="pair", unit="asset", leave=False)
    ]
    uids = [pair.uid for pair in pairs]
    meshes = _true_meshes(args, uids)
    _describe(args, uids, ["given distillations"])
    if not args.dry_run:
        groups = [AssetGroup(Method(RUNS, "distilled assets", {}), pairs)]
        record = _open_record(args, shards, [group.method for group in groups])
        _score_all(_scoring_context(args, record, shards, meshes), groups)
        print(_write(args, record, groups, [], lead="Given distillations", meshes=meshes))
    return 0


def _evaluate_models(args: AssetEvaluationArgs, shards: ShardSet) -> int:
    """Distill objects of the set with each model and measure the assets."""
    selected = select_objects(shards, args.split, args.max_objects)[part_slice(args.part)]
    if not selected:  # with more parts than objects
        logger.info("part %s has no object", args.part)
        return 0
    places = {shards.uid(*place): place for place in selected}
    models = (*args.model, *([args.channels_model] if args.channels_model else []))
    names, folders = name_models(models), [model_folder(model) for model in models]
    if args.channels_model:
        _check_supervision(*folders)
    if args.compare_reference != "without" and (wide := [str(f) for f in folders if folder_reads_reference(f)]):
        raise UserError(
            f"the model {', '.join(wide)} always receives the reference image, as extra input channels, and cannot be "
            "evaluated without it; leave out --compare-reference"
        )
    notes = [note for pair in zip(names, folders, strict=True) for note in training_notes(*pair, args.split)]
    if args.channels_model:
        notes.append(
            "Settings of the paper's Fig. 8: the reference image as channels of the model's input, an L2 loss between "
            f"the image and the rendered reference view (weight {args.supervision_weight:g}), both, or neither."
        )
    meshes = _true_meshes(args, list(places))
    _describe(args, list(places), names)
    if args.dry_run:
        return 0
    methods = [row for each in zip(names, models, folders, strict=True) for row in _methods_of(args, *each)]
    if args.part:
        failures = sum(len(_distill(args, each, shards, places)[1]) for each in methods)
        return int(failures > 0)
    record = _open_record(args, shards, [each.method for each in methods])
    groups, failed = [], dict[str, str]()
    for each in methods:
        pairs, reasons = _distill(args, each, shards, places)
        groups.append(AssetGroup(each.method, pairs))
        failed |= {uid: f"{each.method.title}: {reason}" for uid, reason in reasons.items()}
    groups = [AssetGroup(g.method, [pair for pair in g.pairs if pair.uid not in failed]) for g in groups]
    if not groups[0].pairs:
        first_error = next(iter(failed.values()))
        raise UserError(
            f"nothing to measure: the distillation of every object failed, for example: {first_error}. Remove the "
            "cause of this error and repeat the command"
        )
    notes += [f"Left out, {uid}: its distillation failed ({reason})." for uid, reason in failed.items()]
    _score_all(_scoring_context(args, record, shards, meshes), groups)
    if args.consistency:
        _measure_consistency(args, record, shards, groups, methods)
    print(_write(args, record, groups, notes, lead=f"Split {args.split}", meshes=meshes))
    return 1 if failed else 0


def _methods_of(args: AssetEvaluationArgs, name: str, model: Path, folder: Path) -> list[DistillMethod]:
    """Return the table rows of a model: without the reference image, with it, or both. Each row stores its settings."""
    image_size = read_spec(folder).image_size
    preset = args.preset or default_preset(image_size)
    settings = {
        "sha256": folder_sha256(folder, (*PARTS, KNOWN_FOLDER)),  # assets depend on the table of known objects too
        "preset": args.preset,
        "steps": args.steps,
        "seed": args.seed,
        "guidance_scale": args.guidance_scale,
        "view": args.view,
        "sampling_steps": args.ddim_steps,
        **sampling_settings(args.ddim_steps),
        **newer_settings(preset_settings(preset, image_size)),
    }
    key, methods = name.replace("/", "-"), []
    if args.channels_model:
        return _supervised(args, Method(key, name, settings), model, folder)
    if args.compare_reference != "with":
        title = f"{name}, embedding alone" if args.compare_reference == "both" else name
        methods.append(DistillMethod(Method(key, title, settings), model, folder, with_reference=False))
    if args.compare_reference != "without":
        method = Method(f"{key}.reference", f"{name}, with the reference", {**settings, "shown": True})
        methods.append(DistillMethod(method, model, folder, with_reference=True))
    return methods


def _supervised(args: AssetEvaluationArgs, plain: Method, model: Path, folder: Path) -> list[DistillMethod]:
    """Return the rows of a model in the table of Fig. 8: without and with the L2 loss at the reference view."""
    channels, weight = folder_reads_reference(folder), args.supervision_weight
    titles = ("channels", "channels and L2 loss") if channels else ("neither", "L2 loss")
    with_loss = Method(
        f"{plain.key}.l2", f"{titles[1]} ({plain.title})", {**plain.settings, "reference_weight": weight}
    )
    return [
        DistillMethod(replace(plain, title=f"{titles[0]} ({plain.title})"), model, folder, with_reference=False),
        DistillMethod(with_loss, model, folder, with_reference=False, reference_weight=weight),
    ]


def _check_supervision(plain: Path, channels: Path) -> None:
    """Check the two models of Fig. 8. Raises UserError unless exactly the second reads the image as channels."""
    for folder, expected in ((plain, False), (channels, True)):
        if folder_reads_reference(folder) != expected:
            raise UserError(
                f"the model {folder} was trained {'without' if expected else 'with'} --reference-mode channels; give "
                "--model the model without channels for the reference image, and --channels-model the one with them"
            )


def _distill(
    args: AssetEvaluationArgs, distilled: DistillMethod, shards: ShardSet, places: Mapping[str, Place]
) -> tuple[list[Pair], dict[str, str]]:
    """Distill all objects with one method. Return the assets and, by uid, the error message of each run that failed."""
    absolute = read_spec(distilled.folder).cameras == "absolute"
    labels: Labels = args.labels if args.labels != "auto" else "absolute" if absolute else "relative"
    views = {uid: reference_view(uid) if args.view_of_all is None else args.view_of_all for uid in places}
    options = SharedOptions(distilled.model, args.preset, args.steps, args.guidance_scale)
    options = replace(options, reference_weight=distilled.reference_weight)
    settings = ObjectDistillation(options, distilled.folder, args.seed, args.device, distilled.with_reference)
    images = write_reference_images(shards, places, views, args.out)
    out = args.out / RUNS / distilled.method.key
    runs, failed = distill_all(settings, shards, places, views, images=images, out=out)
    pairs = [
        pair_up(AssetEntry(run, uid, views[uid]), places[uid], read_object(shards, places[uid]), labels)
        for uid, run in runs.items()
    ]
    return pairs, failed


def _measure_consistency(
    args: AssetEvaluationArgs,
    record: Record,
    shards: ShardSet,
    groups: Sequence[AssetGroup],
    methods: Sequence[DistillMethod],
) -> None:
    for group, distilled in zip(groups, methods, strict=True):
        own = read_spec(distilled.folder).guidance_scale
        scale = own if args.guidance_scale is None else args.guidance_scale
        with_reference = distilled.with_reference or folder_reads_reference(distilled.folder)
        measure_consistency(
            record,
            group.method.key,
            distilled.folder,
            sampling=Sampling(args.ddim_steps, args.seed, scale, with_reference),
            shards=shards,
            places=[pair.place for pair in group.pairs],
            device=pick_device(args.device),
        )


def _describe(args: AssetEvaluationArgs, uids: Sequence[str], names: Sequence[str]) -> None:
    plan = f"{format_object_count(len(uids))} of {args.shards}: assets of {', '.join(names)}"
    if args.dry_run:
        print("\n".join([plan, *(f"would measure: {uid}" for uid in uids)]))
    else:
        logger.info("%s", plan)


def _true_meshes(args: AssetEvaluationArgs, uids: Sequence[str]) -> dict[str, Path]:
    """Return the path of each true mesh that exists, by uid. Raises UserError if --meshes has no mesh of these uids."""
    if args.meshes is None:
        return {}
    paths = {uid: args.meshes / f"{uid}.glb" for uid in uids}
    existing = {uid: path for uid, path in paths.items() if path.is_file()}
    if not existing:
        raise UserError(
            f"--meshes {args.meshes} contains no mesh of the evaluated objects, such as {uids[0]}.glb; give the folder "
            "with the original 3D file UID.glb of each object"
        )
    return existing


def _open_record(args: AssetEvaluationArgs, shards: ShardSet, methods: Sequence[Method]) -> Record:
    common = {"objects": shards.fingerprint}
    if args.perceptual:
        common["squeezenet"] = file_sha256(args.perceptual)
    return open_record(args.out, common, methods)


def _scoring_context(
    args: AssetEvaluationArgs, record: Record, shards: ShardSet, meshes: Mapping[str, Path]
) -> AssetScoringContext:
    device = pick_device(args.device)
    perceptual = load_feature_distance(args.perceptual, device) if args.perceptual else None
    return AssetScoringContext(record, shards, meshes, device, perceptual)


def _score_all(context: AssetScoringContext, groups: Sequence[AssetGroup]) -> None:
    """Score the assets whose scores are not in the record yet."""
    with ProgressBar(total=sum(len(group.pairs) for group in groups), desc="measure", unit="asset") as progress:
        for group in groups:
            for pair in group.pairs:
                _score(context, group.method.key, pair)
                progress.update()


def _score(context: AssetScoringContext, method: str, pair: Pair) -> None:
    """Score an asset, unless the record has scores whose hash `asset` equals the identity of this asset."""
    record, key, true_mesh = context.record, (method, pair.uid, 0), context.meshes.get(pair.uid)
    identity = pair.identity(true_mesh)
    stored = record.scores.get(key, {})
    if stored.get("asset") == [identity] and "depth_ratio" in stored:  # older versions did not measure the latter
        return
    truth, mesh = read_object(context.shards, pair.place), read_mesh(pair.run / MESH)
    field = load_field(pair.run / FIELD, context.device)
    rendered = render_asset(field, pair.march, pair.alignment, truth, context.device)
    views = view_scores(rendered, truth, pair.view, perceptual=context.perceptual)
    scores: dict[str, Sequence[float]] = {"asset": [identity], **views}
    if true_mesh is not None:
        scores |= shape_scores(mesh, pair.alignment, solid_of(read_true_mesh(true_mesh, truth)))
    record.write_images(REFERENCE, pair.uid, [truth.images[pair.view]])
    record.write_images(TRUTH, pair.uid, list(truth.images[:VIEWS_PER_SET]))
    record.write_images(method, pair.uid, opaque(rendered.rgb[:VIEWS_PER_SET]))
    record.write_images(f"{method}-{OUTLINES}", pair.uid, outlines(rendered, truth))
    record.add(key, scores)  # last, so that a recorded line implies that its images exist


def _write(
    args: AssetEvaluationArgs,
    record: Record,
    groups: Sequence[AssetGroup],
    notes: Sequence[str],
    *,
    lead: str,
    meshes: Mapping[str, Path],
) -> str:
    all_notes = [*dict.fromkeys(note for group in groups for pair in group.pairs for note in pair.notes), *notes]
    if args.perceptual:
        all_notes.append(SQUEEZENET_NOTE)
    if args.consistency:
        all_notes.append(consistency_note(args.ddim_steps, args.seed))
    return write_asset_report(
        args.out,
        args.shards,
        groups,
        record,
        all_notes,
        lead=lead,
        with_mesh=len(meshes.keys() & {pair.uid for pair in groups[0].pairs}),
        consistency=args.consistency,
    )
