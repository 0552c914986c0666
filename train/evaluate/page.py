"""The evaluation as one HTML page that fetches nothing: tables, how they were made, the pictures behind every number.

It looks like the report of a shard set and takes that page's style sheet.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from dataset.errors import UserError
from dataset.io.files import write_file_atomic
from dataset.io.paths import ROOT
from dataset.report.html import escape
from train.evaluate.metrics import mean_of
from train.evaluate.results import REFERENCE, TRUTH, Method, Record
from train.evaluate.tables import METRICS, Metric, Table

_STYLES: Final = (
    ROOT / "dataset" / "report" / "style.css",
    Path(__file__).resolve().with_name("style.css"),
)
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_BESIDE: Final = tuple(
    metric for metric in METRICS if metric.name in ("psnr", "ssim", "pose_pixels", "front_back_pixels")
)
_RINGS: Final = (
    "The 16 views of each ring from azimuth 0 (the object's front) on, every 22.5 degrees; pictures are lossy and "
    "shrunk to 80 pixels where they were larger, the numbers beside them are of the whole ones."
)


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
    """Write the page, at once or not at all. Raises UserError when a picture of the record is missing.

    `beside` each ring stand these metrics; `rings` says what is seen.
    """
    objects = "".join(_object(record, methods, uid, beside) for uid in uids)
    styles = "".join(path.read_text(encoding="utf-8") for path in _STYLES)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{styles}</style>
</head>
<body>
<header>
<p class="kind">Evaluation</p>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
</header>
<main>
{"".join(map(_table, tables))}<section>
<h2>How it was measured</h2>
<ul class="notes">
{"".join(f"<li>{escape(note)}</li>{chr(10)}" for note in notes)}</ul>
</section>
<section>
<h2>Objects</h2>
<p class="lead">{escape(rings)}</p>
{objects}</section>
</main>
</body>
</html>
"""
    write_file_atomic(out, page.encode())


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])}</tr>\n'
        for row in table.rows
    )
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<p class="lead">{escape(table.note)}</p>\n'
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></section>\n'
    )


def _cell(text: str) -> str:
    """The interval, in brackets, goes below its number."""
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)}<small>{escape(bracket.strip() + interval)}</small>" if bracket else escape(text)


def _object(record: Record, methods: Sequence[Method], uid: str, beside: Sequence[Metric]) -> str:
    rings = [("Truth", record.picture(TRUTH, uid), "")]
    rings += [
        (
            method.title + (f", seed {seed}" if method.seeds > 1 else ""),
            record.picture(method.key, uid, seed),
            _beside(record, method, uid, seed, beside),
        )
        for method in methods
        for seed in range(method.seeds)
    ]
    rows = "".join(
        f'<p>{escape(name)}<br><span class="soft">{escape(numbers)}</span></p>{_image(path, f"{name}: {uid}")}\n'
        for name, path, numbers in rings
    )
    seen = _image(record.picture(REFERENCE, uid), f"Reference: {uid}")
    return (
        f'<article class="object">\n<h3>{escape(uid)}</h3>\n<div class="seen">{seen}<p class="soft">the one view that '
        f'is seen</p></div>\n<div class="rings">\n{rows}</div></article>\n'
    )


def _beside(record: Record, method: Method, uid: str, seed: int, metrics: Sequence[Metric]) -> str:
    scores = record.found[method.key, uid, seed]
    values = ((metric, mean_of(scores.get(metric.name, ()))) for metric in metrics)
    return "; ".join(f"{metric.label} {metric.show(value)}" for metric, value in values if math.isfinite(value))


def _image(path: Path, caption: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give another --out to evaluate again") from error
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return f'<img src="{source}" alt="{escape(caption)}" width="{width}" height="{height}" loading="lazy">'
