"""Complete synthetic sets, with manifest, outcome tables and attribution."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dataset.attribution import write_attribution
from dataset.format.manifest import Asset
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome, Status, dump_outcomes
from dataset.format.shards import shard_name, write_index, write_shard
from dataset.io.files import url_to_fs, write_bytes_atomic
from tests.support.make_shards import make_sample, write_set_request

LICENSES = ("CC0-1.0", "CC-BY-4.0")

Sample = Callable[[str, int, int], dict[str, bytes]]


def make_set(
    folder: Path | str,
    prefix: str,
    objects: int,
    resolution: int,
    *,
    per_shard: int = 2,
    gone: Mapping[int, Status] | None = None,
    files: Mapping[int, str] | None = None,
    sample: Sample = make_sample,
) -> str:
    """A complete set of objects PREFIX0, PREFIX1, ...; `gone`: status of those without images,
    `files`: contents of the model files of some."""
    fs, root = url_to_fs(folder)
    uids = [f"{prefix}{i}" for i in range(objects)]
    assets = [Asset(uid, "synthetic", LICENSES[i % 2], "tests", title=f"Title {uid}") for i, uid in enumerate(uids)]
    write_set_request(fs, root, assets, per_shard)
    shards = -(-objects // per_shard)
    for shard in range(shards):
        name, places = shard_name(shard), range(objects)[shard * per_shard : (shard + 1) * per_shard]
        rows = [_row(uids[i], i, name, (gone or {}).get(i, "ok"), (files or {}).get(i, uids[i])) for i in places]
        samples = ((r.uid, sample(r.uid, r.position, resolution)) for r in rows if r.status == "ok")
        write_shard(fs, root, name, samples)
        write_bytes_atomic(fs, f"{root}/{OUTCOMES_FOLDER}/{name}.parquet", dump_outcomes(rows))
    write_attribution(fs, root)
    write_index(fs, root, num_shards=shards, objects_per_shard=per_shard)
    return str(folder)


def _row(uid: str, i: int, shard: str, status: Status, file: str) -> Outcome:
    row = Outcome(uid, i, shard, status, seconds=float(i), flags=("clipped",) if i % 2 else ())
    if status == "failed":
        return replace(row, stage="import", error_class="X", message="no", flags=())
    if status == "skipped":
        return replace(row, stage="select", flags=("too-large",))
    return replace(row, asset_sha256=hashlib.sha256(file.encode()).hexdigest())
