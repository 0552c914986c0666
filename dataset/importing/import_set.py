"""Import posed images of another program as a new shard set. Repeating the command resumes an import.

As in `dataset.copy`, the files of a shard are written in this order: the tar, its statistics, then the outcome table,
which marks the shard as finished. An import that is killed therefore loses at most the current shard. Worker processes
read the objects; the main process writes the shards in order.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.attribution import write_attribution
from dataset.copy.copy_set import OBJECTS_PER_SHARD
from dataset.errors import UserError
from dataset.format.manifest import escape_name
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, dump_outcomes, iterate_outcomes, mark_duplicate
from dataset.format.schema import ALL_VIEWS, SCHEMA_VERSION, member_names
from dataset.format.set_request import begin_set, finished_shards, foreign_file, read_set_request
from dataset.format.shards import (
    INDEX_NAME,
    SET_NAME,
    Index,
    read_index,
    remove_temporaries,
    shard_name,
    write_index,
    write_shard,
)
from dataset.importing.import_object import RIG, ImportedObject, ImportTask, import_object
from dataset.importing.settings import ImportSettings
from dataset.importing.source import SOURCE_NAME, SourceObject, fingerprint, first_resolution, list_objects
from dataset.io.files import exists, json_bytes, read_json, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.io.resume import differences, settings_differ
from dataset.reading.reconcile import read_manifest, read_table
from dataset.reading.shard_set import ShardSet, check_has_views
from dataset.worker_pool import worker_pool

logger = logging.getLogger(__name__)
_AHEAD: Final = 2  # objects per worker that are read ahead of writing
_LISTED: Final = 10  # failed objects, or notes, that are logged
_NOT_COMPARED: Final = {"folder", "objects", "manifest_sha256"}  # fields of set.json


@dataclass
class ImportSummary:
    """Result of an import.

    Attributes:
        index: The index of the set.
        failed: Outcome rows of the failed objects of the set.
        left_out: Number of views that this call left out, because objects had more than `max_views`.
        trainable: Number of objects in the set with the 32 views that training needs.
        refusal: What training says about the first object without these views; empty if all have them.
    """

    index: Index
    failed: list[Outcome]
    left_out: int
    trainable: int
    refusal: str = ""


@dataclass
class _Result:
    """What this call reports about the objects that it has imported."""

    left_out: int = 0  # views
    notes: list[str] = field(default_factory=list)


def import_set(
    source: Path,
    out: str,
    settings: ImportSettings,
    *,
    objects_per_shard: int = OBJECTS_PER_SHARD,
    workers: int | None = None,
    progress: bool = False,
) -> ImportSummary:
    """Import the objects of the folder `source` into the shard set `out`. A repeated call resumes the import.

    Objects that cannot be imported become failed rows of the outcome tables, with the reason.

    Args:
        source: Folder of one object, or of one folder per object.
        out: Folder or fsspec URL of the new set.
        settings: The settings of the import.
        objects_per_shard: Number of objects per shard, including failed objects.
        workers: Number of worker processes. None: one per CPU.
        progress: Show a progress bar.

    Raises:
        UserError: The source has no objects, no object can be imported, or `out` contains anything other than results
            of this import.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value in (("--objects-per-shard", objects_per_shard), ("--workers", workers)):
        if value < 1:
            raise UserError(f"the option {name} is {value}; give an integer of at least 1")
    objects = list_objects(source, settings.layout)
    resolution = settings.resolution or first_resolution(objects, settings)
    fs, root = url_to_fs(out)
    _check_apart(fs, root, source)
    with owned_out(fs, root, out, "import"):
        asked = _request(source, objects, resolution, objects_per_shard, settings)
        _claim(fs, root, out, request=asked, objects=objects, settings=settings)
        request = read_set_request(fs, root)
        read_manifest(fs, root, request)
        finished = finished_shards(fs, root, request)
        done = sum(len(request.positions(shard)) for shard in finished)
        result = _Result()
        with (
            ProgressBar(total=len(objects), initial=done, unit="object", desc="import", disable=not progress) as bar,
            worker_pool(workers, "import") as pool,
        ):
            missing = [shard for shard in range(request.num_shards) if shard not in finished]
            tasks = [
                ImportTask(objects[i], resolution, settings) for shard in missing for i in request.positions(shard)
            ]
            results = map_ahead(pool, import_object, tasks, _AHEAD * workers)
            first: dict[bytes, int] = {}  # see mark_duplicate
            for shard in range(request.num_shards):
                if shard in finished:
                    for row in read_table(fs, root, shard_name(shard)):
                        mark_duplicate(row, first)
                else:
                    places = request.positions(shard)
                    _write_shard(fs, root, shard_name(shard), _imported(results, places, objects, result, bar), first)
        failed = [row for row in iterate_outcomes(fs, root) if row.status == "failed"]
        _log("note", result.notes, out)
        _log("failed", [f"{row.error_class}: {row.message}" for row in failed], out)
        if len(failed) == len(objects):
            for pattern in (f"{OUTCOMES_FOLDER}/*.parquet", "shard-*"):  # a repeated command tries again
                for path in fs.glob(f"{root}/{pattern}"):
                    fs.rm_file(path)
            raise UserError(f"none of the {len(objects)} objects in {source} can be imported; {failed[0].message}")
        if missing or not exists(fs, f"{root}/{INDEX_NAME}"):
            write_attribution(fs, root)
            index = write_index(fs, root, num_shards=request.num_shards, objects_per_shard=objects_per_shard)
        else:
            index = read_index(out)
    return ImportSummary(index, failed, result.left_out, *_trainable(out, index))


