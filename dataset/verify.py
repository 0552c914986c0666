"""Every truncated, missing, foreign, duplicate or corrupt member of a shard set, by name, in one pass over its bytes.

Each tar is read from front to back as WebDataset would read it; statistics, index, outcome rows and manifest are then
held against what was really there.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from dataset.errors import UserError
from dataset.outcome import OUTCOMES_FOLDER, Outcome, parse_outcomes
from dataset.shard_check import HashingReader, Problem, ShardCheck
from dataset.shards import (
    INDEX_NAME,
    SET_NAME,
    SHARD_FILE,
    TEMPORARY_SUFFIX,
    Index,
    ShardEntry,
    open_set,
    read_index,
    read_stats,
    render_again,
    shard_name,
)

_REPEAT: Final = "repeat the set's `make render` command"


def verify(url: str | Path, *, progress: bool = False) -> list[Problem]:
    """All problems of the set at `url`, an empty list when it is sound. Raises UserError when there is no set at all.

    Shards are read in parallel threads; the order of the findings does not depend on it.
    The progress bar shows on a terminal only.
    """
    fs, root = open_set(url)
    fs.invalidate_cache()
    index, problems = _index(fs, root, str(url))
    files = {path.removeprefix(f"{root}/"): int(size) for path, size in _sizes(fs, root).items()}
    entries = {entry.name: entry for entry in index.shards} if index else {}
    problems += _stray_files(files, entries if index else None)
    names = sorted(set(entries) | {name.removesuffix(".tar") for name in files if SHARD_FILE.fullmatch(name)})
    total = sum(files.get(f"{name}.tar", 0) for name in names)
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None if progress else True) as bar,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        checks = list(pool.map(lambda name: _check_shard(fs, root, name, entries.get(name), bar), names))
    problems += [problem for found, _ in checks for problem in found]
    samples = {name: uids for name, (_, uids) in zip(names, checks, strict=True)}
    problems += _unique(samples)
    rows: dict[str, Outcome] = {}
    for name, uids in samples.items():
        table, found = _outcomes(fs, root, name, uids)
        problems += found
        rows |= {row.uid: row for row in table}
    return problems + (list(_manifest(fs, root, rows, index.objects_per_shard)) if index else [])


def _sizes(fs: Any, root: str) -> dict[str, int]:
    return {path: info["size"] for path, info in fs.find(root, detail=True).items()}


def _index(fs: Any, root: str, url: str) -> tuple[Index | None, list[Problem]]:
    """The index, or the problem that stands for it. A set that does not exist at all stays a UserError."""
    try:
        return read_index(url), []
    except UserError as error:
        if not fs.exists(f"{root}/{SET_NAME}") and not fs.glob(f"{root}/shard-*.tar"):
            raise
        return None, [Problem(INDEX_NAME, str(error), _REPEAT)]


def _stray_files(files: Iterable[str], entries: Mapping[str, ShardEntry] | None) -> Iterator[Problem]:
    """Leftovers of killed writers, and shard files that the index (when there is one) does not list."""
    for name in sorted(files):
        stem = name.removeprefix(f"{OUTCOMES_FOLDER}/").partition(".")[0]
        if name.endswith(TEMPORARY_SUFFIX):
            yield Problem(name, "temporary file of an interrupted writer", "delete it")
        elif name.startswith(".staging/") and entries is not None:
            yield Problem(name, "staged object of a set that is complete", "delete .staging")
        elif entries is not None and stem.startswith("shard-") and stem not in entries:
            yield Problem(name, f"not listed in {INDEX_NAME}", "delete it")


def _check_shard(fs: Any, root: str, name: str, entry: ShardEntry | None, bar: Any) -> tuple[list[Problem], list[str]]:
    """A shard's findings and the uids of the samples in it."""
    check = ShardCheck(name)
    stats = None
    try:
        stats = read_stats(fs, root, name)
    except UserError as error:
        check.add(f"{name}.json", f"statistics unusable: {error}")
    if stats:
        check.expected = {f"{s.uid}.{suffix}": place for s in stats.samples for suffix, place in s.members.items()}
        if entry and (entry.sha256, entry.bytes, entry.samples) != (stats.sha256, stats.bytes, len(stats.samples)):
            check.add(f"{name}.json", f"disagrees with {INDEX_NAME}")
    try:
        with fs.open(f"{root}/{name}.tar", "rb") as file:
            reader = HashingReader(file, bar)
            check.walk(reader)
        truth = stats or entry
        check.compare(reader.digest.hexdigest(), reader.count, truth.sha256 if truth else None)
    except FileNotFoundError:
        check.add(f"{name}.tar", "missing")
    except OSError as error:
        check.add(f"{name}.tar", f"cannot be read ({error.strerror or error})")
    return check.problems, list(check.uids)


def _unique(samples: Mapping[str, list[str]]) -> Iterator[Problem]:
    counts = Counter(uid for uids in samples.values() for uid in uids)
    for uid in sorted(uid for uid, n in counts.items() if n > 1):
        shards = [shard for shard, uids in samples.items() if uid in uids]
        yield Problem(uid, f"is in several shards: {', '.join(shards)}", render_again(shards[-1]))


def _outcomes(fs: Any, root: str, shard: str, uids: list[str]) -> tuple[list[Outcome], list[Problem]]:
    """A shard's outcome rows, and what is wrong with them."""
    where = f"{OUTCOMES_FOLDER}/{shard}.parquet"
    try:
        table = parse_outcomes(fs.cat_file(f"{root}/{where}"), where)
    except FileNotFoundError:
        return [], [Problem(where, "missing outcome table", _REPEAT)]
    except UserError as error:
        return [], [Problem(where, str(error), render_again(shard))]
    return table, list(_rows_against_samples(where, table, shard, uids))


def _rows_against_samples(where: str, table: list[Outcome], shard: str, uids: list[str]) -> Iterator[Problem]:
    ok = {row.uid for row in table if row.status == "ok"}
    faults = [(uid, "row says ok but the shard has no such sample") for uid in sorted(ok - set(uids))]
    faults += [(uid, "sample has no ok row") for uid in sorted(set(uids) - ok)]
    faults += [(uid, f"{n} rows") for uid, n in Counter(row.uid for row in table).items() if n > 1]
    faults += [(row.uid, f"row belongs to {row.shard}") for row in table if row.shard != shard]
    for uid, what in faults:
        yield Problem(f"{where}/{uid}", what, render_again(shard))


def _manifest(fs: Any, root: str, rows: Mapping[str, Outcome], objects_per_shard: int) -> Iterator[Problem]:
    try:
        uids = json.loads(fs.cat_file(f"{root}/{SET_NAME}"))["uids"]
    except FileNotFoundError:
        yield Problem(SET_NAME, "missing", _REPEAT)
        return
    except (ValueError, KeyError, TypeError) as error:
        yield Problem(SET_NAME, f"no manifest in it ({error!r})", "restore it, or delete the set and render it again")
        return
    for position, uid in enumerate(uids):
        if uid not in rows:
            shard = shard_name(position // objects_per_shard)
            yield Problem(f"{SET_NAME}/{uid}", "asked for, but has no outcome row", render_again(shard))
    for uid in sorted(rows.keys() - set(uids)):
        yield Problem(f"{OUTCOMES_FOLDER}/{uid}", f"has a row but is not in {SET_NAME}", render_again(rows[uid].shard))
