"""Latents for `stream_bench`: a latent set with the shapes of the paper, and its batches."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from dataset.format.latents import (
    LATENTS_FILE,
    LatentFormat,
    dump_table,
    dump_view,
    format_json,
    latent_names,
    table_file,
)
from dataset.format.schema import Meta, ViewSet, parse_meta
from dataset.format.shards import INDEX_NAME, shard_name, write_index, write_shard
from dataset.io.files import url_to_fs, write_bytes_atomic, write_json_atomic
from dataset.reading.latent_set import LatentSet
from train.data.latents import LatentBatch
from train.data.loader import BatchLoader

PER_SHARD: Final = 64
# SD 2.1's latents of 256 pixels, means and log variances, ViT-H-14 embeddings of all views; no actual model
FORMAT: Final = LatentFormat(1, 4, 32, 32, 1024, True, "all", 0.18215, 256, "float32", "0" * 64, "0" * 64, ())


def create_latent_set(folder: Path, objects: int) -> Path:
    """Create a latent set of random numbers unless it exists. `objects` is rounded up to whole shards."""
    from tests.support.make_shards import make_sample

    fs, root = url_to_fs(folder)
    if (folder / INDEX_NAME).is_file():
        return folder
    write_json_atomic(fs, f"{root}/{LATENTS_FILE}", format_json(FORMAT))
    about = make_sample("x", 0, 8)["x.meta.json"]
    num_shards = -(-objects // PER_SHARD)
    for shard in range(num_shards):
        uids = [f"bench-{i:05d}" for i in range(shard * PER_SHARD, (shard + 1) * PER_SHARD)]
        metas = {uid: about.replace(b'"x"', f'"{uid}"'.encode()) for uid in uids}
        samples = ((uid, {latent_names(uid)[0]: metas[uid], **_views(uid, i)}) for i, uid in enumerate(uids))
        stats = write_shard(fs, root, shard_name(shard), samples, lambda uid, _: latent_names(uid))
        parsed: list[Meta] = [parse_meta(metas[uid], uid) for uid in uids]
        write_bytes_atomic(fs, f"{root}/{table_file(shard_name(shard))}", dump_table(stats, parsed))
    write_index(fs, root, num_shards=num_shards, objects_per_shard=PER_SHARD)
    return folder


def _views(uid: str, seed: int) -> dict[str, bytes]:
    rng, views = np.random.default_rng(seed), {}
    for name in latent_names(uid)[1:]:
        view_set: ViewSet = "fixed" if ".fixed_" in name else "random"
        views[name] = dump_view(FORMAT, view_set, rng.standard_normal(FORMAT.numbers(view_set)).astype(np.float16))
    return views


def latent_batches(url: str, batch: int, num_views: int, repeats_per_object: int) -> Iterator[int]:
    """Yield the number of views of each batch, read as in training: in exact order, with checksums."""
    loader = BatchLoader(LatentSet(url), 0, batch, 1, num_views, 0.0, "relative", items_per_object=repeats_per_object)
    for number in count():
        views = loader.load(number)
        assert isinstance(views, LatentBatch)
        yield views.reference_mean.shape[0] + views.target_mean.shape[0] * views.target_mean.shape[1]
