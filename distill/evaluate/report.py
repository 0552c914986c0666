"""What measured assets come to: tables, how they were made, the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.io.files import json_bytes, write_file_atomic
from distill.evaluate.consistency import CONSISTENCY, RERENDERED, SAMPLED, consistency_rows, consistency_tables
from distill.evaluate.ground_truth import view_name
from distill.evaluate.metrics import F_DISTANCE, VOXELS
from distill.evaluate.pairing import Pair
from distill.evaluate.score import ASSET_METRICS, BESIDE
from train.evaluate.metrics import CONFIDENCE, SAME_DB, mean_of
from train.evaluate.page import write_evaluation_page
from train.evaluate.results import TRUTH, Method, Record
from train.evaluate.tables import Table, object_values, plain, summarise, tables

OUTLINES: Final = "outlines"  # METHOD-outlines in pictures/
_RINGS: Final = (
    "The 16 views of the fixed set from azimuth 0 (the object's front) on, every 22.5 degrees, as they were rendered "
    "and as the asset shows them; below, the silhouettes: grey where both are, orange the asset's alone, blue the "
    "object's alone. Pictures are lossy and shrunk to 80 pixels where they were larger, the numbers are of whole ones."
)


@dataclass(frozen=True)
class Group:
    """A row of the tables and its assets."""

    method: Method
    pairs: Sequence[Pair]


def write_results(
    out: Path,
    shards: str,
    groups: Sequence[Group],
    record: Record,
    notes: Sequence[str],
    *,
    lead: str,
    with_mesh: int,
    consistency: bool = False,
) -> None:
    """evaluation.json, evaluation.md and evaluation.html of what the record holds of these assets.

    `with_mesh` says how many of the objects have their true mesh; `consistency`, whether it was measured.
    """
    methods, uids = [group.method for group in groups], [pair.uid for pair in groups[0].pairs]
    rows = summarise(record, methods, uids, ASSET_METRICS)
    title, lead = f"Assets beside {shards}", f"{lead}: {format_object_count(len(uids))}."
    made = _tables(rows, record, methods, uids)
    if consistency:
        made[1:1] = consistency_tables(record, methods, uids)
    told = [*_protocol(groups, with_mesh), *notes]
    summary = {
        "shards": shards,
        "objects": uids,
        "notes": told,
        "metrics": {metric.name: metric.meaning for metric in ASSET_METRICS},
        "methods": [{**row, "settings": dict(m.settings)} for row, m in zip(rows, methods, strict=True)],
        "consistency": consistency_rows(record, methods, uids) if consistency else None,
        "assets": [_asset(record, group.method, pair) for group in groups for pair in group.pairs],
    }
    write_file_atomic(out / "evaluation.json", json_bytes(plain(summary)))
    listed = "\n".join(f"- {note}" for note in told)
    markdown = f"# {title}\n\n{lead}\n\n" + "\n".join(table.markdown() for table in made)
    write_file_atomic(out / "evaluation.md", f"{markdown}\n## How it was measured\n\n{listed}\n".encode())
    write_evaluation_page(
        out / "evaluation.html",
        title=title,
        lead=lead,
        tables=made,
        notes=told,
        record=record,
        methods=_strips(record, methods, uids, consistency),
        uids=uids,
        beside=(*BESIDE, CONSISTENCY),
        rings=_RINGS,
    )
    print(made[0].markdown())
    print(f"wrote {out}/evaluation.json, evaluation.md and evaluation.html")


def _strips(record: Record, methods: Sequence[Method], uids: Sequence[str], consistency: bool) -> list[Method]:
    """The page's rings of each object, top down. Those without numbers get an empty line in the record."""
    strips = []
    for method in methods:
        strips += [method, Method(f"{method.key}-{OUTLINES}", f"{method.title}: silhouettes", {})]
        if consistency:
            strips.append(Method(f"{method.key}-{SAMPLED}", f"{method.title}: sampled views", {}))
            strips.append(Method(f"{method.key}-{RERENDERED}", f"{method.title}: a field fitted to these", {}))
    if consistency:
        strips.append(Method(f"{TRUTH}-{RERENDERED}", "a field fitted to the truth", {}))
    for strip in strips:
        for uid in uids:
            record.found.setdefault((strip.key, uid, 0), {})
    return strips


