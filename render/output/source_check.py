"""Check, when a run is resumed, that no model file was replaced after its object was rendered."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dataset.errors import UserError
from dataset.format.outcomes import Outcome
from dataset.format.shards import SET_NAME, shard_name
from render.output.shard_set_writer import ShardSetWriter
from render.sources.model_file import file_sha256, object_sha256, referenced_files


def check_files_unchanged(output: ShardSetWriter, root: Path) -> None:
    """Raise UserError if the files of an object have changed after the object was rendered.

    The files of an object are hashed again only if one of them has a modification time or inode change time after that
    of `set.json`. In an unchanged folder, the check therefore only lists the files. The files of failed objects may
    change at any time.

    Args:
        output: The shard set. Its manifest must exist.
        root: The source folder, without symbolic links in its path.
    """
    changed = _changed_files(root, output.fs.modified(f"{output.root}/{SET_NAME}"))
    if not changed:
        return
    for row in _rendered(output):
        (asset,) = output.manifest.assets(row.position, row.position + 1)
        path = root / (asset.file or "")
        if asset.file and not _is_same(path, root, row.asset_sha256, changed):
            raise UserError(
                f"{output.url}: {asset.file} was replaced after object {row.position} ({row.uid}) was rendered from "
                "this file; restore the file, choose another --shards, or delete the shard set"
            )


def _changed_files(root: Path, since: datetime) -> set[Path]:
    """Return the resolved paths of the files under a folder that were changed at or after a time."""
    start, changed = since.timestamp(), set[Path]()
    for parent, _, files in os.walk(root):
        for name in files:
            path = Path(parent) / name
            try:
                status = path.stat()
                if max(status.st_mtime, status.st_ctime) >= start:
                    changed.add(path.resolve())
            except (OSError, RuntimeError):  # the file was removed, or is a symbolic link that leads to itself
                continue
    return changed


def _rendered(output: ShardSetWriter) -> Iterator[Outcome]:
    """Yield the outcome rows of all rendered objects, from finished and from unfinished shards."""
    yield from (row for row in output.outcomes() if row.status == "ok")
    finished = output.finished_shards()
    for shard in range(output.num_shards):
        if shard not in finished:
            staged = output.staging.read(shard_name(shard))
            yield from (result.outcome for result in staged if result.outcome.status == "ok")


def _is_same(path: Path, root: Path, sha256: str, changed: set[Path]) -> bool:
    try:
        path = path.resolve()
        if changed.isdisjoint({path, *referenced_files(path, root)}):
            return True
        # Sets of earlier versions contain the digest of the model file alone.
        return sha256 in (object_sha256(path, root), file_sha256(path))
    except (OSError, RuntimeError):  # an unreadable file is not a replaced one
        return True
