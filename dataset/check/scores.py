"""Check the tables of scores that `python -m dataset curate` writes. A set without scores has no problems here."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from dataset.check.shard import Problem
from dataset.errors import UserError
from dataset.format.scores import DUPLICATES_NAME, images_hash, parse_duplicates, parse_scores, scores_file
from dataset.io.files import exists

REMEDY: Final = "delete it and repeat `python -m dataset curate`"


def score_problems(fs: Any, root: str, shard: str, uids: Sequence[str], images_sha256: str | None) -> Iterator[Problem]:
    """Yield the problems of the score table of one shard. Tables of older versions of the scoring are not checked.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        shard: Name of the shard.
        uids: Uids of the objects in the shard's tar, in order.
        images_sha256: Recorded sha256 of the tar of images; None if it is unknown.
    """
    where = scores_file(shard)
    if not exists(fs, f"{root}/{where}"):
        if exists(fs, f"{root}/{scores_file(DUPLICATES_NAME)}"):
            yield Problem(where, "missing score table", "repeat `python -m dataset curate`")
        return
    try:
        table = parse_scores(fs.cat_file(f"{root}/{where}"), where)
    except UserError as error:
        yield Problem(where, str(error), REMEDY)
        return
    if not table.current:
        return
    if images_sha256 is not None and table.images_sha256 != images_sha256:
        yield Problem(where, "its scores are those of other images", REMEDY)
    elif [row.uid for row in table.rows] != list(uids):
        yield Problem(where, f"its objects differ from those in {shard}.tar", REMEDY)


def duplicate_problems(fs: Any, root: str, tars: Sequence[str] | None) -> Iterator[Problem]:
    """Yield the problems of `duplicates.parquet`.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        tars: Recorded sha256 of each tar of images, in order; None if they are unknown.
    """
    where = scores_file(DUPLICATES_NAME)
    if not exists(fs, f"{root}/{where}"):
        return
    try:
        table = parse_duplicates(fs.cat_file(f"{root}/{where}"), where)
    except UserError as error:
        yield Problem(where, str(error), REMEDY)
        return
    if not table.current:
        return
    if tars is not None and table.images_sha256 != images_hash(tars):
        yield Problem(where, "its clusters are those of other images", REMEDY)
    elif table.clusters.keys() & set(table.clusters.values()):
        yield Problem(where, "an object is both the first of a cluster and a near-duplicate", REMEDY)
