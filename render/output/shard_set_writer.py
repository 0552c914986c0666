"""Write a shard set while it is rendered: its settings (`set.json`), its staged results and its finished shards.

Staged results are results in the staging folder, where they are kept until their shard is written. The results of a
batch are staged as one file (render.output.staging). The outcome table of a shard is written last; the shard is
finished when this table exists. The process can therefore be killed at any time. The bytes of the set do not depend on
which worker rendered an object, or when.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.attribution import write_attribution
from dataset.errors import UserError
from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, dump_outcomes, mark_duplicate, parse_outcomes
from dataset.format.schema import SCHEMA_VERSION
from dataset.format.set_request import begin_set
from dataset.format.shards import (
    INDEX_NAME,
    SET_NAME,
    Index,
    read_stats,
    remove_temporaries,
    shard_name,
    write_index,
    write_shard,
)
from dataset.format.tar import pack, unpack
from dataset.io.files import check_reachable, exists, json_bytes, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned
from dataset.io.resume import differences, settings_differ
from render.output.staging import Staging
from render.workers.messages import RenderResult

STAGING: Final = ".staging"
LOGS_FOLDER: Final = "logs"
REMOTE_STAGING: Final = Path("data/staging")  # for a set that is not a local folder
# Results of listing the source; the other keys determine them.
_DERIVED_KEYS: Final = {"source", "objects", "manifest_sha256"}


class ShardSetWriter:
    """Writes a shard set to the folder or fsspec URL `url`. Call `claim` first: it writes or checks the manifest."""

    def __init__(self, url: str, objects_per_shard: int) -> None:
        if objects_per_shard < 1:
            raise UserError(f"--objects-per-shard is {objects_per_shard}; choose a value of at least 1")
        self.url, self.objects_per_shard = url, objects_per_shard
        self.fs, self.root = url_to_fs(url)
        check_reachable(self.fs, self.root, url)
        address = hashlib.sha256(url.encode()).hexdigest()[:12]
        local = isinstance(self.fs, LocalFileSystem)
        self.folder = Path(self.root) / STAGING if local else REMOTE_STAGING / address  # on this machine
        self.staging = Staging(self.folder)
        self.logs = Path(self.root) / LOGS_FOLDER if local else self.folder.with_name(f"{address}-{LOGS_FOLDER}")
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the set."""
        if self._manifest is None:
            self._manifest = Manifest(self.fs, self.root)
        return self._manifest

    @property
    def num_shards(self) -> int:
        """Number of shards of the complete set."""
        return -(-len(self.manifest) // self.objects_per_shard)

    def shard_of(self, position: int) -> int:
        """Return the number (from 0) of the shard that contains the object at this manifest position (from 0)."""
        return position // self.objects_per_shard

    def positions(self, shard: int) -> range:
        """Return the manifest positions of the objects in shard number `shard` (from 0)."""
        start = shard * self.objects_per_shard
        return range(start, min(start + self.objects_per_shard, len(self.manifest)))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the set inside the `with` block.

        Raises UserError when another process is rendering this set, or when the set's folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write the folder {self.folder} ({error.strerror}); check the path and its permissions"
            ) from error
        with owned(self.fs, self.root, self.folder, self.url):
            try:
                yield
            finally:
                with suppress(OSError):  # it is not empty, or was removed with the finished set
                    self.folder.rmdir()

    def claim(self, request: Mapping[str, Any], assets: Callable[[], Iterator[Asset]]) -> None:
        """Write the manifest and `set.json` of a new set, or check that an existing set was made with the same request.

        Args:
            request: The settings of the run, as `set.json` stores them.
            assets: Function that lists the objects of the source. Called only to write a new manifest, or to find the
                first object that differs from an existing manifest.

        Raises UserError when the existing set was made with other settings; the message lists them.
        """
        path = f"{self.root}/{SET_NAME}"
        contents = {"schema_version": SCHEMA_VERSION, "objects_per_shard": self.objects_per_shard, **request}
        contents = json.loads(json_bytes(contents))
        remove_temporaries(self.fs, self.root)
        if not exists(self.fs, path):
            begin_set(self.fs, self.root, contents, assets())
            return
        try:
            existing = json.loads(self.fs.cat_file(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete the shard set, or choose another --shards") from error
        if changed := differences(existing, contents, _DERIVED_KEYS):
            if "fingerprint" in changed:
                changed["fingerprint"] = _first_difference(self.manifest.assets(), assets())
            remedy = "Repeat the first command, choose another --shards, or delete the set"
            raise UserError(settings_differ(self.url, changed.values(), remedy))

    def finished_shards(self) -> set[int]:
        """Return the numbers (from 0) of the shards that have an outcome table."""
        folder = f"{self.root}/{OUTCOMES_FOLDER}"
        paths = self.fs.ls(folder, detail=False) if exists(self.fs, folder) else []
        names = {path.rpartition("/")[2] for path in paths}
        return {shard for shard in range(self.num_shards) if f"{shard_name(shard)}.parquet" in names}

    def missing(self, shard: int) -> list[int]:
        """Return the manifest positions of the shard's objects without a staged result. `shard` must be unfinished."""
        staged = self.staging.positions(shard_name(shard))
        return [position for position in self.positions(shard) if position not in staged]

    def stage(self, results: Sequence[RenderResult]) -> None:
        """Store results in the staging folder until their shard is written. All must be of the same shard."""
        self.staging.add(results[0].outcome.shard, results)

    def finish_shard(self, shard: int, fresh: Sequence[RenderResult] = ()) -> None:
        """Write shard number `shard`, then its outcome table. Remove the staged files of the shard.

        `fresh` contains results that are not staged. Together with the staged results, it must contain a result for
        each object of the shard.
        """
        name = shard_name(shard)
        results = {result.outcome.position: result for result in [*self.staging.read(name), *fresh]}
        ordered = [results[position] for position in self.positions(shard)]
        samples = ((r.outcome.uid, unpack(r.tar)) for r in ordered if r.outcome.status == "ok")
        write_shard(self.fs, self.root, name, samples)
        write_bytes_atomic(self.fs, self._table_path(shard), dump_outcomes([r.outcome for r in ordered]))
        self.staging.drop(name)

    def finish(self, skip_duplicates: bool = False) -> Index:
        """Complete the set: flag duplicates, write `attribution.csv` and the index, and remove the staging folder.

        All shards must be finished. A duplicate is an object whose file is identical to that of an earlier object. If
        `skip_duplicates` is True, the samples of duplicates are removed from their shards.
        """
        self._mark_duplicates(skip_duplicates)
        write_attribution(self.fs, self.root)
        index = write_index(self.fs, self.root, num_shards=self.num_shards, objects_per_shard=self.objects_per_shard)
        shutil.rmtree(self.folder)
        return index

    def reopen_failed(self) -> int:
        """Remove the outcomes of failed objects, so that these objects are rendered again. Return their number."""
        failed = 0
        for shard in range(self.num_shards):
            rows = self.table(shard) if self._has_table(shard) else []
            if any(row.status == "failed" for row in rows):
                failed += sum(row.status == "failed" for row in rows)
                self._reopen(shard, [row for row in rows if row.status != "failed"])
            elif not rows:
                failed += self.staging.drop_failed(shard_name(shard))
        return failed

    def table(self, shard: int) -> list[Outcome]:
        """Return the rows of the outcome table of shard number `shard`. The shard must be finished."""
        path = self._table_path(shard)
        return parse_outcomes(self.fs.cat_file(path), path)

    def outcomes(self) -> Iterator[Outcome]:
        """Iterate over the outcomes of all finished shards in manifest order. One table at a time is in memory."""
        return (row for shard in sorted(self.finished_shards()) for row in self.table(shard))

    def _mark_duplicates(self, skip: bool) -> None:
        """Flag each object whose file is identical to an earlier one; with `skip`, remove it from its shard."""
        first: dict[bytes, int] = {}
        for shard in range(self.num_shards):
            rows = self.table(shard)
            marked = [mark_duplicate(row, first, skip) for row in rows]
            if marked == rows:
                continue
            if any(new.status != old.status for new, old in zip(marked, rows, strict=True)):
                self._reopen(shard, marked)
                self.finish_shard(shard)
            else:
                write_bytes_atomic(self.fs, self._table_path(shard), dump_outcomes(marked))

    def _reopen(self, shard: int, rows: Sequence[Outcome]) -> None:
        """Move a finished shard back to staging, with outcome `rows` and the samples of the rows whose status is ok."""
        name = shard_name(shard)
        stats = read_stats(self.fs, self.root, name)
        data = self.fs.cat_file(f"{self.root}/{name}.tar")
        members = {sample.uid: sample.members for sample in stats.samples}
        results = []
        for row in rows:
            places = members[row.uid].items() if row.status == "ok" else ()
            parts = {f"{row.uid}.{suffix}": data[m.offset : m.offset + m.size] for suffix, m in places}
            results.append(RenderResult(row, pack(parts) if parts else b""))
        self.staging.drop(name)
        if results:
            self.staging.add(name, results)
        if exists(self.fs, f"{self.root}/{INDEX_NAME}"):
            self.fs.rm_file(f"{self.root}/{INDEX_NAME}")
        self.fs.rm_file(self._table_path(shard))

    def _table_path(self, shard: int) -> str:
        return f"{self.root}/{OUTCOMES_FOLDER}/{shard_name(shard)}.parquet"

    def _has_table(self, shard: int) -> bool:
        return exists(self.fs, self._table_path(shard))


def _first_difference(before: Iterator[Asset], now: Iterator[Asset]) -> str:
    """Describe the first object of the source that differs from the manifest."""
    for position, (old, new) in enumerate(zip_longest(before, now)):
        if old != new:
            before_and_now = f"it was {_description(old)}, is now {_description(new)}"
            return f"its objects changed, the first is object {position}: {before_and_now}"
    return "its objects were selected by other options"


def _description(asset: Asset | None) -> str:
    return "absent" if asset is None else f"{asset.uid} ({asset.bytes} bytes)" if asset.bytes else asset.uid
