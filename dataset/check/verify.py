"""Every truncated, missing, foreign, duplicate or corrupt member of a shard set, by name, in one pass over its bytes.

Each tar is read from front to back as WebDataset would read it; statistics, index, outcome rows, manifest and
attribution are then held against what was really there. One shard's rows are in memory at a time.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataset.attribution import ATTRIBUTION_FILE, AttributionCheck
from dataset.check.latents import TableCheck, latent_kind
from dataset.check.shard import PICTURES, HashingReader, Kind, Problem, ShardCheck
from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, LatentFormat, read_format
from dataset.format.manifest import MANIFEST_FILE, Asset, Manifest
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.shards import INDEX_NAME, SET_NAME, SHARD_FILE, Index, ShardEntry, read_index, read_stats
from dataset.io.files import TEMPORARY_SUFFIX, exists, url_to_fs
from dataset.io.progress import ProgressBar
from dataset.reading.reconcile import Asked, differences, read_asked, read_manifest, read_table, set_differences


def verify(url: str | Path, *, progress: bool = False) -> list[Problem]:
    """All problems of the set at `url`, an empty list when it is sound. Raises UserError when there is no set at all.

    Either kind of set: of pictures, or of latents (it holds latents.json), whose tables are checked too.

    Shards are read in parallel threads; the order of the findings does not depend on it.
    """
    fs, root = url_to_fs(url)
    form = read_format(str(url)) if exists(fs, f"{root}/{LATENTS_FILE}") else None
    kind = PICTURES if form is None else latent_kind(str(url), form)
    index, problems = _index(fs, root, str(url), kind)
    files = {path.removeprefix(f"{root}/"): int(size) for path, size in _sizes(fs, root).items()}
    entries = {entry.name: entry for entry in index.shards} if index else {}
    problems += _stray_files(files, entries if index else None)
    wanted, found = _Wanted.read(fs, root, index, kind)
    problems += found
    names = sorted(set(entries) | {name.removesuffix(".tar") for name in files if SHARD_FILE.fullmatch(name)})
    total = sum(files.get(f"{name}.tar", 0) for name in names)
    with (
        ProgressBar(total=total, unit="B", unit_scale=True, desc="verify", disable=not progress) as bar,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        AttributionCheck(fs, root) as attribution,
    ):

        def check_one(name: str) -> ShardCheck:
            return _check_shard(fs, root, name, entries.get(name), bar=bar, kind=kind, form=form)

        for check in pool.map(check_one, names):
            problems += check.problems
            problems += _reconcile(fs, root, check, wanted, attribution)
    if index and (fault := attribution.fault):
        problems.append(Problem(ATTRIBUTION_FILE, fault, kind.repeat))
    return problems


def _sizes(fs: Any, root: str) -> dict[str, int]:
    return {path: info["size"] for path, info in fs.find(root, detail=True).items()}


def _index(fs: Any, root: str, url: str, kind: Kind) -> tuple[Index | None, list[Problem]]:
    """The index, or the problem that stands for it. A set that does not exist at all stays a UserError."""
    try:
        return read_index(url, kind.repeat), []
    except UserError as error:
        if not exists(fs, f"{root}/{SET_NAME}") and not fs.glob(f"{root}/shard-*.tar"):
            raise
        return None, [Problem(INDEX_NAME, str(error), kind.repeat)]


def _stray_files(files: Iterable[str], entries: Mapping[str, ShardEntry] | None) -> Iterator[Problem]:
    """Leftovers of killed writers, and shard files that the index (when there is one) does not list."""
    for name in sorted(files):
        stem = name.removeprefix(f"{OUTCOMES_FOLDER}/").partition(".")[0]
        if name.endswith(TEMPORARY_SUFFIX):
            yield Problem(name, "temporary file of an interrupted writer", "delete it")
        elif name.startswith(".staging/") and entries is not None:
            yield Problem(name, "staged objects of a set that is complete", "delete .staging")
        elif entries is not None and stem.startswith("shard-") and stem not in entries:
            yield Problem(name, f"not listed in {INDEX_NAME}", "delete it")


class _Wanted:
    """What was asked for, a shard's part at a time; nothing is known of it when manifest or `set.json` are damaged."""

    def __init__(self, asked: Asked | None, manifest: Manifest | None, kind: Kind) -> None:
        self.asked, self.manifest, self.kind = asked, manifest, kind

    @classmethod
    def read(cls, fs: Any, root: str, index: Index | None, kind: Kind) -> tuple["_Wanted", list[Problem]]:
        try:
            asked = read_asked(fs, root, kind.anew)
        except UserError as error:
            return cls(None, None, kind), [Problem(SET_NAME, str(error), kind.anew)]
        try:
            manifest = read_manifest(fs, root, asked, kind.anew)
        except UserError as error:
            return cls(asked, None, kind), [Problem(MANIFEST_FILE, str(error), kind.anew)]
        problems = [Problem(where, what, kind.anew) for where, what in set_differences(asked, len(manifest), index)]
        return cls(asked, manifest, kind), problems

    def assets(self, shard: str) -> tuple[int, list[Asset] | None]:
        """Position of the shard's first object, and its assets. Raises UserError when that part is damaged."""
        if not self.asked or not self.manifest or not SHARD_FILE.fullmatch(f"{shard}.tar"):
            return 0, None
        places = self.asked.positions(int(shard.removeprefix("shard-")))
        return places.start, list(self.manifest.assets(places.start, places.stop))


