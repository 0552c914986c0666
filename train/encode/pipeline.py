"""Read, encode and return the objects of many shards in order, without a pause at the end of a shard.

Threads read and decode images ahead. Another thread gives batches to the device and does not wait for the results, so a
GPU has the next batch before the last one is finished. The caller, which writes the results, works at the same time.
Batches contain objects of one shard only: the results of a shard do not depend on the shards that are encoded with it.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from dataset.format.latents import Float16, LatentFormat
from dataset.format.schema import ALL_VIEWS, Meta, meta_name, parse_meta
from dataset.io.read_ahead import in_thread, map_ahead
from dataset.reading.shard_set import ShardSet
from train.data.images import on_white
from train.device import to_device
from train.encode.encoder import Encoder, objects_per_batch

_AHEAD: Final = 2  # objects read ahead in addition to one per thread and the next batch; 8 MB each at 256 pixels
_SUBMITTED: Final = 2  # batches that a GPU has at once: it computes one, and the next one waits
_UNWRITTEN: Final = 8  # encoded batches in memory while a shard is written and closed; 0.6 MB per object


@dataclass
class EncodeTimes:
    """What the encoding of some shards took. A thread gives the batches to the device; the waits are those of it."""

    views: int = 0
    seconds: float = 0.0
    images_s: float = 0.0  # waiting for images
    device_s: float = 0.0  # waiting for the device, which has enough batches

    @property
    def views_per_s(self) -> float:
        return self.views / max(self.seconds, 1e-9)

    @property
    def images_share(self) -> float:
        """Share of the time, 0 to 1, in which the encoding waited for images."""
        return self.images_s / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EncodedObject:
    """The results for the 32 views of one object, in the order of ALL_VIEWS. Sizes as in `encode_objects`."""

    meta: Meta
    meta_json: bytes
    latents: Float16  # [32, n]
    embeddings: Float16  # [e, d]


@dataclass(frozen=True)
class _Loaded:
    meta: Meta
    meta_json: bytes
    views: Tensor  # uint8 RGBA [32, h, w, 4], in pinned memory for a GPU


@dataclass(frozen=True)
class _Batch:
    """Results for some objects in host memory, which a GPU may still be computing; `wait` waits for them."""

    metas: list[tuple[Meta, bytes]]
    latents: Tensor  # float16 [32 * objects, n]
    embeddings: Tensor  # float16 [e * objects, d]
    done: torch.cuda.Event | None

    def wait(self) -> None:
        if self.done is not None:
            self.done.synchronize()

    def objects(self) -> Iterator[EncodedObject]:
        self.wait()
        count = len(self.metas)
        latents, embeddings = (
            part.numpy().reshape(count, -1, part.shape[1]) for part in (self.latents, self.embeddings)
        )
        for (meta, data), of_latents, of_embeddings in zip(self.metas, latents, embeddings, strict=True):
            yield EncodedObject(meta, data, of_latents, of_embeddings)


def encoded_objects(
    shards: ShardSet,
    numbers: Sequence[int],
    encoder: Encoder,
    form: LatentFormat,
    *,
    batch_size: int,
    num_workers: int,
    times: EncodeTimes,
) -> Generator[EncodedObject]:
    """Encode all objects of some shards, and yield them in order. Closing the iterator ends all threads.

    Args:
        shards: Set of images to encode.
        numbers: Numbers of the shards.
        encoder: VAE and image encoder.
        form: Format of the latent set.
        batch_size: Number of views encoded at once, of several objects if it is 64 or more.
        num_workers: Number of threads that read and decode images.
        times: Object to which the views and the waiting times are added.

    Raises:
        UserError: A member of a shard is damaged. The batches before it are yielded first.
    """
    together = objects_per_batch(batch_size)
    places = ((number, sample) for number in numbers for sample in range(shards.samples_per_shard[number]))

    def load(place: tuple[int, int]) -> _Loaded:
        return _load(shards, place, pinned=encoder.device.type == "cuda")

    with ThreadPoolExecutor(num_workers, thread_name_prefix="read") as pool:
        ahead = num_workers + together + _AHEAD - 1
        with closing(map_ahead(pool, load, places, ahead)) as loaded:
            batches = _batches(loaded, [shards.samples_per_shard[number] for number in numbers], together)
            encoded = _encoded(encoder, form, batches, batch_size, times)
            with closing(in_thread(encoded, _UNWRITTEN)) as results:
                for batch in results:
                    times.views += len(batch.latents)
                    yield from batch.objects()


def _load(shards: ShardSet, place: tuple[int, int], *, pinned: bool) -> _Loaded:
    name = meta_name(shards.uid(*place))
    data = shards.read(*place, [name])[name]
    meta = parse_meta(data, f"{shards.url}/{name}")
    views = torch.from_numpy(shards.views(*place, ALL_VIEWS))
    return _Loaded(meta, data, views.pin_memory() if pinned else views)


def _batches(loaded: Iterator[_Loaded], sizes: Sequence[int], together: int) -> Iterator[list[_Loaded]]:
    """Yield lists of at most `together` objects of the same shard. `sizes` are the numbers of objects of the shards."""
    for size in sizes:
        of_shard = islice(loaded, size)
        yield from iter(lambda of_shard=of_shard: list(islice(of_shard, together)), [])  # type: ignore[misc]


def _encoded(
    encoder: Encoder, form: LatentFormat, batches: Iterator[list[_Loaded]], batch_size: int, times: EncodeTimes
) -> Iterator[_Batch]:
    """Give batches to the device, and yield each one at once, while a GPU computes it."""
    submitted: deque[_Batch] = deque()
    while True:
        start = time.perf_counter()
        objects = next(batches, None)
        arrived = time.perf_counter()
        times.images_s += arrived - start
        if objects is None:
            return
        if len(submitted) == _SUBMITTED:
            submitted.popleft().wait()
        times.device_s += time.perf_counter() - arrived
        results = encode_objects(encoder, form, [loaded.views for loaded in objects], batch_size)
        latents, embeddings = map(_to_host, results)
        done = None
        if encoder.device.type == "cuda":
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(encoder.device))
        batch = _Batch([(loaded.meta, loaded.meta_json) for loaded in objects], latents, embeddings, done)
        del objects, results  # not kept in memory while this generator waits
        submitted.append(batch)
        yield batch


def _to_host(tensor: Tensor) -> Tensor:
    """Copy a tensor of any shape to host memory; a copy from a GPU is asynchronous, into pinned memory."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def encode_objects(
    encoder: Encoder, form: LatentFormat, views: Sequence[Tensor], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Encode the 32 views of each of several objects, without waiting for a GPU.

    Args:
        encoder: VAE and image encoder.
        form: Format of the latent set.
        views: RGBA images uint8 [32, h, w, 4] of each object. Copies of pinned memory to a GPU are asynchronous.
        batch_size: Number of views encoded at once.

    Returns:
        Latents [k * 32, n] and embeddings [k * e, d] of k objects in float16 on the encoder's device. With latents of
        shape [c, h, w], n is c * h * w, or 2 * c * h * w if log variances are stored. e is the number of views whose
        embedding is stored (16 or 32), and d is the width of an embedding.
    """
    images = on_white(torch.cat([rgba.to(encoder.device, non_blocking=True) for rgba in views]))
    latents = []
    for part in torch.split(images, batch_size):
        mean, logvar = encoder.latents(part)
        latents.append((torch.cat([mean, logvar], 1) if form.logvar else mean).flatten(1).half())
    stored = torch.tensor([form.has_embedding(view_set) for view_set, _ in ALL_VIEWS]).repeat(len(views))
    if not stored.all():
        images = images[to_device(stored.nonzero()[:, 0], encoder.device)]
    embeddings = [encoder.embeddings(part).half() for part in torch.split(images, batch_size)]
    return torch.cat(latents), torch.cat(embeddings)
