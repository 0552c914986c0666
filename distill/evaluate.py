"""Assets against the truth: distillations measured beside the objects of a shard set that they were made from.

    python -m distill.evaluate --model data/model --shards data/shards --objects 20      # distills them first
    python -m distill.evaluate --run out/cat out/mug --uid procedural-cat-000001 procedural-mug-000017 --shards ...
    python -m distill.evaluate --table pairs.csv --shards data/shards                    # run,uid,view

An asset lies in its object's world by the known camera of its picture, without any search (`asset_truth` says how).
What is written: `evaluation.json`, `evaluation.md`, `evaluation.html` with the pictures behind the numbers, and a line
for each measured asset in `results.jsonl`, from which the same command goes on. With --model, `runs/MODEL/UID` are
distillations like any other, and go on too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
import tyro
from tqdm import tqdm

from dataset.errors import UserError, run_cli
from dataset.report_charts import objects
from dataset.schema import VIEWS_PER_SET
from dataset.stream import ShardSet
from distill.asset_measure import keep_pictures, keep_ring, outlines, see, shape_scores, view_scores
from distill.asset_metrics import Solid, solid_of
from distill.asset_pairs import FIELD, MESH, Asked, Labels, Pair, named, pair_up, read_table
from distill.asset_results import OUTLINES, Group, write_results
from distill.asset_runs import Distill, distill_all, reference_view
from distill.asset_truth import TrueObject, read_mesh, read_object, read_true_mesh, view_number
from distill.consistency import Sampling, consistency_note, measure_consistency
from distill.field import load_field
from distill.job import Preset
from train.evaluate import choose, folder_sha256, name_models, open_pictures
from train.evaluation_baselines import spread_evenly
from train.evaluation_protocol import training_notes
from train.evaluation_record import REFERENCE, TRUTH, Method, Record, open_record
from train.find_model import model_folder
from train.model import read_spec
from train.sample import ddim_scheduler, pick_device

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
    consistency: bool = False
    """With --model: also fit a field to the views that each model samples, and render them again."""
    sampling_steps: int = 50
    """DDIM steps of these views."""
    labels: Labels = "auto"
    """The camera labels of the runs' models: decides how assets are turned. auto: as their model folders say."""
    meshes: Path | None = None
    """Folder with the true meshes, UID.glb, the files that were rendered; for Chamfer distance, F-score, volume IoU."""
    out: Path = Path("data/asset-evaluation")
    """Folder to write; what it holds of the same evaluation is taken up."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print what would be measured."""


@dataclass(frozen=True)
class Measuring:
    """What all assets have in common."""

    record: Record
    shards: ShardSet
    meshes: Path | None
    device: torch.device


def run(args: Evaluate) -> int:
    """The command; 1 if a distillation failed, whose object is then left out."""
    _check(args)
    shards = open_pictures(args.shards)
    if args.model:
        return _distilled(args, shards)
    asked = _asked(args)
    places = {shards.uid(*place): place for place in spread_evenly(shards, len(shards))}
    if unknown := [row.uid for row in asked if row.uid not in places]:
        raise UserError(f"{shards.url}: holds no object {', '.join(unknown[:3])}; name uids of this set")
    pairs = [
        pair_up(row, places[row.uid], read_object(shards, places[row.uid]), args.labels)
        for row in tqdm(asked, desc="pair", unit="asset", leave=False, mininterval=1.0)
    ]
    _say(args, [pair.uid for pair in pairs], ["given distillations"])
    if not args.dry_run:
        group = Group(Method(RUNS, "distilled assets", {}), pairs)
        with_mesh = _with_mesh(args, [pair.uid for pair in pairs])
        record = _open(args, shards, [group.method])
        _measure_all(args, shards, record, [group])
        _write(args, record, [group], [], lead="Given distillations", with_mesh=with_mesh)
    return 0


