"""Summarize the record of an evaluation in tables.

The tables contain means over all objects, differences between methods, and means for each kind of object.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from train.data.kinds import kind_of as kind_or_none
from train.evaluate.metrics import CONFIDENCE, bootstrap, mean_of
from train.evaluate.results import Method, Record

_ARROWS: Final = {True: "\N{NO-BREAK SPACE}↑", False: "\N{NO-BREAK SPACE}↓", None: ""}


@dataclass(frozen=True)
class Metric:
    """A metric, which is a column of the tables.

    `larger_is_better` is None if neither larger nor smaller values are better. `digits` is the number of decimals
    shown. If `percent` is true, values are multiplied by 100 before they are shown.
    """

    name: str
    label: str
    meaning: str
    larger_is_better: bool | None
    digits: int
    percent: bool = False

    def format(self, value: float) -> str:
        """Return a value of the metric as text, with the metric's number of decimals; a dash for NaN and infinity."""
        if not math.isfinite(value):
            return "–"
        rounded = round(100 * value if self.percent else value, self.digits)
        return f"{rounded + 0.0:.{self.digits}f}"  # no minus sign before a zero


METRICS: Final = (
    Metric("psnr", "PSNR dB", "over the whole image on white", True, 2),
    Metric("ssim", "SSIM", "over the whole image on white", True, 3),
    Metric("psnr_box", "PSNR dB, box", "in the bounding box of the true alpha", True, 2),
    Metric("ssim_box", "SSIM, box", "in the bounding box of the true alpha", True, 3),
    Metric("lpips", "LPIPS", "perceptual distance (VGG)", False, 3),
    Metric(
        "squeezenet",
        "SqueezeNet feature distance (unlearned weights per layer)",
        "perceptual distance, 0 to 4",
        False,
        3,
    ),
    Metric(
        "similarity",
        "embedding cosine",
        "of a view's embedding with the true view's, by the model's image encoder",
        True,
        3,
    ),
    Metric(
        "pose_pixels",
        "pose %, pixels",
        "the nearest of the 16 true views is the one at the same camera, by pixels",
        True,
        1,
        True,
    ),
    Metric("pose_embedding", "pose %, embedding", "the same by embedding", True, 1, True),
    Metric(
        "turned_pixels_deg",
        "turned °, pixels",
        "degrees from the true view at the same camera to the nearest one",
        False,
        1,
    ),
    Metric("turned_embedding_deg", "turned °, embedding", "the same by embedding", False, 1),
    Metric(
        "front_back_pixels",
        "front/back confused %, pixels",
        "views of front or back that are nearer to the true view from the opposite side (50 by chance), where the two "
        "differ",
        False,
        1,
        True,
    ),
    Metric("front_back_embedding", "front/back confused %, embedding", "the same by embedding", False, 1, True),
)


def kind_of(uid: str) -> str:
    """Return the kind of a procedural object, such as "cat", from its uid. Return "other" for all other objects."""
    return kind_or_none(uid, {}) or "other"


def object_values(record: Record, method: Method, uids: Sequence[str], metric: str) -> list[float]:
    """Return, for each object, the mean of a metric over views and seeds. The mean is NaN if no value is finite.

    Args:
        record: The scores.
        method: The method whose scores to use.
        uids: The objects.
        metric: Name of the metric.
    """
    return [
        mean_of([v for seed in range(method.seeds) for v in record.scores[method.key, uid, seed].get(metric, ())])
        for uid in uids
    ]


