"""A shard set while it is being rendered: what was asked, what is staged, which shards are finished.

An object is staged as `UID.tar` (when ok), then `UID.json`, its outcome row, whose presence says that the object has
ended. A shard is finished when its outcome table is there, which is written after the shard and its statistics. So any
moment is a good one to be killed at, and the set's bytes do not depend on who rendered what when.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError
from dataset.outcome import OUTCOMES_FOLDER, Outcome, dump_outcomes, from_json, parse_outcomes, to_json
from dataset.schema import SCHEMA_VERSION
from dataset.shards import (
    INDEX_NAME,
    SET_NAME,
    Index,
    json_bytes,
    open_set,
    read_stats,
    remove_temporaries,
    shard_name,
    write_bytes_atomic,
    write_index,
    write_json_atomic,
    write_shard,
)
from render.job import pack, unpack

STAGING: Final = ".staging"
REMOTE_STAGING: Final = Path("data/staging")  # for a set that is not a local folder


class Output:
    """The set at `url`, for the objects `uids` in manifest order."""

    def __init__(self, url: str, uids: Sequence[str], objects_per_shard: int) -> None:
        if objects_per_shard < 1:
            raise UserError(f"--objects-per-shard is {objects_per_shard}; it must be at least 1")
        self.url, self.uids, self.objects_per_shard = url, uids, objects_per_shard
        self.fs, self.root = open_set(url)
        local = isinstance(self.fs, LocalFileSystem)
        address = hashlib.sha256(url.encode()).hexdigest()[:12]
        self.staging = Path(self.root) / STAGING if local else REMOTE_STAGING / address
        self._local = LocalFileSystem()

    @property
    def num_shards(self) -> int:
        return -(-len(self.uids) // self.objects_per_shard)

    def shard_of(self, position: int) -> int:
        return position // self.objects_per_shard

    def positions(self, shard: int) -> range:
        """Manifest positions of a shard's objects."""
        start = shard * self.objects_per_shard
        return range(start, min(start + self.objects_per_shard, len(self.uids)))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the set on this host while the block runs. Raises UserError when another rendering does."""
        lock = self.staging / "lock"
        try:
            self.staging.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write {self.staging}: {error.strerror}; check the path and permissions") from error
        try:
            if not _lock(descriptor, lock):
                raise UserError(f"another rendering is writing {self.url}; wait for it or stop it")
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # it holds staged objects, or is gone with the finished set
                    self.staging.rmdir()
        finally:
            os.close(descriptor)

    def claim(self, request: Mapping[str, Any]) -> None:
        """Write `set.json`, or check that the one there asks for the same. Raises UserError naming what differs.

        `source` may differ: another spelling of the same folder names the same objects.
        """
        path = f"{self.root}/{SET_NAME}"
        asked = {"schema_version": SCHEMA_VERSION, "objects_per_shard": self.objects_per_shard, **request}
        asked = json.loads(json_bytes({**asked, "uids": list(self.uids)}))
        if not self.fs.exists(path):
            remove_temporaries(self.fs, self.root)
            write_json_atomic(self.fs, path, asked)
            return
        try:
            there = json.loads(self.fs.cat_file(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete the set or choose another --shards") from error
        if different := _differences(there, asked):
            raise UserError(
                f"{self.url} was begun with other settings: {'; '.join(different)}. "
                "Repeat the first command, choose another --shards, or delete the set"
            )
        remove_temporaries(self.fs, self.root)

    def finished_shards(self) -> set[int]:
        """Numbers of the shards whose outcome table is there: one listing, however many shards."""
        folder = f"{self.root}/{OUTCOMES_FOLDER}"
        self.fs.invalidate_cache()
        paths = self.fs.ls(folder, detail=False) if self.fs.exists(folder) else []
        there = {path.rpartition("/")[2] for path in paths}
        return {shard for shard in range(self.num_shards) if f"{shard_name(shard)}.parquet" in there}

    def staged(self, position: int) -> Outcome | None:
        """The outcome of an object that has ended and whose shard is not finished yet."""
        row = self.staging / f"{self.uids[position]}.json"
        try:
            outcome = from_json(json.loads(row.read_bytes()))
        except FileNotFoundError:
            return None
        return None if outcome.status == "ok" and not self._tar(position).is_file() else outcome

    def stage(self, outcome: Outcome, tar: bytes) -> None:
        """Keep the result of one object until its shard is written."""
        if outcome.status == "ok":
            write_bytes_atomic(self._local, str(self._tar(outcome.position)), tar)
        write_json_atomic(self._local, str(self.staging / f"{outcome.uid}.json"), to_json(outcome))

    def finish_shard(self, shard: int) -> None:
        """Write a shard whose objects are all staged, then its outcome table, then drop the staged files."""
        outcomes = [outcome for position in self.positions(shard) if (outcome := self.staged(position))]
        rendered = [outcome for outcome in outcomes if outcome.status == "ok"]
        samples = ((outcome.uid, unpack(self._tar(outcome.position))) for outcome in rendered)
        write_shard(self.fs, self.root, shard_name(shard), samples)
        write_bytes_atomic(self.fs, self._table_path(shard), dump_outcomes(outcomes))
        for position in self.positions(shard):
            self._unstage(position)

    def finish(self) -> Index:
        """Write the index of a set whose shards are all finished, and remove the staging folder."""
        index = write_index(self.fs, self.root, num_shards=self.num_shards, objects_per_shard=self.objects_per_shard)
        shutil.rmtree(self.staging)
        return index

    def reopen_failed(self) -> int:
        """Forget the failed outcomes, so that these objects are rendered again; how many there were.

        A finished shard with failures goes back to staging: its samples and rows first, then its table is removed.
        """
        count = 0
        for shard in sorted(self.finished_shards()):
            count += self._reopen_shard(shard)
        for position in range(len(self.uids)):
            outcome = self.staged(position)
            if outcome and outcome.status == "failed":
                self._unstage(position)
                count += 1
        return count

    def outcomes(self) -> list[Outcome]:
        """The rows of all finished shards, in manifest order."""
        return [row for shard in sorted(self.finished_shards()) for row in self._table(shard)]

    def _reopen_shard(self, shard: int) -> int:
        rows = self._table(shard)
        failed = sum(row.status == "failed" for row in rows)
        if not failed:
            return 0
        stats = read_stats(self.fs, self.root, shard_name(shard))
        data = self.fs.cat_file(f"{self.root}/{shard_name(shard)}.tar")
        members = {sample.uid: sample.members for sample in stats.samples}
        for row in rows:
            if row.status == "failed":
                self._unstage(row.position)
                continue
            parts = members[row.uid].items()
            self.stage(row, pack({f"{row.uid}.{s}": data[m.offset : m.offset + m.size] for s, m in parts}))
        if self.fs.exists(f"{self.root}/{INDEX_NAME}"):
            self.fs.rm_file(f"{self.root}/{INDEX_NAME}")
        self.fs.rm_file(self._table_path(shard))
        return failed

    def _tar(self, position: int) -> Path:
        return self.staging / f"{self.uids[position]}.tar"

    def _unstage(self, position: int) -> None:
        for path in (self.staging / f"{self.uids[position]}.json", self._tar(position)):
            with suppress(FileNotFoundError):
                path.unlink()

    def _table_path(self, shard: int) -> str:
        return f"{self.root}/{OUTCOMES_FOLDER}/{shard_name(shard)}.parquet"

    def _table(self, shard: int) -> list[Outcome]:
        path = self._table_path(shard)
        return parse_outcomes(self.fs.cat_file(path), path)


def _lock(descriptor: int, path: Path) -> bool:
    """Whether the open file is now ours alone, and still the one at `path` (its last owner may have removed it)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs, for a person; of the lists of objects only the first difference."""
    found = [
        f"{key} was {there.get(key)!r}, is {asked.get(key)!r}"
        for key in sorted({*there, *asked} - {"source", "uids"})
        if there.get(key) != asked.get(key)
    ]
    before, now = there.get("uids", []), asked["uids"]
    if before != now:
        place = next(
            (i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now))
        )
        found.append(f"it held {len(before)} objects, now {len(now)}, the first difference is object {place}")
    return found
