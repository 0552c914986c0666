"""Assets against the truth: distillations measured beside the objects of a shard set that they were made from.

    python -m distill.evaluate --model data/model --shards data/shards --objects 20      # distills them first
    python -m distill.evaluate --run out/cat out/mug --uid procedural-cat-000001 procedural-mug-000017 --shards ...
    python -m distill.evaluate --table pairs.csv --shards data/shards                    # run,uid,view

An asset lies in its object's world by the known camera of its picture, without any search (`asset_truth` says how).
What is written: `evaluation.json`, `evaluation.md`, `evaluation.html` with the pictures behind the numbers, and a line
for each measured asset in `results.jsonl`, from which the same command resumes. With --model, `runs/MODEL/UID` are
distillations like any other, and go on too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
import tyro
from tqdm import tqdm

from dataset.errors import UserError, run_cli
from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.reading.shard_set import ShardSet
from distill.config import Preset
from distill.evaluate.consistency import Sampling, consistency_note, measure_consistency
from distill.evaluate.distill_objects import ObjectDistillation, distill_all, reference_view, write_reference_images
from distill.evaluate.ground_truth import Place, read_mesh, read_object, read_true_mesh, view_number
from distill.evaluate.metrics import solid_of
from distill.evaluate.pairing import FIELD, MESH, Asked, Labels, Pair, asked_for, once_each, pair_up, read_table
from distill.evaluate.report import OUTLINES, Group, write_results
from distill.evaluate.score import keep_pictures, keep_ring, outlines, see, shape_scores, view_scores
from distill.nerf.field import load_field
from distill.runs.plan import SharedOptions
from train.convert.resolve import model_folder
from train.device import pick_device
from train.evaluate.baselines import spread_evenly
from train.evaluate.protocol import training_notes
from train.evaluate.results import REFERENCE, TRUTH, Method, Record, open_record
from train.evaluate.selection import choose, folder_sha256, name_models, open_pictures
from train.model.ddim import ddim_scheduler
from train.model.multiview import read_spec
from train.model.reference import folder_reads_reference

RUNS: Final = "runs"  # folder of the distillations, and the key of assets that were there


@dataclass(frozen=True)
class Evaluate:
    """Distilled assets against the truth of a shard set, as JSON, a Markdown table and an HTML page."""

    shards: str = "data/shards"
    """Shard set with the true views: a folder or an fsspec URL."""
    run: tuple[Path, ...] = ()
    """Folders of finished distillations; with --uid."""
    uid: tuple[str, ...] = ()
    """The objects that they show, in that order."""
    view: tuple[str, ...] = ()
    """The view that each was made from, fixed_00 to random_15; found by its picture if not given. With --model one, for
    all objects; that of train.evaluate if not given: one of the random set, by the uid."""
    table: Path | None = None
    """CSV with the head run,uid,view, or JSON, instead of --run, --uid and --view; runs relative to its folder."""
    model: tuple[Path, ...] = ()
    """Model folders, checkpoint files or Hub names, to distill objects of the set with; the first is what the others
    are compared with."""
    split: Literal["test", "validation", "all"] = "test"
    """Which objects --model takes, by a hash of their uids: test is what no training sees."""
    objects: int | None = None
    """At most so many of them, spread evenly over the split; all if not given."""
    preset: Preset | None = None
    """Of the distillations with --model, as in python -m distill."""
    steps: int | None = None
    """Steps of each, as in python -m distill."""
    seed: int = 0
    """Seed of each, as in python -m distill."""
    guidance_scale: float | None = None
    """Classifier-free guidance, as in python -m distill."""
    reference: Literal["without", "with", "both"] = "without"
    """With --model: whether the picture itself is before the model's eyes beside its embedding, as python -m distill
    --with-reference; without is the paper's way; both are two rows."""
    consistency: bool = False
    """With --model: also fit a field to the views that each model samples, and render them again."""
    sampling_steps: int = 50
    """DDIM steps of these views."""
    labels: Labels = "auto"
    """The camera labels of the runs' models: decides how assets are turned. auto: as their model folders say."""
    meshes: Path | None = None
    """Folder with the true meshes, UID.glb, the files that were rendered; for Chamfer distance, F-score, volume IoU."""
    out: Path = Path("data/asset-evaluation")
    """Folder to write; an evaluation found there with the same settings is resumed."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print what would be measured."""


@dataclass(frozen=True)
class Row:
    """A model as it distills."""

    method: Method
    given: Path  # as the person gave it
    folder: Path
    shown: bool  # whether it sees the picture itself


@dataclass(frozen=True)
class Measuring:
    """What all assets have in common."""

    record: Record
    shards: ShardSet
    meshes: Mapping[str, Path]  # true ones, by uid
    device: torch.device


def run(args: Evaluate) -> int:
    """The command; 1 if a distillation failed, whose object is then left out."""
    _check(args)
    shards = open_pictures(args.shards)
    return _distilled(args, shards) if args.model else _given(args, shards)


