"""A shard set as a page: what it holds, what failed, and what it looks like."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.errors import UserError
from dataset.image import contact_sheet
from dataset.outcome import Outcome, read_outcomes
from dataset.schema import VIEW_SETS, VIEWS_PER_SET, ViewSet
from dataset.shards import open_set
from dataset.stream import ShardSet

_LISTED: Final = 10  # rows of a table in the text before "... and N more"


@dataclass(frozen=True)
class Info:
    """A set in numbers. The counters count objects, `clipped_views` pictures."""

    url: str
    shards: int
    objects: int
    views: int
    bytes: int
    resolutions: Mapping[str, int]
    licenses: Mapping[str, int]
    sources: Mapping[str, int]
    hdris: Mapping[str, int]
    failures: Mapping[str, int]  # "stage: error class"
    clipped_objects: int
    clipped_views: int
    mean_coverage: float  # alpha coverage over all views


def info(url: str | Path, *, progress: bool = False) -> Info:
    """Read every object's metadata (no picture) and the outcome rows. Raises UserError when the set is not complete.

    The progress bar shows on a terminal only.
    """
    shards = ShardSet(url)
    places = [(shard, i) for shard, count in enumerate(shards.samples_per_shard) for i in range(count)]
    metas = [
        shards.meta(*place) for place in tqdm(places, desc="info", unit="object", disable=None if progress else True)
    ]
    clipped = [sum(view.clipped for views in meta.views.values() for view in views) for meta in metas]
    coverage = [view.alpha_coverage for meta in metas for views in meta.views.values() for view in views]
    return Info(
        url=shards.url,
        shards=len(shards.index.shards),
        objects=len(shards),
        views=shards.index.views,
        bytes=shards.index.bytes,
        resolutions=Counter(f"{meta.resolution}x{meta.resolution}" for meta in metas),
        licenses=Counter(meta.license or "unknown" for meta in metas),
        sources=Counter(meta.source for meta in metas),
        hdris=Counter(meta.hdri.name for meta in metas),
        failures=_failures(read_outcomes(*open_set(url))),
        clipped_objects=sum(count > 0 for count in clipped),
        clipped_views=sum(clipped),
        mean_coverage=float(np.mean(coverage)) if coverage else 0.0,
    )


def _failures(rows: list[Outcome]) -> Mapping[str, int]:
    return Counter(f"{row.stage}: {row.error_class or row.message}" for row in rows if row.status == "failed")


def format_info(about: Info) -> str:
    """The numbers as text for a terminal; long tables are cut, and say so."""
    failed = sum(about.failures.values())
    lines = [
        f"{about.url}: {about.objects} objects, {about.views} views",
        f"in {about.shards} shards, {about.bytes / 1e6:.1f} MB",
        f"clipped: {about.clipped_views} views of {about.clipped_objects} objects",
        f"mean alpha coverage: {about.mean_coverage:.1%}",
        f"failed: {failed} objects",
    ]
    tables = {
        "failures": about.failures,
        "resolutions": about.resolutions,
        "licences": about.licenses,
        "sources": about.sources,
        "environment lights": about.hdris,
    }
    for title, counts in tables.items():
        lines += _table(title, counts)
    return "\n".join(lines)


def _table(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if not counts:
        return
    yield f"{title}:"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    yield from (f"  {count:7d}  {name}" for name, count in ordered[:_LISTED])
    if len(ordered) > _LISTED:
        yield f"  ... and {len(ordered) - _LISTED} more"


def preview(url: str | Path, out: Path, *, objects: int = 12, views_per_set: int = 4) -> int:
    """Write a contact sheet (PNG, on white): a row an object, its fixed then its random views, uid above.

    The objects are spread evenly over the set and the views over the circle, so the choice never changes. Returns the
    number of objects shown. Raises UserError for an empty set or an output that cannot be written.
    """
    if objects < 1 or not 1 <= views_per_set <= VIEWS_PER_SET:
        raise UserError(f"preview needs at least 1 object and 1 to {VIEWS_PER_SET} views a set")
    shards = ShardSet(url)
    if not len(shards):
        raise UserError(f"{url} holds no objects; see `python -m dataset info {url}` for what failed")
    wanted: list[tuple[ViewSet, int]] = [
        (view_set, i * VIEWS_PER_SET // views_per_set) for view_set in VIEW_SETS for i in range(views_per_set)
    ]
    places = _spread(shards.samples_per_shard, objects)
    pictures = [picture for place in places for picture in shards.views(*place, wanted)]
    captions = [text for place in places for text in (shards.uid(*place), *[""] * (len(wanted) - 1))]
    _save(contact_sheet(pictures, len(wanted), captions=captions), out)
    return len(places)


def _spread(samples_per_shard: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    """`count` (shard, sample) at even distances, first object included."""
    ends = np.cumsum(samples_per_shard)
    total = int(ends[-1])
    chosen = [i * total // min(count, total) for i in range(min(count, total))]
    shards = [int(np.searchsorted(ends, i, side="right")) for i in chosen]
    return [(s, i - int(ends[s]) + samples_per_shard[s]) for s, i in zip(shards, chosen, strict=True)]


def _save(sheet: Image.Image, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
