"""Compute statistics of a shard set, and check that its manifest, outcome tables and shards list the same objects."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dataset.check.statistics import Distribution, OutcomeCounts
from dataset.format.manifest import UNKNOWN
from dataset.format.schema import Meta, meta_name, parse_meta
from dataset.format.shards import Index, read_index
from dataset.io.progress import ProgressBar
from dataset.reading.reconcile import Slice, slices

_LISTED: Final = 10  # rows of a table in the text before "... and N more"
_READERS: Final = 8  # threads, for the latency of remote storage


@dataclass
class ImageStatistics:
    """Statistics of the images of a set, computed from the objects' metadata; no image is read."""

    resolutions: Counter[str] = field(default_factory=Counter)  # of objects
    hdris: Counter[str] = field(default_factory=Counter)  # of objects
    views: int = 0
    clipped_objects: int = 0
    clipped_views: int = 0
    coverage: float = 0.0  # sum over the views

    def add(self, meta: Meta) -> None:
        views = [view for views in meta.views.values() for view in views]
        clipped = sum(view.clipped for view in views)
        self.resolutions[f"{meta.resolution}x{meta.resolution}"] += 1
        self.hdris[meta.hdri.name] += 1
        self.views += len(views)
        self.clipped_objects += clipped > 0
        self.clipped_views += clipped
        self.coverage += sum(view.alpha_coverage for view in views)

    @property
    def mean_coverage(self) -> float:
        """Mean alpha over all pixels of all views, 0 to 1."""
        return self.coverage / self.views if self.views else 0.0


@dataclass
class SetStatistics:
    """Statistics of a shard set. Only objects with images in the shards count toward `licenses` and `sources`."""

    url: str
    index: Index
    requested: int = 0  # objects in the manifest
    outcomes: OutcomeCounts = field(default_factory=OutcomeCounts)
    licenses: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    images: ImageStatistics | None = None  # None when the metadata were not read

    def add(self, part: Slice) -> None:
        """Add the objects of one shard (`part`) to the counts, without reading the objects' metadata."""
        self.requested += len(part.assets)
        for asset, row in zip(part.assets, part.rows, strict=True):
            self.outcomes.add(row)
            if row.status == "ok":
                self.licenses[asset.license or UNKNOWN] += 1
                self.sources[asset.source] += 1


def info(url: str | Path, *, quick: bool = False, progress: bool = False) -> SetStatistics:
    """Return statistics of the shard set at `url`, which is read one shard at a time. No image is read.

    Args:
        url: Folder or fsspec URL of the set.
        quick: Read only the manifest, the outcome tables and the index; leave out the statistics that need the metadata
            of every object (`SetStatistics.images` is None).
        progress: Show a progress bar.

    Raises:
        UserError: The set is not complete, or its manifest, outcome tables and shards do not list the same objects; the
            message names the first objects that differ.
    """
    about = SetStatistics(str(url), read_index(url), images=None if quick else ImageStatistics())
    with ProgressBar(desc="info", unit="object", disable=not progress) as bar:
        for part in slices(url):
            about.add(part)
            if about.images is not None:
                for meta in metas(part):
                    about.images.add(meta)
            bar.update(len(part.rows))
    return about


def metas(part: Slice) -> Iterator[Meta]:
    """Yield the metadata of the objects that are stored in one shard (`part`), in the order of the tar."""

    def read(sample: int) -> Meta:
        name = meta_name(part.uids[sample])
        return parse_meta(part.reader.read(part.shard, sample, [name])[name], f"{part.reader.url}/{name}")

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(read, range(len(part.uids)))


def format_info(about: SetStatistics) -> str:
    """Format statistics as text for a terminal. Long tables are cut: a last line states the number of omitted rows."""
    index, outcomes = about.index, about.outcomes
    statuses = ", ".join(f"{outcomes.statuses[status]} {status}" for status in ("ok", "failed", "skipped"))
    attempts = ", ".join(f"{n} for {count} objects" for n, count in sorted(outcomes.attempts.items()))
    lines = [
        f"{about.url}: {index.objects} of {about.requested} requested objects, {index.views} views",
        f"in {len(index.shards)} shards, {index.bytes / 1e6:.1f} MB",
        f"outcomes: {statuses}; manifest, outcome tables and shards agree",
        f"seconds per object: {_spread(outcomes.seconds, '.1f')}; "
        f"{outcomes.objects_per_hour:.0f} objects per hour and worker",
        f"peak memory per object, MB: {_spread(outcomes.peak_rss_mb, '.0f')}",
        f"attempts: {attempts or 'none'}",
    ]
    if images := about.images:
        lines += [
            f"clipped: {images.clipped_views} views of {images.clipped_objects} objects",
            f"mean alpha coverage: {images.mean_coverage:.1%}",
        ]
    tables: dict[str, Mapping[str, int]] = {
        "failed, by stage and error": outcomes.failures,
        "skipped, by stage and reason": outcomes.skips,
        "flags": outcomes.flags,
        "licenses": about.licenses,
        "sources": about.sources,
        "resolutions": images.resolutions if images else {},
        "environment lights": images.hdris if images else {},
    }
    for title, counts in tables.items():
        lines += _table(title, counts)
    return "\n".join(lines)


def _spread(measured: Distribution, digits: str) -> str:
    if not measured.values:
        return "not measured"
    middle, high = measured.percentile(50), measured.percentile(95)
    return (
        f"median {middle:{digits}}, 95th percentile {high:{digits}}, "
        f"most {measured.largest:{digits}} ({measured.largest_uid})"
    )


def _table(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    if not counts:
        return
    yield f"{title}:"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    yield from (f"  {count:7d}  {name}" for name, count in ordered[:_LISTED])
    if len(ordered) > _LISTED:
        yield f"  ... and {len(ordered) - _LISTED} more"
