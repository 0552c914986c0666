"""Detect images that are unlike the images a model was trained on.

A model folder may contain the subfolder `known/`, which `python -m train.known` writes. It holds the embeddings of some
training images (representatives), the kinds of their objects where known, and a threshold. An image is called unknown
when its embedding is farther from the representatives than the threshold.

Distances are computed after a linear projection that scales down the directions in which images of one kind differ
(other views, other objects). The features that the image encoder pools can be used instead of the embeddings, which
they are called here too. The table can also contain an ImageNet classifier (`train.model.known_classes`), whose
probability of known classes is then part of the distance. Axis letters: `n` images, `r` representatives, `c` channels
of an embedding, `d` dimensions after the projection.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from dataset.errors import UserError, one_line
from train.model.fingerprint import image_encoder_sha256
from train.model.image_encoder import ImageEncoder
from train.model.known_classes import KnownClasses, pool, read_classes
from train.model.multiview import read_image_encoder
from train.model.timm_encoder import TimmVisual

logger = logging.getLogger(__name__)

KNOWN_FOLDER: Final = "known"
TENSORS_FILE: Final = "known.safetensors"
SETTINGS_FILE: Final = "known.json"
SHOWN_KINDS: Final = 3

FeatureKind = Literal["embedding", "pooled", "pooled_224"]
"""What is compared: embeddings, or the pooled features from which the head of a `TimmVisual` computes them.
pooled_224: the pooled features of images enlarged to 224 px, the size at which its network was pretrained."""

Score = Literal["nearest", "kinds", "classes"]
"""How the distance is computed; `KnownObjects.distances` describes each."""
TEMPERATURE: Final = 0.1  # of the softmax over kinds


@dataclass(frozen=True)
class KnownObjects:
    """Representative embeddings of the training images of one model, and the distance from which images are unknown."""

    mean: Tensor  # [c], subtracted from embeddings
    projection: Tensor  # [c, d]
    representatives: Tensor  # [r, d], of length 1
    kind_numbers: Tensor  # [r], indices into `kinds`; -1: the kind is not known
    kinds: tuple[str, ...]
    neighbors: int
    """Number of nearest representatives over which the distance is averaged."""
    threshold: float
    image_encoder_sha256: str
    features: FeatureKind = "embedding"
    score: Score = "nearest"
    statistics: dict[str, Any] = field(default_factory=dict)
    """How the threshold was found, for people to read."""
    classes: KnownClasses | None = None
    """ImageNet classifier; not None only with the score "classes"."""

    def project(self, embeddings: Tensor) -> Tensor:
        """Return the directions [n, d] of embeddings [n, c]: centered, projected, and scaled to length 1."""
        return functional.normalize((embeddings.float() - self.mean) @ self.projection, dim=-1)

    def distances(self, embeddings: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """Return the distance [n] of each of n embeddings [n, c] from the representatives.

        With the score "nearest", the distance is 1 minus the mean cosine similarity to the nearest `neighbors`
        representatives. With "kinds", it is 1 minus the largest probability of a kind: of the softmax over the
        similarities to the nearest representative of each kind. Representatives without a kind count as one kind. With
        "classes", it is `KnownClasses.distance` of `probabilities` and of the mean similarity to the nearest.

        Args:
            embeddings: Embeddings [n, c].
            probabilities: `KnownClasses.probability_of_images` [n]; only used, and needed, with the score "classes".
        """
        similarities = self.project(embeddings) @ self.representatives.T
        if self.score == "kinds":
            lowest = similarities.new_full((len(similarities), len(self.kinds) + 1), -torch.inf)
            kinds = (self.kind_numbers + 1).expand_as(similarities)
            best = lowest.scatter_reduce(1, kinds, similarities, "amax")
            return 1 - (best / TEMPERATURE).softmax(1).amax(1)
        nearest = similarities.topk(min(self.neighbors, len(self.representatives)), dim=1).values.mean(1)
        if self.classes is not None and probabilities is not None:
            return self.classes.distance(probabilities, nearest)
        return 1 - nearest

    def nearest_kinds(self, embedding: Tensor, count: int = SHOWN_KINDS) -> tuple[str, ...]:
        """Return the kinds of the representatives nearest to an embedding [c], nearest first, each kind once.

        `count` is the largest number of kinds to return. Representatives without a kind are skipped.
        """
        similarities = (self.project(embedding[None]) @ self.representatives.T)[0]
        order = similarities.argsort(descending=True)
        numbers = [number for number in self.kind_numbers[order].tolist() if number >= 0]
        return tuple(self.kinds[number] for number in list(dict.fromkeys(numbers))[:count])


def describe_unknown(name: str, kinds: Sequence[str]) -> str:
    """Return the warning about an unknown image.

    Args:
        name: Name of the image.
        kinds: Nearest known kinds, nearest first; may be empty.
    """
    nearest = f" The nearest known kinds are: {', '.join(kinds)}." if kinds else ""
    return (
        f"{name} is unlike anything the model was trained on.{nearest} Expect a poor result; for other kinds of "
        "objects, use another model (MODEL=... or --model)."
    )


def unknown_warnings(folder: Path, named_images: Sequence[tuple[str, NDArray[np.float32]]]) -> list[str | None]:
    """Return a warning for each image that is unlike the training images of the model in `folder`, otherwise None.

    Embeddings are computed on the CPU in float32, so that the result does not depend on the device of a run.

    Args:
        folder: Model folder. If it has no table of known objects, no image is checked.
        named_images: Name and pixels [h, w, 3] in [0, 1] on white of each image.

    Raises:
        UserError: The table is damaged, or belongs to another image encoder.
    """
    known = read_known(folder)
    if known is None or not named_images:
        return [None] * len(named_images)
    image_encoder = read_image_encoder(folder)
    if image_encoder is None:
        logger.debug("%s: the model has no image encoder; images are not compared with its training data", folder)
        return [None] * len(named_images)
    check_image_encoder(known, image_encoder, folder)
    warnings = []
    for name, rgb in named_images:
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
            embedding = image_features(image_encoder, images, known.features)
            classes = known.classes
            probability = None if classes is None else classes.probability_of_images(image_encoder, images)
        unknown = float(known.distances(embedding, probability)) > known.threshold
        warnings.append(describe_unknown(name, known.nearest_kinds(embedding[0])) if unknown else None)
    return warnings


def feature_kinds(image_encoder: ImageEncoder) -> tuple[FeatureKind, ...]:
    """Return the features that an image encoder has, those that usually tell kinds apart better first."""
    return ("pooled_224", "pooled", "embedding") if isinstance(image_encoder.visual, TimmVisual) else ("embedding",)


def image_features(image_encoder: ImageEncoder, images: Tensor, kind: FeatureKind) -> Tensor:
    """Return the features [n, c] of images [n, 3, h, w] in [0, 1] on white, float32.

    Raises:
        UserError: The image encoder has no features of this kind.
    """
    if kind == "embedding":
        embeddings: Tensor = image_encoder(images)
        return embeddings
    visual = image_encoder.visual
    size = visual.image_size if kind == "pooled" and isinstance(visual, TimmVisual) else 224
    return pool(image_encoder, image_encoder.preprocess(images, size))


def check_image_encoder(known: KnownObjects, image_encoder: ImageEncoder, folder: Path) -> None:
    """Check that a table was made with an image encoder, which must be in float32.

    `folder` is the model folder of both.

    Raises:
        UserError: The table was made with another image encoder.
    """
    if known.image_encoder_sha256 != image_encoder_sha256(image_encoder):
        raise UserError(
            f"{folder / KNOWN_FOLDER}: made with another image encoder than the one in {folder}; {_remedy(folder)}"
        )


def write_known(known: KnownObjects, folder: Path) -> None:
    """Write a table into the subfolder `known/` of the model folder `folder`. Large tensors are stored in float16."""
    target = folder / KNOWN_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    tensors = {
        "mean": known.mean.float(),
        "projection": known.projection.half(),
        "representatives": known.representatives.half(),
        "kind_numbers": known.kind_numbers.short(),
    }
    if known.classes is not None:
        tensors |= known.classes.tensors()
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, target / TENSORS_FILE)
    settings = {
        "threshold": known.threshold,
        "neighbors": known.neighbors,
        "features": known.features,
        "score": known.score,
        **({} if known.classes is None else {"classes": known.classes.settings()}),
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
        logger.debug("%s: no table of known objects; images are not compared with the training data", folder)
        return None
    try:
        settings = json.loads((source / SETTINGS_FILE).read_text())
        tensors = load_file(source / TENSORS_FILE)
        known = KnownObjects(
            mean=tensors["mean"].float(),
            projection=tensors["projection"].float(),
            representatives=functional.normalize(tensors["representatives"].float(), dim=-1),
            kind_numbers=tensors["kind_numbers"].long(),
            kinds=tuple(map(str, settings["kinds"])),
            neighbors=int(settings["neighbors"]),
            threshold=float(settings["threshold"]),
            image_encoder_sha256=str(settings["image_encoder_sha256"]),
            features=settings["features"],
            score=settings["score"],
            statistics=dict(settings["statistics"]),
            classes=read_classes(tensors, settings["classes"]) if settings["score"] == "classes" else None,
        )
        _check_values(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{source}: not a readable table of known objects ({reason}); {_remedy(folder)}") from error
    return known


def _check_values(known: KnownObjects) -> None:
    """Raise ValueError unless shapes, indices and numbers of a table fit together."""
    channels, dimensions = known.projection.shape
    count = len(known.kind_numbers)
    if known.mean.shape != (channels,) or known.representatives.shape != (count, dimensions) or not count:
        raise ValueError("the shapes of the tensors do not fit together")
    if not -1 <= int(known.kind_numbers.min()) <= int(known.kind_numbers.max()) < len(known.kinds):
        raise ValueError("a representative has a kind that is not in the list of kinds")
    if known.features not in get_args(FeatureKind):
        raise ValueError(f"unknown features {known.features!r}")
    if known.score not in get_args(Score):
        raise ValueError(f"unknown score {known.score!r}")
    if known.classes is not None and known.features != "embedding" and known.classes.weight.shape[1] != channels:
        raise ValueError("the classifier does not fit the features")
    finite = all(bool(each.isfinite().all()) for each in (known.mean, known.projection, known.representatives))
    if not finite or not np.isfinite(known.threshold) or known.neighbors < 1:
        raise ValueError("a number is NaN, infinite or out of range")


def remove_known(folder: Path) -> None:
    """Remove the table of known objects from the model folder `folder`, if there is one."""
    if (folder / KNOWN_FOLDER).is_dir():
        shutil.rmtree(folder / KNOWN_FOLDER)


def copy_known(folder: Path, out: Path) -> None:
    """Copy the table of known objects from one model folder to another with the same image encoder, if there is one."""
    if (folder / KNOWN_FOLDER).is_dir():
        shutil.copytree(folder / KNOWN_FOLDER, out / KNOWN_FOLDER)


def _remedy(folder: Path) -> str:
    return (
        f"make it again with `python -m train.known SHARDS --model {folder}`, or remove this folder to skip the "
        "comparison of images with the training data"
    )
