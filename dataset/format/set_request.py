"""Write and read `set.json`, which stores the settings that a shard set is made with and describes its manifest."""

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
    """Write `manifest.parquet`, then `set.json` with the request and the manifest's length and sha256."""
    with atomic_file(fs, f"{root}/{MANIFEST_FILE}") as file:
        count, digest = write_manifest(file, assets)
    write_json_atomic(fs, f"{root}/{SET_NAME}", {**request, "objects": count, "manifest_sha256": digest})


@dataclass(frozen=True)
class SetRequest:
    """The part of `set.json` that describes the manifest."""

    objects: int
    objects_per_shard: int
    manifest_sha256: str

    @property
    def num_shards(self) -> int:
        return -(-self.objects // self.objects_per_shard)

    def positions(self, shard: int) -> range:
        """Return the manifest positions of a shard's objects; empty if the set does not have the shard."""
        start = shard * self.objects_per_shard
        return range(start, max(start, min(start + self.objects_per_shard, self.objects)))


def read_set_request(fs: Any, root: str, remedy: str = RENDER_AGAIN) -> SetRequest:
    """Read `set.json`. Raises UserError, ending in `remedy`, when it is missing or describes no valid manifest."""
    path = f"{root}/{SET_NAME}"
    try:
        raw = json.loads(fs.cat_file(path))
        request = SetRequest(int(raw["objects"]), int(raw["objects_per_shard"]), str(raw["manifest_sha256"]))
        if request.objects < 0 or request.objects_per_shard < 1:
            raise ValueError(f"{request.objects} objects, {request.objects_per_shard} per shard")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); {remedy}") from error
    return request
