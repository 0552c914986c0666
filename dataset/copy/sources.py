"""Open the sets to copy, check that they can be combined, and list their objects in the order of the copy."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset.copy.downscale import PASSES_REMEDY
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
    """A shard set to copy from.

    `kept` contains, for each shard, the sample numbers of the objects that pass the filters. If `kept` is None, all
    objects are copied, and so are the outcome rows of failed and skipped objects.
    """

    url: str
    resolution: int | None  # pixels per side; None when the set has no images
    passes: bool  # the first object has passes
    tars: str  # fingerprint of the whole set
    fingerprint: str  # fingerprint of the samples in `kept`
    request: dict[str, Any]  # its set.json
    kept: Kept | None


@dataclass(frozen=True)
class Pick:
    """One object to copy: manifest row (`asset`), outcome row for the new set (`row`), and source shard and sample."""

    asset: Asset
    row: Outcome  # with its position and shard in the copy
    source: SourceSet
    place: tuple[int, int] | None  # (shard, sample) in the source; None for an object without images


def open_sources(urls: Sequence[str], filters: Filters, resolution: int | None) -> list[SourceSet]:
    """Open the sets `urls`, in the given order.

    Args:
        urls: Folders or fsspec URLs of the sets to copy.
        filters: Conditions that objects must meet to be copied.
        resolution: Pixels per side of the copied images. None: keep the resolution of the sets.

    Raises:
        UserError: A set cannot be copied, no object passes the filters, the sets have different resolutions and
            `resolution` is None, or `resolution` does not divide the resolution of a set.
    """
    if not urls:
        raise UserError("no set to copy was given; give one or more: `python -m dataset copy SET SET --out OUT`")
    if resolution is not None and resolution < 1:
        raise UserError(f"--resolution is {resolution} pixels per side; it must be at least 1")
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
    about = shards.meta(*first) if first else None
    return SourceSet(
        url=url,
        resolution=about.resolution if about else None,
        passes=bool(about and about.passes),
        tars=shards.fingerprint,
        fingerprint=fingerprint_of(shards.index, kept),
        request=read_json(fs, f"{root}/{SET_NAME}", REPEAT_COMMAND),
        kept=kept,
    )


def _check_resolutions(sources: Sequence[SourceSet], resolution: int | None) -> None:
    if resolution is None:
        if len({source.resolution for source in sources}) > 1:
            sizes = ", ".join(f"{source.url} has {source.resolution}" for source in sources)
            raise UserError(
                f"the sets to copy have images of different sizes in pixels per side ({sizes}); give the size of the "
                "copied images with --resolution"
            )
        return
    for source in sources:
        if (source.resolution or 0) % resolution:
            raise UserError(
                f"--resolution {resolution} does not divide {source.resolution}, the pixels per side of the images "
                f"in {source.url}; give a divisor of {source.resolution}"
            )
        if source.passes and source.resolution != resolution:
            raise UserError(f"the objects of {source.url} have passes, {PASSES_REMEDY}")


def picks(sources: Sequence[SourceSet], objects_per_shard: int) -> Iterator[Pick]:
    """Yield all objects to copy, in order. This reads no image and keeps one source shard in memory at a time.

    The outcome rows are copied from the source sets. Only the position, the shard and the flag "duplicate" are changed
    to those in the new set. A shard of the new set contains `objects_per_shard` objects.

    Raises:
        UserError: The manifest, outcome tables and shards of a source set do not list the same objects.
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
    """Yield the assets of `objects`, for the manifest of the new set.

    Raises:
        UserError: Two sets contain the same uid.
    """
    owner: dict[str, SourceSet] = {}
    for pick in objects:
        uid = pick.asset.uid
        if (other := owner.setdefault(uid, pick.source)) is not pick.source:
            raise UserError(
                f"the object {uid} is in both {other.url} and {pick.source.url}, but uids must be unique in a set. "
                f"First copy {other.url} without this object, with a list of the other uids (--uids FILE), then repeat "
                "this command with that copy"
            )
        yield pick.asset
