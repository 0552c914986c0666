"""Write the results of an asset evaluation: tables, notes on the measurements, and an HTML page with images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dataset.format.schema import VIEWS_PER_SET
from dataset.html.formats import format_object_count
from dataset.reading.rendered_object import view_name
from distill.evaluate.consistency import CONSISTENCY, RERENDERED, SAMPLED, consistency_rows, consistency_tables
from distill.evaluate.metrics import F_DISTANCE, VOXELS
from distill.evaluate.pairing import Pair
from distill.evaluate.score import ASSET_METRICS, PAGE_METRICS
from train.evaluate.metrics import CONFIDENCE, MAX_FRONT_BACK_PSNR_DB, mean_of
from train.evaluate.report import write_report
from train.evaluate.results import TRUTH, Method, Record
from train.evaluate.tables import ResultTable, object_values, summarize, tables

OUTLINES: Final = "outlines"  # METHOD-outlines in the images' folder
_CAPTION: Final = (
    "The 16 views of the fixed set from azimuth 0 (the object's front), every 22.5 degrees: the true views and the "
    "asset's. Below, the silhouettes: gray in both, orange in the asset's only, blue in the object's only. The page's "
    "images are lossy and at most 80 pixels wide; the scores were computed from the original images."
)


@dataclass(frozen=True)
class AssetGroup:
    """All assets made with one method (a model with its settings), which form one row of the result tables."""

    method: Method
    pairs: Sequence[Pair]


def write_asset_report(
    out: Path,
    shards: str,
    groups: Sequence[AssetGroup],
    record: Record,
    notes: Sequence[str],
    *,
    lead: str,
    with_mesh: int,
    consistency: bool = False,
) -> str:
    """Write evaluation.json, evaluation.md and evaluation.html with the results of an evaluation.

    Args:
        out: The output folder.
        shards: URL of the shard set.
        groups: The assets of each method. All groups have the same objects in the same order.
        record: The scores and images of these assets.
        notes: Sentences to add to the notes on the measurements.
        lead: Description of the objects, such as "Split test". The sentence below the heading begins with it.
        with_mesh: Number of objects whose true mesh is available.
        consistency: Whether `record` contains scores of multi-view consistency.

    Returns:
        The first table as text, and the paths of the files, for the command to print.
    """
    methods, uids = [group.method for group in groups], [pair.uid for pair in groups[0].pairs]
    rows = summarize(record, methods, uids, ASSET_METRICS)
    all_tables = _tables(rows, record, methods, uids)
    if consistency:
        all_tables[1:1] = consistency_tables(record, methods, uids)
    return write_report(
        out,
        title=f"Assets compared with {shards}",
        lead=f"{lead}: {format_object_count(len(uids))}.",
        tables=all_tables,
        notes=[*_protocol(groups, with_mesh), *notes],
        details={
            "shards": shards,
            "objects": uids,
            "consistency": consistency_rows(record, methods, uids) if consistency else None,
            "assets": [_asset(record, group.method, pair) for group in groups for pair in group.pairs],
        },
        metrics=ASSET_METRICS,
        rows=rows,
        record=record,
        methods=methods,
        uids=uids,
        page_methods=_page_methods(record, methods, uids, consistency),
        page_metrics=(*PAGE_METRICS, CONSISTENCY),
        caption=_CAPTION,
    )


def _page_methods(record: Record, methods: Sequence[Method], uids: Sequence[str], consistency: bool) -> list[Method]:
    """Return the rows of images that the page shows per object. Rows without scores get empty scores in the record."""
    rings = []
    for method in methods:
        rings += [method, Method(f"{method.key}-{OUTLINES}", f"{method.title}: silhouettes", {})]
        if consistency:
            rings.append(Method(f"{method.key}-{SAMPLED}", f"{method.title}: sampled views", {}))
            rings.append(Method(f"{method.key}-{RERENDERED}", f"{method.title}: a field fitted to these", {}))
    if consistency:
        rings.append(Method(f"{TRUTH}-{RERENDERED}", "a field fitted to the truth", {}))
    for ring in rings:
        for uid in uids:
            record.scores.setdefault((ring.key, uid, 0), {})
    return rings


def _asset(record: Record, method: Method, pair: Pair) -> dict[str, Any]:
    """Return the entry of one asset in evaluation.json: its run, its alignment and its mean scores."""
    scores = record.scores[method.key, pair.uid, 0]
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
) -> list[ResultTable]:
    """Return the tables of means, as for every evaluation, and a table with the values of each object."""
    count = format_object_count(len(uids))
    results, *others = tables(rows, count, ASSET_METRICS)
    note = (
        f"Means over {count}, each of which is the mean over its held-out views; in brackets the {CONFIDENCE:.0%} "
        "confidence interval over objects (bootstrap)."
    )
    return [replace(results, note=note), *others, _object_table(rows, record, methods, uids, results.head)]


def _object_table(
    rows: Sequence[dict[str, Any]],
    record: Record,
    methods: Sequence[Method],
    uids: Sequence[str],
    head: Sequence[str],
) -> ResultTable:
    present = [metric for metric in ASSET_METRICS if any(metric.name in row["metrics"] for row in rows)]
    values = {(m.key, metric.name): object_values(record, m, uids, metric.name) for m in methods for metric in present}
    lines = tuple(
        (
            f"{uid}, {method.title}" if len(methods) > 1 else uid,
            *(metric.format(values[method.key, metric.name][i]) for metric in present),
        )
        for i, uid in enumerate(uids)
        for method in methods
    )
    note = "Means over the held-out views of each object, and the scores of its shape."
    return ResultTable("Object by object", note, ("object", *head[1:]), lines)


def _protocol(groups: Sequence[AssetGroup], with_mesh: int) -> Iterator[str]:
    """Yield sentences that describe how the numbers are measured."""
    pairs = [pair for group in groups for pair in group.pairs]
    inside = sum(pair.view < VIEWS_PER_SET for pair in pairs)
    yield (
        "Images: the asset's field without lighting (its albedo) on white, from the 16 cameras of the fixed set "
        "(elevation 30, every 22.5 degrees), at the resolution of the true images. The true images are lit by an "
        "environment map, so even a perfect asset would differ from them."
    )
    yield (
        f"Held-out views: all 16 fixed views for the {len(pairs) - inside} of {len(pairs)} assets that were made from "
        f"a random view; the other 15 fixed views for the {inside} that were made from a fixed view."
    )
    yield (
        "Alignment: by the known camera of the image, without a search (no ICP). The asset is rotated about the "
        "vertical axis by the image's azimuth if the model's camera labels are relative, and scaled by the ratio of "
        "the frames of distillation and renders. Errors of size, height and rotation are not corrected."
    )
    yield "Silhouette: where the opacity is at least one half. Box: the bounding box of the true alpha."
    yield (
        "Front/back: the fraction of the views within 45 degrees of front or back that are closer to the true view "
        "from the opposite side. Only views whose two true views differ are counted (PSNR below "
        f"{MAX_FRONT_BACK_PSNR_DB:g} dB)."
    )
    yield (
        f"Visual hull: the voxels ({VOXELS}^3 over [-1, 1]^3) inside all 32 silhouettes, of the asset (rendered from "
        "its field) and of the object (from its renders), with the same cameras. It replaces the volume if there is no "
        "true mesh, but fills concavities. The view that the asset was made from is one of the 32."
    )
    yield (
        "Depth ratio: the extent of the asset's visual hull along the axis of the view that was distilled, divided by "
        "that of the object's hull. Each extent is the distance between the 1st and the 99th percentile of the voxels."
    )
    if with_mesh:
        uids = {pair.uid for pair in pairs}
        yield (
            f"Meshes: {with_mesh} of {len(uids)} objects have a true mesh; mesh metrics are over these. "
            "Chamfer distance: the mean distance to the nearest point, averaged over both directions. F-score at "
            f"{F_DISTANCE:g} of the object's longest side. Volume: the voxels ({VOXELS}^3 over [-1, 1]^3) inside the "
            "mesh, by its winding number."
        )
        yield (
            "Chamfer distance and the volume's grid are those of SyncDreamer's evaluation (Liu et al. 2023, "
            "eval_mesh.py). Differences: points are sampled uniformly on the part of a surface that can be reached "
            "from outside, not taken from 16 depth maps; no object is rotated by hand; F-score and hull are added."
        )
    else:
        yield "Meshes: none were given (--meshes), so Chamfer distance, F-score and volume IoU are left out."
