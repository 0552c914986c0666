"""Split the objects of a set into training, validation and test objects.

The split of an object depends only on the object's uid. No part of a model is trained on test objects, because
`train.evaluate` measures models on these objects.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Final, Literal

import numpy as np

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split, split_of
from train.data.training_set import TrainingSet

MIN_OBJECTS: Final = 20  # all objects of a smaller set are used for training, unless validation is requested

Mode = Literal["auto", "on", "off"]

logger = logging.getLogger(__name__)


def split_set(
    shards: TrainingSet, mode: Mode, test_share: float = TEST_SHARE
) -> tuple[TrainingSet, TrainingSet | None]:
    """Return the training objects and the validation objects. Without validation, the second value is None.

    Args:
        shards: The set to split.
        mode: on: hold out objects for validation. auto: the same, but a set of fewer than MIN_OBJECTS objects is not
            split at all. off: train on the validation objects too.
        test_share: Fraction of the objects that are test objects, 0 to 1. Neither returned set contains them, except
            that a set that is not split contains all objects.

    Raises:
        UserError: No object is left to train on, or `mode` is on and there is no validation object.
    """
    if mode == "off" and not test_share:
        return shards, None
    if mode != "on" and len(shards) < MIN_OBJECTS:
        logger.info(
            "note: training uses all %d objects, because sets of fewer than %d are not split; use --validation on to "
            "hold out objects for validation and testing",
            len(shards),
            MIN_OBJECTS,
        )
        return shards, None
    assigned = assign_splits(shards, test_share)
    trained: tuple[Split, ...] = ("train", "validation") if mode == "off" else ("train",)
    training = select_splits(shards, assigned, trained)
    held_out = None if mode == "off" else select_splits(shards, assigned, ["validation"])
    tested = len(shards) - len(training) - len(held_out or ())
    if not len(training) or (mode == "on" and not len(held_out or ())):
        needed = "both must be at least 1" if mode == "on" else "at least 1 training object is needed"
        remedy = "--test-share 0" if mode == "off" else "--validation off"
        raise UserError(
            f"{shards.url}: the split by uid leaves {len(training)} training objects and {len(held_out or ())} "
            f"validation objects, and {needed}; render more objects or use {remedy}"
        )
    if tested:
        logger.info("test: %d of %d objects (chosen by a hash of the uid) are never trained on", tested, len(shards))
    if held_out is not None and not len(held_out):
        logger.info(
            "note: validation is off, because the hash of the uid chose none of the %d objects (it chooses "
            "%.0f%% of a large set)",
            len(shards),
            100 * VALIDATION_SHARE,
        )
        held_out = None
    if held_out is not None:
        logger.info(
            "validation: %d of %d objects (chosen by a hash of the uid) are not trained on", len(held_out), len(shards)
        )
    return (training, held_out) if tested or held_out is not None else (shards, None)


def assign_splits(shards: TrainingSet, test_share: float = TEST_SHARE) -> list[list[Split]]:
    """Return the split of each object, as one list per shard.

    `test_share` is the fraction of the objects that are test objects, 0 to 1.
    """
    return [
        [split_of(shards.uid(shard, i), VALIDATION_SHARE, test_share) for i in range(samples)]
        for shard, samples in enumerate(shards.samples_per_shard)
    ]


def select_splits(shards: TrainingSet, assigned: Sequence[Sequence[Split]], wanted: Collection[Split]) -> TrainingSet:
    """Return the objects of some splits as a smaller set.

    Args:
        shards: The whole set.
        assigned: The split of each object, one list per shard, as `assign_splits` returns.
        wanted: The splits whose objects to keep.
    """
    kept = []
    for shard, samples in enumerate(shards.samples_per_shard):
        stored = np.arange(samples, dtype=np.int32) if shards.kept is None else shards.kept[shard]
        kept.append(stored[np.array([split in wanted for split in assigned[shard]], bool)])
    return shards.narrowed(tuple(kept))
