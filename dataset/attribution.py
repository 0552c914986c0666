"""Write and check `attribution.csv`, which names title, author, license and URL of each object in a set's shards.

The file has one line per object, in the order of the set's manifest. A license that requires attribution of a 3D model
also requires attribution when images of the model are copied. Therefore, `attribution.csv` is stored beside the shards.
The bytes of `attribution.csv` depend only on the manifest and the shards.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

from dataset.format.manifest import Asset
from dataset.format.set_request import read_set_request
from dataset.format.shards import read_stats, shard_name
from dataset.io.files import atomic_file
from dataset.reading.reconcile import read_manifest

ATTRIBUTION_FILE: Final = "attribution.csv"
_COLUMNS: Final = ("uid", "title", "author", "license", "url", "source")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet evaluates cells that start with these


def write_attribution(fs: Any, root: str) -> int:
    """Write `attribution.csv` for a set whose shards are all finished. Return the number of objects in the file.

    Only one shard's part of the manifest is in memory at a time.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.

    Raises:
        UserError: The manifest, `set.json` or a statistics file of the set is missing or damaged.
    """
    count = 0
    with atomic_file(fs, f"{root}/{ATTRIBUTION_FILE}") as writer:
        writer.write(_header())
        for asset in _credited(fs, root):
            writer.write(_line(asset))
            count += 1
    return count


def _credited(fs: Any, root: str) -> Iterator[Asset]:
    request = read_set_request(fs, root)
    manifest = read_manifest(fs, root, request)
    for shard in range(request.num_shards):
        stored = {sample.uid for sample in read_stats(fs, root, shard_name(shard)).samples}
        places = request.positions(shard)
        yield from (asset for asset in manifest.assets(places.start, places.stop) if asset.uid in stored)


def _header() -> bytes:
    return _row(_COLUMNS)


def _line(asset: Asset) -> bytes:
    """Return one object's line as UTF-8. Cells that a spreadsheet would take for formulas get a leading apostrophe."""
    cells = (asset.uid, asset.title, asset.author, asset.license, asset.url, asset.source)
    return _row(tuple(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells))


class AttributionCheck:
    """Context manager that compares the lines of `attribution.csv` with the objects in the shards of a set.

    In the `with` block, call `expect` with the objects of each shard, in order. After the block, `fault` describes the
    first difference.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self._path, self._fault, self._expects = f"{root}/{ATTRIBUTION_FILE}", "", True
        try:
            self._file = fs.open(self._path, "rb")
        except FileNotFoundError:
            self._file, self._fault = io.BytesIO(), "missing"
        self._compare(_header(), "does not begin with the expected header")

    def __enter__(self) -> "AttributionCheck":
        return self

    def __exit__(self, *_: object) -> None:
        """Record a fault if `attribution.csv` has more lines than expected objects, and close the file."""
        if self._expects and not self._fault and self._file.read(1):
            self._fault = "has more lines than the shards have objects"
        self._file.close()

    @property
    def fault(self) -> str:
        """Description of the first difference; empty if there is none. Lines after this difference are not compared."""
        return self._fault

    def expect(self, assets: Iterable[Asset]) -> None:
        """Check that the next lines of `attribution.csv` describe the objects `assets`, in this order."""
        for asset in assets:
            self._compare(_line(asset), f"differs from the shards and the manifest, starting at {asset.uid}")

    def stop_comparing(self) -> None:
        """Compare no further lines. Call this when it is unknown which objects the next lines should describe."""
        self._expects = False

    def _compare(self, expected: bytes, fault: str) -> None:
        if self._expects and not self._fault and self._file.read(len(expected)) != expected:
            self._fault = fault


def _row(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
