"""Define the outcome tables of a set: one row per object, including objects that failed or were skipped.

There is one Parquet file per shard, in the folder `outcomes` beside the shards.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from dataset.errors import UserError
from dataset.io.files import exists

Status = Literal["ok", "failed", "skipped"]  # skipped: excluded by an option (license, size, duplicate)
Stage = Literal["", "select", "download", "source", "import", "prepare", "render", "encode", "worker"]
Flag = Literal[
    "empty",  # invisible in all images
    "empty-views",  # invisible in some images: flat single-sided faces, seen from behind
    "clipped",  # touches the border of an image
    "near-black",  # mean luminance of the visible pixels below 0.05
    "near-white",  # above 0.95
    "white-parts",  # more than 60 % of the visible pixels are white: overexposed
    "black-parts",  # more than 2 % of the visible pixels are black: faces that no light reaches
    "noisy",  # the noise of the image that looks noisiest is above 12 of 255 (27 dB)
    "low-coverage",  # mean alpha over all images below 0.01
    "missing-texture",  # refers to an image file that does not exist
    "untextured",  # declares image textures, but none of them is drawn
    "missing-material",  # uses a material that no file of its source defines
    "unsupported-extension",  # requires a glTF extension of materials that Blender does not read
    "rest-pose",  # the first frame of its animation does not show it; rendered without animation
    "doubled-faces",  # more than 1 % of the area coincides with other faces; repaired
    "not-repaired",  # more than four million faces: faces were not checked
    "faces-left-out",  # invisible faces, or a few far from all others; deleted, as they would affect the size
    "contradicting-normals",  # stored normals of most of the area point to the back of their faces; repaired
    "licence-excluded",
    "too-large",
    "duplicate",  # its file is identical to that of an earlier object of the manifest
]
OUTCOMES_FOLDER: Final = "outcomes"
_STATUSES: Final = frozenset(get_args(Status))
_STAGES: Final = frozenset(get_args(Stage))


@dataclass(frozen=True)
class Failure:
    """The reason why an object failed or was skipped. The outcome table stores these values unchanged."""

    stage: Stage  # where it failed or was skipped
    error_class: str
    message: str
    flags: tuple[str, ...] = ()  # of `Flag`


@dataclass(frozen=True)
class Outcome:
    """One row of an outcome table: the result of rendering one object.

    Times and memory sizes are stored only here, not in the shards, so that rendering again gives the same shards.
    """

    uid: str
    position: int  # place in the set's manifest
    shard: str  # name of the object's shard, also when it failed
    status: Status
    stage: Stage = ""  # where it failed or was skipped
    error_class: str = ""
    message: str = ""
    exit_signal: int | None = None  # that ended the Blender process, if any
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    attempts: int = 1
    stderr_tail: str = ""
    flags: tuple[str, ...] = ()  # of `Flag`
    asset_sha256: str = ""  # of the model file, once it was read

    def __post_init__(self) -> None:
        if self.status not in _STATUSES or self.stage not in _STAGES:
            raise UserError(
                f"the outcome of the object {self.uid} has the status {self.status!r} and the stage {self.stage!r}; "
                f"the status must be one of {get_args(Status)} and the stage one of {get_args(Stage)}"
            )

    def with_failure(self, status: Literal["failed", "skipped"], failure: Failure) -> "Outcome":
        """Return a copy of this outcome with `status` and the stage, error class, message and flags of `failure`."""
        return replace(
            self,
            status=status,
            stage=failure.stage,
            error_class=failure.error_class,
            message=failure.message,
            flags=failure.flags,
        )


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Convert an outcome to a dictionary for JSON. `from_json` converts the dictionary back."""
    return {**vars(outcome), "flags": list(outcome.flags)}


def from_json(row: dict[str, Any]) -> Outcome:
    """Return the outcome for a dictionary `row`, which `to_json` returned earlier.

    Raises:
        UserError: A field is missing, unknown or invalid.
    """
    try:
        return Outcome(**{**row, "flags": tuple(row["flags"])})
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the outcome of the object {row.get('uid', '?')!r} has missing or unknown fields ({error}); "
            "render the set again"
        ) from error


def mark_duplicate(row: Outcome, first: dict[bytes, int], skip: bool = False) -> Outcome:
    """Add the flag "duplicate" to `row` if an earlier object has the same model file; else remove it. Return the row.

    Call this for all rows of a set, in manifest order. A row without `asset_sha256` is returned unchanged.

    Args:
        row: Outcome of one object.
        first: Maps the hash of each model file to the manifest position of the first object that uses the file. Pass
            the same dictionary to all calls. It is empty before the first call, and each call adds to it.
        skip: Whether the status of a rendered duplicate becomes "skipped".
    """
    flags = tuple(flag for flag in row.flags if flag != "duplicate")
    if not row.asset_sha256:
        return row
    earlier = first.setdefault(bytes.fromhex(row.asset_sha256)[:16], row.position)
    if earlier == row.position:
        return replace(row, flags=flags)
    flags = (*flags, "duplicate")
    if skip and row.status == "ok":
        message = f"its file is identical to that of object {earlier} of the manifest"
        return row.with_failure("skipped", Failure("select", "Duplicate", message, flags))
    return replace(row, flags=flags)


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    optional: dict[str, Any] = {"exit_signal": pa.int64(), "flags": pa.list_(pa.string())}
    return pa.schema(
        [(name, optional.get(name) or types.get(kind, pa.string())) for name, kind in Outcome.__annotations__.items()]
    )


def dump_outcomes(rows: Sequence[Outcome]) -> bytes:
    """Return the contents of an outcome table: `rows` as Parquet bytes, sorted by manifest position."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = [to_json(row) for row in sorted(rows, key=lambda row: row.position)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ordered, schema=_arrow_schema()), buffer)
    return buffer.getvalue()


def parse_outcomes(data: bytes, where: str) -> list[Outcome]:
    """Parse the Parquet bytes of an outcome table into rows.

    Raises:
        UserError: The table is damaged. The message names `where`, the path of the table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One thread: Arrow's thread pools can abort the process when it exits (apache/arrow#34314).
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"the outcome table {where} cannot be read ({error}); render the set again") from error
    return [from_json(row) for row in table.to_pylist()]


def iterate_outcomes(fs: Any, root: str) -> Iterator[Outcome]:
    """Yield all outcome rows of the shard set in folder `root` of `fs`, in manifest order.

    Only the outcome table of one shard is in memory at a time.
    """
    folder = f"{root}/{OUTCOMES_FOLDER}"
    if not exists(fs, folder):
        return
    for path in sorted(path for path in fs.ls(folder, detail=False) if path.endswith(".parquet")):
        yield from parse_outcomes(fs.cat_file(path), path)


def read_outcomes(fs: Any, root: str) -> list[Outcome]:
    """Return all outcome rows of the shard set in folder `root` of `fs`, in manifest order.

    The list is empty when the set has no outcome table yet.
    """
    return sorted(iterate_outcomes(fs, root), key=lambda row: row.position)
