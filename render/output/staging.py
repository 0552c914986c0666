"""Store results on disk until their shard is written.

Each batch is one file `FOLDER/SHARD/FIRST-LAST.part`, written atomically. SHARD is the name of the shard. FIRST and
LAST are the lowest and the highest manifest position in the batch.
"""

import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError
from dataset.format.outcomes import from_json, to_json
from dataset.format.tar import pack, unpack
from dataset.io.files import TEMPORARY_SUFFIX, write_bytes_atomic
from render.workers.messages import RenderResult

PART_SUFFIX: Final = ".part"
_ROWS: Final = "rows.json"


class Staging:
    """A folder of staged batches. Methods raise UserError when the folder cannot be written or a file is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fs = LocalFileSystem()

    def add(self, shard: str, results: Sequence[RenderResult]) -> Path:
        """Write results of the shard with the name `shard` to one new file. Return the path of the file."""
        positions = [result.outcome.position for result in results]
        path = self.folder / shard / f"{min(positions):08d}-{max(positions):08d}{PART_SUFFIX}"
        rows = json.dumps([to_json(result.outcome) for result in results]).encode()
        samples = {str(result.outcome.position): result.tar for result in results if result.tar}
        write_bytes_atomic(self._fs, str(path), pack({_ROWS: rows, **samples}))
        return path

    def read(self, shard: str) -> Iterator[RenderResult]:
        """Iterate over all staged results of the shard with the name `shard`. Raises UserError for a damaged file."""
        for path in self._parts(shard):
            yield from _read(path)

    def positions(self, shard: str) -> set[int]:
        """Return the manifest positions of the objects that have a staged result in the shard named `shard`.

        Also removes the temporary files of writers that were killed.
        """
        for leftover in (self.folder / shard).glob(f"*{TEMPORARY_SUFFIX}"):
            leftover.unlink()
        return {result.outcome.position for result in self.read(shard)}

    def drop(self, shard: str) -> None:
        """Remove the staged results of the shard with the name `shard`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder / shard)

    def drop_failed(self, shard: str) -> int:
        """Remove the staged results of failed objects in the shard named `shard`. Return how many there were."""
        results = list(self.read(shard))
        kept = [result for result in results if result.outcome.status != "failed"]
        if len(kept) < len(results):
            before = self._parts(shard)
            new = self.add(shard, kept) if kept else None
            for path in before:
                if path != new:
                    path.unlink()
        return len(results) - len(kept)

    def _parts(self, shard: str) -> list[Path]:
        return sorted((self.folder / shard).glob(f"*{PART_SUFFIX}"))


def _read(path: Path) -> list[RenderResult]:
    try:
        members = unpack(path.read_bytes())
        rows = [from_json(row) for row in json.loads(members[_ROWS])]
        return [RenderResult(row, members[str(row.position)] if row.status == "ok" else b"") for row in rows]
    except (KeyError, ValueError, OSError, tarfile.TarError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete this file and repeat the command to render the objects of this file"
        ) from error
