"""Shards -> latents and image embeddings, as a latent set: `python -m train.encode SHARDS OUT --model MODEL`.

Every view passes the frozen parts once instead of at every step. The same command again resumes after the last finished
shard. The bytes are a function of the pictures, the model, the device and the batch size. What the set holds:
`dataset.format.latents`.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from dataset.errors import UserError, run_cli
from dataset.format.latents import (
    LATENTS_VERSION,
    Embedded,
    Float16,
    LatentFormat,
    dump_table,
    dump_view,
    format_json,
    latent_name,
    latent_names,
    table_file,
)
from dataset.format.schema import ALL_VIEWS, VIEW_SETS, VIEWS_PER_SET, Meta, meta_name, parse_meta
from dataset.format.shards import INDEX_NAME, remove_temporaries, write_index, write_shard
from dataset.io.files import exists, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.reading.shard_set import ShardSet
from train.convert.resolve import model_folder
from train.data.loader import to_tensor
from train.encode.encoder import Encoder, load_encoder, model_settings
from train.encode.output import claim, copy_tables, is_finished
from train.sample import pick_device

_AHEAD: Final = 2  # objects read ahead, beside one a reader: 25 MB each at 256 pixels


@dataclass(frozen=True)
class Encode:
    """Encode every view of a shard set once: VAE mean and log variance, image embedding, in float16.

    Size with the paper's model (latents 4 x 32 x 32, embedding 1024) at 800,000 objects, 25.6 M views: 0.51 TB, 16 KB
    of latents and 2 KB of embedding a view; with --no-logvar 0.30 TB, --embedded random 0.49 TB, with both 0.28 TB.
    """

    shards: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SHARDS")]
    """Shard set of pictures: a folder or an fsspec URL such as s3://bucket/set."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Latent set to write: a folder or an fsspec URL."""
    model: Path
    """Model whose VAE and image tower encode: the one that training starts from (--base; a folder, a checkpoint or a
    name on the Hub, as there) or wrote. MVDream has no image tower of its own; the paper's is taken then, and named."""
    logvar: bool = True
    """Keep the log variance, for training with --sample-posterior. Without it the latents take half the space."""
    embedded: Embedded = "all"
    """Which views carry an embedding: random are those that training takes as a reference."""
    batch_size: int = 32
    """Views encoded at once, 1 to 32: fewer need less memory. May change when resuming."""
    readers: int = 4
    """Threads that read and decode pictures while the device works."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ... bfloat16 autocast on a GPU, float32 on a CPU."""
    dry_run: bool = False
    """Print what latents.json would say, the size of the set, and stop."""


def plan_format(encoder: Encoder, shards: ShardSet, *, logvar: bool, embedded: Embedded) -> LatentFormat:
    """What the set will hold; the latents' shape is that of a white picture's."""
    size = encoder.spec.image_size
    mean, _ = encoder.latents(torch.ones(1, 3, size, size, device=encoder.device))
    _, channels, height, width = mean.shape
    if height != encoder.spec.latent_size:
        raise UserError(f"the VAE makes latents of {height} rows, model.json says {encoder.spec.latent_size}")
    return LatentFormat(
        schema_version=LATENTS_VERSION,
        channels=channels,
        height=height,
        width=width,
        embedding=encoder.image_tower.embed_dim,
        logvar=logvar,
        embedded=embedded,
        precision="bfloat16 autocast" if encoder.device.type == "cuda" else "float32",
        pictures=tuple(shard.sha256 for shard in shards.index.shards),
        **model_settings(encoder),
    )


def encode(
    shards: ShardSet, out: str, encoder: Encoder, form: LatentFormat, *, batch_size: int = 32, readers: int = 4
) -> None:
    """Write, or complete, the latent set `out`. Raises UserError when it holds another one, or a member is damaged."""
    if not 1 <= batch_size <= len(ALL_VIEWS) or readers < 1:
        raise UserError(f"--batch-size is {batch_size}, of 1 to {len(ALL_VIEWS)}; --readers is {readers}, at least 1")
    fs, root = url_to_fs(out)
    with owned_out(fs, root, out, "encoding"):
        claim(fs, root, out, form)
        remove_temporaries(fs, root)
        copy_tables(shards, fs, root)
        _encode_shards(shards, out, encoder, form, batch_size=batch_size, readers=readers)


