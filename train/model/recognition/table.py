"""Table of the objects that a model was trained on, with which images are recognized.

A model folder may contain the subfolder `known/`, which `python -m train.known` writes. It holds the embeddings of some
training images and of labelled drawings (representatives), their kinds where known, and a threshold of the distance
from which an image is unlike the training images. `train.model.recognition.recognize` applies the table to images.

Similarities are computed after a linear projection that scales down the directions in which images of one kind differ
(other views, other objects). The table can also contain an ImageNet classifier (`train.model.recognition.classes`),
which knows photographs better than the image encoder. Axis letters: `n` images, `r` representatives, `j` kinds, `c`
channels of an embedding, `d` dimensions after the projection, `k` classes of the classifier.
"""

import json
import logging
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from dataset.errors import UserError, one_line
from train.model.recognition.classes import KnownClasses, read_classes
from train.model.recognition.int8 import Int8Rows

logger = logging.getLogger(__name__)

KNOWN_FOLDER: Final = "known"
TENSORS_FILE: Final = "known.safetensors"
SETTINGS_FILE: Final = "known.json"

# How kinds are found and embeddings corrected. Chosen on cached embeddings of the images that examples.photos lists.
KIND_SHARPNESS: Final = 10.0  # factor of the similarity to a kind, before the softmax over kinds
CLASS_FLOOR: Final = 0.01  # probability that is added to that of the classifier for each kind
NEIGHBOR_SHARPNESS: Final = 60.0  # factor of the similarity to a representative, before the softmax within a kind
CORRECTION: Final = 0.5  # largest weight of the representatives in a corrected embedding