def _check_apart(fs: Any, root: str, source: Path) -> None:
    """Raise UserError if the new set would be inside the source, where the next call would take it for an object."""
    if isinstance(fs, LocalFileSystem) and Path(os.path.realpath(root)).is_relative_to(os.path.realpath(source)):
        raise UserError(f"the set {root} would be inside the source {source}; give a folder outside of it as SHARDS")


def views_text(summary: ImportSummary) -> str:
    """Return how many objects have the views that training needs and, if not all have them, what training says."""
    total = summary.index.objects
    if summary.trainable == total:
        return "all objects have the 16 fixed and 16 random views that training needs"
    remedy = "; to train on those, copy them with --uids FILE" if summary.trainable else ""
    return (
        f"{summary.trainable} of {total} objects have the 16 fixed and 16 random views that training needs{remedy}. "
        f"Training refuses the others:\n  {summary.refusal}"
    )


def _request(
    source: Path,
    objects: Sequence[SourceObject],
    resolution: int,
    objects_per_shard: int,
    settings: ImportSettings,
) -> dict[str, Any]:
    """Return the settings that `set.json` stores: everything that determines the set, except the images."""
    values = {
        **asdict(settings),
        "schema_version": SCHEMA_VERSION,
        "source": SOURCE_NAME,
        "folder": escape_name(str(source)),
        "fingerprint": fingerprint(objects, settings.layout),
        "objects_per_shard": objects_per_shard,
        "resolution": resolution,
        "rig": RIG,
    }
    request: dict[str, Any] = json.loads(json_bytes(values))
    return request


def _claim(
    fs: Any,
    root: str,
    out: str,
    *,
    request: dict[str, Any],
    objects: Sequence[SourceObject],
    settings: ImportSettings,
) -> None:
    """Write the manifest and `set.json`, or check that `out` is the set of the same import.

    While no shard is finished, nothing depends on these files, and those of another import are replaced.

    Raises:
        UserError: `out` contains another set, or other files.
    """
    if not exists(fs, f"{root}/{SET_NAME}"):
        if foreign := foreign_file(fs, root):
            raise UserError(
                f"{out} contains the file or folder {foreign}, which is not part of an import; give another SHARDS"
            )
        remove_temporaries(fs, root)
        begin_set(fs, root, request, (item.asset(settings) for item in objects))
        return
    remedy = "restore it, or delete the set and import again"
    there = read_json(fs, f"{root}/{SET_NAME}", remedy)
    if not isinstance(there, dict) or there.get("source") != SOURCE_NAME:
        raise UserError(f"{out} contains a set that `python -m dataset import` did not write; give another SHARDS")
    remove_temporaries(fs, root)
    if lines := differences(there, request, _NOT_COMPARED).values():
        if finished_shards(fs, root, read_set_request(fs, root, remedy)):
            remedy = "Repeat the first command, give another SHARDS, or delete the set (fingerprint: the camera files)"
            raise UserError(settings_differ(out, lines, remedy))
        begin_set(fs, root, request, (item.asset(settings) for item in objects))


def _imported(
    results: Iterator[ImportedObject],
    places: range,
    objects: Sequence[SourceObject],
    result: _Result,
    bar: Any,
) -> Iterator[tuple[int, str, ImportedObject]]:
    """Yield position, uid and result of each object of a shard, and collect in `result` what to report."""
    for position in places:
        imported, uid = next(results), objects[position].uid
        result.left_out += imported.left_out
        result.notes += [f"{uid}: {note}" for note in imported.notes]
        yield position, uid, imported
        bar.update()


def _write_shard(
    fs: Any, root: str, name: str, objects: Iterator[tuple[int, str, ImportedObject]], first: dict[bytes, int]
) -> None:
    """Write a shard with its outcome table. `first` is that of `mark_duplicate`."""
    rows: list[Outcome] = []

    def samples() -> Iterator[tuple[str, Mapping[str, bytes]]]:
        for position, uid, each in objects:
            row = Outcome(
                uid,
                position,
                name,
                "ok",
                seconds=each.seconds,
                peak_rss_mb=each.peak_rss_mb,
                flags=each.flags,
                asset_sha256=each.sha256,
            )
            if each.failure is not None:
                rows.append(row.with_failure("failed", each.failure))
                continue
            rows.append(mark_duplicate(row, first))
            yield uid, each.members

    write_shard(fs, root, name, samples())
    write_bytes_atomic(fs, f"{root}/{OUTCOMES_FOLDER}/{name}.parquet", dump_outcomes(rows))


def _trainable(out: str, index: Index) -> tuple[int, str]:
    """Return the number of objects with the 32 views of ALL_VIEWS, and what training says about the first other one."""
    shards, count, refusal = ShardSet(out, index), 0, ""
    for shard, samples in enumerate(shards.samples_per_shard):
        for sample in range(samples):
            if set(member_names(shards.uid(shard, sample))) <= set(shards.names(shard, sample)):
                count += 1
            elif not refusal:
                try:
                    check_has_views(shards.meta(shard, sample), ALL_VIEWS, out)
                except UserError as error:
                    refusal = str(error)
    return count, refusal


def _log(kind: str, lines: Sequence[str], out: str) -> None:
    for line in lines[:_LISTED]:
        logger.info("%s: %s", kind, line)
    if len(lines) > _LISTED:
        logger.info("%s: %d more; `python -m dataset report %s` lists failed objects", kind, len(lines) - _LISTED, out)
