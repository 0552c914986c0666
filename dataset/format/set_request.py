"""Write and read `set.json`, which stores the settings of the command that writes a shard set.

The file also states the number of objects in the set's manifest, and the sha256 of the manifest.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, Asset, write_manifest
from dataset.format.outcomes import OUTCOMES_FOLDER
from dataset.format.shards import SET_NAME, shard_name
from dataset.io.files import TEMPORARY_SUFFIX, atomic_file, exists, write_json_atomic
from dataset.io.lock import LEASE_NAME, LOCK_NAME

RENDER_AGAIN: Final = "restore it, or delete the set and render it again"
_BEFORE_REQUEST: Final = {MANIFEST_FILE, LOCK_NAME, LEASE_NAME}  # files that a command writes before set.json


def begin_set(fs: Any, root: str, request: Mapping[str, Any], assets: Iterable[Asset]) -> None:
    """Write the first two files of a new set: `manifest.parquet`, then `set.json`.

    Args:
        fs: fsspec file system of the set.
        root: Path of the set's folder on `fs`.
        request: The settings that determine the set. `set.json` stores these settings, the number of objects in the
            manifest, and the sha256 of the manifest.
        assets: All objects of the set, in order.
    """
    with atomic_file(fs, f"{root}/{MANIFEST_FILE}") as file:
        count, digest = write_manifest(file, assets)
    write_json_atomic(fs, f"{root}/{SET_NAME}", {**request, "objects": count, "manifest_sha256": digest})


@dataclass(frozen=True)
class SetRequest:
    """The fields of `set.json` that describe the manifest: number of objects, objects per shard, and file hash."""

    objects: int
    objects_per_shard: int
    manifest_sha256: str

    @property
    def num_shards(self) -> int:
        return -(-self.objects // self.objects_per_shard)

    def positions(self, shard: int) -> range:
        """Return the manifest positions of the objects of the shard number `shard`; empty if there is no such shard."""
        start = shard * self.objects_per_shard
        return range(start, max(start, min(start + self.objects_per_shard, self.objects)))


def read_set_request(fs: Any, root: str, remedy: str = RENDER_AGAIN) -> SetRequest:
    """Read the description of the manifest from the `set.json` of the set in folder `root` of `fs`.

    Raises:
        UserError: `set.json` is missing or invalid. The message ends in `remedy`, which says what to do.
    """
    path = f"{root}/{SET_NAME}"
    try:
        raw = json.loads(fs.cat_file(path))
        request = SetRequest(int(raw["objects"]), int(raw["objects_per_shard"]), str(raw["manifest_sha256"]))
        if request.objects < 0 or request.objects_per_shard < 1:
            raise ValueError(
                f"objects is {request.objects} and objects_per_shard is {request.objects_per_shard}; they must be at "
                "least 0 and 1"
            )
    except FileNotFoundError as error:
        raise UserError(f"the settings file {path} is missing; {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the settings file {path} is damaged ({error!r}); {remedy}") from error
    return request


def foreign_file(fs: Any, root: str) -> str:
    """Return the name of a file in `root` that no command writes before `set.json`; empty if there is none."""
    paths = fs.ls(root, detail=False) if exists(fs, root) else []
    names = (path.rstrip("/").rpartition("/")[2] for path in paths if path.rstrip("/") != root)
    return next((n for n in sorted(names) if n not in _BEFORE_REQUEST and not n.endswith(TEMPORARY_SUFFIX)), "")


def finished_shards(fs: Any, root: str, request: SetRequest) -> set[int]:
    """Return the numbers of the finished shards: those with an outcome table, which is the last file of a shard."""
    folder = f"{root}/{OUTCOMES_FOLDER}"
    paths = fs.ls(folder, detail=False) if exists(fs, folder) else []
    there = {path.rpartition("/")[2] for path in paths}
    return {shard for shard in range(request.num_shards) if f"{shard_name(shard)}.parquet" in there}
