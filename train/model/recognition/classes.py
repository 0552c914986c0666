"""Estimate with an ImageNet classifier which known kind of object an image shows, if any.

A table of known objects (`train.model.recognition.table`) can contain the classifier that was trained together with the
frozen network of the image encoder, and the list of its classes that belong to each known kind. The classifier was
trained on photographs, unlike the projection of the image encoder. Axis letters: `n` images, `k` classes, `j` kinds,
`c` channels of the pooled features, `p` pairs of a class and a kind.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from dataset.errors import UserError
from train.model.image_encoder import ImageEncoder
from train.model.recognition.int8 import Int8Rows, round_rows
from train.model.timm_encoder import TimmVisual

# How probabilities are computed and combined with similarities.
IMAGE_SIZE: Final = 192  # pixels
TEMPERATURE: Final = 2.0  # of the softmax over classes, in the distance from known kinds
SIMILARITY_WEIGHT: Final = 0.5
SMALLEST_PROBABILITY: Final = 1e-4  # added before the logarithm


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a quantity over images of known kinds."""

    mean: float
    std: float

    def standardize(self, values: Tensor) -> Tensor:
        """Return the values minus the mean, divided by the standard deviation."""
        return (values - self.mean) / self.std


@dataclass(frozen=True)
class KnownClasses:
    """A classifier whose weights are rounded to int8, and the known kinds to which its classes belong."""

    rows: Int8Rows  # the weight [k, c]
    bias: Tensor  # [k]
    pairs: Tensor  # [p, 2]: number of a class, number of a kind that the class belongs to
    log_probability: Spread = Spread(0.0, 1.0)
    similarity: Spread = Spread(0.0, 1.0)

    def logits(self, pooled: Tensor) -> Tensor:
        """Return the logits [n, k] of pooled features [n, c]."""
        return pooled.float() @ self.rows.values().T + self.bias

    def logits_of_images(self, image_encoder: ImageEncoder, images: Tensor) -> Tensor:
        """Return the logits [n, k], on the CPU, of images [n, 3, h, w] in [0, 1] on white.

        They are the mean over the image and its mirror image.

        Raises:
            UserError: The image encoder has no pooled features.
        """
        pixels = image_encoder.preprocess(images, IMAGE_SIZE)
        pooled = pool(image_encoder, torch.cat([pixels, pixels.flip(-1)])).cpu()
        return self.logits(pooled).view(2, len(images), -1).mean(0)

    def probability(self, logits: Tensor) -> Tensor:
        """Return the probability [n] that images with logits [n, k] show an object of a known class."""
        return (logits / TEMPERATURE).softmax(1)[:, sorted(set(self.pairs[:, 0].tolist()))].sum(1)

    def kind_probabilities(self, logits: Tensor, count: int) -> Tensor:
        """Return the probability [n, j] of each kind for images with logits [n, k]; at most 1 in total.

        The probability of a class is divided among its kinds in inverse proportion to their numbers of classes, so
        that a great grey owl is an owl rather than one of many birds.

        Args:
            logits: Logits [n, k].
            count: Number j of kinds.
        """
        classes, kinds = self.pairs.unbind(1)
        shares = 1 / torch.bincount(kinds, minlength=count)[kinds].float()
        total = torch.zeros(logits.shape[1]).index_add_(0, classes, shares)
        parts = logits.softmax(1)[:, classes] * shares / total[classes]
        return torch.zeros(len(logits), count).index_add_(1, kinds, parts)

    @staticmethod
    def log_probabilities(probability: Tensor) -> Tensor:
        """Return the logarithm of probabilities, which remains finite for a probability of 0."""
        return (probability + SMALLEST_PROBABILITY).log()

    def distance(self, logits: Tensor, similarity: Tensor) -> Tensor:
        """Return the distance [n] of images from known kinds: a negative weighted sum of two standardized numbers.

        Args:
            logits: Logits [n, k].
            similarity: The cosine similarity [n] to the nearest representative.
        """
        likely = self.log_probability.standardize(self.log_probabilities(self.probability(logits)))
        return -(likely + SIMILARITY_WEIGHT * self.similarity.standardize(similarity))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store, by name."""
        return {
            "class_weight": self.rows.integers,
            "class_scale": self.rows.scale.float(),
            "class_bias": self.bias.float(),
            "class_kinds": self.pairs.short(),
        }

    def settings(self) -> dict[str, Any]:
        """Return the numbers to store as JSON."""
        return {"log_probability": asdict(self.log_probability), "similarity": asdict(self.similarity)}


def pool(image_encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """Return the pooled features [n, c], float32, of preprocessed images [n, 3, s, s].

    Raises:
        UserError: The image encoder has no pooled features.
    """
    visual = image_encoder.visual
    if not isinstance(visual, TimmVisual):
        raise UserError("the image encoder has no pooled features; make the table again with `python -m train.known`")
    pooled: Tensor = visual.trunk(pixels.to(next(visual.parameters()).dtype))
    return pooled.float()


def round_classifier(weight: Tensor, bias: Tensor, pairs: Iterable[tuple[int, int]]) -> KnownClasses:
    """Round a classifier to int8, with a scale per class.

    Args:
        weight: Weight [k, c].
        bias: Bias [k].
        pairs: Number of a class and number of a kind that the class belongs to, at least one pair.
    """
    return KnownClasses(round_rows(weight), bias.float(), torch.tensor([*pairs]))


def spread_of(values: Tensor) -> Spread:
    """Return mean and standard deviation of values [n]. A standard deviation of 0 is replaced by 1."""
    return Spread(float(values.mean()), float(values.std(correction=0)) or 1.0)


def read_classes(tensors: dict[str, Tensor], settings: dict[str, Any], kinds: int) -> KnownClasses:
    """Return the classes that `KnownClasses.tensors` and `KnownClasses.settings` describe.

    Args:
        tensors: Stored tensors.
        settings: Stored numbers.
        kinds: Number of kinds of the table.

    Raises:
        KeyError: A tensor or a number is missing.
        TypeError: `settings` has unknown entries.
        ValueError: The tensors do not fit together, or a number is out of range.
    """
    classes = KnownClasses(
        Int8Rows(tensors["class_weight"], tensors["class_scale"].float()),
        tensors["class_bias"].float(),
        tensors["class_kinds"].long(),
        Spread(**settings["log_probability"]),
        Spread(**settings["similarity"]),
    )
    count, pairs = len(classes.bias), classes.pairs
    if (
        not classes.rows.is_consistent()
        or len(classes.rows.integers) != count
        or pairs.ndim != 2
        or pairs.shape[1] != 2
    ):
        raise ValueError("the shapes of the classifier's tensors do not fit together")
    if not len(pairs) or pairs.min() < 0 or pairs[:, 0].max() >= count or pairs[:, 1].max() >= kinds:
        raise ValueError("a class or a kind of the classifier is out of range")
    numbers = [value for spread in (classes.log_probability, classes.similarity) for value in asdict(spread).values()]
    finite = all(map(math.isfinite, numbers)) and all(
        bool(each.isfinite().all()) for each in classes.tensors().values()
    )
    if not finite or min(classes.log_probability.std, classes.similarity.std) <= 0:
        raise ValueError("a number of the classifier is NaN, infinite or out of range")
    return classes
