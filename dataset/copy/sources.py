"""Open the source sets of a copy, check them against each other, and list their objects in the order of the copy."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE
from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome, mark_duplicate
from dataset.format.shards import REPEAT_COMMAND, SET_NAME, shard_name
from dataset.io.files import exists, read_json, url_to_fs
from dataset.reading.filters import Filters, apply_filters, check_not_empty
from dataset.reading.reconcile import slices
from dataset.reading.shard_set import Kept, ShardSet, fingerprint_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceSet:
    """A set to copy from.

    `kept` lists, per shard, the samples that pass the filters; None keeps all samples and the outcome rows of failed
    and skipped objects.
    """

    url: str
    resolution: int | None  # pixels per side; None when the set has no images
    tars: str  # fingerprint of the whole set
    fingerprint: str  # fingerprint of the samples in `kept`
    request: dict[str, Any]  # its set.json
    kept: Kept | None


@dataclass(frozen=True)
class Pick:
    """One object to copy, with its outcome row for the new set."""

    asset: Asset
    row: Outcome  # with its position and shard in the copy
    source: SourceSet
    place: tuple[int, int] | None  # (shard, sample) in the source; None for an object without images


def open_sources(urls: Sequence[str], filters: Filters, resolution: int | None) -> list[SourceSet]:
    """Open the sets, in the given order. Raises UserError when a set cannot be copied or does not fit the others."""
    if not urls:
        raise UserError("no set to copy; give one or more sets, as in `python -m dataset copy SET SET --out OUT`")
    if resolution is not None and resolution < 1:
        raise UserError(f"--resolution is {resolution}; it must be at least 1")
    kept: list[Kept | None] = [None for _ in urls]
    if filters != Filters():
        selections = [apply_filters(url, filters) for url in urls]
        check_not_empty(selections, filters)
        for selection in selections:
            logger.info(str(selection))
        kept = [selection.kept for selection in selections]
    sources = [_open(url, part) for url, part in zip(urls, kept, strict=True)]
    _check_resolutions([source for source in sources if source.resolution], resolution)
    return sources


def _open(url: str, kept: Kept | None) -> SourceSet:
    fs, root = url_to_fs(url)
    if exists(fs, f"{root}/{LATENTS_FILE}"):
        raise UserError(f"{url} is a latent set; copy the shard set that it was encoded from, then encode the copy")
    shards = ShardSet(url)
    first = next(((shard, 0) for shard, samples in enumerate(shards.samples_per_shard) if samples), None)
    resolution = shards.meta(*first).resolution if first else None
    return SourceSet(
        url=url,
        resolution=resolution,
        tars=shards.fingerprint,
        fingerprint=fingerprint_of(shards.index, kept),
        request=read_json(fs, f"{root}/{SET_NAME}", REPEAT_COMMAND),
        kept=kept,
    )


def _check_resolutions(sources: Sequence[SourceSet], resolution: int | None) -> None:
    if resolution is None:
        if len({source.resolution for source in sources}) > 1:
            sizes = ", ".join(f"{source.url} has {source.resolution}" for source in sources)
            raise UserError(f"the sets have images of different sizes ({sizes} pixels per side); give --resolution")
        return
    for source in sources:
        if (source.resolution or 0) % resolution:
            raise UserError(
                f"--resolution {resolution} does not divide the {source.resolution} pixels of {source.url}; images "
                "are averaged over whole blocks, so give a divisor"
            )


def picks(sources: Sequence[SourceSet], objects_per_shard: int) -> Iterator[Pick]:
    """Yield all objects to copy, in order. Reads no image and keeps one source shard in memory at a time.

    Outcome rows are copied, but their position, shard and flag "duplicate" are set to their values in the new set.
    Raises UserError when a source set is inconsistent.
    """
    position, first = 0, dict[bytes, int]()
    for source in sources:
        for asset, row, place in _objects(source):
            there = replace(row, position=position, shard=shard_name(position // objects_per_shard))
            yield Pick(asset, mark_duplicate(there, first), source, place)
            position += 1


def _objects(source: SourceSet) -> Iterator[tuple[Asset, Outcome, tuple[int, int] | None]]:
    for part in slices(source.url):
        chosen = None if source.kept is None else frozenset(source.kept[part.shard].tolist())
        sample = 0  # `slices` has checked that samples and ok rows are the same, in the same order
        for asset, row in zip(part.assets, part.rows, strict=True):
            if row.status != "ok":
                if chosen is None:
                    yield asset, row, None
                continue
            if chosen is None or sample in chosen:
                yield asset, row, (part.shard, sample)
            sample += 1


def each_once(objects: Iterator[Pick]) -> Iterator[Asset]:
    """Yield the assets of the objects, for the new manifest. Raises UserError when two sets contain the same uid."""
    owner: dict[str, SourceSet] = {}
    for pick in objects:
        uid = pick.asset.uid
        if (other := owner.setdefault(uid, pick.source)) is not pick.source:
            raise UserError(
                f"{uid} is in {other.url} and in {pick.source.url}; uids must be unique in a set. "
                "First copy the wanted part of one of them (--uids FILE), then copy that part together with the other"
            )
        yield pick.asset
