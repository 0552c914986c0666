"""The beginning of a shard set, whoever writes it: its manifest and what was asked; the same again, or another."""

from collections.abc import Iterable, Mapping
from typing import Any

from dataset.format.manifest import MANIFEST_FILE, Asset, write_manifest
from dataset.format.shards import SET_NAME
from dataset.io.files import atomic_file, write_json_atomic


def begin_set(fs: Any, root: str, asked: Mapping[str, Any], assets: Iterable[Asset]) -> None:
    """Write `manifest.parquet`, then `set.json`: `asked` and the manifest's length and sha256."""
    with atomic_file(fs, f"{root}/{MANIFEST_FILE}") as file:
        count, digest = write_manifest(file, assets)
    write_json_atomic(fs, f"{root}/{SET_NAME}", {**asked, "objects": count, "manifest_sha256": digest})
