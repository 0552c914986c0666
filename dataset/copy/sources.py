"""The sets that a copy is made of: opened, checked against each other, and their objects in the copy's order."""

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
from dataset.reading.filters import Filters, check_left, sift
from dataset.reading.reconcile import slices
from dataset.reading.shard_set import Kept, ShardSet, fingerprint_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One set. `kept`: the samples of each shard that the filters leave; None: all, and the failed objects' rows."""

    url: str
    resolution: int | None  # pixels a side; None when it holds no object
    tars: str  # sha256 of all its tars
    fingerprint: str  # the same, of what is kept of it
    asked: dict[str, Any]  # its set.json
    kept: Kept | None


@dataclass(frozen=True)
class Pick:
    """One object of the copy."""

    asset: Asset
    row: Outcome  # at its place in the copy
    source: Source
    place: tuple[int, int] | None  # (shard, sample) in the source; None for an object without pictures


def open_sources(urls: Sequence[str], filters: Filters, resolution: int | None) -> list[Source]:
    """The sets in the order given. Raises UserError for a set that cannot be copied, alone or with the others."""
    if not urls:
        raise UserError("no set to copy: name one or several, as in `python -m dataset copy SET SET --out OUT`")
    if resolution is not None and resolution < 1:
        raise UserError(f"--resolution is {resolution}; it must be at least 1")
    kept: list[Kept | None] = [None for _ in urls]
    if filters != Filters():
        selections = [sift(url, filters) for url in urls]
        check_left(selections, filters)
        for selection in selections:
            logger.info(str(selection))
        kept = [selection.kept for selection in selections]
    sources = [_open(url, part) for url, part in zip(urls, kept, strict=True)]
    _check_resolutions([source for source in sources if source.resolution], resolution)
    return sources


def _open(url: str, kept: Kept | None) -> Source:
    fs, root = url_to_fs(url)
    if exists(fs, f"{root}/{LATENTS_FILE}"):
        raise UserError(f"{url} is a latent set; copy the pictures that it was made of, then encode the copy")
    shards = ShardSet(url)
    first = next(((shard, 0) for shard, samples in enumerate(shards.samples_per_shard) if samples), None)
    resolution = shards.meta(*first).resolution if first else None
    return Source(
        url=url,
        resolution=resolution,
        tars=shards.fingerprint,
        fingerprint=fingerprint_of(shards.index, kept),
        asked=read_json(fs, f"{root}/{SET_NAME}", REPEAT_COMMAND),
        kept=kept,
    )


def _check_resolutions(sources: Sequence[Source], resolution: int | None) -> None:
    if resolution is None:
        if len({source.resolution for source in sources}) > 1:
            told = ", ".join(f"{source.url} has {source.resolution}" for source in sources)
            raise UserError(f"the sets have pictures of different sizes ({told} pixels a side); give --resolution")
        return
    for source in sources:
        if (source.resolution or 0) % resolution:
            raise UserError(
                f"--resolution {resolution} does not divide the {source.resolution} pixels of {source.url}: pictures "
                "are averaged over whole blocks; give a divisor"
            )


def picks(sources: Sequence[Source], objects_per_shard: int) -> Iterator[Pick]:
    """All objects of the copy in order, one source's shard in memory at a time. No picture is read.

    Rows keep what they say of the rendering; the flag "duplicate" is set anew, as it speaks of the manifest. Raises
    UserError when a source does not agree with itself.
    """
    position, first = 0, dict[bytes, int]()
    for source in sources:
        for asset, row, place in _objects(source):
            there = replace(row, position=position, shard=shard_name(position // objects_per_shard))
            yield Pick(asset, mark_duplicate(there, first), source, place)
            position += 1


def _objects(source: Source) -> Iterator[tuple[Asset, Outcome, tuple[int, int] | None]]:
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
    """The objects for the manifest. Raises UserError that names both sets of an object that two hold."""
    owner: dict[str, Source] = {}
    for pick in objects:
        uid = pick.asset.uid
        if (other := owner.setdefault(uid, pick.source)) is not pick.source:
            raise UserError(
                f"{uid} is in {other.url} and in {pick.source.url}; uids must be unique in a set. "
                "Copy a part of one of the two first (--uids FILE), then that part with the other"
            )
        yield pick.asset