def _distilled(args: Evaluate, shards: ShardSet) -> int:
    places = choose(shards, args.split, args.objects)
    wanted = {shards.uid(*place): place for place in places}
    names, folders = name_models(args.model), [model_folder(model) for model in args.model]
    view = view_number(args.view[0]) if args.view else None
    notes = [note for pair in zip(names, folders, strict=True) for note in training_notes(*pair, args.split)]
    _say(args, list(wanted), names)
    if args.dry_run:
        return 0
    with_mesh = _with_mesh(args, list(wanted))
    asked = {key: getattr(args, key) for key in ("preset", "steps", "seed", "guidance_scale", "view", "sampling_steps")}
    methods = [
        Method(name.replace("/", "-"), name, {"sha256": folder_sha256(folder), **asked})
        for name, folder in zip(names, folders, strict=True)
    ]
    record = _open(args, shards, methods)
    groups, failed = [], dict[str, str]()
    for method, given, folder in zip(methods, args.model, folders, strict=True):
        absolute = read_spec(folder).cameras == "absolute"
        labels = args.labels if args.labels != "auto" else "absolute" if absolute else "relative"
        how = Distill(given, args.out, args.preset, args.steps, args.seed, args.guidance_scale, args.device)
        views = {uid: reference_view(uid) if view is None else view for uid in wanted}
        runs, missing = distill_all(how, shards, wanted, views, args.out / RUNS / method.key)
        failed |= {uid: f"{method.title}: {reason}" for uid, reason in missing.items()}
        pairs = [
            pair_up(Asked(out, uid, views[uid]), wanted[uid], read_object(shards, wanted[uid]), labels)
            for uid, out in runs.items()
        ]
        groups.append(Group(method, pairs))
    groups = [Group(g.method, [pair for pair in g.pairs if pair.uid not in failed]) for g in groups]
    if not groups[0].pairs:
        raise UserError(f"no asset to measure: {next(iter(failed.values()))}")
    notes += [f"Left out, {uid}: its distillation failed ({reason})." for uid, reason in failed.items()]
    _measure_all(args, shards, record, groups)
    if args.consistency:
        for group, folder in zip(groups, folders, strict=True):
            own = read_spec(folder).guidance_scale
            scale = own if args.guidance_scale is None else args.guidance_scale
            measure_consistency(
                record,
                group.method.key,
                folder,
                sampling=Sampling(args.sampling_steps, args.seed, scale),
                shards=shards,
                places=[pair.place for pair in group.pairs],
                device=pick_device(args.device),
            )
    _write(args, record, groups, notes, lead=f"Split {args.split}", with_mesh=with_mesh)
    return 1 if failed else 0


def _check(args: Evaluate) -> None:
    ways = [name for name in ("run", "table", "model") if getattr(args, name)]
    if len(ways) != 1:
        given = " and ".join(f"--{way}" for way in ways) or "none of them is given"
        raise UserError(f"give either --run with --uid, or --table, or --model ({given})")
    if args.model and (args.uid or len(args.view) > 1):
        raise UserError("--model takes its objects by --split and --objects, and at most one --view for all of them")
    if args.table and (args.uid or args.view):
        raise UserError("--table names uids and views itself; leave out --uid and --view")
    if args.consistency and not args.model:
        raise UserError("--consistency is of a model's own views: give --model")
    ddim_scheduler(args.sampling_steps, torch.device("cpu"))  # refuses a number of steps that there is not
    if args.objects is not None and args.objects < 1:
        raise UserError(f"--objects is {args.objects}; it must be at least 1")
    if args.meshes is not None and not args.meshes.is_dir():
        raise UserError(f"--meshes {args.meshes}: no such folder; give one that holds UID.glb")
    for name in args.view:
        view_number(name)


def _asked(args: Evaluate) -> list[Asked]:
    """The runs with their objects and views, each object once."""
    if args.table is not None:
        rows = read_table(args.table)
    else:
        if len(args.uid) != len(args.run) or len(args.view) not in (0, len(args.run)):
            raise UserError(
                f"{len(args.run)} --run, {len(args.uid)} --uid and {len(args.view)} --view; give a uid, and a view or "
                "none at all, for each run"
            )
        rows = list(zip(args.run, args.uid, args.view or ("",) * len(args.run), strict=True))
    asked = [Asked(Path(folder), uid, view_number(view) if view else None) for folder, uid, view in rows]
    named(asked)
    return asked


