"""Encode the views of a shard set into a latent set, shard by shard, and complete an interrupted latent set."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Final

import numpy as np
import torch

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
from dataset.format.schema import ALL_VIEWS, VIEW_SETS, VIEWS_PER_SET, Meta, meta_name
from dataset.format.shards import INDEX_NAME, Index, read_index, remove_temporaries, write_index, write_shard
from dataset.io.files import exists, url_to_fs, write_bytes_atomic
from dataset.io.lock import owned_out
from dataset.io.option_checks import check_number
from dataset.io.progress import ProgressBar
from dataset.reading.shard_set import ShardSet
from train.encode.encoder import Encoder
from train.encode.output import claim, copy_tables, is_finished
from train.encode.pipeline import EncodedObject, EncodeTimes, encoded_objects
from train.model.fingerprint import model_settings

logger = logging.getLogger(__name__)

EncodeShards = Callable[[Sequence[int]], Iterable[int]]
"""A function that encodes the shards of the given numbers and yields the number of each finished shard."""

MAX_BATCH: Final = 1024  # views
_MEMORY_SHARE: Final = 0.4  # of a GPU's free memory, for the activations of one batch
_BYTES_PER_PIXEL: Final = 4096  # of these activations: 16 tensors of 128 channels in bfloat16 at full resolution
_MOST_WORKERS: Final = 8  # threads; each decodes a few hundred views of 256 pixels per second
_LARGEST_DEFAULT: Final = 256  # views; larger batches are not faster


def default_batch_size(device: torch.device, image_size: int, objects_per_shard: int) -> int:
    """Return the number of views to encode at once: whole objects of 32 views, more of them on a GPU with more memory.

    On a GPU, the last batch of a shard should not be smaller than the others, because compiled code then is not used.
    So of the numbers of objects between half of the possible number and this number, the one that leaves the smallest
    rest of a shard is chosen.

    Args:
        device: Device of the encoder.
        image_size: Height and width of the views in pixels.
        objects_per_shard: Number of objects in a full shard.
    """
    views = len(ALL_VIEWS)
    if device.type != "cuda":
        return views
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(free * _MEMORY_SHARE / (image_size**2 * _BYTES_PER_PIXEL))
    most = max(1, min(_LARGEST_DEFAULT, fitting) // views)
    most = min(most, objects_per_shard)
    return views * min(range(most, most // 2, -1), key=lambda objects: objects_per_shard % objects)


def default_num_workers(processes: int = 1) -> int:
    """Return the number of threads that read and decode images: one per CPU core, at most 8.

    Args:
        processes: Number of processes on this machine that encode.
    """
    return max(2, min(_MOST_WORKERS, (os.cpu_count() or 1) // processes))


def plan_format(encoder: Encoder, shards: ShardSet, *, logvar: bool, embedded: Embedded) -> LatentFormat:
    """Return the format of the latent set to write. The shape of the latents is measured by encoding a white image.

    Args:
        encoder: VAE and image encoder.
        shards: Set of images to encode.
        logvar: Whether to store the log variances of the posteriors in addition to the means.
        embedded: Views whose image embedding is stored: "all" or only the "random" views.

    Raises:
        UserError: The size of the VAE's latents differs from `latent_size` in model.json.
    """
    size = encoder.spec.image_size
    mean, _ = encoder.latents(torch.ones(1, 3, size, size, device=encoder.device))
    _, channels, height, width = mean.shape
    if height != encoder.spec.latent_size:
        raise UserError(
            f"the VAE encodes an image of {size} pixels to latents of {height} rows, but latent_size in model.json is "
            f"{encoder.spec.latent_size}; give a model folder whose VAE and model.json belong to the same model"
        )
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
    shards: ShardSet,
    out: str,
    encoder: Encoder,
    form: LatentFormat,
    *,
    batch_size: int = 32,
    num_workers: int = 4,
    encode_shards: EncodeShards | None = None,
    times: EncodeTimes | None = None,
) -> Index:
    """Encode all images of a shard set into a latent set, or complete an interrupted latent set.

    Args:
        shards: Set of images to encode.
        out: Folder or fsspec URL of the latent set.
        encoder: VAE and image encoder.
        form: Format of the latent set, from `plan_format`.
        batch_size: Number of views encoded at once, 1 to MAX_BATCH, of several objects if it is 64 or more.
        num_workers: Number of threads that read and decode images, at least 1.
        encode_shards: Function that encodes the missing shards in other processes. None: this process encodes them.
        times: Object to which the times of the encoding in this process are added.

    Returns:
        The index of the finished latent set.

    Raises:
        UserError: `out` contains another set, a member of `shards` is damaged, or an option is out of range.
    """
    check_number("--batch-size", batch_size, 1, MAX_BATCH)
    if num_workers < 1:
        raise UserError(f"--num-workers is {num_workers}; it must be at least 1")
    fs, root = url_to_fs(out)
    with owned_out(fs, root, out, "encoding"):
        claim(fs, root, out, form)
        remove_temporaries(fs, root)
        copy_tables(shards, fs, root)
        here = ShardEncoder(shards, out, encoder, form, batch_size=batch_size, num_workers=num_workers)
        return _encode_missing(shards, out, here, encode_shards, times or EncodeTimes())


def _encode_missing(
    shards: ShardSet, out: str, here: "ShardEncoder", encode_shards: EncodeShards | None, times: EncodeTimes
) -> Index:
    """Encode the shards that are not finished, then write the index of the latent set and return it."""
    fs, root = url_to_fs(out)
    names = [shard.name for shard in shards.index.shards]
    finished = {name for name in names if is_finished(fs, root, name, out)}
    done = sum(shard.samples for shard in shards.index.shards if shard.name in finished)
    if len(finished) == len(names) and exists(fs, f"{root}/{INDEX_NAME}"):
        logger.info("%s: finished already", out)
        return read_index(out)
    missing = [number for number, name in enumerate(names) if name not in finished]
    with ProgressBar(
        total=len(shards) * len(ALL_VIEWS), initial=done * len(ALL_VIEWS), unit="view", desc="encode"
    ) as bar:
        if encode_shards is None:
            here.encode(missing, bar.update, times)
            share = 100 * times.images_share
            logger.info("%.0f views/s, waited for images %.0f %% of the time", times.views_per_s, share)
        elif missing:
            for number in encode_shards(missing):
                bar.update(shards.samples_per_shard[number] * len(ALL_VIEWS))
            remove_temporaries(fs, root)  # of workers that died
    return write_index(fs, root, num_shards=len(names), objects_per_shard=shards.index.objects_per_shard)


class ShardEncoder:
    """Encodes shards of a set of images into a latent set. The arguments are those of `encode`."""

    def __init__(
        self, shards: ShardSet, out: str, encoder: Encoder, form: LatentFormat, *, batch_size: int, num_workers: int
    ) -> None:
        self._shards, self._out, self._encoder, self._form = shards, out, encoder, form
        self._batch_size, self._num_workers = batch_size, num_workers

    def encode(
        self,
        numbers: Sequence[int],
        report: Callable[[int], object] = lambda views: None,
        times: EncodeTimes | None = None,
    ) -> None:
        """Encode some shards and write their files. The next shard is encoded while a shard is written.

        Args:
            numbers: Numbers of the shards in the set of images.
            report: Function that is called after each object with the number of its views.
            times: Object to which the measured times are added.

        Raises:
            UserError: A member of a shard is damaged, or a view cannot be encoded. The shards before it are finished.
        """
        times, start = times or EncodeTimes(), time.perf_counter()
        objects = encoded_objects(
            self._shards,
            numbers,
            self._encoder,
            self._form,
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            times=times,
        )
        with closing(objects):
            for number in numbers:
                self._write(number, islice(objects, self._shards.samples_per_shard[number]), report)
        times.seconds += time.perf_counter() - start

    def _write(self, number: int, objects: Iterator[EncodedObject], report: Callable[[int], object]) -> None:
        name = self._shards.index.shards[number].name
        fs, root = url_to_fs(self._out)
        if exists(fs, f"{root}/{table_file(name)}"):  # left over from a damaged shard
            fs.rm_file(f"{root}/{table_file(name)}")
        metas: list[Meta] = []

        def samples() -> Iterator[tuple[str, Mapping[str, bytes]]]:
            for encoded in objects:
                members = _members(self._form, encoded)
                metas.append(encoded.meta)
                report(len(ALL_VIEWS))
                yield encoded.meta.uid, members

        stats = write_shard(fs, root, name, samples(), _names)
        write_bytes_atomic(fs, f"{root}/{table_file(name)}", dump_table(stats, metas))


def _names(uid: str, _: Mapping[str, bytes]) -> list[str]:
    return latent_names(uid)


def _members(form: LatentFormat, encoded: EncodedObject) -> dict[str, bytes]:
    """Return the members of an object. Raises UserError when a value is not finite in float16."""
    uid = encoded.meta.uid
    members = {meta_name(uid): encoded.meta_json}
    for (view_set, index), row in zip(ALL_VIEWS, _rows(form, encoded.latents, encoded.embeddings), strict=True):
        name = latent_name(uid, view_set, index)
        if not np.isfinite(row).all():
            raise UserError(
                f"{name}: encoding gave NaN or infinite values in float16; give another --model, because the given "
                "model is damaged or not suitable for these images"
            )
        members[name] = dump_view(form, view_set, row)
    return members


def _rows(form: LatentFormat, latents: Float16, embeddings: Float16) -> list[Float16]:
    """Return one array per view, in the order of ALL_VIEWS: its latents and, if stored, its embedding."""
    embedded = iter(embeddings)
    return [
        np.concatenate([row, next(embedded)]) if form.has_embedding(view_set) else row
        for row, (view_set, _) in zip(latents, ALL_VIEWS, strict=True)
    ]


def set_bytes(form: LatentFormat, objects: int) -> int:
    """Return the number of bytes of a latent set's views. Tar headers and padding are counted, metadata is not.

    Args:
        form: Format of the latent set.
        objects: Number of objects in the set.
    """
    padded = {view_set: 512 + -(-form.member_bytes(view_set) // 512) * 512 for view_set in VIEW_SETS}
    return objects * VIEWS_PER_SET * sum(padded.values())
