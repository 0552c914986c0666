"""Write and read `manifest.parquet`, which lists all objects of a set in order, one row per object.

The shard in which an object is stored, and the order in which training reads the objects, depend on the positions of
the objects in the manifest. Therefore, a manifest is never changed after it has been written. Reading some rows of a
manifest does not load all rows into memory.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.schema import check_uid

MANIFEST_FILE: Final = "manifest.parquet"
UNKNOWN: Final = "unknown"
ROWS_PER_GROUP: Final = 4096


@dataclass(frozen=True)
class Asset:
    """One object of a set, with the location of its 3D model.

    The location is in `file`, `objaverse_path` or `procedural_index`. At most one of these fields is set.
    """

    uid: str
    source: str
    license: str = UNKNOWN
    author: str = UNKNOWN
    title: str = ""
    url: str = ""  # page of the original
    bytes: int | None = None  # size of the model file, if known
    file: str | None = None  # path relative to the source folder
    objaverse_path: str | None = None  # path in Objaverse's repository and cache
    procedural_index: int | None = None
    excluded: str = ""  # why it is not rendered: a flag of dataset.format.outcomes, or empty


def escape_name(name: str) -> str:
    r"""Return a file name as valid text: each byte that is not UTF-8 becomes `\xNN`, with NN in hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def write_manifest(file: Any, assets: Iterable[Asset]) -> tuple[int, str]:
    """Write a manifest to an open binary file. Return the number of objects and the sha256 of the written bytes.

    Args:
        file: File that is open for writing bytes.
        assets: The objects in order. They are consumed in groups of ROWS_PER_GROUP.

    Raises:
        UserError: A uid is invalid or repeated, or there are no objects.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    hashed = _Hashing(file)
    seen: set[int] = set()  # 64 bits of each uid's hash: a set of 800,000 uids would take four times the memory
    count = 0
    source = iter(assets)
    with pq.ParquetWriter(hashed, _arrow_schema(), compression="zstd") as writer:
        while group := list(islice(source, ROWS_PER_GROUP)):
            for asset in group:
                key = _key(check_uid(asset.uid))
                if key in seen:
                    raise UserError(
                        f"the source of the objects contains the uid {asset.uid!r} more than once; give each object a "
                        "uid of its own"
                    )
                seen.add(key)
            writer.write_table(pa.Table.from_pylist([vars(asset) for asset in group], schema=_arrow_schema()))
            count += len(group)
    if not count:
        raise UserError("the set would contain no objects; check the path of the source and the filters")
    return count, hashed.digest.hexdigest()


class Manifest:
    """A manifest that is open for reading a range of objects. The constructor reads no object.

    Raises:
        UserError: The manifest is missing or damaged.
    """

    def __init__(self, fs: Any, root: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = f"{root}/{MANIFEST_FILE}"
        try:
            self._parquet = pq.ParquetFile(fs.open(self.path, "rb"))
        except FileNotFoundError as error:
            raise UserError(
                f"the manifest {self.path} is missing; restore this file, or delete the set and render it again"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"the manifest {self.path} is damaged ({error}); delete the set and render it again"
            ) from error
        self._group: tuple[int, list[Asset]] = (-1, [])

    def __len__(self) -> int:
        return int(self._parquet.metadata.num_rows)

    def assets(self, start: int = 0, stop: int | None = None) -> Iterator[Asset]:
        """Yield the objects at the positions `start` to `stop` - 1, in order; if `stop` is None, to the last object."""
        stop = len(self) if stop is None else min(stop, len(self))
        for position in range(start, stop):
            number, place = divmod(position, ROWS_PER_GROUP)
            if self._group[0] != number:
                self._group = (number, self._read_group(number))
            yield self._group[1][place]

    def uids(self) -> Iterator[str]:
        """Yield the uids of all objects, in the order of the manifest."""
        for number in range(self._parquet.num_row_groups):
            yield from self._parquet.read_row_group(number, columns=["uid"], use_threads=False)["uid"].to_pylist()

    def _read_group(self, number: int) -> list[Asset]:
        import pyarrow as pa

        try:
            table = self._parquet.read_row_group(number, use_threads=False)
            return [Asset(**row) for row in table.to_pylist()]
        except (pa.ArrowInvalid, OSError, TypeError) as error:
            raise UserError(
                f"the manifest {self.path} is damaged ({error}); delete the set and render it again"
            ) from error


def _key(uid: str) -> int:
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8).digest(), "little")


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {str: pa.string(), str | None: pa.string(), int | None: pa.int64()}
    return pa.schema([(name, types[kind]) for name, kind in Asset.__annotations__.items()])


class _Hashing:
    """File wrapper that computes the sha256 of the bytes written and has the methods that pyarrow requires."""

    def __init__(self, file: Any) -> None:
        self._file, self.digest, self.closed = file, hashlib.sha256(), False

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._file.write(data)
        self.digest.update(data)
        return len(data)

    def tell(self) -> int:
        return int(self._file.tell())

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        self.closed = True
