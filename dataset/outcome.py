"""What became of each object of a rendering: one row an object, failed ones too, as Parquet beside the shards."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from dataset.errors import UserError

Status = Literal["ok", "failed"]
Stage = Literal["", "source", "import", "prepare", "render", "encode", "worker"]
OUTCOMES_FOLDER: Final = "outcomes"


@dataclass(frozen=True)
class Outcome:
    """One object's result. Times and memory are measurements: they live here and never enter a shard."""

    uid: str
    position: int  # place in the set's manifest
    shard: str  # shard name the object belongs to, also when it failed
    status: Status
    stage: Stage = ""  # where it failed
    error_class: str = ""
    message: str = ""
    exit_signal: int | None = None  # of the Blender process, when a signal ended it
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    attempts: int = 1
    stderr_tail: str = ""
    flags: tuple[str, ...] = ()  # quality: "clipped", ...

    def __post_init__(self) -> None:
        if self.status not in get_args(Status) or self.stage not in get_args(Stage):
            raise UserError(
                f"outcome of {self.uid}: status {self.status!r}, stage {self.stage!r} are not of the schema"
            )


def to_json(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome)


def from_json(row: dict[str, Any]) -> Outcome:
    """Inverse of `to_json`; raises UserError on missing or unknown fields."""
    try:
        return Outcome(**{**row, "flags": tuple(row["flags"])})
    except (KeyError, TypeError) as error:
        raise UserError(f"outcome row {row.get('uid', '?')!r} does not fit the schema: {error}") from error


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    optional: dict[str, Any] = {"exit_signal": pa.int64(), "flags": pa.list_(pa.string())}
    return pa.schema(
        [(name, optional.get(name) or types.get(kind, pa.string())) for name, kind in Outcome.__annotations__.items()]
    )


def dump_outcomes(rows: Sequence[Outcome]) -> bytes:
    """Parquet bytes of the rows, in manifest order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = [to_json(row) for row in sorted(rows, key=lambda row: row.position)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ordered, schema=_arrow_schema()), buffer)
    return buffer.getvalue()


def parse_outcomes(data: bytes, where: str) -> list[Outcome]:
    """Rows from Parquet bytes; raises UserError naming `where` when the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One thread: Arrow's pools may abort the whole process at its exit (apache/arrow#34314), after all went well.
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{where} is not a readable outcome table ({error}); render the set again") from error
    return [from_json(row) for row in table.to_pylist()]


def read_outcomes(fs: Any, root: str) -> list[Outcome]:
    """All rows of a shard set (fsspec filesystem, root path), in manifest order; empty when it has none."""
    folder = f"{root}/{OUTCOMES_FOLDER}"
    if not fs.exists(folder):
        return []
    paths = sorted(path for path in fs.ls(folder, detail=False) if path.endswith(".parquet"))
    rows = [row for path in paths for row in parse_outcomes(fs.cat_file(path), path)]
    return sorted(rows, key=lambda row: row.position)