def _check_shard(
    fs: Any, root: str, name: str, entry: ShardEntry | None, *, bar: Any, kind: Kind, form: LatentFormat | None
) -> ShardCheck:
    """A shard's findings, and the samples in it."""
    check = ShardCheck(name, kind)
    stats = None
    try:
        stats = read_stats(fs, root, name)
    except UserError as error:
        check.add(f"{name}.json", f"statistics unusable: {error}")
    if stats:
        check.expected = {f"{s.uid}.{suffix}": place for s in stats.samples for suffix, place in s.members.items()}
        if entry and (entry.sha256, entry.bytes, entry.samples) != (stats.sha256, stats.bytes, len(stats.samples)):
            check.add(f"{name}.json", f"disagrees with {INDEX_NAME}")
    table = None if form is None else TableCheck(check, fs, root, form, stats)
    try:
        with fs.open(f"{root}/{name}.tar", "rb") as file:
            reader = HashingReader(file, bar)
            check.walk(reader)
        truth = stats or entry
        check.compare(reader.digest.hexdigest(), reader.count, truth.sha256 if truth else None)
        if table is not None:
            table.compare()
    except FileNotFoundError:
        check.add(f"{name}.tar", "missing")
    except OSError as error:
        check.add(f"{name}.tar", f"cannot be read ({error.strerror or error})")
    return check


def _reconcile(
    fs: Any, root: str, check: ShardCheck, wanted: _Wanted, attribution: AttributionCheck
) -> Iterator[Problem]:
    """The shard's samples held against its outcome rows, its part of the manifest and the attribution."""
    try:
        start, assets = wanted.assets(check.name)
    except UserError as error:
        start, assets = 0, None
        yield Problem(MANIFEST_FILE, str(error), check.kind.anew)
    if assets is None:
        attribution.give_up()
    else:
        yield from _credits(check, assets)
        stored = {name.partition(".")[0] for name in check.expected} or check.uids.keys()
        attribution.expect(asset for asset in assets if asset.uid in stored)
    where = f"{OUTCOMES_FOLDER}/{check.name}.parquet"
    if not exists(fs, f"{root}/{where}"):
        yield Problem(where, "missing outcome table", check.kind.repeat)
        return
    try:
        rows = read_table(fs, root, check.name)
    except UserError as error:
        yield Problem(where, str(error), check.kind.again(check.name))
        return
    uids = None if assets is None else [asset.uid for asset in assets]
    for place, what in differences(check.name, start, uids, rows, list(check.uids)):
        yield Problem(place, what, check.kind.again(check.name))


def _credits(check: ShardCheck, assets: Iterable[Asset]) -> Iterator[Problem]:
    """Samples whose metadata name another author, license or source than the manifest."""
    for asset in assets:
        meta = check.metas.get(asset.uid)
        if meta and (meta.author, meta.license, meta.source) != (asset.author, asset.license, asset.source):
            told = f"author, license or source differ from {MANIFEST_FILE}"
            yield Problem(f"{check.name}.tar/{asset.uid}.meta.json", told, check.kind.again(check.name))
