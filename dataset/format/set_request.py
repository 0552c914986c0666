"""The beginning of a shard set, whoever writes it: its manifest and what was asked; the same again, or another."""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from dataset.format.manifest import MANIFEST_FILE, Asset, write_manifest
from dataset.format.shards import SET_NAME
from dataset.io.files import atomic_file, write_json_atomic


def begin_set(fs: Any, root: str, asked: Mapping[str, Any], assets: Iterable[Asset]) -> None:
    """Write `manifest.parquet`, then `set.json`: `asked` and the manifest's length and sha256."""
    with atomic_file(fs, f"{root}/{MANIFEST_FILE}") as file:
        count, digest = write_manifest(file, assets)
    write_json_atomic(fs, f"{root}/{SET_NAME}", {**asked, "objects": count, "manifest_sha256": digest})


def changes(there: Mapping[str, Any], asked: Mapping[str, Any], found: Set[str]) -> Iterator[str]:
    """In words, what is asked otherwise than what is there, the fingerprint first; keys of `found` are not compared."""
    for key in sorted({*there, *asked} - found, key=lambda key: (key != "fingerprint", key)):
        if there.get(key) != asked.get(key):
            yield f"{key} was {there.get(key)!r}, is {asked.get(key)!r}"
