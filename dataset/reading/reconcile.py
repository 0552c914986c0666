"""Check, one shard at a time, that the manifest, the outcome tables and the shards of a set list the same objects.

The position of an object in the manifest decides in which shard the object is, so checking a shard needs only that
shard's part of the manifest, and memory does not grow with the set. No image is read.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, Asset, Manifest
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, parse_outcomes
from dataset.format.set_request import RENDER_AGAIN, SetRequest, read_set_request
from dataset.format.shards import INDEX_NAME, REPEAT_COMMAND, SET_NAME, Index, read_index, render_again, shard_name
from dataset.io.files import url_to_fs
from dataset.reading.shard_set import ShardSet

_BLOCK: Final = 1 << 20
_NAMED: Final = 3  # differences that an error names


def read_manifest(fs: Any, root: str, request: SetRequest, remedy: str = RENDER_AGAIN) -> Manifest:
    """Open the manifest of the set in folder `root` of `fs`, after checking the hash of the manifest.

    `request` is the content of the set's `set.json`, which states the hash.

    Raises:
        UserError: The manifest is missing, or its hash differs from the one in `set.json`. The message ends in
            `remedy`, which says what to do.
    """
    path, digest = f"{root}/{MANIFEST_FILE}", hashlib.sha256()
    try:
        with fs.open(path, "rb") as file:
            while data := file.read(_BLOCK):
                digest.update(data)
    except FileNotFoundError as error:
        raise UserError(f"the manifest {path} is missing; {remedy}") from error
    if digest.hexdigest() != request.manifest_sha256:
        raise UserError(
            f"the manifest {path} is damaged or was replaced: the sha256 of the file is not the one in {SET_NAME}; "
            f"{remedy}"
        )
    return Manifest(fs, root)


class Difference(NamedTuple):
    """One contradiction between files of a set. `where` names the file or object; `what` describes the problem."""

    where: str
    what: str


@dataclass(frozen=True)
class Slice:
    """The objects of one shard as listed in the manifest, the outcome table and the tar, each in manifest order."""

    shard: int
    assets: list[Asset]
    rows: list[Outcome]  # one per asset
    uids: list[str]  # of the samples
    reader: ShardSet  # for this shard only, so its cache is freed with the slice


def slices(url: str | Path) -> Iterator[Slice]:
    """Yield the manifest rows, outcome rows and uids of every shard of the complete set at `url`, in order.

    Raises:
        UserError: A shard's part of the manifest, its outcome table and its tar do not list the same objects. The
            message names the first objects that differ.
    """
    fs, root = url_to_fs(url)
    index = read_index(url)
    request = read_set_request(fs, root)
    manifest = read_manifest(fs, root, request)
    if differences := list(set_differences(request, len(manifest), index)):
        raise _disagreement(str(url), differences, "delete the set and render it again")
    for shard in range(len(index.shards)):
        places = request.positions(shard)
        assets = list(manifest.assets(places.start, places.stop))
        rows = read_table(fs, root, shard_name(shard))
        reader = ShardSet(url, index)
        uids = [reader.uid(shard, sample) for sample in range(index.shards[shard].samples)]
        name = shard_name(shard)
        if differences := list(shard_differences(name, places.start, [asset.uid for asset in assets], rows, uids)):
            raise _disagreement(str(url), differences, render_again(name))
        yield Slice(shard, assets, rows, uids, reader)


def read_table(fs: Any, root: str, shard: str) -> list[Outcome]:
    """Return the outcome rows of one shard of the set in folder `root` of `fs`, sorted by manifest position.

    `shard` is the name of the shard.

    Raises:
        UserError: The outcome table is missing or damaged.
    """
    path = f"{root}/{OUTCOMES_FOLDER}/{shard}.parquet"
    try:
        return sorted(parse_outcomes(fs.cat_file(path), path), key=lambda row: row.position)
    except FileNotFoundError as error:
        raise UserError(f"the outcome table {path} is missing; {REPEAT_COMMAND}") from error


def set_differences(request: SetRequest, in_manifest: int, index: Index | None) -> Iterator[Difference]:
    """Yield each difference in the number of objects, or in the shards, between `set.json`, manifest and index.

    Args:
        request: Content of `set.json`.
        in_manifest: Number of objects in the manifest.
        index: Content of `index.json`; None for a set that is unfinished.
    """
    if in_manifest != request.objects:
        yield Difference(MANIFEST_FILE, f"contains {in_manifest} objects, but {SET_NAME} says {request.objects}")
    if index and index.objects_per_shard != request.objects_per_shard:
        what = f"says {index.objects_per_shard} objects per shard, but {SET_NAME} says {request.objects_per_shard}"
        yield Difference(INDEX_NAME, what)
    elif index and len(index.shards) != request.num_shards:
        what = f"lists {len(index.shards)} shards, but {request.objects} objects make {request.num_shards}"
        yield Difference(INDEX_NAME, what)
    for i, entry in enumerate(index.shards if index else ()):
        if entry.name != shard_name(i):
            yield Difference(INDEX_NAME, f"lists {entry.name!r} where {shard_name(i)} is expected")


def shard_differences(
    shard: str, start: int, uids: Sequence[str] | None, rows: Sequence[Outcome], samples: Sequence[str]
) -> Iterator[Difference]:
    """Yield each difference between a shard's part of the manifest, its outcome rows and the samples in its tar.

    Args:
        shard: Name of the shard.
        start: Manifest position of the first object of the shard.
        uids: Uids of the shard's objects according to the manifest; None when the manifest cannot be read.
        rows: Rows of the shard's outcome table.
        samples: Uids of the samples in the shard's tar, in order.
    """
    table = f"{OUTCOMES_FOLDER}/{shard}.parquet"
    if uids is not None:
        yield from _rows_against_manifest(table, start, uids, rows)
    ok, stored = {row.uid for row in rows if row.status == "ok"}, set(samples)
    for uid in sorted(ok - stored):
        yield Difference(f"{table}/{uid}", "its outcome row has status ok, but its sample is not in the shard")
    for uid in sorted(stored - ok):
        yield Difference(f"{table}/{uid}", "its sample has no outcome row with status ok")
    for uid, count in Counter(row.uid for row in rows).items():
        if count > 1:
            yield Difference(f"{table}/{uid}", f"{count} rows")
    for row in rows:
        if row.shard != shard:
            yield Difference(f"{table}/{row.uid}", f"its outcome row belongs to {row.shard}")
    if ok == stored and list(samples) != [row.uid for row in rows if row.status == "ok"]:
        yield Difference(f"{shard}.tar", "its samples are not in the order of their rows")


def _rows_against_manifest(
    table: str, start: int, uids: Sequence[str], rows: Sequence[Outcome]
) -> Iterator[Difference]:
    places = {uid: start + i for i, uid in enumerate(uids)}
    for uid in sorted(places.keys() - {row.uid for row in rows}):
        yield Difference(f"{MANIFEST_FILE}/{uid}", "is in the manifest but has no outcome row")
    for row in rows:
        if row.uid not in places:
            yield Difference(
                f"{table}/{row.uid}", f"has an outcome row but is not in this shard's part of {MANIFEST_FILE}"
            )
        elif row.position != places[row.uid]:
            what = f"its outcome row has position {row.position}, but in {MANIFEST_FILE} it is {places[row.uid]}"
            yield Difference(f"{table}/{row.uid}", what)


def _disagreement(url: str, differences: Sequence[Difference], remedy: str) -> UserError:
    first = "; ".join(f"{where}: {what}" for where, what in differences[:_NAMED])
    more = f"; and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
    return UserError(
        f"{url} is inconsistent: {first}{more}. {remedy[0].upper()}{remedy[1:]}; "
        f"`python -m dataset verify {url}` lists all differences"
    )