def _given(args: Evaluate, shards: ShardSet) -> int:
    """Measure distillations that are there."""
    asked = read_table(args.table) if args.table else asked_for(args.run, args.uid, args.view)
    once_each(asked)
    places = {shards.uid(*place): place for place in spread_evenly(shards, len(shards))}
    if unknown := [row.uid for row in asked if row.uid not in places]:
        raise UserError(f"{shards.url}: holds no object {', '.join(unknown[:3])}; name uids of this set")
    pairs = [
        pair_up(row, places[row.uid], read_object(shards, places[row.uid]), args.labels)
        for row in tqdm(asked, desc="pair", unit="asset", leave=False, mininterval=1.0)
    ]
    meshes = _true_meshes(args, [pair.uid for pair in pairs])
    _say(args, [pair.uid for pair in pairs], ["given distillations"])
    if not args.dry_run:
        groups = [Group(Method(RUNS, "distilled assets", {}), pairs)]
        record = _open(args, shards, [group.method for group in groups])
        _measure_all(Measuring(record, shards, meshes, pick_device(args.device)), groups)
        _write(args, record, groups, [], lead="Given distillations", meshes=meshes)
    return 0


def _distilled(args: Evaluate, shards: ShardSet) -> int:
    """Distill objects of the set with each model and measure what comes of it."""
    wanted = {shards.uid(*place): place for place in choose(shards, args.split, args.objects)}
    names, folders = name_models(args.model), [model_folder(model) for model in args.model]
    if args.reference != "without" and (wide := [str(f) for f in folders if folder_reads_reference(f)]):
        raise UserError(f"{', '.join(wide)}: reads the reference as input channels, always: leave out --reference")
    notes = [note for pair in zip(names, folders, strict=True) for note in training_notes(*pair, args.split)]
    meshes = _true_meshes(args, list(wanted))
    _say(args, list(wanted), names)
    if args.dry_run:
        return 0
    rows = [row for each in zip(names, args.model, folders, strict=True) for row in _rows(args, *each)]
    record = _open(args, shards, [row.method for row in rows])
    groups, failed = [], dict[str, str]()
    for row in rows:
        pairs, reasons = _pairs_of(args, row, shards, wanted)
        groups.append(Group(row.method, pairs))
        failed |= {uid: f"{row.method.title}: {reason}" for uid, reason in reasons.items()}
    groups = [Group(g.method, [pair for pair in g.pairs if pair.uid not in failed]) for g in groups]
    if not groups[0].pairs:
        raise UserError(f"no asset to measure: {next(iter(failed.values()))}")
    notes += [f"Left out, {uid}: its distillation failed ({reason})." for uid, reason in failed.items()]
    _measure_all(Measuring(record, shards, meshes, pick_device(args.device)), groups)
    if args.consistency:
        _measure_consistency(args, record, shards, groups, rows)
    _write(args, record, groups, notes, lead=f"Split {args.split}", meshes=meshes)
    return 1 if failed else 0


def _rows(args: Evaluate, name: str, given: Path, folder: Path) -> list[Row]:
    """A model's rows, with all that decides its assets."""
    decisive = ("preset", "steps", "seed", "guidance_scale", "view", "sampling_steps")
    settings = {"sha256": folder_sha256(folder), **{key: getattr(args, key) for key in decisive}}
    key, rows = name.replace("/", "-"), []
    if args.reference != "with":
        title = f"{name}, embedding alone" if args.reference == "both" else name
        rows.append(Row(Method(key, title, settings), given, folder, shown=False))
    if args.reference != "without":
        method = Method(f"{key}.reference", f"{name}, with the reference", {**settings, "shown": True})
        rows.append(Row(method, given, folder, shown=True))
    return rows


def _pairs_of(
    args: Evaluate, row: Row, shards: ShardSet, wanted: Mapping[str, Place]
) -> tuple[list[Pair], dict[str, str]]:
    """(the assets of a row, why others failed by uid)."""
    absolute = read_spec(row.folder).cameras == "absolute"
    labels: Labels = args.labels if args.labels != "auto" else "absolute" if absolute else "relative"
    views = {uid: view_number(args.view[0]) if args.view else reference_view(uid) for uid in wanted}
    options = SharedOptions(row.given, args.preset, args.steps, args.guidance_scale)
    settings = ObjectDistillation(options, row.folder, args.seed, args.device, row.shown)
    images = write_reference_images(shards, wanted, views, args.out)
    runs, failed = distill_all(settings, shards, wanted, views, images=images, out=args.out / RUNS / row.method.key)
    pairs = [
        pair_up(Asked(run, uid, views[uid]), wanted[uid], read_object(shards, wanted[uid]), labels)
        for uid, run in runs.items()
    ]
    return pairs, failed


def _measure_consistency(
    args: Evaluate, record: Record, shards: ShardSet, groups: Sequence[Group], rows: Sequence[Row]
) -> None:
    for group, row in zip(groups, rows, strict=True):
        own = read_spec(row.folder).guidance_scale
        scale = own if args.guidance_scale is None else args.guidance_scale
        measure_consistency(
            record,
            group.method.key,
            row.folder,
            sampling=Sampling(args.sampling_steps, args.seed, scale, row.shown or folder_reads_reference(row.folder)),
            shards=shards,
            places=[pair.place for pair in group.pairs],
            device=pick_device(args.device),
        )


