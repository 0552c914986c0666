"""Write and read `set.json`, which stores the settings of the command that writes a shard set.

The file also states the number of objects in the set's manifest, and the sha256 of the manifest.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dataset.errors import UserError
from dataset.format.manifest import MANIFEST_FILE, Asset, write_manifest
from dataset.format.shards import SET_NAME
from dataset.io.files import atomic_file, write_json_atomic

RENDER_AGAIN: Final = "restore it, or delete the set and render it again"


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
