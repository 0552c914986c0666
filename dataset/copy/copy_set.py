"""Copy one or more shard sets into a new set, optionally at a lower resolution. Repeating the command resumes a copy.

The files of a shard are written in this order: the tar, the shard's statistics, then the outcome table, which marks the
shard as finished. A copy that is killed therefore loses at most the current shard. Worker processes read the objects,
downscale and encode their images; the main process writes the shards in order, so the bytes do not depend on the number
of workers.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from dataset.attribution import write_attribution
from dataset.copy.scores import copy_scores
from dataset.copy.sources import Pick, SourceSet, each_once, open_sources, picks
from dataset.copy.worker import CopyTask, Members, submitter
from dataset.errors import UserError
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, dump_outcomes
from dataset.format.schema import SCHEMA_VERSION
from dataset.format.set_request import begin_set, finished_shards, foreign_file, read_set_request
from dataset.format.shards import (
    INDEX_NAME,
    SET_NAME,
    Index,
    read_index,
    remove_temporaries,
    write_index,
    write_shard,
)
from dataset.io.files import exists, json_bytes, read_json, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import draw_ahead
from dataset.io.resume import differences, settings_differ
from dataset.reading.filters import Filters
from dataset.reading.reconcile import read_manifest

OBJECTS_PER_SHARD: Final = 64
_AHEAD: Final = 4  # objects per worker that are read ahead of writing
_ALL: Final = Filters()
_NOT_COMPARED: Final = {"sets", "objects", "manifest_sha256"}  # fields of set.json

PendingObject = tuple[Pick, Future[Members] | None]  # None: an object without images


def copy_sets(
    urls: Sequence[str],
    out: str,
    *,
    resolution: int | None = None,
    objects_per_shard: int = OBJECTS_PER_SHARD,
    filters: Filters = _ALL,
    workers: int | None = None,
    progress: bool = False,
) -> Index:
    """Copy the objects of the sets `urls` into the set `out`, in the order of `urls`. Return the index of `out`.

    A repeated call resumes a copy that was interrupted.

    With filters, only rendered objects that pass the filters are copied. Without filters, the outcome rows of failed
    and skipped objects are copied too. If all source sets have scores (`dataset.curate`), the scores are copied too,
    except with downscaled images.

    Args:
        urls: Folders or fsspec URLs of the sets to copy.
        out: Folder or fsspec URL of the new set.
        resolution: Pixels per side of the copied images. Larger images are downscaled (`dataset.copy.downscale`);
            images of this size are copied byte for byte. None: copy all images byte for byte.
        objects_per_shard: Number of objects per shard of the new set, including failed objects.
        filters: Conditions that objects must meet to be copied.
        workers: Number of worker processes. None: one per CPU.
        progress: Show a progress bar.

    Raises:
        UserError: A set is unusable, two sets contain the same uid, a member is damaged, or `out` contains anything
            other than results of this copy.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value in (("--objects-per-shard", objects_per_shard), ("--workers", workers)):
        if value < 1:
            raise UserError(f"the option {name} is {value}; give an integer of at least 1")
    sources = open_sources(urls, filters, resolution)
    fs, root = url_to_fs(out)
    with owned_out(fs, root, out, "copy"):
        _claim(fs, root, out, sources, _request(sources, resolution, objects_per_shard, filters))
        request = read_set_request(fs, root)
        read_manifest(fs, root, request)
        finished = finished_shards(fs, root, request)
        if len(finished) == request.num_shards and exists(fs, f"{root}/{INDEX_NAME}"):
            index = read_index(out)
            copy_scores(fs, root, out, index, sources=sources, resolution=resolution)
            return index
        done = sum(len(request.positions(shard)) for shard in finished)
        missing = (p for p in picks(sources, objects_per_shard) if p.row.position // objects_per_shard not in finished)
        with (
            ProgressBar(total=request.objects, initial=done, unit="object", desc="copy", disable=not progress) as bar,
            submitter(workers) as submit,
        ):
            _write_shards(fs, root, _read_ahead(missing, submit, resolution, _AHEAD * workers), bar)
        write_attribution(fs, root)
        index = write_index(fs, root, num_shards=request.num_shards, objects_per_shard=objects_per_shard)
        copy_scores(fs, root, out, index, sources=sources, resolution=resolution)
        return index


def _request(
    sources: Sequence[SourceSet], resolution: int | None, objects_per_shard: int, filters: Filters
) -> dict[str, Any]:
    """Return the settings that `set.json` stores: everything that determines the bytes of the copy."""
    default = asdict(_ALL)
    chosen = {name: value for name, value in asdict(filters).items() if value != default[name]}
    values = {
        "schema_version": SCHEMA_VERSION,
        "source": "copy",
        "objects_per_shard": objects_per_shard,
        "resolution": resolution,
        "filters": {name: str(value) if name == "uids" else value for name, value in chosen.items()},
        "sets": [{"url": s.url, "fingerprint": s.fingerprint, "asked": s.request} for s in sources],
    }
    request: dict[str, Any] = json.loads(json_bytes(values))
    return request


def _claim(fs: Any, root: str, out: str, sources: Sequence[SourceSet], request: dict[str, Any]) -> None:
    """Write the manifest and `set.json`; if `out` has a `set.json`, check that it stores the settings in `request`."""
    if not exists(fs, f"{root}/{SET_NAME}"):
        if foreign := foreign_file(fs, root):
            raise UserError(
                f"{out} contains the file or folder {foreign}, which is not part of a copied set; choose another --out"
            )
        remove_temporaries(fs, root)
        begin_set(fs, root, request, each_once(picks(sources, request["objects_per_shard"])))
        return
    remedy = "restore it, or delete the set and copy again"
    there = read_json(fs, f"{root}/{SET_NAME}", remedy)
    if not isinstance(there, dict):
        raise UserError(f"{root}/{SET_NAME} is damaged: it contains no JSON object; {remedy}")
    if there.get("source") != request["source"]:
        raise UserError(
            f"{out} contains a set that `python -m dataset copy` did not write (its set.json names the source "
            f"{there.get('source')}); choose another --out"
        )
    changed = differences(there, request, _NOT_COMPARED).values()
    if lines := [*_other_sets(there.get("sets", []), request["sets"]), *changed]:
        remedy = "Repeat the first command, choose another --out, or delete the set"
        raise UserError(settings_differ(out, lines, remedy))
    remove_temporaries(fs, root)


def _other_sets(there: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line if the source sets `now` differ from `there`, those in `set.json`. Their URLs are not compared."""
    keys = [[(each.get("fingerprint"), each.get("asked")) for each in sets] for sets in (there, now)]
    if keys[0] != keys[1]:
        urls = (", ".join(str(each.get("url")) for each in sets) or "none" for sets in (there, now))
        yield "source sets were {}, are now {} (or the objects of a set have changed)".format(*urls)


def _write_shards(fs: Any, root: str, objects: Iterator[PendingObject], bar: Any) -> None:
    """Write the shards of `objects`, which are in manifest order and contain all objects of each of their shards."""
    for name, group in groupby(objects, key=lambda pending: pending[0].row.shard):
        rows: list[Outcome] = []
        write_shard(fs, root, name, _samples(group, rows, bar))
        write_bytes_atomic(fs, f"{root}/{OUTCOMES_FOLDER}/{name}.parquet", dump_outcomes(rows))


def _samples(objects: Iterator[PendingObject], rows: list[Outcome], bar: Any) -> Iterator[tuple[str, Members]]:
    """Yield the samples for `write_shard`, and append the outcome row of every object to `rows`."""
    for pick, future in objects:
        rows.append(pick.row)
        if future is not None:
            yield pick.asset.uid, future.result()
        bar.update()


def _read_ahead(
    objects: Iterator[Pick], submit: Callable[[CopyTask], Future[Members]], target: int | None, ahead: int
) -> Iterator[PendingObject]:
    """Yield each object with the future of its members, in order; at most `ahead` objects are in memory.

    `target` is the number of pixels per side of the copied images; None copies them byte for byte. The futures are not
    resolved here, so that an error in a damaged object does not prevent earlier shards from being written.
    """
    started = ((pick, submit(_task(pick, *pick.place, target)) if pick.place else None) for pick in objects)
    return draw_ahead(started, ahead - 1)


def _task(pick: Pick, shard: int, sample: int, target: int | None) -> CopyTask:
    return CopyTask(pick.source.url, pick.source.tars, shard, sample, pick.source.resolution, target)
