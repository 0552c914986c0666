"""Define the tables of scores that `python -m dataset curate` writes beside the outcome tables of a shard set.

The folder `curation` has one Parquet file per shard, with one row per object of the shard's tar, and
`duplicates.parquet`, which is written last and lists the near-duplicates of the whole set. The schema metadata of a
file state the version of the scoring and the hash of the images that were scored, to recognize outdated scores.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

from dataset.errors import UserError

SCORES_FOLDER: Final = "curation"
DUPLICATES_NAME: Final = "duplicates"
SCORING_VERSION: Final = 1  # increase it when a definition or threshold changes: all sets are then scored again
FLAT_FROM: Final = 0.9  # flatness of objects with `flat`
EMPTY_BELOW: Final = 0.005  # coverage of objects with `empty`
_VERSION_KEY: Final = b"scoring_version"
_IMAGES_KEY: Final = b"images_sha256"


@dataclass(frozen=True)
class ObjectScores:
    """The scores of one object. `dataset.curate` defines how they are computed.

    An object whose images cannot be read has a text in `damage`; its other values mean nothing.
    """

    uid: str
    damage: str = ""
    coverage: float = 0.0  # mean alpha over all pixels of the 32 views, 0 to 1
    contrast: float = 0.0  # standard deviation of the luma of the object's pixels, 0 to 0.5
    texture: float = 0.0  # root of the mean squared difference of neighboring pixels of the object, 0 to 1
    flatness: float = 0.0  # 1 - shortest / middle semi-axis of the object, 0 to 1
    symmetry: float = 0.0  # overlap of the silhouettes with their mirror images, 0 to 1
    visible_views: int = 0  # views that show the object, 0 to 32
    distinct_views: int = 0  # fixed views that differ from each other, 0 to 16
    hash: bytes = b""  # perceptual hash of the silhouettes of 8 views: 128 bytes
    appearance: tuple[float, ...] = field(default=())  # log of the silhouettes' area, and four mean colors

    @property
    def empty(self) -> bool:
        """Whether the object is almost invisible: coverage below EMPTY_BELOW."""
        return self.coverage < EMPTY_BELOW

    @property
    def flat(self) -> bool:
        """Whether the object is a sheet: flatness of at least FLAT_FROM."""
        return self.flatness >= FLAT_FROM


class ScoreTable(NamedTuple):
    """Contents of the score table of one shard.

    Attributes:
        current: Whether the table was written by this version of the scoring. If not, `rows` is empty.
        images_sha256: sha256 of the tar that was scored.
        rows: Scores of the objects, in the order of the tar.
    """

    current: bool
    images_sha256: str
    rows: tuple[ObjectScores, ...]


class DuplicateTable(NamedTuple):
    """Contents of `duplicates.parquet`.

    Attributes:
        current: Whether the table was written by this version of the scoring. If not, `clusters` is empty.
        images_sha256: Hash of the hashes of all tars, as returned by `images_hash`.
        clusters: Uid of each near-duplicate -> uid of the first object of its cluster.
    """

    current: bool
    images_sha256: str
    clusters: Mapping[str, str]


def scores_file(name: str) -> str:
    """Return the path, within the set, of the score table of the shard `name`, or of DUPLICATES_NAME."""
    return f"{SCORES_FOLDER}/{name}.parquet"


def images_hash(tars: Iterable[str]) -> str:
    """Return one sha256, computed from the sha256 of each tar of a shard set, in order."""
    return sha256("".join(tars).encode()).hexdigest()


def dump_scores(rows: Sequence[ObjectScores], images_sha256: str) -> bytes:
    """Return the contents of the score table of a shard: `rows` as Parquet bytes.

    Args:
        rows: Scores of the objects of the shard, in the order of the tar.
        images_sha256: sha256 of the tar.
    """
    columns = [{**vars(row), "empty": row.empty, "flat": row.flat} for row in rows]
    return _dump(columns, _scores_schema(), images_sha256)


def parse_scores(data: bytes, where: str) -> ScoreTable:
    """Parse the Parquet bytes of the score table of a shard.

    Raises:
        UserError: The table is damaged. The message names `where`, the path of the table.
    """
    current, images_sha256, rows = _parse(data, where)
    try:
        scores = tuple(_scores(row) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(where, error) from error
    return ScoreTable(current, images_sha256, scores)


def dump_duplicates(clusters: Mapping[str, str], images_sha256: str) -> bytes:
    """Return the contents of `duplicates.parquet` as bytes.

    Args:
        clusters: Uid of each near-duplicate -> uid of the first object of its cluster.
        images_sha256: Hash of the set's images, as returned by `images_hash`.
    """
    import pyarrow as pa

    schema = pa.schema([("uid", pa.string()), ("cluster", pa.string())])
    return _dump([{"uid": uid, "cluster": first} for uid, first in clusters.items()], schema, images_sha256)


def parse_duplicates(data: bytes, where: str) -> DuplicateTable:
    """Parse the Parquet bytes of `duplicates.parquet`.

    Raises:
        UserError: The table is damaged. The message names `where`, the path of the table.
    """
    current, images_sha256, rows = _parse(data, where)
    try:
        clusters = {str(row["uid"]): str(row["cluster"]) for row in rows}
    except (KeyError, TypeError) as error:
        raise _damaged(where, error) from error
    return DuplicateTable(current, images_sha256, clusters)


def _scores(row: dict[str, Any]) -> ObjectScores:
    values = {name: row[name] for name in ObjectScores.__annotations__}
    scores = ObjectScores(**{**values, "appearance": tuple(values["appearance"])})
    if not all(math.isfinite(value) for value in values.values() if isinstance(value, float)):
        raise ValueError(f"the scores of {scores.uid} are not finite")
    return scores


def _scores_schema() -> Any:
    import pyarrow as pa

    types = {str: pa.string(), float: pa.float64(), int: pa.int32(), bytes: pa.binary()}
    columns = [(name, types.get(kind, pa.list_(pa.float32()))) for name, kind in ObjectScores.__annotations__.items()]
    return pa.schema([*columns, ("empty", pa.bool_()), ("flat", pa.bool_())])


def _dump(rows: list[dict[str, Any]], schema: Any, images_sha256: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {_VERSION_KEY: str(SCORING_VERSION).encode(), _IMAGES_KEY: images_sha256.encode()}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), buffer, compression="zstd")
    return buffer.getvalue()


def _parse(data: bytes, where: str) -> tuple[bool, str, list[dict[str, Any]]]:
    """Return whether a table has the current version, the hash that it states, and its rows (none if outdated)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        metadata = file.schema_arrow.metadata or {}
        if _VERSION_KEY not in metadata or _IMAGES_KEY not in metadata:
            raise ValueError("the version of the scoring or the hash of the images is missing")
        current = metadata[_VERSION_KEY] == str(SCORING_VERSION).encode()
        # One thread: Arrow's thread pools can abort the process when it exits (apache/arrow#34314).
        rows = file.read(use_threads=False).to_pylist() if current else []
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise _damaged(where, error) from error
    return current, metadata[_IMAGES_KEY].decode(errors="replace"), rows


def _damaged(where: str, error: Exception) -> UserError:
    return UserError(
        f"the score table {where} cannot be read ({error}); delete it and repeat `python -m dataset curate`"
    )
