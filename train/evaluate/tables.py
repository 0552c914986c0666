"""What a record says in sum: means over objects with confidence intervals, paired differences, kinds; as tables."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from train.evaluate.metrics import CONFIDENCE, bootstrap, mean_of
from train.evaluate.results import Method, Record

_PROCEDURAL: Final = re.compile(r"procedural-([a-z]+)-\d{6}")


@dataclass(frozen=True)
class Metric:
    """A column of the tables. `digits` behind the point; `percent` multiplies by 100."""

    name: str
    label: str
    meaning: str
    larger_is_better: bool
    digits: int
    percent: bool = False

    def show(self, value: float) -> str:
        """The number as text; a dash where there is none."""
        if not math.isfinite(value):
            return "–"
        shown = round(100 * value if self.percent else value, self.digits)
        return f"{shown + 0.0:.{self.digits}f}"  # no minus before a zero


METRICS: Final = (
    Metric("psnr", "PSNR dB", "over the whole picture on white", True, 2),
    Metric("ssim", "SSIM", "over the whole picture on white", True, 3),
    Metric("psnr_box", "PSNR dB, box", "in the bounding box of the true alpha", True, 2),
    Metric("ssim_box", "SSIM, box", "in the bounding box of the true alpha", True, 3),
    Metric("lpips", "LPIPS", "perceptual distance (VGG)", False, 3),
    Metric(
        "similarity", "embedding cosine", "of a view's embedding with the true view's, by the model's tower", True, 3
    ),
    Metric("pose_pixels", "pose %, pixels", "nearest of the 16 true views is the asked one, by pixels", True, 1, True),
    Metric("pose_embedding", "pose %, embedding", "the same by embedding", True, 1, True),
    Metric("turned_pixels_deg", "turned °, pixels", "degrees from the asked to the nearest true view", False, 1),
    Metric("turned_embedding_deg", "turned °, embedding", "the same by embedding", False, 1),
    Metric(
        "front_back_pixels",
        "front/back confused %, pixels",
        "views of front or back that the other side's true view is nearer to (50 by chance), where the two differ",
        False,
        1,
        True,
    ),
    Metric("front_back_embedding", "front/back confused %, embedding", "the same by embedding", False, 1, True),
)


def kind_of(uid: str) -> str:
    """The kind of a procedural object; others are "other"."""
    found = _PROCEDURAL.fullmatch(uid)
    return found[1] if found else "other"


def object_values(record: Record, method: Method, uids: Sequence[str], metric: str) -> list[float]:
    """Of each object, the mean over views and seeds; NaN where there is nothing to count."""
    return [
        mean_of([v for seed in range(method.seeds) for v in record.found[method.key, uid, seed].get(metric, ())])
        for uid in uids
    ]


def summarise(
    record: Record, methods: Sequence[Method], uids: Sequence[str], metrics: Sequence[Metric] = METRICS
) -> list[dict[str, Any]]:
    """For each method and metric: mean over objects, its confidence interval, the means of each seed, the paired
    difference to the first method with its interval, and the means by kind of object.
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
                    mean_of([mean_of(record.found[method.key, uid, seed].get(metric.name, ())) for uid in uids])
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


def plain(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Table:
    """Text in rows and columns, for Markdown and for the page."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """With its title and note."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"


def tables(rows: Sequence[Mapping[str, Any]], over: str, metrics: Sequence[Metric] = METRICS) -> list[Table]:
    """Results `over` so many objects, differences to the first row, and confusion by kind of procedural objects."""
    shown = [metric for metric in metrics if any(metric.name in row["metrics"] for row in rows)]
    head = ("method", *(f"{m.label}\N{NO-BREAK SPACE}{'↑' if m.larger_is_better else '↓'}" for m in shown))
    level = f"{CONFIDENCE:.0%}"
    made = [
        Table(
            "Results",
            f"Means over {over}, each the mean of its 16 views and of all seeds; in brackets the {level} "
            "confidence interval over objects (bootstrap).",
            head,
            tuple(_row(row, shown, "mean", "interval") for row in rows),
        )
    ]
    if len(rows) > 1:
        made.append(
            Table(
                "Difference to the first row",
                "Object by object, so that easy and hard objects cancel: an interval without 0 is a difference.",
                head,
                tuple(_row(row, shown, "difference", "difference_interval") for row in rows[1:]),
            )
        )
    kinds = sorted({kind for row in rows for c in row["metrics"].values() for kind in c["by_kind"]} - {"other"})
    confusion = next((m for m in shown if m.name == "front_back_pixels"), None)
    if kinds and confusion:
        made.append(
            Table(
                "Front/back confusion by kind",
                f"{confusion.label}: {confusion.meaning}; – where the two sides look the same.",
                ("method", *kinds),
                tuple(
                    (
                        row["title"],
                        *(
                            confusion.show(row["metrics"].get(confusion.name, {}).get("by_kind", {}).get(k, math.nan))
                            for k in kinds
                        ),
                    )
                    for row in rows
                ),
            )
        )
    return made


def _row(row: Mapping[str, Any], shown: Sequence[Metric], value: str, interval: str) -> tuple[str, ...]:
    return (row["title"], *(_cell(metric, row["metrics"].get(metric.name), value, interval) for metric in shown))


def _cell(metric: Metric, column: Mapping[str, Any] | None, value: str, interval: str) -> str:
    if column is None or not math.isfinite(column[value]):
        return "–"
    low, high = column[interval]
    return f"{metric.show(column[value])} [{metric.show(low)}, {metric.show(high)}]"
