"""Encode the views of a shard set into a latent set, shard by shard; an interrupted set is completed."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.errors import UserError
from dataset.format.latents import (
    LATENTS_VERSION,
    Embedded,
    Float16,
    LatentFormat,
    dump_table,
    dump_view,
    latent_name,
    latent_names,
    table_file,
)
from dataset.format.schema import ALL_VIEWS, VIEW_SETS, VIEWS_PER_SET, Meta, meta_name, parse_meta
from dataset.format.shards import INDEX_NAME, remove_temporaries, write_index, write_shard
from dataset.io.files import exists, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.io.read_ahead import draw_ahead, map_ahead
from dataset.reading.shard_set import ShardSet
from train.data.loader import to_tensor
from train.encode.encoder import Encoder
from train.encode.output import claim, copy_tables, is_finished
from train.model.fingerprint import model_settings

_AHEAD: Final = 2  # objects read ahead, beside one a reader: 25 MB each at 256 pixels


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
        embedding=encoder.image_encoder.embed_dim,
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
            # The device works on the next object while this one is written.
            encoded = draw_ahead((encode_object(encoder, form, views, batch_size) for views in pictures), 1)
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

    return map_ahead(pool, load, range(shards.samples_per_shard[shard]), ahead - 1)


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
