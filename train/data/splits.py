"""Split a set into objects to train on, to validate on and to test on.

The split of an object depends on its uid alone. No part of a model is trained on test objects; `train.evaluate` uses
them.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Final, Literal

import numpy as np

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split, split_of
from train.data.training_set import TrainingSet

MIN_OBJECTS: Final = 20  # a smaller set is used for training as a whole, unless validation is requested

Mode = Literal["auto", "on", "off"]

logger = logging.getLogger(__name__)


def split_set(
    shards: TrainingSet, mode: Mode, test_share: float = TEST_SHARE
) -> tuple[TrainingSet, TrainingSet | None]:
    """Return the objects to train on and those to validate on (None: no validation). Neither has test objects.

    Args:
        shards: The set.
        mode: auto holds validation objects out unless the set is so small that it cannot spare any. off trains on the
            validation objects.
        test_share: Fraction of test objects.

    Raises:
        UserError: No object is left to train on, or `mode` is on and no object is left to validate on.
    """
    if mode == "off" and not test_share:
        return shards, None
    if mode != "on" and len(shards) < MIN_OBJECTS:
        logger.info(
            "note: %d objects are fewer than %d: all are trained on, none is held out for validation or testing "
            "(use --validation on to hold some out)",
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
        raise UserError(
            f"{shards.url}: {len(training)} objects to train on and {len(held_out or ())} held out, by their uids; "
            "both are needed: render more objects, or give --validation off"
        )
    if tested:
        logger.info("test: %d of %d objects are left out of all training, by a hash of their uids", tested, len(shards))
    if held_out is not None and not len(held_out):
        logger.info(
            "note: no validation: no uid of these %d objects falls into the %.0f%% held out",
            len(shards),
            100 * VALIDATION_SHARE,
        )
        held_out = None
    if held_out is not None:
        logger.info(
            "validation: %d of %d objects are held out of training, by a hash of their uids", len(held_out), len(shards)
        )
    return (training, held_out) if tested or held_out is not None else (shards, None)


def assign_splits(shards: TrainingSet, test_share: float = TEST_SHARE) -> list[list[Split]]:
    """Return the split of each object, one list per shard."""
    return [
        [split_of(shards.uid(shard, i), VALIDATION_SHARE, test_share) for i in range(samples)]
        for shard, samples in enumerate(shards.samples_per_shard)
    ]


def select_splits(shards: TrainingSet, assigned: Sequence[Sequence[Split]], wanted: Collection[Split]) -> TrainingSet:
    """Return the objects of some splits, as `assign_splits` assigned them, as a smaller set."""
    kept = []
    for shard, samples in enumerate(shards.samples_per_shard):
        stored = np.arange(samples, dtype=np.int32) if shards.kept is None else shards.kept[shard]
        kept.append(stored[np.array([split in wanted for split in assigned[shard]], bool)])
    return shards.narrowed(tuple(kept))