def _check(args: Evaluate) -> None:
    ways = [name for name in ("run", "table", "model") if getattr(args, name)]
    if len(ways) != 1:
        given = " and ".join(f"--{way}" for way in ways) or "none of them is given"
        raise UserError(f"give either --run with --uid, or --table, or --model ({given})")
    if args.model and (args.uid or len(args.view) > 1):
        raise UserError("--model takes its objects by --split and --objects, and at most one --view for all of them")
    if args.table and (args.uid or args.view):
        raise UserError("--table names uids and views itself; leave out --uid and --view")
    if args.reference != "without" and not args.model:
        raise UserError("--reference is of assets that are yet to be distilled: give --model")
    if args.consistency and not args.model:
        raise UserError("--consistency is of a model's own views: give --model")
    ddim_scheduler(args.sampling_steps, torch.device("cpu"))  # refuses a number of steps that there is not
    if args.objects is not None and args.objects < 1:
        raise UserError(f"--objects is {args.objects}; it must be at least 1")
    if args.meshes is not None and not args.meshes.is_dir():
        raise UserError(f"--meshes {args.meshes}: no such folder; give one that holds UID.glb")
    for name in args.view:
        view_number(name)


def _say(args: Evaluate, uids: Sequence[str], names: Sequence[str]) -> None:
    print(f"{format_object_count(len(uids))} of {args.shards}: assets of {', '.join(names)}")
    if args.dry_run:
        print("\n".join(f"would measure: {uid}" for uid in uids))


def _true_meshes(args: Evaluate, uids: Sequence[str]) -> dict[str, Path]:
    """The true meshes that are there, by uid. Raises UserError where some were given and none is of these objects."""
    if args.meshes is None:
        return {}
    paths = {uid: args.meshes / f"{uid}.glb" for uid in uids}
    found = {uid: path for uid, path in paths.items() if path.is_file()}
    if not found:
        raise UserError(f"--meshes {args.meshes}: holds none of {uids[0]}.glb and so on; give the files rendered")
    return found


def _open(args: Evaluate, shards: ShardSet, methods: Sequence[Method]) -> Record:
    return open_record(args.out, {"objects": shards.fingerprint}, methods)


def _measure_all(measuring: Measuring, groups: Sequence[Group]) -> None:
    """Measure what the record lacks."""
    with tqdm(total=sum(len(group.pairs) for group in groups), desc="measure", unit="asset", mininterval=1.0) as bar:
        for group in groups:
            for pair in group.pairs:
                _measure(measuring, group.method.key, pair)
                bar.update()


def _measure(measuring: Measuring, method: str, pair: Pair) -> None:
    """Add an asset's line to the record, unless it is there. `asset` says what was measured: it is no metric."""
    record, key, true_mesh = measuring.record, (method, pair.uid, 0), measuring.meshes.get(pair.uid)
    identity = pair.identity(true_mesh)
    if record.found.get(key, {}).get("asset") == [identity]:
        return
    truth, mesh = read_object(measuring.shards, pair.place), read_mesh(pair.run / MESH)
    seen = see(load_field(pair.run / FIELD, measuring.device), pair.march, pair.alignment, truth, measuring.device)
    scores: dict[str, Sequence[float]] = {"asset": [identity], **view_scores(seen, truth, pair.view)}
    if true_mesh is not None:
        scores |= shape_scores(mesh, pair.alignment, solid_of(read_true_mesh(true_mesh, truth)))
    keep_pictures(record, REFERENCE, pair.uid, [truth.pictures[pair.view]])
    keep_pictures(record, TRUTH, pair.uid, list(truth.pictures[:VIEWS_PER_SET]))
    keep_ring(record, method, pair.uid, seen.rgb[:VIEWS_PER_SET])
    keep_pictures(record, f"{method}-{OUTLINES}", pair.uid, outlines(seen, truth))
    record.add(key, scores)  # last: the line says that its pictures are there


def _write(
    args: Evaluate,
    record: Record,
    groups: Sequence[Group],
    notes: Sequence[str],
    *,
    lead: str,
    meshes: Mapping[str, Path],
) -> None:
    told = [*dict.fromkeys(note for group in groups for pair in group.pairs for note in pair.notes), *notes]
    if args.consistency:
        told.append(consistency_note(args.sampling_steps, args.seed))
    with_mesh = len(meshes.keys() & {pair.uid for pair in groups[0].pairs})
    write_results(
        args.out, args.shards, groups, record, told, lead=lead, with_mesh=with_mesh, consistency=args.consistency
    )


def main() -> int:
    """Command line."""
    return run(tyro.cli(Evaluate, prog="python -m distill.evaluate"))


if __name__ == "__main__":
    run_cli(main)