def _say(args: Evaluate, uids: Sequence[str], names: Sequence[str]) -> None:
    print(f"{objects(len(uids))} of {args.shards}: assets of {', '.join(names)}")
    if args.dry_run:
        print("\n".join(f"would measure: {uid}" for uid in uids))


def _with_mesh(args: Evaluate, uids: Sequence[str]) -> set[str]:
    """The objects whose true mesh is there. Raises UserError where meshes were given and none is of these objects."""
    if args.meshes is None:
        return set()
    found = {uid for uid in uids if (args.meshes / f"{uid}.glb").is_file()}
    if not found:
        raise UserError(f"--meshes {args.meshes}: holds none of {uids[0]}.glb and so on; give the files rendered")
    return found


def _open(args: Evaluate, shards: ShardSet, methods: Sequence[Method]) -> Record:
    return open_record(args.out, {"objects": shards.fingerprint, "meshes": args.meshes is not None}, methods)


def _measure_all(args: Evaluate, shards: ShardSet, record: Record, groups: Sequence[Group]) -> None:
    """Measure what the record lacks."""
    measuring = Measuring(record, shards, args.meshes, pick_device(args.device))
    with tqdm(total=sum(len(group.pairs) for group in groups), desc="measure", unit="asset", mininterval=1.0) as bar:
        for group in groups:
            for pair in group.pairs:
                _measure(measuring, group.method.key, pair)
                bar.update()


def _write(
    args: Evaluate, record: Record, groups: Sequence[Group], notes: Sequence[str], *, lead: str, with_mesh: set[str]
) -> None:
    told = [*dict.fromkeys(note for group in groups for pair in group.pairs for note in pair.notes), *notes]
    meshes = len(with_mesh & {pair.uid for pair in groups[0].pairs})
    if args.consistency:
        told.append(consistency_note(args.sampling_steps, args.seed))
    write_results(
        args.out, args.shards, groups, record, told, lead=lead, with_mesh=meshes, consistency=args.consistency
    )


def _measure(measuring: Measuring, method: str, pair: Pair) -> None:
    """Add an asset's line to the record, unless it is there. `asset` says what was measured: it is no metric."""
    record, key = measuring.record, (method, pair.uid, 0)
    identity = pair.identity
    if record.found.get(key, {}).get("asset") == [identity]:
        return
    truth = read_object(measuring.shards, pair.place)
    mesh = read_mesh(pair.run / MESH)
    field = load_field(pair.run / FIELD, measuring.device)
    seen = see(field, pair.march, pair.alignment, truth, measuring.device)
    scores: dict[str, Sequence[float]] = {"asset": [identity], **view_scores(seen, truth, pair.view)}
    if (solid := _true_solid(measuring.meshes, truth)) is not None:
        scores |= shape_scores(mesh, pair.alignment, solid)
    keep_pictures(record, REFERENCE, pair.uid, [truth.pictures[pair.view]])
    keep_pictures(record, TRUTH, pair.uid, list(truth.pictures[:VIEWS_PER_SET]))
    keep_ring(record, method, pair.uid, seen.rgb[:VIEWS_PER_SET])
    keep_pictures(record, f"{method}-{OUTLINES}", pair.uid, outlines(seen, truth))
    record.add(key, scores)  # last: the line says that its pictures are there


def _true_solid(meshes: Path | None, truth: TrueObject) -> Solid | None:
    if meshes is None or not (path := meshes / f"{truth.uid}.glb").is_file():
        return None
    return solid_of(read_true_mesh(path, truth))


def main() -> int:
    """Command line."""
    return run(tyro.cli(Evaluate, prog="python -m distill.evaluate"))


if __name__ == "__main__":
    run_cli(main)
