"""Score all objects of a shard set, and write the scores beside the outcome tables. Repeating the command resumes it.

The tars are only read. One table is written per shard, and last the table of near-duplicates, which marks the scores as
complete. A repeated call scores only shards that have no valid table, or whose table contains damaged objects.
"""

import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dataset.curate.clusters import find_clusters
from dataset.curate.hashes import APPEARANCE_SIZE, unpack_hashes
from dataset.curate.score_object import ScoreTask, score_shard
from dataset.errors import UserError
from dataset.format.latents import LATENTS_FILE
from dataset.format.scores import (
    DUPLICATES_NAME,
    ObjectScores,
    dump_duplicates,
    dump_scores,
    images_hash,
    parse_duplicates,
    parse_scores,
    scores_file,
)
from dataset.format.shards import Index, read_index, remove_temporaries
from dataset.io.files import exists, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.worker_pool import worker_pool

logger = logging.getLogger(__name__)

_AHEAD: Final = 1  # shards per worker that are scored ahead of writing


@dataclass
class Curated:
    """Counts of objects: all, scored by this call, damaged, empty, flat, and near-duplicates with their clusters."""

    objects: int
    scored: int = 0
    damaged: int = 0
    empty: int = 0
    flat: int = 0
    duplicates: int = 0
    clusters: int = 0  # with at least two objects

    def add(self, rows: Sequence[ObjectScores]) -> None:
        """Count the objects of one shard."""
        sound = [row for row in rows if not row.damage]
        self.damaged += len(rows) - len(sound)
        self.empty += sum(row.empty for row in sound)
        self.flat += sum(row.flat for row in sound)


def curate_set(url: str, *, workers: int | None = None, progress: bool = False) -> Curated:
    """Compute the scores of all objects of the shard set at `url`, and write them into its folder `curation`.

    A repeated call resumes a call that was interrupted. Damaged objects are logged; they have no scores, and a repeated
    call tries again to score them.

    Args:
        url: Folder or fsspec URL of a complete shard set.
        workers: Number of worker processes. None: one per CPU.
        progress: Show a progress bar.

    Raises:
        UserError: The set is unusable or cannot be written, or another command is writing it.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise UserError(f"the option --workers is {workers}; give an integer of at least 1")
    fs, root = url_to_fs(url)
    if exists(fs, f"{root}/{LATENTS_FILE}"):
        raise UserError(f"{url} is a latent set; curate the shard set that it was encoded from, then encode it again")
    index = read_index(url)
    with owned_out(fs, root, url, "curation"):
        remove_temporaries(fs, root)
        result = Curated(index.objects)
        missing = [shard for shard in range(len(index.shards)) if not _is_finished(fs, root, index, shard)]
        _score(fs, root, url, index, missing, workers=workers, progress=progress)
        result.scored = sum(index.shards[shard].samples for shard in missing)
        write_duplicates(fs, root, index, result)
    return result


def _is_finished(fs: Any, root: str, index: Index, shard: int) -> bool:
    """Return whether a shard has a current score table in which no object is damaged."""
    entry, path = index.shards[shard], f"{root}/{scores_file(index.shards[shard].name)}"
    if not exists(fs, path):
        return False
    try:
        table = parse_scores(fs.cat_file(path), path)
    except UserError:
        logger.info("%s is damaged; scoring the shard again", path)
        return False
    valid = table.current and table.images_sha256 == entry.sha256 and len(table.rows) == entry.samples
    return valid and not any(row.damage for row in table.rows)


def _score(fs: Any, root: str, url: str, index: Index, missing: Sequence[int], *, workers: int, progress: bool) -> None:
    """Score the shards with the numbers `missing`, and write their tables."""
    tars = images_hash(shard.sha256 for shard in index.shards)
    tasks = [ScoreTask(url, tars, shard) for shard in missing]
    done = index.objects - sum(index.shards[shard].samples for shard in missing)
    with (
        ProgressBar(total=index.objects, initial=done, unit="object", desc="curate", disable=not progress) as bar,
        worker_pool(min(workers, max(len(missing), 1)), "curation") as pool,
    ):
        for shard, rows in zip(missing, map_ahead(pool, score_shard, tasks, _AHEAD * workers), strict=True):
            entry = index.shards[shard]
            for row in rows:
                if row.damage:
                    logger.error("%s: %s", row.uid, row.damage)
            write_bytes_atomic(fs, f"{root}/{scores_file(entry.name)}", dump_scores(rows, entry.sha256))
            bar.update(len(rows))


def write_duplicates(fs: Any, root: str, index: Index, result: Curated) -> None:
    """Find the near-duplicates of a set whose shards all have score tables, and write `duplicates.parquet`.

    The file is not written again if its contents would be the same.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        index: Content of the set's `index.json`.
        result: Counts to add to.

    Raises:
        UserError: A score table is missing or damaged, or a file cannot be written.
    """
    uids: list[str] = []
    hashes, appearances = bytearray(), array("d")
    for rows in _all_rows(fs, root, index):
        result.add(rows)
        for row in rows:
            if not row.damage and not row.empty:  # silhouettes of a few pixels say nothing
                uids.append(row.uid)
                hashes += row.hash
                appearances.extend(row.appearance)
    first = find_clusters(unpack_hashes(hashes), np.asarray(appearances).reshape(-1, APPEARANCE_SIZE))
    clusters = {uids[i]: uids[leader] for i, leader in enumerate(first.tolist()) if leader != i}
    result.duplicates, result.clusters = len(clusters), len(set(clusters.values()))
    path, digest = f"{root}/{scores_file(DUPLICATES_NAME)}", images_hash(shard.sha256 for shard in index.shards)
    if exists(fs, path):
        try:
            before = parse_duplicates(fs.cat_file(path), path)
            if before.current and (before.images_sha256, before.clusters) == (digest, clusters):
                return
        except UserError:
            logger.info("%s is damaged; writing it again", path)
    write_bytes_atomic(fs, path, dump_duplicates(clusters, digest))


def _all_rows(fs: Any, root: str, index: Index) -> Iterator[tuple[ObjectScores, ...]]:
    for shard in index.shards:
        path = f"{root}/{scores_file(shard.name)}"
        yield parse_scores(fs.cat_file(path), path).rows
