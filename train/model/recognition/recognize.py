"""Recognize the objects in images with the table of known objects of a model folder (`train.model.recognition.table`).

All is computed on the CPU in float32, so that the results do not depend on the device of a run. Axis letters: `n`
images, `c` channels of an embedding.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from train.model.fingerprint import image_encoder_sha256
from train.model.image_encoder import ImageEncoder
from train.model.multiview import MultiViewModel, read_image_encoder
from train.model.recognition.table import KNOWN_FOLDER, KnownObjects, read_known, remedy

logger = logging.getLogger(__name__)

SHOWN_KINDS: Final = 3


@dataclass(frozen=True)
class Recognition:
    """Result of recognizing one image."""

    embedding: Tensor  # [c], `KnownObjects.correct` of the embedding
    kinds: tuple[str, ...]  # the most probable kinds, at most SHOWN_KINDS, most probable first
    probabilities: tuple[float, ...]  # of these kinds
    unknown: bool  # whether the image is unlike the training images


@torch.no_grad()
def recognize(folder: Path, images: Sequence[Tensor]) -> list[Recognition] | None:
    """Recognize images with the table and the image encoder of a model folder.

    Args:
        folder: Model folder.
        images: Images [3, h, w] in [0, 1] on white, of any sizes.

    Returns:
        One result per image, or None if the folder has no table or no image encoder.

    Raises:
        UserError: The table is damaged, or belongs to another image encoder.
    """
    known = read_known(folder)
    if known is None:
        return None
    image_encoder = read_image_encoder(folder)
    if image_encoder is None:
        logger.debug(
            "%s: the model has no image encoder; images are not recognized",
            folder,
        )
        return None
    check_image_encoder(known, image_encoder, folder)
    return [_recognize_one(known, image_encoder, image[None].float().cpu()) for image in images]


def _recognize_one(known: KnownObjects, image_encoder: ImageEncoder, image: Tensor) -> Recognition:
    embedding: Tensor = image_encoder(image)
    logits = None if known.classes is None else known.classes.logits_of_images(image_encoder, image)
    probabilities = known.kind_probabilities(embedding, logits)[0]
    kinds = known.likely_kinds(probabilities, SHOWN_KINDS)
    return Recognition(
        known.correct(embedding, logits)[0],
        kinds,
        tuple(float(probabilities[known.kinds.index(kind)]) for kind in kinds),
        float(known.distances(embedding, logits)) > known.threshold,
    )


def embed_input(model: MultiViewModel, folder: Path, rgb: Tensor) -> Tensor:
    """Embed input images [b, 3, h, w] in [0, 1] on white as conditioning tokens [b, 1, c] on the model's device.

    As `MultiViewModel.embed_image`, but with the correction of embeddings that are unlike those of the training images,
    if the model folder `folder` has a table of known objects.

    Raises:
        UserError: The table is damaged, or belongs to another image encoder.
    """
    results = recognize(folder, list(rgb))
    if results is None:
        return model.embed_image(rgb)
    return torch.stack([each.embedding for each in results])[:, None].to(model.device)


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

    For the other images, the most probable kinds are logged.

    Args:
        folder: Model folder. If it has no table of known objects, no image is checked.
        named_images: Name and pixels [h, w, 3] in [0, 1] on white of each image.

    Raises:
        UserError: The table is damaged, or belongs to another image encoder.
    """
    images = [torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1) for _, rgb in named_images]
    results = recognize(folder, images) if images else None
    if results is None:
        return [None] * len(named_images)
    warnings = []
    for (name, _), each in zip(named_images, results, strict=True):
        warnings.append(describe_unknown(name, each.kinds) if each.unknown else None)
        if not each.unknown and each.kinds:
            likely = (f"{kind} ({share:.0%})" for kind, share in zip(each.kinds, each.probabilities, strict=True))
            logger.info("%s: most similar known kinds: %s", name, ", ".join(likely))
    return warnings


def check_image_encoder(known: KnownObjects, image_encoder: ImageEncoder, folder: Path) -> None:
    """Check that a table was made with an image encoder, which must be in float32.

    `folder` is the model folder of both.

    Raises:
        UserError: The table was made with another image encoder.
    """
    if known.image_encoder_sha256 != image_encoder_sha256(image_encoder):
        raise UserError(
            f"{folder / KNOWN_FOLDER}: made with another image encoder than the one in {folder}; {remedy(folder)}"
        )
