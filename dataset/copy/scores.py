"""Copy the scores of the copied objects (`python -m dataset curate`), so that the copy need not be scored again."""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from dataset.copy.sources import Pick, SourceSet, picks
from dataset.curate.curate_set import Curated, write_duplicates
from dataset.format.scores import ObjectScores, dump_scores, scores_file
from dataset.format.shards import Index
from dataset.io.files import write_bytes_atomic
from dataset.reading.scores import SetScores, find_scores
from dataset.reading.shard_set import ShardSet

logger = logging.getLogger(__name__)


def copy_scores(
    fs: Any, root: str, out: str, index: Index, *, sources: Sequence[SourceSet], resolution: int | None
) -> None:
    """Write the scores of a finished copy, if all of its objects have scores in their source sets.

    Near-duplicates are found again, because the first object of a cluster may not have been copied. If only some
    objects have scores, or images were downscaled, no scores are written and a log message says so.

    Args:
        fs: fsspec file system of the copy.
        root: Path of the copy's folder on `fs`.
        out: Folder or URL of the copy.
        index: Content of the copy's `index.json`.
        sources: The sets that were copied.
        resolution: Pixels per side of the copied images. None: that of the source sets.

    Raises:
        UserError: A score table of a source set is damaged, or a table cannot be written.
    """
    if find_scores(out, index) is not None:
        return
    scores = [find_scores(source.url, ShardSet(source.url).index) for source in sources]
    if not any(scores):
        return
    complete = {source.url: each for source, each in zip(sources, scores, strict=True) if each is not None}
    if len(complete) < len(scores) or any(resolution not in (None, source.resolution) for source in sources):
        why = "a source set has none" if len(complete) < len(scores) else "the images were downscaled"
        logger.info("note: no scores were copied, because %s; to score the copy, run `%s`", why, _curate(out))
        return
    shards = {entry.name: entry for entry in index.shards}
    for name, group in groupby(picks(sources, index.objects_per_shard), key=lambda pick: pick.row.shard):
        write_bytes_atomic(
            fs, f"{root}/{scores_file(name)}", dump_scores(list(_rows(group, complete)), shards[name].sha256)
        )
    write_duplicates(fs, root, index, Curated(index.objects))


def _rows(objects: Iterator[Pick], scores: dict[str, SetScores]) -> Iterator[ObjectScores]:
    """Yield the scores of the objects that have images. Only one shard of scores is in memory."""
    at, rows = ("", -1), dict[str, ObjectScores]()
    for pick in objects:
        if pick.place is None:
            continue
        if at != (pick.source.url, pick.place[0]):
            at = (pick.source.url, pick.place[0])
            rows = scores[pick.source.url].shard(pick.place[0])
        yield rows[pick.asset.uid]


def _curate(out: str) -> str:
    return f"python -m dataset curate {out}"
