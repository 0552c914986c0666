"""A shard set that is written from synthetic results."""

import hashlib
from dataclasses import replace
from pathlib import Path

from dataset.format.manifest import Asset
from dataset.format.outcomes import Outcome
from dataset.format.schema import member_names
from dataset.format.shards import shard_name
from dataset.format.tar import pack
from render.output.shard_set_writer import ShardSetWriter
from render.workers.messages import RenderResult

UIDS = ["a", "b", "c", "d", "e"]
HASHES = {uid: hashlib.sha256(uid.encode()).hexdigest() for uid in UIDS}
REQUEST = {"seed": 0, "fingerprint": "1", "settings": {"resolution": 32}, "source": "folder:x"}
FAILED = {"b", "e"}


def new_output(folder, per_shard=2):
    return ShardSetWriter(str(folder), per_shard)


def assets(uids=UIDS):
    return (Asset(uid, "test", "CC0-1.0", "nobody", file=f"{uid}.glb") for uid in uids)


def claim(output, request=REQUEST, uids=UIDS):
    output.claim(request, lambda: assets(uids))


def result(output, uid, failed=FAILED, hashes=HASHES):
    position = UIDS.index(uid)
    row = Outcome(uid, position, shard_name(output.shard_of(position)), "ok", seconds=1.5, asset_sha256=hashes[uid])
    if uid in failed:
        return RenderResult(replace(row, status="failed", stage="import", error_class="X", message="no"))
    return RenderResult(row, pack({name: f"{name} {uid}".encode() for name in member_names(uid)}))


def stage(output, *uids, **options):
    output.stage([result(output, uid, **options) for uid in uids])


def complete(output, order, failed=FAILED, skip_duplicates=False, hashes=HASHES):
    """Stage in this order, finishing each shard when its last object is in, as the driver does."""
    with output.locked():
        claim(output)
        for uid in order:
            stage(output, uid, failed=failed, hashes=hashes)
            shard = output.shard_of(UIDS.index(uid))
            if not output.missing(shard):
                output.finish_shard(shard)
        output.finish(skip_duplicates)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