def _asset(record: Record, method: Method, pair: Pair) -> dict[str, Any]:
    """One asset: where it is, how it was aligned, and its numbers."""
    scores = record.found[method.key, pair.uid, 0]
    return {
        "method": method.key,
        "uid": pair.uid,
        "run": str(pair.run),
        "view": view_name(pair.view),
        "turned_deg": pair.alignment.azimuth_deg,
        "scale": pair.alignment.scale,
        "scores": {m.name: mean_of(scores[m.name]) for m in ASSET_METRICS if m.name in scores},
    }


def _tables(
    rows: Sequence[dict[str, Any]], record: Record, methods: Sequence[Method], uids: Sequence[str]
) -> list[Table]:
    """Those of any evaluation, and the objects one by one."""
    made = tables(rows, format_object_count(len(uids)), ASSET_METRICS)
    note = (
        f"Means over {format_object_count(len(uids))}, each the mean of its held-out views; in brackets the "
        f"{CONFIDENCE:.0%} confidence interval over objects (bootstrap)."
    )
    made[0] = replace(made[0], note=note)
    shown = [metric for metric in ASSET_METRICS if any(metric.name in row["metrics"] for row in rows)]
    cells = {(m.key, metric.name): object_values(record, m, uids, metric.name) for m in methods for metric in shown}
    several = len(methods) > 1
    lines = tuple(
        (
            f"{uid}, {method.title}" if several else uid,
            *(metric.show(cells[method.key, metric.name][i]) for metric in shown),
        )
        for i, uid in enumerate(uids)
        for method in methods
    )
    return [
        *made,
        Table(
            "Object by object",
            "The means of each one's held-out views, and its shape.",
            ("object", *made[0].head[1:]),
            lines,
        ),
    ]


def _protocol(groups: Sequence[Group], with_mesh: int) -> Iterator[str]:
    """How the numbers are made."""
    pairs = [pair for group in groups for pair in group.pairs]
    inside = sum(pair.view < VIEWS_PER_SET for pair in pairs)
    yield (
        "Pictures: the asset's field, unlit (its albedo) on white, from the 16 cameras of the fixed set (elevation 30, "
        "every 22.5 degrees), in the size of the true pictures, which an environment map lights: a perfect asset would "
        "still differ by the light."
    )
    yield (
        f"Held out: all 16 fixed views of the {len(pairs) - inside} of {len(pairs)} assets that were made from a view "
        f"of the random set; of those made from a fixed view ({inside}) the other 15."
    )
    yield (
        "Aligned by the known camera of the picture, without any search (no ICP): turned about the vertical by the "
        "picture's azimuth (where the model's camera labels are relative; absolute ones need no turn) and scaled by "
        "the ratio of the frames of distillation and renders. Size, height and turn are not corrected."
    )
    yield "Silhouette: where the opacity is at least one half. In the box: the bounding box of the true alpha."
    yield (
        "Front/back: of the views within 45 degrees of front or back, how many are nearer to the true view from the "
        f"other side; only where these two true views differ (PSNR below {SAME_DB:g} dB)."
    )
    yield (
        f"Visual hull: {VOXELS}^3 voxels over [-1, 1]^3 that all 32 silhouettes hold, of the asset (its field's) and "
        "of the object (its renders'), by the same cameras. It stands in for the volume where there is no true mesh, "
        "and sees no hollows; the asset's own view is among the 32."
    )
    if with_mesh:
        uids = {pair.uid for pair in pairs}
        yield (
            f"Meshes: {with_mesh} of {len(uids)} objects have a true mesh; the numbers by mesh are over these. "
            f"Chamfer distance: mean of both directions' mean distance to the nearest point. F-score at {F_DISTANCE:g} "
            f"of the object's longest side. Volume: {VOXELS}^3 voxels over [-1, 1]^3 that the mesh winds around."
        )
        yield (
            "As in SyncDreamer's evaluation (Liu et al. 2023, its eval_mesh.py): Chamfer distance and the volume's "
            "grid. Otherwise than there: points are drawn evenly on what can be reached of a surface from outside, "
            "not taken from 16 depth maps; no object is turned by hand; F-score and hull are not theirs."
        )
    else:
        yield "Meshes: none were given (--meshes), so Chamfer distance, F-score and volume IoU are left out."