@dataclass(frozen=True)
class KnownObjects:
    """Representative embeddings of the training images of one model, and the distance from which images are unknown."""

    mean: Tensor  # [c], subtracted from embeddings
    projection: Tensor  # [c, d]
    embeddings: Int8Rows  # [r, c], embeddings of the representatives minus the mean
    kind_numbers: Tensor  # [r], indices into `kinds`; -1: the kind is not known
    num_renders: int  # the first representatives are renders, the others are drawings
    kinds: tuple[str, ...]
    threshold: float
    image_encoder_sha256: str
    render_similarity: tuple[float, float] = (-1.0, -1.0)
    """A low and a high similarity to the nearest representative, of renders of objects that were not trained on.
    Embeddings below the high one are corrected, those below the low one with full weight."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """How the threshold was found, for people to read."""
    classes: KnownClasses | None = None
    num_colors: int = 0
    """The last channels of an embedding that are colors (`train.model.color_grid`)."""

    def project(self, embeddings: Tensor) -> Tensor:
        """Return the directions [n, d] of embeddings [n, c]: centered, projected, and scaled to length 1."""
        return functional.normalize((embeddings.float() - self.mean) @ self.projection, dim=-1)

    @cached_property
    def representatives(self) -> Tensor:
        """The directions [r, d] of the representatives."""
        return functional.normalize(self.embeddings.values() @ self.projection, dim=-1)

    def similarities(self, embeddings: Tensor) -> Tensor:
        """Return the cosine similarities [n, r] of embeddings [n, c] and the representatives, after the projection."""
        return self.project(embeddings) @ self.representatives.T

    def distances(self, embeddings: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return the distance [n] of each of n embeddings [n, c] from the representatives.

        With a classifier, it is `KnownClasses.distance` of `logits` and of the similarity to the nearest
        representative. Without one, it is 1 minus this similarity.

        Args:
            embeddings: Embeddings [n, c].
            logits: `KnownClasses.logits_of_images` [n, k]; only used, and needed, with a classifier.

        Raises:
            ValueError: There is a classifier, but no `logits`.
        """
        nearest = self.similarities(embeddings).amax(1)
        return 1 - nearest if self.classes is None else self.classes.distance(_given(logits), nearest)

    def kind_probabilities(self, embeddings: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return the probabilities [n, j + 1] of the kinds, and in the last column of all objects without a kind.

        They are a softmax over the similarities to the nearest representative of each kind, multiplied by
        KIND_SHARPNESS. For embeddings that are unlike the renders (`out_of_distribution`), the logarithms of the
        classifier's probabilities plus CLASS_FLOOR are added. The arguments are those of `distances`.
        """
        similarities = self.similarities(embeddings)
        scores = KIND_SHARPNESS * self._best_of_kinds(similarities)
        if self.classes is not None:
            likely = self.classes.kind_probabilities(_given(logits), len(self.kinds))
            likely = functional.pad(likely, (0, 1)) + CLASS_FLOOR
            scores = scores + self.out_of_distribution(similarities)[:, None] * likely.log()
        return scores.softmax(1)

    def correct(self, embeddings: Tensor, logits: Tensor | None = None) -> Tensor:
        """Move embeddings that are unlike the representatives toward representatives of the most probable kinds.

        An embedding of a photograph is farther from all renders than those are from each other. It is replaced by a
        weighted mean of itself and of renders among the representatives. These have the weight CORRECTION times
        `out_of_distribution`, which is divided among the kinds by `kind_probabilities`, and within a kind by a softmax
        over the similarities times NEIGHBOR_SHARPNESS. The channels of the color grid are not changed, because the
        colors of photographs are like those of renders. The arguments are those of `distances`.

        Returns:
            Embeddings [n, c], float32.
        """
        similarities = self.similarities(embeddings)[:, : self.num_renders]
        numbers = self._column_of_kind[: self.num_renders]
        best = self._best_of_kinds(similarities)
        shares = (NEIGHBOR_SHARPNESS * (similarities - best[:, numbers])).exp()
        totals = torch.zeros_like(best).index_add_(1, numbers, shares)
        probabilities = self.kind_probabilities(embeddings, logits)
        weights = shares * (probabilities / totals.clamp(min=1.0))[:, numbers]
        target = weights @ self.embeddings.values()[: self.num_renders] + self.mean
        amount = CORRECTION * self.out_of_distribution(similarities)[:, None]
        move = amount * (target - embeddings.float())
        move[:, move.shape[1] - self.num_colors :] = 0
        return embeddings.float() + move

    def likely_kinds(self, probabilities: Tensor, count: int) -> tuple[str, ...]:
        """Return the most probable kinds, at most `count`, most probable first.

        `probabilities` [j + 1] is a row of `kind_probabilities`. Objects without a kind are skipped.
        """
        order = probabilities[:-1].argsort(descending=True, stable=True)[:count]
        return tuple(self.kinds[number] for number in order.tolist())

    def out_of_distribution(self, similarities: Tensor) -> Tensor:
        """Return how unlike the renders n images are, [n].

        It is 0 if an image's largest similarity to a render is at least the high one of `render_similarity`, 1 if it is
        at most the low one, and linear between these. `similarities` are those to all representatives or all renders.
        """
        low, high = self.render_similarity
        return ((high - similarities[:, : self.num_renders].amax(1)) / max(high - low, 1e-6)).clamp(0, 1)

    @property
    def _column_of_kind(self) -> Tensor:
        """The column of `kind_probabilities` for each representative, [r]."""
        return torch.where(self.kind_numbers < 0, len(self.kinds), self.kind_numbers)

    def _best_of_kinds(self, similarities: Tensor) -> Tensor:
        """Return the similarity [n, j + 1] to the nearest representative of each kind; -1e4 where there is none."""
        lowest = similarities.new_full((len(similarities), len(self.kinds) + 1), -1e4)
        columns = self._column_of_kind[: similarities.shape[1]]
        return lowest.scatter_reduce(1, columns.expand_as(similarities), similarities, "amax")


def _given(logits: Tensor | None) -> Tensor:
    if logits is None:
        raise ValueError("a table with a classifier needs the logits of the images")
    return logits


def write_known(known: KnownObjects, folder: Path) -> None:
    """Write a table into the subfolder `known/` of the model folder `folder`."""
    target = folder / KNOWN_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    tensors = {
        "mean": known.mean.float(),
        "projection": known.projection.half(),
        "embeddings": known.embeddings.integers,
        "embedding_scale": known.embeddings.scale.float(),
        "kind_numbers": known.kind_numbers.short(),
    }
    if known.classes is not None:
        tensors |= known.classes.tensors()
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, target / TENSORS_FILE)
    settings = {
        "threshold": known.threshold,
        "render_similarity": known.render_similarity,
        "num_renders": known.num_renders,
        "num_colors": known.num_colors,
        "classes": None if known.classes is None else known.classes.settings(),
        "image_encoder_sha256": known.image_encoder_sha256,
        "statistics": known.statistics,
        "kinds": known.kinds,
    }
    (target / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def read_known(folder: Path) -> KnownObjects | None:
    """Read the table of known objects of the model folder `folder`; None if the model has no table.

    Raises:
        UserError: The table is damaged or incomplete.
    """
    source = folder / KNOWN_FOLDER
    if not source.exists():
        logger.debug(
            "%s: no table of known objects; images are not recognized, nor embeddings corrected",
            folder,
        )
        return None
    try:
        settings = json.loads((source / SETTINGS_FILE).read_text())
        tensors, kinds = load_file(source / TENSORS_FILE), tuple(map(str, settings["kinds"]))
        low, high = map(float, settings["render_similarity"])
        known = KnownObjects(
            mean=tensors["mean"].float(),
            projection=tensors["projection"].float(),
            embeddings=Int8Rows(tensors["embeddings"], tensors["embedding_scale"].float()),
            kind_numbers=tensors["kind_numbers"].long(),
            num_renders=int(settings["num_renders"]),
            num_colors=int(settings.get("num_colors", 0)),
            kinds=kinds,
            threshold=float(settings["threshold"]),
            image_encoder_sha256=str(settings["image_encoder_sha256"]),
            render_similarity=(low, high),
            statistics=dict(settings["statistics"]),
            classes=None if settings["classes"] is None else read_classes(tensors, settings["classes"], len(kinds)),
        )
        _check_values(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{source}: not a readable table of known objects ({reason}); {remedy(folder)}") from error
    return known


def _check_values(known: KnownObjects) -> None:
    """Raise ValueError unless shapes, indices and numbers of a table fit together."""
    channels, _ = known.projection.shape
    count, rows = len(known.kind_numbers), known.embeddings
    if (
        known.mean.shape != (channels,)
        or not rows.is_consistent()
        or rows.integers.shape != (count, channels)
        or not count
    ):
        raise ValueError("the shapes of the tensors do not fit together")
    with_renders = set(known.kind_numbers[: known.num_renders].tolist())
    if not set(range(len(known.kinds))) <= with_renders:
        raise ValueError("a kind has no render")
    if not -1 <= int(known.kind_numbers.min()) <= int(known.kind_numbers.max()) < len(known.kinds):
        raise ValueError("a representative has a kind that is not in the list of kinds")
    if not 0 <= known.num_colors <= channels:
        raise ValueError("the number of colors is out of range")
    if not 1 <= known.num_renders <= count:
        raise ValueError("the number of renders is out of range")
    finite = all(bool(each.isfinite().all()) for each in (known.mean, known.projection, rows.scale))
    if not finite or not np.isfinite([known.threshold, *known.render_similarity]).all():
        raise ValueError("a number is NaN or infinite")


def remove_known(folder: Path) -> None:
    """Remove the table of known objects from the model folder `folder`, if there is one."""
    if (folder / KNOWN_FOLDER).is_dir():
        shutil.rmtree(folder / KNOWN_FOLDER)


def copy_known(folder: Path, out: Path) -> None:
    """Copy the table of known objects from one model folder to another with the same image encoder, if there is one."""
    if (folder / KNOWN_FOLDER).is_dir():
        shutil.copytree(folder / KNOWN_FOLDER, out / KNOWN_FOLDER)


def remedy(folder: Path) -> str:
    """Return what to do about a table that cannot be used, for error messages."""
    return (
        f"make it again with `python -m train.known SHARDS --model {folder}`, or remove {folder / KNOWN_FOLDER} to do "
        "without recognition and correction of images"
    )
