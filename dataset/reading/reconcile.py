"""What was asked for, what became of it and what lies in the shards, held against each other a shard at a time.

An object's place in the manifest decides its shard, so a shard needs its own slice of the manifest only: memory does
not grow with the set. No picture is read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, Asset, Manifest
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, parse_outcomes
from dataset.format.shards import INDEX_NAME, REPEAT_COMMAND, SET_NAME, Index, read_index, render_again, shard_name
from dataset.io.files import url_to_fs
from dataset.reading.shard_set import ShardSet

ANEW: Final = "restore it, or delete the set and render it again"
_BLOCK: Final = 1 << 20
_NAMED: Final = 3  # differences that an error names


@dataclass(frozen=True)
class Asked:
    """What `set.json` says about the manifest beside it."""

    objects: int
    objects_per_shard: int
    manifest_sha256: str

    @property
    def num_shards(self) -> int:
        return -(-self.objects // self.objects_per_shard)

    def positions(self, shard: int) -> range:
        """Manifest positions of a shard's objects; none for a shard that the set does not have."""
        start = shard * self.objects_per_shard
        return range(start, max(start, min(start + self.objects_per_shard, self.objects)))


def read_asked(fs: Any, root: str, anew: str = ANEW) -> Asked:
    """Raises UserError when `set.json` is missing or says nothing about a manifest; `anew` is the remedy."""
    path = f"{root}/{SET_NAME}"
    try:
        raw = json.loads(fs.cat_file(path))
        asked = Asked(int(raw["objects"]), int(raw["objects_per_shard"]), str(raw["manifest_sha256"]))
        if asked.objects < 0 or asked.objects_per_shard < 1:
            raise ValueError(f"{asked.objects} objects, {asked.objects_per_shard} a shard")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {anew}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); {anew}") from error
    return asked


def read_manifest(fs: Any, root: str, asked: Asked, anew: str = ANEW) -> Manifest:
    """The manifest, its hash checked before a byte of it is trusted. Raises UserError when it is missing or another."""
    path, digest = f"{root}/{MANIFEST_FILE}", hashlib.sha256()
    try:
        with fs.open(path, "rb") as file:
            while data := file.read(_BLOCK):
                digest.update(data)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {anew}") from error
    if digest.hexdigest() != asked.manifest_sha256:
        raise UserError(f"{path} is damaged or another: {SET_NAME} records another sha256; {anew}")
    return Manifest(fs, root)


class Difference(NamedTuple):
    """The file and object, and how it disagrees with the others."""

    where: str
    what: str


@dataclass(frozen=True)
class Slice:
    """One shard's objects: asked for, ended, stored; each list in manifest order."""

    shard: int
    assets: list[Asset]
    rows: list[Outcome]  # one an asset
    uids: list[str]  # of the samples
    reader: ShardSet  # for this shard alone: what it has cached goes with the slice


def slices(url: str | Path) -> Iterator[Slice]:
    """All shards of a complete set, one after the other.

    Raises UserError that names the first objects at the first difference between manifest, outcome tables and shards.
    """
    fs, root = url_to_fs(url)
    index = read_index(url)
    asked = read_asked(fs, root)
    manifest = read_manifest(fs, root, asked)
    if told := list(set_differences(asked, len(manifest), index)):
        raise _disagreement(str(url), told, "delete the set and render it again")
    for shard in range(len(index.shards)):
        places = asked.positions(shard)
        assets = list(manifest.assets(places.start, places.stop))
        rows = read_table(fs, root, shard_name(shard))
        reader = ShardSet(url, index)
        uids = [reader.uid(shard, sample) for sample in range(index.shards[shard].samples)]
        name = shard_name(shard)
        if told := list(differences(name, places.start, [asset.uid for asset in assets], rows, uids)):
            raise _disagreement(str(url), told, render_again(name))
        yield Slice(shard, assets, rows, uids, reader)


def read_table(fs: Any, root: str, shard: str) -> list[Outcome]:
    """A shard's outcome rows by position. Raises UserError when the table is missing or damaged."""
    path = f"{root}/{OUTCOMES_FOLDER}/{shard}.parquet"
    try:
        return sorted(parse_outcomes(fs.cat_file(path), path), key=lambda row: row.position)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {REPEAT_COMMAND}") from error


def set_differences(asked: Asked, in_manifest: int, index: Index | None) -> Iterator[Difference]:
    """How the set's own files disagree about its size. An unfinished set has no index yet."""
    if in_manifest != asked.objects:
        yield Difference(MANIFEST_FILE, f"holds {in_manifest} objects, {SET_NAME} says {asked.objects}")
    if index and index.objects_per_shard != asked.objects_per_shard:
        told = f"{index.objects_per_shard} objects a shard, {SET_NAME} says {asked.objects_per_shard}"
        yield Difference(INDEX_NAME, told)
    elif index and len(index.shards) != asked.num_shards:
        told = f"lists {len(index.shards)} shards, {asked.objects} objects make {asked.num_shards}"
        yield Difference(INDEX_NAME, told)
    for i, entry in enumerate(index.shards if index else ()):
        if entry.name != shard_name(i):
            yield Difference(INDEX_NAME, f"lists {entry.name!r} in the place of {shard_name(i)}")


def differences(
    shard: str, start: int, asked: Sequence[str] | None, rows: Sequence[Outcome], samples: Sequence[str]
) -> Iterator[Difference]:
    """One shard's disagreements. `asked`: its manifest slice's uids, the first at position `start`; None: unknown."""
    table = f"{OUTCOMES_FOLDER}/{shard}.parquet"
    if asked is not None:
        yield from _rows_against_manifest(table, start, asked, rows)
    ok, stored = {row.uid for row in rows if row.status == "ok"}, set(samples)
    for uid in sorted(ok - stored):
        yield Difference(f"{table}/{uid}", "row says ok but the shard has no such sample")
    for uid in sorted(stored - ok):
        yield Difference(f"{table}/{uid}", "sample has no ok row")
    for uid, count in Counter(row.uid for row in rows).items():
        if count > 1:
            yield Difference(f"{table}/{uid}", f"{count} rows")
    for row in rows:
        if row.shard != shard:
            yield Difference(f"{table}/{row.uid}", f"row belongs to {row.shard}")
    if ok == stored and list(samples) != [row.uid for row in rows if row.status == "ok"]:
        yield Difference(f"{shard}.tar", "its samples are not in the order of their rows")


def _rows_against_manifest(
    table: str, start: int, asked: Sequence[str], rows: Sequence[Outcome]
) -> Iterator[Difference]:
    places = {uid: start + i for i, uid in enumerate(asked)}
    for uid in sorted(places.keys() - {row.uid for row in rows}):
        yield Difference(f"{MANIFEST_FILE}/{uid}", "asked for, but has no outcome row")
    for row in rows:
        if row.uid not in places:
            yield Difference(f"{table}/{row.uid}", f"has a row but is not in this shard's part of {MANIFEST_FILE}")
        elif row.position != places[row.uid]:
            told = f"row has position {row.position}, {MANIFEST_FILE} has it at {places[row.uid]}"
            yield Difference(f"{table}/{row.uid}", told)


def _disagreement(url: str, told: Sequence[Difference], remedy: str) -> UserError:
    first = "; ".join(f"{where}: {what}" for where, what in told[:_NAMED])
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return UserError(
        f"{url} does not agree with itself: {first}{more}. {remedy[0].upper()}{remedy[1:]}; "
        f"`python -m dataset verify {url}` lists all differences"
    )
