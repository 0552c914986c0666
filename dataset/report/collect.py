"""Collect the contents of the report of a shard set; `dataset/report/page.py` writes the report as a page.

Counts cover the whole set. Images, coverage and environment lights cover only the objects that the page shows.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.check.info import SetStatistics
from dataset.check.statistics import reason
from dataset.errors import UserError
from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from dataset.format.schema import ViewSet, member_name
from dataset.format.set_request import read_set_request
from dataset.format.shards import SET_NAME, read_index
from dataset.images.prepare import decode_webp
from dataset.io.files import url_to_fs
from dataset.io.progress import ProgressBar
from dataset.reading.reconcile import Slice, slices
from dataset.reading.scores import SetScores, find_scores
from dataset.reading.shard_set import ShardSet
from dataset.report.contact_sheet import pass_sheet
from dataset.report.scores import ScoreStatistics, TileScores

VIEW_SIDE: Final = 80  # pixels of a view in a strip
STRIP_QUALITY: Final = 60  # of lossy WebP, 0 to 100
MAX_SKIPPED: Final = 100  # skipped objects listed per reason
MAX_PASS_ROWS: Final = 8  # objects whose passes are shown
PASS_SIDE: Final = 112  # pixels of a pass
_READERS: Final = 8


@dataclass(frozen=True)
class Tile:
    """One object that the page shows with its images.

    The fields `coverage`, `light` and `strip` are set only if the object has the status "ok".
    """

    asset: Asset
    row: Outcome
    coverage: float | None = None  # mean alpha over all views, 0 to 1
    light: str = ""  # file name of the environment light
    strip: bytes = b""  # WebP: the views side by side, of the view set "fixed" or, if it is empty, of "random"
    views: int = 0  # number of views in `strip`
    scores: TileScores | None = None  # None if the object has no scores

    @property
    def labels(self) -> tuple[str, ...]:
        """Flags of the outcome row, followed by the labels that the scores give."""
        more = self.scores.labels if self.scores else ()
        return (*self.row.flags, *(label for label in more if label not in self.row.flags))


@dataclass
class SetReport:
    """The contents of the report of one shard set."""

    about: SetStatistics
    request: dict[str, Any]  # set.json
    failed: list[Outcome] = field(default_factory=list)  # every failed object
    skipped: list[Outcome] = field(default_factory=list)  # at most MAX_SKIPPED per reason
    tiles: list[Tile] = field(default_factory=list)
    scores: ScoreStatistics | None = None  # of the whole set; None if it has no scores
    passes: bytes = b""  # WebP: first views of some objects with their passes; empty if the set has no passes


def collect_report(url: str | Path, max_objects: int, *, progress: bool = False) -> SetReport:
    """Collect the contents of the report of the set at `url`, which is read one shard at a time.

    Args:
        url: Folder or fsspec URL of the set.
        max_objects: Number of objects to show with images; they are spread evenly over the set.
        progress: Show a progress bar.

    Raises:
        UserError: The set is incomplete or inconsistent, a score table is damaged, or `max_objects` is less than 1.
    """
    if max_objects < 1:
        raise UserError(f"--max-objects is {max_objects}; it must be at least 1")
    fs, root = url_to_fs(url)
    index = read_index(url)
    scores = find_scores(url, index)
    report = SetReport(SetStatistics(str(url), index), json.loads(fs.cat_file(f"{root}/{SET_NAME}")))
    report.scores = None if scores is None else ScoreStatistics(scores.clusters)
    total = read_set_request(fs, root).objects
    shown = min(max_objects, total)
    chosen = {i * total // shown for i in range(shown)}
    with (
        ProgressBar(total=shown, desc="report", unit="object", disable=not progress) as bar,
        ThreadPoolExecutor(_READERS) as pool,
    ):
        for part in slices(url):
            report.about.add(part)
            _list(report, part)
            scored = _add_scores(report, scores, part)
            places = [i for i, row in enumerate(part.rows) if row.position in chosen]
            for tile in pool.map(partial(_tile, part, scored), places):
                report.tiles.append(tile)
                bar.update()
    if index.objects:
        report.passes = _encoded(pass_sheet(ShardSet(url, index), MAX_PASS_ROWS, PASS_SIDE))
    return report


def _encoded(sheet: Image.Image | None) -> bytes:
    buffer = io.BytesIO()
    if sheet is not None:
        sheet.save(buffer, "WEBP", quality=STRIP_QUALITY)
    return buffer.getvalue()


def _add_scores(report: SetReport, scores: SetScores | None, part: Slice) -> dict[str, TileScores]:
    """Add the scores of one shard to the statistics, and return them: uid -> scores. Without scores, return nothing."""
    if scores is None or report.scores is None:
        return {}
    rows = {uid: row for uid, row in scores.shard(part.shard).items() if not row.damage}
    return {uid: report.scores.add(row) for uid, row in rows.items()}


def _list(report: SetReport, part: Slice) -> None:
    listed = Counter(reason(row) for row in report.skipped)
    for row in part.rows:
        if row.status == "failed":
            report.failed.append(row)
        elif row.status == "skipped" and listed[reason(row)] < MAX_SKIPPED:
            listed[reason(row)] += 1
            report.skipped.append(row)


def _tile(part: Slice, scores: dict[str, TileScores], place: int) -> Tile:
    asset, row = part.assets[place], part.rows[place]
    if row.status != "ok":
        return Tile(asset, row)
    sample = part.uids.index(row.uid)
    meta = part.reader.meta(part.shard, sample)
    shown: ViewSet = "fixed" if meta.views["fixed"] else "random"
    names = [member_name(row.uid, shown, i) for i in range(len(meta.views[shown]))]
    members = part.reader.read(part.shard, sample, names)
    where = f"{part.reader.url}/"
    coverage = float(np.mean([view.alpha_coverage for views in meta.views.values() for view in views]))
    views = [decode_webp(members[name], where + name) for name in names]
    return Tile(asset, row, coverage, meta.hdri.name, encode_strip(views), len(views), scores.get(row.uid))


def encode_strip(views: list[NDArray[np.uint8]]) -> bytes:
    """Return one lossy WebP image that shows square RGBA views, each uint8 [h, h, 4], side by side on white.

    Views larger than VIEW_SIDE pixels per side are reduced to that size.
    """
    side = min(VIEW_SIDE, views[0].shape[0])
    sheet = Image.new("RGB", (side * len(views), side), "white")
    for i, small in enumerate(_shrunk(views, side)):
        sheet.paste(small, (i * side, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=STRIP_QUALITY, method=4)
    return buffer.getvalue()


def _shrunk(views: list[NDArray[np.uint8]], side: int) -> Iterator[Image.Image]:
    for view in views:
        image = Image.fromarray(view)
        # Same pixels as dataset.images.prepare.composite_white; Pillow's integers take a tenth of the time.
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(image, mask=image.getchannel("A"))
        yield on_white.resize((side, side), Image.Resampling.LANCZOS)