def _encode_shards(
    shards: ShardSet, out: str, encoder: Encoder, form: LatentFormat, *, batch_size: int, readers: int
) -> None:
    """The shards that are not finished, then the index."""
    fs, root = url_to_fs(out)
    names = [shard.name for shard in shards.index.shards]
    finished = {name for name in names if is_finished(fs, root, name, out)}
    done = sum(shard.samples for shard in shards.index.shards if shard.name in finished)
    if len(finished) == len(names) and exists(fs, f"{root}/{INDEX_NAME}"):
        print(f"{out}: finished already")
        return
    with (
        tqdm(total=len(shards) * len(ALL_VIEWS), initial=done * len(ALL_VIEWS), unit="view", desc="encode") as bar,
        ThreadPoolExecutor(readers, thread_name_prefix="encode") as pool,
    ):
        for number, name in enumerate(names):
            if name in finished:
                continue
            if exists(fs, f"{root}/{table_file(name)}"):  # of a damaged shard
                fs.rm_file(f"{root}/{table_file(name)}")
            metas = _read_metas(shards, number)
            pictures = _read_ahead(shards, number, pool, readers + _AHEAD)
            encoded = _one_behind(encode_object(encoder, form, views, batch_size) for views in pictures)
            stats = write_shard(fs, root, name, _samples(form, metas, encoded, bar), latent_names)
            write_bytes_atomic(fs, f"{root}/{table_file(name)}", dump_table(stats, [meta for meta, _ in metas]))
    index = write_index(fs, root, num_shards=len(names), objects_per_shard=shards.index.objects_per_shard)
    print(f"{out}: {index.objects} objects, {index.views} views, {index.bytes / 1e9:.2f} GB in {len(names)} shards")


def _read_metas(shards: ShardSet, shard: int) -> list[tuple[Meta, bytes]]:
    metas = []
    for sample in range(shards.samples_per_shard[shard]):
        name = meta_name(shards.uid(shard, sample))
        data = shards.read(shard, sample, [name])[name]
        metas.append((parse_meta(data, f"{shards.url}/{name}"), data))
    return metas


def _read_ahead(shards: ShardSet, shard: int, pool: ThreadPoolExecutor, ahead: int) -> Iterator[Tensor]:
    """All 32 views [32, 3, h, w] of each object of a shard, in order; at most `ahead` objects wait in memory."""

    def load(sample: int) -> Tensor:
        return to_tensor(shards.views(shard, sample, ALL_VIEWS))

    waiting: deque[Future[Tensor]] = deque()
    try:
        for sample in range(shards.samples_per_shard[shard]):
            waiting.append(pool.submit(load, sample))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _samples(
    form: LatentFormat, metas: list[tuple[Meta, bytes]], encoded: Iterator[tuple[Tensor, Tensor]], bar: Any
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """What `write_shard` takes: each object's uid and members."""
    for (meta, data), (latents, embeddings) in zip(metas, encoded, strict=True):
        members = {meta_name(meta.uid): data}
        rows = _rows(form, latents.cpu().numpy(), embeddings.cpu().numpy())
        for (view_set, index), row in zip(ALL_VIEWS, rows, strict=True):
            name = latent_name(meta.uid, view_set, index)
            if not np.isfinite(row).all():
                raise UserError(f"{name}: not finite in float16; the model is damaged, or no model for such pictures")
            members[name] = dump_view(form, view_set, row)
        bar.update(len(ALL_VIEWS))
        yield meta.uid, members


def _one_behind(items: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each item after the next one was made: the device works on it while the one before is written."""
    waiting: deque[tuple[Tensor, Tensor]] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def encode_object(encoder: Encoder, form: LatentFormat, views: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """An object's 32 pictures [32, 3, h, w] in [0, 1] -> float16 latents [32, n], embeddings [16 or 32, d].

    n is c * h * w, mean before log variance where this is kept. On the encoder's device, which may still be at work.
    """
    latents, embeddings = [], []
    for start in range(0, len(ALL_VIEWS), batch_size):
        pictures = views[start : start + batch_size].to(encoder.device)
        mean, logvar = encoder.latents(pictures)
        latents.append((torch.cat([mean, logvar], 1) if form.logvar else mean).flatten(1).half())
        chosen = [
            i for i, (view_set, _) in enumerate(ALL_VIEWS[start : start + batch_size]) if form.has_embedding(view_set)
        ]
        if chosen:
            embeddings.append(encoder.embeddings(pictures[chosen]).half())
    return torch.cat(latents), torch.cat(embeddings)


def _rows(form: LatentFormat, latents: Float16, embeddings: Float16) -> list[Float16]:
    """The flat numbers of each of the 32 views, in schema order."""
    embedded = iter(embeddings)
    return [
        np.concatenate([row, next(embedded)]) if form.has_embedding(view_set) else row
        for row, (view_set, _) in zip(latents, ALL_VIEWS, strict=True)
    ]


def set_bytes(form: LatentFormat, objects: int) -> int:
    """Bytes of the views of a set, with their tar headers and padding; metadata comes on top, as in the pictures."""
    padded = {view_set: 512 + -(-form.member_bytes(view_set) // 512) * 512 for view_set in VIEW_SETS}
    return objects * VIEWS_PER_SET * sum(padded.values())


def run(args: Encode) -> None:
    """Encode, or print what would be done."""
    shards = ShardSet(args.shards)
    encoder = load_encoder(model_folder(args.model), pick_device(args.device))
    form = plan_format(encoder, shards, logvar=args.logvar, embedded=args.embedded)
    if args.dry_run:
        print(json.dumps({**format_json(form), "views_bytes": set_bytes(form, len(shards))}, indent=2))
        return
    encode(shards, args.out, encoder, form, batch_size=args.batch_size, readers=args.readers)


if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Encode, prog="python -m train.encode")))
