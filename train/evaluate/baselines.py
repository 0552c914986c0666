"""What a model must beat: the training objects' mean picture, and the training object with the nearest embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from train.data.loader import to_tensor
from train.evaluate.metrics import cosines
from train.evaluate.novel_views import REFERENCES, RING, Float32, Truth, embed, of_size, read_ring, to_arrays
from train.model.multiview import MultiViewModel

MAX_OBJECTS: Final = 2000  # training objects that are looked at, spread evenly over the set


@dataclass(frozen=True)
class Gallery:
    """The training objects: their mean ring, and the embeddings of their random views."""

    shards: ShardSet
    places: list[tuple[int, int]]  # (shard, sample) of each
    mean: Float32  # [v, h, w, 3]
    embeddings: NDArray[np.float64]  # [n, v, d]

    def nearest(self, embedding: NDArray[np.float64], uid: str) -> tuple[int, int]:
        """The training object of which one view's embedding has the largest cosine with this one [d], but `uid`."""
        likeness = cosines(self.embeddings, embedding[None])[..., 0].max(1)
        for i in np.argsort(-likeness, kind="stable"):
            shard, sample = self.places[int(i)]
            if self.shards.uid(shard, sample) != uid:
                return shard, sample
        raise UserError(f"{self.shards.url}: no training object beside {uid} to compare with")

    def nearest_ring(self, model: MultiViewModel, truth: Truth) -> Float32:
        """The true views [v, h, w, 3] of the nearest training object, at the same cameras."""
        reference = to_arrays(truth.reference_rgb[None])
        return read_ring(self.shards, *self.nearest(embed(model, reference)[0], truth.uid), truth.size)


def spread_evenly(shards: ShardSet, most: int) -> list[tuple[int, int]]:
    """(shard, sample) of at most so many objects, spread evenly over the set; all where there are fewer."""
    places = [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    shown = min(most, len(places))
    return [places[i * len(places) // shown] for i in range(shown)]


def open_gallery(shards: ShardSet, model: MultiViewModel, size: int, image_encoder_sha256: str, cache: Path) -> Gallery:
    """The gallery of a set's objects at a picture size; kept in `cache`, for the same objects and tower."""
    places = spread_evenly(shards, MAX_OBJECTS)
    if len(places) < len(shards):
        print(f"note: the baselines look at {len(places)} of the {len(shards)} training objects")
    key = {"objects": f"{shards.fingerprint}/{len(places)}", "tower": image_encoder_sha256, "size": str(size)}
    found = _read(cache, key)
    if found is None:
        found = _gather(shards, places, model, size)
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f".{cache.name}.tmp")
        save_file({name: torch.from_numpy(array) for name, array in found.items()}, temporary, metadata=key)
        temporary.replace(cache)
    return Gallery(shards, places, found["mean"], found["embeddings"].astype(np.float64))


def _gather(
    shards: ShardSet, places: Sequence[tuple[int, int]], model: MultiViewModel, size: int
) -> dict[str, NDArray[Any]]:
    total, embeddings = np.zeros((len(RING), size, size, 3)), []
    for shard, sample in tqdm(places, desc="training objects", unit="object", mininterval=1.0, leave=False):
        views = to_tensor(shards.views(shard, sample, [*RING, *REFERENCES]))
        total += of_size(views[: len(RING)], size)
        embeddings.append(embed(model, to_arrays(views[len(RING) :])).astype(np.float32))
    return {"mean": (total / len(places)).astype(np.float32), "embeddings": np.stack(embeddings)}


def _read(cache: Path, key: dict[str, str]) -> dict[str, NDArray[Any]] | None:
    """What was kept; None where there is nothing, or that of other objects."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, "numpy") as file:
            if file.metadata() != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    except SafetensorError as error:
        raise UserError(f"{cache}: cannot be read ({error}); remove it") from error
