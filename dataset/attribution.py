"""Attribution of the objects of a set: `attribution.csv`, one line per object in the shards, in manifest order.

Licenses that require attribution require it for copies of the images too, so the file lies beside the shards. Its bytes
depend on the manifest and the shards alone.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.format.shards import read_stats, shard_name
from dataset.io.files import atomic_file
from dataset.reading.reconcile import read_asked, read_manifest

ATTRIBUTION_FILE: Final = "attribution.csv"
_COLUMNS: Final = ("uid", "title", "author", "license", "url", "source")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run instead of showing it


def write_attribution(fs: Any, root: str) -> int:
    """Write the file atomically for a set whose shards are all written. Returns the number of objects in it.

    One shard's part of the manifest is in memory at a time. Raises UserError when a part of the set is missing.
    """
    count = 0
    with atomic_file(fs, f"{root}/{ATTRIBUTION_FILE}") as writer:
        writer.write(_header())
        for asset in _credited(fs, root):
            writer.write(_line(asset))
            count += 1
    return count


def _credited(fs: Any, root: str) -> Iterator[Asset]:
    asked = read_asked(fs, root)
    manifest = read_manifest(fs, root, asked)
    for shard in range(asked.num_shards):
        stored = {sample.uid for sample in read_stats(fs, root, shard_name(shard)).samples}
        places = asked.positions(shard)
        yield from (asset for asset in manifest.assets(places.start, places.stop) if asset.uid in stored)


def _header() -> bytes:
    return _row(_COLUMNS)


def _line(asset: Asset) -> bytes:
    """One object's line, UTF-8 with its line end. A cell that a spreadsheet would run starts with an apostrophe."""
    cells = (asset.uid, asset.title, asset.author, asset.license, asset.url, asset.source)
    return _row(tuple(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells))


class AttributionCheck:
    """The file, read once from front to back beside the shards that it must agree with. A context manager."""

    def __init__(self, fs: Any, root: str) -> None:
        self._path, self._fault, self._expects = f"{root}/{ATTRIBUTION_FILE}", "", True
        try:
            self._file = fs.open(self._path, "rb")
        except FileNotFoundError:
            self._file, self._fault = io.BytesIO(), "missing"
        self._compare(_header(), "its header is not the expected one")

    def __enter__(self) -> "AttributionCheck":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing may be left of the file when all shards were held against it."""
        if self._expects and not self._fault and self._file.read(1):
            self._fault = "has more lines than the shards have objects"
        self._file.close()

    @property
    def fault(self) -> str:
        """The first disagreement (after it the lines may be shifted), empty when there is none."""
        return self._fault

    def expect(self, assets: Iterable[Asset]) -> None:
        """The next lines must be those of these objects."""
        for asset in assets:
            self._compare(_line(asset), f"does not agree with shards and manifest from {asset.uid} on")

    def give_up(self) -> None:
        """Some objects cannot be known: what follows cannot be held against anything."""
        self._expects = False

    def _compare(self, expected: bytes, fault: str) -> None:
        if self._expects and not self._fault and self._file.read(len(expected)) != expected:
            self._fault = fault


def _row(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
