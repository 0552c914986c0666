"""Find the ImageNet classifier of an image encoder for a table of known objects (`train.model.recognition.classes`)."""

import logging
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UserError
from train.components.backbone import load_classifier
from train.components.imagenet_classes import classes_of
from train.model.image_encoder import ImageEncoder
from train.model.recognition.classes import KnownClasses, round_classifier
from train.model.timm_encoder import TimmEncoder, TimmVisual

logger = logging.getLogger(__name__)


def known_classes(image_encoder: ImageEncoder, kinds: Sequence[str], backbone: Path | None) -> KnownClasses | None:
    """Return the classifier that belongs to the network of an image encoder, and its known classes.

    If there is none, a message says why, and None is returned.

    Args:
        image_encoder: The image encoder, on the CPU.
        kinds: The known kinds, in the order of the table.
        backbone: File with the pretrained weights. None: the installed package of the architecture.

    Raises:
        UserError: `backbone` is given but cannot be read, or does not contain weights of the encoder's architecture.
    """
    spec, visual = image_encoder.spec, image_encoder.visual
    pairs = [(number, kind) for kind, name in enumerate(kinds) for number in classes_of([name])]
    classifier, reason = None, "no known kind has a class in ImageNet"
    if not isinstance(spec, TimmEncoder) or not isinstance(visual, TimmVisual):
        reason = "the image encoder is not a network of timm"
    elif pairs:
        reason = "the image encoder's network has other weights than the pretrained network (it was fine-tuned)"
        try:
            classifier = load_classifier(visual, spec.architecture, backbone)
        except UserError as error:
            if backbone is not None:
                raise
            reason = str(error)
    if classifier is None:
        logger.info("note: the table of known objects does not use an ImageNet classifier: %s", reason)
        return None
    return round_classifier(*classifier, pairs)
