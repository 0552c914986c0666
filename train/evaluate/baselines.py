"""Baselines for novel views: the mean image of the training objects, and the most similar training object.

The most similar object is found by comparing image embeddings. The baselines do not generate anything, so a model
should be better than both.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dataset.errors import UserError
from dataset.io.progress import ProgressBar
from dataset.reading.rendered_object import Place
from dataset.reading.shard_set import ShardSet
from train.data.images import to_tensor
from train.evaluate.metrics import cosines
from train.evaluate.novel_views import REFERENCES, RING, EvaluationObject, embed, read_ring, resized, to_arrays
from train.evaluate.selection import spread_evenly
from train.model.multiview import MultiViewModel

MAX_OBJECTS: Final = 2000  # largest number of training objects that are used, spread evenly over the set

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gallery:
    """The training objects that the baselines use: their mean ring, and the embeddings of their random views.

    A ring is the 16 fixed views of an object. View i of the mean ring is the mean of view i over all objects.
    """

    shards: ShardSet
    places: list[Place]  # uid of each object
    mean: NDArray[np.float32]  # [v, h, w, 3]
    embeddings: NDArray[np.float64]  # [n, v, d]

    def nearest(self, embedding: NDArray[np.float64], uid: str) -> Place:
        """Return the shard index, and the index in the shard, of the training object most similar to an image.

        The similarity of an object is the largest cosine similarity between `embedding` and an embedding of the
        object's random views.

        Args:
            embedding: Embedding [d] of the image: d numbers.
            uid: Uid of the evaluated object, which is never returned.

        Raises:
            UserError: There is no training object other than object `uid`.
        """
        similarity = cosines(self.embeddings, embedding[None])[..., 0].max(1)
        for i in np.argsort(-similarity, kind="stable"):
            place = self.places[int(i)]
            if self.shards.uid(*place) != uid:
                return place
        raise UserError(
            f"{self.shards.url}: has no training object other than {uid}, the object to evaluate; give a larger set "
            "with --training-shards, or --no-baselines"
        )

    def nearest_ring(self, model: MultiViewModel, truth: EvaluationObject) -> NDArray[np.float32]:
        """Return the ring [v, h, w, 3], with v = 16 views, of the training object found by `nearest`.

        Args:
            model: Model whose image encoder computes the embedding of the reference image.
            truth: The evaluated object. Its reference image is compared with the training objects.

        Raises:
            UserError: There is no training object other than `truth`.
        """
        reference = to_arrays(truth.reference_rgb[None])
        return read_ring(self.shards, self.nearest(embed(model, reference)[0], truth.uid), truth.size)


def open_gallery(shards: ShardSet, model: MultiViewModel, size: int, encoder_sha256: str, cache: Path) -> Gallery:
    """Return the gallery of the training objects. Read it from the file `cache`, or compute it and write the file.

    Args:
        shards: The training objects, of which at most MAX_OBJECTS are used.
        model: Model whose image encoder computes the embeddings.
        size: Height and width of the images in pixels.
        encoder_sha256: Hash that identifies the image encoder.
        cache: File with a computed gallery. It is read only if it was computed with the same training objects, `size`
            and image encoder. Otherwise it is overwritten.

    Raises:
        UserError: The file `cache` exists but cannot be read.
    """
    places = spread_evenly(shards, MAX_OBJECTS)
    if len(places) < len(shards):
        logger.info("note: the baselines use %d of the %d training objects", len(places), len(shards))
    key = {"objects": f"{shards.fingerprint}/{len(places)}", "tower": encoder_sha256, "size": str(size)}
    arrays = _read(cache, key)
    if arrays is None:
        arrays = _compute(shards, places, model, size)
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f".{cache.name}.tmp")
        save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, temporary, metadata=key)
        temporary.replace(cache)
    return Gallery(shards, places, arrays["mean"], arrays["embeddings"].astype(np.float64))


def _compute(shards: ShardSet, places: Sequence[Place], model: MultiViewModel, size: int) -> dict[str, NDArray[Any]]:
    total, embeddings = np.zeros((len(RING), size, size, 3)), []
    for shard, sample in ProgressBar(places, desc="training objects", unit="object", leave=False):
        views = to_tensor(shards.views(shard, sample, [*RING, *REFERENCES]))
        total += resized(views[: len(RING)], size)
        embeddings.append(embed(model, to_arrays(views[len(RING) :])).astype(np.float32))
    return {"mean": (total / len(places)).astype(np.float32), "embeddings": np.stack(embeddings)}


def _read(cache: Path, key: dict[str, str]) -> dict[str, NDArray[Any]] | None:
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, "numpy") as file:
            if file.metadata() != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
    except SafetensorError as error:
        raise UserError(f"{cache}: cannot be read ({error}); remove this file and repeat the command") from error
