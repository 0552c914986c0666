"""Write an evaluation as one HTML page: tables, how they were measured, and the images behind every number.

`page.html` is its template.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from dataset.errors import UserError
from dataset.html.templates import data_url, render_page
from dataset.io.files import write_file_atomic
from train.evaluate.metrics import mean_of
from train.evaluate.results import REFERENCE, TRUTH, Method, Record
from train.evaluate.tables import METRICS, Metric, Table

_BESIDE: Final = tuple(
    metric for metric in METRICS if metric.name in ("psnr", "ssim", "pose_pixels", "front_back_pixels")
)
_RINGS: Final = (
    "The 16 views of each ring, every 22.5 degrees from azimuth 0 (the object's front). Images are lossy and at most "
    "80 pixels high; the numbers beside them were measured on the full images."
)


@dataclass(frozen=True)
class EmbeddedStrip:
    """A WebP image as a data URL, with its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Ring:
    """One row of views: the method's name, its image and its numbers for this object."""

    name: str
    image: EmbeddedStrip
    numbers: str


@dataclass(frozen=True)
class ObjectRings:
    """One object: its reference image, then the true views and those of every method."""

    uid: str
    reference: EmbeddedStrip
    rings: Sequence[Ring]


def write_evaluation_page(
    out: Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    record: Record,
    methods: Sequence[Method],
    uids: Sequence[str],
    beside: Sequence[Metric] = _BESIDE,
    rings: str = _RINGS,
) -> None:
    """Write the page in one step. `beside` are the metrics shown next to each ring; `rings` explains the images.

    Raises:
        UserError: an image of the record is missing, or `out` cannot be written.
    """
    values = {
        "title": title,
        "lead": lead,
        "tables": tables,
        "notes": notes,
        "rings_note": rings,
        "objects": [_object(record, methods, uid, beside) for uid in uids],
    }
    write_file_atomic(out, render_page("train/evaluate/page.html", values).encode())


def _object(record: Record, methods: Sequence[Method], uid: str, beside: Sequence[Metric]) -> ObjectRings:
    rings = [Ring("Truth", _embed(record.picture(TRUTH, uid)), "")]
    rings += [
        Ring(
            method.title + (f", seed {seed}" if method.seeds > 1 else ""),
            _embed(record.picture(method.key, uid, seed)),
            _numbers(record, method, uid, seed, beside),
        )
        for method in methods
        for seed in range(method.seeds)
    ]
    return ObjectRings(uid, _embed(record.picture(REFERENCE, uid)), rings)


def _numbers(record: Record, method: Method, uid: str, seed: int, metrics: Sequence[Metric]) -> str:
    scores = record.found[method.key, uid, seed]
    values = ((metric, mean_of(scores.get(metric.name, ()))) for metric in metrics)
    return "; ".join(f"{metric.label} {metric.show(value)}" for metric, value in values if math.isfinite(value))


def _embed(path: Path) -> EmbeddedStrip:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; evaluate again with another --out") from error
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return EmbeddedStrip(data_url("image/webp", data), width, height)
