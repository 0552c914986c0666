"""Write the results of an evaluation (of novel views or of assets) as JSON, Markdown and HTML."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dataset.io.files import json_bytes, write_file_atomic
from train.evaluate.page import write_evaluation_page
from train.evaluate.results import Method, Record
from train.evaluate.tables import METRICS, Metric, ResultTable

RING_METRICS: Final = tuple(
    metric for metric in METRICS if metric.name in ("psnr", "ssim", "pose_pixels", "front_back_pixels")
)
RING_CAPTION: Final = (
    "The 16 views of each ring from azimuth 0 (the object's front), every 22.5 degrees. Images are compressed with "
    "loss and at most 80 pixels wide; the numbers beside them were computed from the original images."
)


def write_report(
    out: Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[ResultTable],
    notes: Sequence[str],
    details: Mapping[str, Any],
    metrics: Sequence[Metric],
    rows: Sequence[Mapping[str, Any]],
    record: Record,
    methods: Sequence[Method],
    uids: Sequence[str],
    page_methods: Sequence[Method] | None = None,
    page_metrics: Sequence[Metric] = RING_METRICS,
    caption: str = RING_CAPTION,
) -> str:
    """Write evaluation.json, evaluation.md and evaluation.html into the output folder.

    Args:
        out: The output folder.
        title: Heading of the Markdown file and of the page.
        lead: The sentence below the heading.
        tables: The tables, in order.
        notes: Sentences on how the numbers were measured.
        details: Further entries of evaluation.json.
        metrics: The metrics of `rows`.
        rows: The result of `summarize`, one row per method.
        record: The scores and the images.
        methods: The methods, in the order of the tables' rows.
        uids: The uids of the evaluated objects.
        page_methods: The methods whose rings of views the page shows. None: `methods`.
        page_metrics: The metrics that the page shows beside each ring.
        caption: Text of the page that explains the images.

    Returns:
        The first table and the paths of the written files, as text for the command to print.

    Raises:
        UserError: An image of the record cannot be read, or a file cannot be written.
    """
    summary = {
        **details,
        "notes": list(notes),
        "metrics": {metric.name: metric.meaning for metric in metrics},
        "methods": [{**row, "settings": dict(method.settings)} for row, method in zip(rows, methods, strict=True)],
    }
    write_file_atomic(out / "evaluation.json", json_bytes(without_nan(summary)))
    note_list = "\n".join(f"- {note}" for note in notes)
    markdown = f"# {title}\n\n{lead}\n\n" + "\n".join(table.markdown() for table in tables)
    write_file_atomic(out / "evaluation.md", f"{markdown}\n## How it was measured\n\n{note_list}\n".encode())
    write_evaluation_page(
        out / "evaluation.html",
        title=title,
        lead=lead,
        tables=tables,
        notes=notes,
        record=record,
        methods=methods if page_methods is None else page_methods,
        uids=uids,
        metrics=page_metrics,
        caption=caption,
    )
    return f"{tables[0].markdown()}\nwrote {out}/evaluation.json, evaluation.md and evaluation.html"


def without_nan(value: Any) -> Any:
    """Return `value` with NaN and infinity, which JSON does not have, replaced by None.

    Dictionaries, lists and tuples are searched at any depth. Tuples become lists.
    """
    if isinstance(value, Mapping):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
