"""Drawing and scoring what a record lacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dataset.io.files import write_file_atomic
from dataset.reading.shard_set import ShardSet
from dataset.report.collect import strip
from train.evaluate.lpips import Perceptual
from train.evaluate.metrics import (
    cosines,
    front_back_confusion,
    nearest_view_scores,
    picture_scores,
    squared_distances,
)
from train.evaluate.novel_views import Float32, Truth, embed, read_truth
from train.evaluate.results import REFERENCE, TRUTH, Method, Record
from train.evaluate.tables import METRICS
from train.model.multiview import MultiViewModel, load_model

_OBJECTS_AT_ONCE: Final = {"cuda": 4}  # else one: then an object's numbers do not depend on its neighbours

Draw = Callable[[MultiViewModel, Sequence[Truth], int], list[Float32]]
Place = tuple[int, int]  # shard, sample


@dataclass(frozen=True)
class Row:
    """A method, and how it draws the rings [16, h, w, 3] of some objects from a seed."""

    method: Method
    draw: Draw


@dataclass(frozen=True)
class Judge:
    """What scores rings: a model's tower, and the perceptual distance where it is to be had."""

    model: MultiViewModel
    perceptual: Perceptual | None
    _true_embeddings: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def scores(self, ring: Float32, truth: Truth) -> dict[str, Sequence[float]]:
        """Every metric of a ring [16, h, w, 3], each view's number."""
        real = truth.on_white
        if truth.uid not in self._true_embeddings:
            self._true_embeddings[truth.uid] = embed(self.model, real)
        likeness = cosines(embed(self.model, ring), self._true_embeddings[truth.uid])
        found = picture_scores(ring, real, truth.ring[..., 3])
        if self.perceptual is not None:
            found["lpips"] = self.perceptual(ring, real)
        found["similarity"] = np.diagonal(likeness)
        for name, distances in (("pixels", squared_distances(ring, real)), ("embedding", -likeness)):
            found[f"pose_{name}"], found[f"turned_{name}_deg"] = nearest_view_scores(distances)
            found[f"front_back_{name}"] = front_back_confusion(distances, real)
        return {metric.name: found[metric.name].tolist() for metric in METRICS if metric.name in found}


@dataclass(frozen=True)
class Measuring:
    """What all rows have in common."""

    record: Record
    shards: ShardSet
    places: Sequence[Place]
    device: torch.device
    perceptual: Perceptual | None

    @property
    def parts(self) -> list[Sequence[Place]]:
        """The objects that are drawn at once: the same ones when the command is repeated."""
        size = _OBJECTS_AT_ONCE.get(self.device.type, 1)
        return [self.places[start : start + size] for start in range(0, len(self.places), size)]


def measure(measuring: Measuring, rows: Sequence[Row], folder: Path, bar: "tqdm[Any]") -> None:
    """Draw and score what the record lacks of some rows, all of one model; the model is read if there is anything."""
    record, shards = measuring.record, measuring.shards
    judge: Judge | None = None
    for part in measuring.parts:
        truths: list[Truth] = []
        for row, seed in [(each, seed) for each in rows for seed in range(each.method.seeds)]:
            keys = [(row.method.key, shards.uid(*place), seed) for place in part]
            if all(key in record.found for key in keys):
                bar.update(len(part))
                continue
            if judge is None:
                judge = Judge(load_model(folder, measuring.device), measuring.perceptual)
            truths = truths or [read_truth(shards, *place) for place in part]
            for key, ring, truth in zip(keys, row.draw(judge.model, truths, seed), truths, strict=True):
                if key not in record.found:
                    keep_pictures(record, row.method.key, truth, seed, ring)
                    record.add(key, judge.scores(ring, truth))  # last: the line says that its pictures are there
                bar.update()


def keep_pictures(record: Record, method: str, truth: Truth, seed: int, ring: Float32) -> None:
    """Write a ring, and the object's truth and reference where they are not there yet."""
    opaque = np.full((*ring.shape[:3], 1), 255, np.uint8)
    views = np.concatenate([np.rint(ring * 255).astype(np.uint8), opaque], -1)
    for path, pictures in (
        (record.picture(REFERENCE, truth.uid), [truth.reference]),
        (record.picture(TRUTH, truth.uid), list(truth.ring)),
        (record.picture(method, truth.uid, seed), list(views)),
    ):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file_atomic(path, strip(pictures))
