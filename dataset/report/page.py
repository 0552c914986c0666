"""Write the report of a shard set as one HTML page. `page.html` is the template of the page.

The page shows a tile per object. The views of an object in the view set "fixed" are stored side by side in one image.
The images are stored as base64 lines at the end of the page, so that the text can be read before the images are loaded.
An image is decoded when the tile of its object is scrolled into view.
"""

import base64
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from dataset.check.statistics import reason
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome
from dataset.html.formats import format_bytes, format_object_count
from dataset.html.parts import BarTable, Histogram, KeyNumber, make_bar_table, make_histogram
from dataset.html.templates import render_page
from dataset.io.files import write_file_atomic
from dataset.report.collect import STRIP_QUALITY, VIEW_SIDE, SetReport, Tile, collect_report
from dataset.report.scores import score_data

_DETAILED: Final = 200  # failures per reason shown with their stderr; the others are shown with their message only
_STATUSES: Final = ("ok", "failed", "skipped")


@dataclass(frozen=True)
class OutcomeGroup:
    """Objects that failed for the same reason, or were skipped for the same reason.

    `count` is the number of these objects in the whole set. The page may list only some of these objects; `rows`
    contains the outcome rows of the listed objects.
    """

    reason: str
    count: int
    rows: list[Outcome]


def write_report(url: str | Path, out: Path, *, max_objects: int = 1000, progress: bool = False) -> SetReport:
    """Write the report of the set at `url` as an HTML page to the file `out`. Return the contents of the report.

    Args:
        url: Folder or fsspec URL of the set.
        out: Path of the HTML file, which is replaced in one step.
        max_objects: Number of objects to show with images; they are spread evenly over the set.
        progress: Show a progress bar.

    Raises:
        UserError: The set is incomplete or inconsistent, or `out` cannot be written.
    """
    report = collect_report(url, max_objects, progress=progress)
    write_file_atomic(out, report_page(report).encode())
    return report


def report_page(report: SetReport) -> str:
    """Return the HTML text of the page that shows `report`."""
    about, outcomes = report.about, report.about.outcomes
    retried = sum(count for attempts, count in outcomes.attempts.items() if attempts > 1)
    values = {
        "title": about.url,
        "lead": "",
        "numbers": _key_numbers(report),
        "request": list(_flat(report.request)),
        "failures": _groups(report.failed, outcomes.failures),
        "skips": _groups(report.skipped, outcomes.skips),
        "retried": format_object_count(retried) if retried else "",
        "detailed": _DETAILED,
        "outcomes_folder": OUTCOMES_FOLDER,
        "signal_name": _signal_name,
        "reason": reason,
        "histograms": _histograms(report),
        "bar_tables": _bar_tables(report),
        "scored": report.scores is not None,
        "score_data": score_data,
        "requested": about.requested,
        "passes": base64.b64encode(report.passes).decode(),
        "views": max((tile.views for tile in report.tiles), default=0),
        "view_side": VIEW_SIDE,
        "quality": STRIP_QUALITY,
        "strips": "\n".join(base64.b64encode(tile.strip).decode() for tile in report.tiles if tile.strip),
        **_grid(report.tiles),
    }
    return render_page("dataset/report/page.html", values)


def _key_numbers(report: SetReport) -> list[KeyNumber]:
    about, outcomes, objects = report.about, report.about.outcomes, report.about.index.objects
    seconds, memory, statuses = outcomes.seconds, outcomes.peak_rss_mb, outcomes.statuses
    return [
        KeyNumber("objects in shards", f"{objects:,}", f"of {about.requested:,} requested"),
        KeyNumber("views", f"{about.index.views:,}", f"{about.index.views / max(1, objects):.4g} per object"),
        KeyNumber("size", format_bytes(about.index.bytes), f"in {len(about.index.shards):,} shards"),
        KeyNumber("failed", f"{statuses['failed']:,}", f"skipped {statuses['skipped']:,}", bad=statuses["failed"] > 0),
        KeyNumber("seconds per object", f"{seconds.percentile(50):.1f}", f"95% within {seconds.percentile(95):.1f}"),
        KeyNumber("slowest object", f"{seconds.largest:.1f} s", seconds.largest_uid),
        KeyNumber("objects per hour", f"{outcomes.objects_per_hour:,.0f}", "per worker"),
        KeyNumber("peak memory", f"{memory.largest:,.0f} MB", memory.largest_uid),
    ]


def _groups(rows: list[Outcome], counts: Mapping[str, int]) -> list[OutcomeGroup]:
    """Group outcome rows by reason, most frequent reason first. `counts` is reason -> number of objects in the set."""
    groups = [OutcomeGroup(key, counts[key], list(group)) for key, group in groupby(sorted(rows, key=reason), reason)]
    return sorted(groups, key=lambda group: (-group.count, group.reason))


def _histograms(report: SetReport) -> list[Histogram]:
    outcomes = report.about.outcomes
    coverages = [100 * tile.coverage for tile in report.tiles if tile.coverage is not None]
    made = (
        make_histogram(f"Coverage{_part(report)}", coverages, "%"),
        make_histogram("Seconds per object", outcomes.seconds.values, "s"),
        make_histogram("Peak memory per object", outcomes.peak_rss_mb.values, "MB"),
    )
    scores = report.scores.values.items() if report.scores else ()
    scored = [make_histogram(name.replace("_", " ").capitalize(), values, "") for name, values in scores]
    return [figure for figure in (*made, *scored) if figure]


def _bar_tables(report: SetReport) -> list[BarTable]:
    about = report.about
    lights = Counter(tile.light for tile in report.tiles if tile.light)
    made = (
        make_bar_table("Licenses", about.licenses, "license"),
        make_bar_table("Flags", about.outcomes.flags, "flag"),
        make_bar_table("Scores", report.scores.labels if report.scores else {}, "flag"),
        make_bar_table("Sources", about.sources, "source"),
        make_bar_table(f"Environment lights{_part(report)}", lights),
    )
    return [table for table in made if table]


def _part(report: SetReport) -> str:
    """Return the end of titles whose counts cover only the objects that are shown; empty if all objects are shown."""
    return "" if len(report.tiles) == report.about.requested else f", of the {len(report.tiles):,} objects shown"


def _grid(tiles: list[Tile]) -> dict[str, Any]:
    """Return the values for the tiles: each tile with the line number of its image, and the choices of the filters."""
    strips = iter(range(len(tiles)))
    statuses = Counter(tile.row.status for tile in tiles)
    return {
        "tiles": [(tile, next(strips) if tile.strip else None) for tile in tiles],
        "statuses": [("", len(tiles)), *((status, statuses[status]) for status in _STATUSES if statuses[status])],
        "flags": _by_count(Counter(label for tile in tiles for label in tile.labels)),
        "licenses": _by_count(Counter(tile.asset.license for tile in tiles)),
        "sources": _by_count(Counter(tile.asset.source for tile in tiles)),
    }


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each setting in nested dictionaries; the names of the levels are joined by dots."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(inner)


def _signal_name(number: int | None) -> str:
    if number is None:
        return "none"
    known = {int(entry): entry.name for entry in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)
