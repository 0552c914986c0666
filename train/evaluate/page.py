"""Write the results of an evaluation as one HTML page: tables, how the numbers were measured, and the scored images.

`page.html` is the template of the page.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dataset.errors import UserError
from dataset.html.templates import data_url, render_page
from dataset.io.files import write_file_atomic
from train.evaluate.metrics import mean_of
from train.evaluate.results import REFERENCE, TRUTH, Method, Record
from train.evaluate.tables import Metric, ResultTable


@dataclass(frozen=True)
class EmbeddedStrip:
    """A WebP image that is embedded in the page as data URL `source`, with its width and height in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Ring:
    """One row of views: the name of the method (or Truth), one image with all views, and the metrics as text."""

    name: str
    image: EmbeddedStrip
    numbers: str


@dataclass(frozen=True)
class ObjectRings:
    """The images of one object: the reference image, a row of true views, and a row of views for each method."""

    uid: str
    reference: EmbeddedStrip
    rings: Sequence[Ring]


def write_evaluation_page(
    out: Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[ResultTable],
    notes: Sequence[str],
    record: Record,
    methods: Sequence[Method],
    uids: Sequence[str],
    metrics: Sequence[Metric],
    caption: str,
) -> None:
    """Write the HTML page atomically.

    Args:
        out: HTML file to write.
        title: Heading of the page.
        lead: Sentence below the heading.
        tables: The tables, in order.
        notes: Sentences on how the numbers were measured.
        record: The scores and the images.
        methods: The methods whose views are shown, in order.
        uids: The objects whose views are shown, in order.
        metrics: The metrics that are shown next to each row of views.
        caption: Text that explains the images.

    Raises:
        UserError: An image of the record cannot be read, or `out` cannot be written.
    """
    values = {
        "title": title,
        "lead": lead,
        "tables": tables,
        "notes": notes,
        "rings_note": caption,
        "objects": [_object(record, methods, uid, metrics) for uid in uids],
    }
    write_file_atomic(out, render_page("train/evaluate/page.html", values).encode())


def _object(record: Record, methods: Sequence[Method], uid: str, metrics: Sequence[Metric]) -> ObjectRings:
    rings = [Ring("Truth", _embed(record.image_path(TRUTH, uid)), "")]
    rings += [
        Ring(
            method.title + (f", seed {seed}" if method.seeds > 1 else ""),
            _embed(record.image_path(method.key, uid, seed)),
            _numbers(record, method, uid, seed, metrics),
        )
        for method in methods
        for seed in range(method.seeds)
    ]
    return ObjectRings(uid, _embed(record.image_path(REFERENCE, uid)), rings)


def _numbers(record: Record, method: Method, uid: str, seed: int, metrics: Sequence[Metric]) -> str:
    scores = record.scores[method.key, uid, seed]
    values = ((metric, mean_of(scores.get(metric.name, ()))) for metric in metrics)
    return "; ".join(f"{metric.label} {metric.format(value)}" for metric, value in values if math.isfinite(value))


def _embed(path: Path) -> EmbeddedStrip:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the scored image {path}: {error.strerror}; evaluate again with another --out"
        ) from error
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return EmbeddedStrip(data_url("image/webp", data), width, height)
