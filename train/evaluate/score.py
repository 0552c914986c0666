"""Sample and score the rings that are missing in the record of an evaluation. A ring is 16 views of an object."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dataset.io.progress import ProgressBar
from dataset.reading.rendered_object import Place
from dataset.reading.shard_set import ShardSet
from train.evaluate.metrics import (
    cosines,
    front_back_confusion,
    image_scores,
    nearest_view_scores,
    squared_distances,
)
from train.evaluate.novel_views import EvaluationObject, embed, read_evaluation_object
from train.evaluate.perceptual.lpips import Perceptual
from train.evaluate.results import REFERENCE, TRUTH, Method, Record, opaque
from train.evaluate.tables import METRICS
from train.model.multiview import MultiViewModel, load_model

_OBJECTS_AT_ONCE: Final = {"cuda": 4}  # otherwise one, so that an object's numbers do not depend on the other objects

RingSampler = Callable[[MultiViewModel, Sequence[EvaluationObject], int], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class SampledMethod:
    """A method, and its sampling function.

    `sample(model, objects, seed)` returns one ring of 16 RGB views, [16, h, w, 3], for each of the objects.
    """

    method: Method
    sample: RingSampler


@dataclass(frozen=True)
class RingScorer:
    """Computes the metrics of rings, with the image encoder of `model` and the distances `perceptual`, by name."""

    model: MultiViewModel
    perceptual: Mapping[str, Perceptual]
    _true_embeddings: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def scores(self, ring: NDArray[np.float32], truth: EvaluationObject) -> dict[str, Sequence[float]]:
        """Return the metrics of one ring of an object by name, each as 16 values, one per view.

        Args:
            ring: Sampled views [16, h, w, 3] in [0, 1] on white.
            truth: The object with its true views.
        """
        true_ring = truth.ring_on_white
        if truth.uid not in self._true_embeddings:
            self._true_embeddings[truth.uid] = embed(self.model, true_ring)
        similarity = cosines(embed(self.model, ring), self._true_embeddings[truth.uid])
        scores = image_scores(ring, true_ring, truth.ring[..., 3])
        for name, distance in self.perceptual.items():
            scores[name] = distance(ring, true_ring)
        scores["similarity"] = np.diagonal(similarity)
        for name, distances in (("pixels", squared_distances(ring, true_ring)), ("embedding", -similarity)):
            scores[f"pose_{name}"], scores[f"turned_{name}_deg"] = nearest_view_scores(distances)
            scores[f"front_back_{name}"] = front_back_confusion(distances, true_ring)
        return {metric.name: scores[metric.name].tolist() for metric in METRICS if metric.name in scores}


@dataclass(frozen=True)
class ScoringContext:
    """The values that are the same for all methods of an evaluation.

    `places` identifies the objects to evaluate: for each object, the index of the shard in `shards`, and the index of
    the object in the shard. `perceptual` contains the perceptual distances to compute, by the name of their metric.
    """

    record: Record
    shards: ShardSet
    places: Sequence[Place]
    device: torch.device
    perceptual: Mapping[str, Perceptual]

    @property
    def batches(self) -> list[Sequence[Place]]:
        """Return the places of the objects in batches, which are sampled together.

        A repeated command forms the same batches.
        """
        size = _OBJECTS_AT_ONCE.get(self.device.type, 1)
        return [self.places[start : start + size] for start in range(0, len(self.places), size)]


def score_methods(
    context: ScoringContext, methods: Sequence[SampledMethod], folder: Path, progress: ProgressBar
) -> None:
    """Sample and score the rings that are missing in the record, for methods that use the same model.

    Args:
        context: The record and the objects.
        methods: Methods that use the model in `folder`.
        folder: Model folder. The model is loaded only if a ring is missing.
        progress: Progress bar, advanced by one per ring.
    """
    record, shards = context.record, context.shards
    scorer: RingScorer | None = None
    for batch in context.batches:
        truths: list[EvaluationObject] = []
        for sampled, seed in [(each, seed) for each in methods for seed in range(each.method.seeds)]:
            keys = [(sampled.method.key, shards.uid(*place), seed) for place in batch]
            if all(key in record.scores for key in keys):
                progress.update(len(batch))
                continue
            if scorer is None:
                scorer = RingScorer(load_model(folder, context.device), context.perceptual)
            truths = truths or [read_evaluation_object(shards, place) for place in batch]
            for key, ring, truth in zip(keys, sampled.sample(scorer.model, truths, seed), truths, strict=True):
                if key not in record.scores:
                    write_ring_images(record, sampled.method.key, truth, seed, ring)
                    record.add(key, scorer.scores(ring, truth))  # last: a line implies that its images exist
                progress.update()


def write_ring_images(
    record: Record, method: str, truth: EvaluationObject, seed: int, ring: NDArray[np.float32]
) -> None:
    """Write the images of a sampled ring, of the true ring and of the reference view, unless the files exist.

    Args:
        record: The record to which the images are added.
        method: Key of the method that sampled the ring.
        truth: The object with its true ring and its reference view.
        seed: Seed from which the ring was sampled.
        ring: The v sampled views, [v, h, w, 3] in [0, 1].
    """
    for folder, images, number in (
        (REFERENCE, [truth.reference], 0),
        (TRUTH, list(truth.ring), 0),
        (method, opaque(ring), seed),
    ):
        if not record.image_path(folder, truth.uid, number).is_file():
            record.write_images(folder, truth.uid, images, number)