def summarize(
    record: Record, methods: Sequence[Method], uids: Sequence[str], metrics: Sequence[Metric] = METRICS
) -> list[dict[str, Any]]:
    """Summarize the scores of each method over the objects.

    Args:
        record: The scores.
        methods: The methods to summarize.
        uids: The objects.
        metrics: The metrics to summarize. A metric without finite values is left out.

    Returns:
        A dictionary per method with `key`, `title`, `seeds` and `metrics`. An entry of `metrics` contains the mean over
        the objects with its confidence interval, the mean of each seed, the mean difference from the first method with
        its confidence interval (paired by object), and the mean of each kind of object.
    """
    rows = []
    for method in methods:
        columns = {}
        for metric in metrics:
            values = object_values(record, method, uids, metric.name)
            first = object_values(record, methods[0], uids, metric.name)
            if not np.isfinite(values).any():
                continue
            difference = [a - b for a, b in zip(values, first, strict=True)]
            columns[metric.name] = {
                "mean": mean_of(values),
                "interval": bootstrap(values),
                "objects": int(np.isfinite(values).sum()),
                "by_seed": [
                    mean_of([mean_of(record.scores[method.key, uid, seed].get(metric.name, ())) for uid in uids])
                    for seed in range(method.seeds)
                ],
                "difference": mean_of(difference),
                "difference_interval": bootstrap(difference),
                "by_kind": _by_kind(uids, values),
            }
        rows.append({"key": method.key, "title": method.title, "seeds": method.seeds, "metrics": columns})
    return rows


def _by_kind(uids: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    kinds = sorted({kind_of(uid) for uid in uids})
    return {kind: mean_of([v for uid, v in zip(uids, values, strict=True) if kind_of(uid) == kind]) for kind in kinds}


@dataclass(frozen=True)
class ResultTable:
    """A table whose cells are text, for the Markdown file and the HTML page. `note` explains the numbers."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as Markdown, with its title and note."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"


def tables(
    rows: Sequence[Mapping[str, Any]], object_count: str, metrics: Sequence[Metric] = METRICS
) -> list[ResultTable]:
    """Return the tables of an evaluation: results, differences from the first method, front/back confusion by kind.

    Args:
        rows: A dictionary per method, from `summarize`.
        object_count: The number of objects in words, such as "24 objects".
        metrics: The possible columns. Columns without values are left out.
    """
    present = [metric for metric in metrics if any(metric.name in row["metrics"] for row in rows)]
    head = ("method", *(f"{m.label}{_ARROWS[m.larger_is_better]}" for m in present))
    results = ResultTable(
        "Results",
        f"Means over {object_count}, each the mean over its 16 views and all seeds; in brackets the {CONFIDENCE:.0%} "
        "confidence interval over objects (bootstrap).",
        head,
        tuple(_row(row, present, "mean", "interval") for row in rows),
    )
    all_tables = [results]
    if len(rows) > 1:
        differences = ResultTable(
            "Difference to the first row",
            "Paired by object, so that easy and hard objects cancel: the difference is significant if its interval "
            "does not contain 0.",
            head,
            tuple(_row(row, present, "difference", "difference_interval") for row in rows[1:]),
        )
        all_tables.append(differences)
    return [*all_tables, *_confusion_by_kind(rows, present)]


def _confusion_by_kind(rows: Sequence[Mapping[str, Any]], present: Sequence[Metric]) -> list[ResultTable]:
    kinds = sorted({kind for row in rows for c in row["metrics"].values() for kind in c["by_kind"]} - {"other"})
    confusion = next((metric for metric in present if metric.name == "front_back_pixels"), None)
    if not kinds or confusion is None:
        return []
    body = []
    for row in rows:
        by_kind = row["metrics"].get(confusion.name, {}).get("by_kind", {})
        body.append((row["title"], *(confusion.format(by_kind.get(kind, math.nan)) for kind in kinds)))
    return [
        ResultTable(
            "Front/back confusion by kind",
            f"{confusion.label}: {confusion.meaning}; – where the two sides look the same.",
            ("method", *kinds),
            tuple(body),
        )
    ]


def _row(row: Mapping[str, Any], metrics: Sequence[Metric], value: str, interval: str) -> tuple[str, ...]:
    return (row["title"], *(_cell(metric, row["metrics"].get(metric.name), value, interval) for metric in metrics))


def _cell(metric: Metric, column: Mapping[str, Any] | None, value: str, interval: str) -> str:
    if column is None or not math.isfinite(column[value]):
        return "–"
    low, high = column[interval]
    return f"{metric.format(column[value])} [{metric.format(low)}, {metric.format(high)}]"
