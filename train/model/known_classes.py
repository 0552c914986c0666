"""Estimate with an ImageNet classifier how probable it is that an image shows an object of a known kind.

A table of known objects (`train.model.known`) can contain the classifier that was trained together with the frozen
network of the image encoder, and the list of its classes that belong to known kinds. Axis letters: `n` images, `k`
classes, `c` channels of the pooled features.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from dataset.errors import UserError
from train.model.image_encoder import ImageEncoder
from train.model.timm_encoder import TimmVisual

# How probabilities are computed and combined with similarities.
IMAGE_SIZE: Final = 192  # pixels
TEMPERATURE: Final = 2.0  # of the softmax over classes
SIMILARITY_WEIGHT: Final = 0.5
SMALLEST_PROBABILITY: Final = 1e-4  # added before the logarithm

_LEVELS: Final = 127  # of int8


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
    """A classifier whose weights are rounded to int8, and which of its classes belong to known kinds."""

    weight: Tensor  # [k, c], int8
    scale: Tensor  # [k], by which the rows of `weight` are multiplied
    bias: Tensor  # [k]
    known: Tensor  # [k], bool
    log_probability: Spread = Spread(0.0, 1.0)
    similarity: Spread = Spread(0.0, 1.0)

    def probability(self, pooled: Tensor) -> Tensor:
        """Return the probability [n] that pooled features [n, c] show an object of a known class."""
        logits = pooled.float() @ (self.weight.float() * self.scale[:, None]).T + self.bias
        return (logits / TEMPERATURE).softmax(1)[:, self.known].sum(1)

    def probability_of_images(self, image_encoder: ImageEncoder, images: Tensor) -> Tensor:
        """Return the probability [n], on the CPU, that images [n, 3, h, w] in [0, 1] on white show a known class.

        It is the mean over the image and its mirror image.

        Raises:
            UserError: The image encoder has no pooled features.
        """
        pixels = image_encoder.preprocess(images, IMAGE_SIZE)
        pooled = pool(image_encoder, torch.cat([pixels, pixels.flip(-1)])).cpu()
        return self.probability(pooled).view(2, -1).mean(0)

    @staticmethod
    def log_probabilities(probability: Tensor) -> Tensor:
        """Return the logarithm of probabilities, which remains finite for a probability of 0."""
        return (probability + SMALLEST_PROBABILITY).log()

    def distance(self, probability: Tensor, similarity: Tensor) -> Tensor:
        """Return the distance [n] of images from known kinds: a negative weighted sum of two standardized numbers.

        Args:
            probability: The probability [n] of the known classes.
            similarity: The cosine similarity [n] to the nearest representative.
        """
        likely = self.log_probability.standardize(self.log_probabilities(probability))
        return -(likely + SIMILARITY_WEIGHT * self.similarity.standardize(similarity))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store, by name."""
        return {
            "class_weight": self.weight,
            "class_scale": self.scale.float(),
            "class_bias": self.bias.float(),
            "class_known": self.known.to(torch.uint8),
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


def round_classifier(weight: Tensor, bias: Tensor, known: Sequence[int]) -> KnownClasses:
    """Round a classifier to int8, with a scale per class.

    Args:
        weight: Weight [k, c].
        bias: Bias [k].
        known: Numbers of the classes that belong to known kinds.
    """
    scale = (weight.float().abs().amax(1) / _LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    mask = torch.zeros(len(weight), dtype=torch.bool)
    mask[list(known)] = True
    return KnownClasses((weight.float() / scale[:, None]).round().to(torch.int8), scale, bias.float(), mask)


def spread_of(values: Tensor) -> Spread:
    """Return mean and standard deviation of values [n]. A standard deviation of 0 is replaced by 1."""
    return Spread(float(values.mean()), float(values.std(correction=0)) or 1.0)


def read_classes(tensors: dict[str, Tensor], settings: dict[str, Any]) -> KnownClasses:
    """Return the classes that `KnownClasses.tensors` and `KnownClasses.settings` describe.

    Raises:
        KeyError: A tensor or a number is missing.
        TypeError: `settings` has unknown entries.
        ValueError: The tensors do not fit together, or a number is out of range.
    """
    classes = KnownClasses(
        tensors["class_weight"],
        tensors["class_scale"].float(),
        tensors["class_bias"].float(),
        tensors["class_known"].bool(),
        Spread(**settings["log_probability"]),
        Spread(**settings["similarity"]),
    )
    count = len(classes.known)
    if classes.weight.ndim != 2 or not count == len(classes.weight) == len(classes.scale) == len(classes.bias):
        raise ValueError("the shapes of the classifier's tensors do not fit together")
    numbers = [value for spread in (classes.log_probability, classes.similarity) for value in asdict(spread).values()]
    finite = all(map(math.isfinite, numbers)) and all(
        bool(each.isfinite().all()) for each in classes.tensors().values()
    )
    if not finite or min(classes.log_probability.std, classes.similarity.std) <= 0:
        raise ValueError("a number of the classifier is NaN, infinite or out of range")
    return classes
