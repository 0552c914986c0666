"""Find every truncated, missing, unexpected, duplicate or corrupt member of a set, reading each byte once.

Each tar is read from start to end, as WebDataset does. The statistics, the index, the outcome tables, the manifest,
`attribution.csv` and the scores, if there are any, are then compared with the contents of the tars. Memory holds only
the rows of the few shards that are being checked.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataset.attribution import ATTRIBUTION_FILE, AttributionCheck
from dataset.check.latents import TableCheck, latent_kind
from dataset.check.scores import duplicate_problems, score_problems
from dataset.check.shard import IMAGE_SET, HashingReader, Problem, SetKind, ShardCheck
from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE, LatentFormat, read_format
from dataset.format.manifest import MANIFEST_FILE, Asset, Manifest
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.scores import SCORES_FOLDER
from dataset.format.set_request import SetRequest, read_set_request
from dataset.format.shards import INDEX_NAME, SET_NAME, SHARD_FILE, Index, ShardEntry, read_index, read_stats
from dataset.io.files import TEMPORARY_SUFFIX, exists, url_to_fs
from dataset.io.progress import ProgressBar
from dataset.reading.reconcile import read_manifest, read_table, set_differences, shard_differences


def verify(url: str | Path, *, progress: bool = False) -> list[Problem]:
    """Return all problems of the set at `url`. The list is empty if the set is valid.

    The problems of the shards are in the order of the shards. If the set contains a file `latents.json`, it is a latent
    set, and its index tables are checked too. Threads read the shards in parallel. `progress` shows a progress bar.

    Raises:
        UserError: There is no set at `url`.
    """
    fs, root = url_to_fs(url)
    form = read_format(str(url)) if exists(fs, f"{root}/{LATENTS_FILE}") else None
    kind = IMAGE_SET if form is None else latent_kind(str(url), form)
    index, problems = _index(fs, root, str(url), kind)
    files = {path.removeprefix(f"{root}/"): int(size) for path, size in _sizes(fs, root).items()}
    entries = {entry.name: entry for entry in index.shards} if index else {}
    problems += _stray_files(files, entries if index else None)
    request_parts, request_problems = _Request.read(fs, root, index, kind)
    problems += request_problems
    names = sorted(set(entries) | {name.removesuffix(".tar") for name in files if SHARD_FILE.fullmatch(name)})
    tars = _image_tars(entries, form)
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
            problems += _reconcile(fs, root, check, request_parts, attribution)
            problems += score_problems(fs, root, check.name, list(check.uids), tars.get(check.name))
    problems += duplicate_problems(fs, root, list(tars.values()) if index else None)
    if index and (fault := attribution.fault):
        problems.append(Problem(ATTRIBUTION_FILE, fault, kind.missing_remedy))
    return problems


def _sizes(fs: Any, root: str) -> dict[str, int]:
    return {path: info["size"] for path, info in fs.find(root, detail=True).items()}


def _index(fs: Any, root: str, url: str, kind: SetKind) -> tuple[Index | None, list[Problem]]:
    """Return the index, or None and the problem that prevents reading it. Raises UserError when there is no set."""
    try:
        return read_index(url, kind.missing_remedy), []
    except UserError as error:
        if not exists(fs, f"{root}/{SET_NAME}") and not fs.glob(f"{root}/shard-*.tar"):
            raise
        return None, [Problem(INDEX_NAME, str(error), kind.missing_remedy)]


def _stray_files(files: Iterable[str], entries: Mapping[str, ShardEntry] | None) -> Iterator[Problem]:
    """Yield a problem for each file that a killed writer left, and for each shard file that the index does not list.

    `entries` are the shards of the index by name; None when the index cannot be read.
    """
    for name in sorted(files):
        stem = name.removeprefix(f"{OUTCOMES_FOLDER}/").removeprefix(f"{SCORES_FOLDER}/").partition(".")[0]
        if name.endswith(TEMPORARY_SUFFIX):
            yield Problem(name, "temporary file of an interrupted writer", "delete it")
        elif name.startswith(".staging/") and entries is not None:
            yield Problem(name, "staged results, although the set is complete", "delete .staging")
        elif entries is not None and stem.startswith("shard-") and stem not in entries:
            yield Problem(name, f"not listed in {INDEX_NAME}", "delete it")


def _image_tars(entries: Mapping[str, ShardEntry], form: LatentFormat | None) -> dict[str, str]:
    """Return the sha256 of each tar of images by the name of its shard; of a latent set, of the images it encodes."""
    digests = [entry.sha256 for entry in entries.values()] if form is None else form.pictures
    return dict(zip(entries, digests, strict=False))


class _Request:
    """Reads which objects each shard should contain, from the set's manifest and `set.json`.

    If the manifest or `set.json` is damaged, these objects are unknown.
    """

    def __init__(self, request: SetRequest | None, manifest: Manifest | None, kind: SetKind) -> None:
        self.request, self.manifest, self.kind = request, manifest, kind

    @classmethod
    def read(cls, fs: Any, root: str, index: Index | None, kind: SetKind) -> tuple["_Request", list[Problem]]:
        try:
            request = read_set_request(fs, root, kind.set_remedy)
        except UserError as error:
            return cls(None, None, kind), [Problem(SET_NAME, str(error), kind.set_remedy)]
        try:
            manifest = read_manifest(fs, root, request, kind.set_remedy)
        except UserError as error:
            return cls(request, None, kind), [Problem(MANIFEST_FILE, str(error), kind.set_remedy)]
        problems = [
            Problem(where, what, kind.set_remedy) for where, what in set_differences(request, len(manifest), index)
        ]
        return cls(request, manifest, kind), problems

    def assets(self, shard: str) -> tuple[int, list[Asset] | None]:
        """Return the manifest position of the first object of `shard`, and the assets of this shard.

        The assets are None when they are unknown. Raises UserError when this shard's part of the manifest is damaged.
        """
        if not self.request or not self.manifest or not SHARD_FILE.fullmatch(f"{shard}.tar"):
            return 0, None
        places = self.request.positions(int(shard.removeprefix("shard-")))
        return places.start, list(self.manifest.assets(places.start, places.stop))


def _check_shard(
    fs: Any, root: str, name: str, entry: ShardEntry | None, *, bar: Any, kind: SetKind, form: LatentFormat | None
) -> ShardCheck:
    """Check the shard `name`: its statistics, its tar and, in a latent set, its index table."""
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
    fs: Any, root: str, check: ShardCheck, request_parts: _Request, attribution: AttributionCheck
) -> Iterator[Problem]:
    """Compare a shard's samples with its outcome rows, its part of the manifest and `attribution.csv`."""
    try:
        start, assets = request_parts.assets(check.name)
    except UserError as error:
        start, assets = 0, None
        yield Problem(MANIFEST_FILE, str(error), check.kind.set_remedy)
    if assets is None:
        attribution.stop_comparing()
    else:
        yield from _credits(check, assets)
        stored = {name.partition(".")[0] for name in check.expected} or check.uids.keys()
        attribution.expect(asset for asset in assets if asset.uid in stored)
    where = f"{OUTCOMES_FOLDER}/{check.name}.parquet"
    if not exists(fs, f"{root}/{where}"):
        yield Problem(where, "missing outcome table", check.kind.missing_remedy)
        return
    try:
        rows = read_table(fs, root, check.name)
    except UserError as error:
        yield Problem(where, str(error), check.kind.shard_remedy(check.name))
        return
    uids = None if assets is None else [asset.uid for asset in assets]
    for place, what in shard_differences(check.name, start, uids, rows, list(check.uids)):
        yield Problem(place, what, check.kind.shard_remedy(check.name))


def _credits(check: ShardCheck, assets: Iterable[Asset]) -> Iterator[Problem]:
    """Yield a problem for each sample whose metadata and manifest row differ in author, license or source."""
    for asset in assets:
        meta = check.metas.get(asset.uid)
        if meta and (meta.author, meta.license, meta.source) != (asset.author, asset.license, asset.source):
            what = f"author, license or source differ from {MANIFEST_FILE}"
            yield Problem(f"{check.name}.tar/{asset.uid}.meta.json", what, check.kind.shard_remedy(check.name))
