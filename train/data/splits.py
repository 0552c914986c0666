"""Split a set into objects to train on, to validate on and to test on.

The part of an object depends on its uid alone. Test objects are never seen by any part of a model; `train.evaluate`
uses them.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

import numpy as np

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, Split, split_of
from train.data.loader import TrainingSet

MIN_OBJECTS: Final = 20  # a smaller set is used for training as a whole, unless validation is requested

Mode = Literal["auto", "on", "off"]


def split_set(
    shards: TrainingSet, mode: Mode, test_share: float = TEST_SHARE
) -> tuple[TrainingSet, TrainingSet | None]:
    """(what is trained on, what is held out for validation; None: validation is off). Test objects are in neither.

    auto: on, unless the set is so small that it cannot spare an object. off: the validation part is trained on. What is
    decided is printed. Raises UserError when nothing is left to train on, and when validation is asked for and has no
    object.
    """
    if mode == "off" and not test_share:
        return shards, None
    if mode != "on" and len(shards) < MIN_OBJECTS:
        print(
            f"note: {len(shards)} objects are fewer than {MIN_OBJECTS}: all are trained on, none is held out for "
            "validation or testing (--validation on insists)"
        )
        return shards, None
    parts = assign_splits(shards, test_share)
    trained: tuple[Split, ...] = ("train", "validation") if mode == "off" else ("train",)
    training = select_splits(shards, parts, trained)
    held_out = None if mode == "off" else select_splits(shards, parts, ["validation"])
    tested = len(shards) - len(training) - len(held_out or ())
    if not len(training) or (mode == "on" and not len(held_out or ())):
        raise UserError(
            f"{shards.url}: {len(training)} objects to train on and {len(held_out or ())} held out, by their uids; "
            "both are needed: render more objects, or give --validation off"
        )
    if tested:
        print(f"test: {tested} of {len(shards)} objects are left out of all training, by a hash of their uids")
    if held_out is not None and not len(held_out):
        print(
            f"note: no validation: no uid of these {len(shards)} objects falls into the {VALIDATION_SHARE:.0%} held out"
        )
        held_out = None
    if held_out is not None:
        print(f"validation: {len(held_out)} of {len(shards)} objects are held out of training, by a hash of their uids")
    return (training, held_out) if tested or held_out is not None else (shards, None)


def assign_splits(shards: TrainingSet, test_share: float = TEST_SHARE) -> list[list[Split]]:
    """The part of each object, shard by shard."""
    return [
        [split_of(shards.uid(shard, i), VALIDATION_SHARE, test_share) for i in range(samples)]
        for shard, samples in enumerate(shards.samples_per_shard)
    ]


def select_splits(shards: TrainingSet, parts: Sequence[Sequence[Split]], wanted: Collection[Split]) -> TrainingSet:
    """The objects of some parts, as `splits` has them, as a smaller set."""
    kept = []
    for shard, samples in enumerate(shards.samples_per_shard):
        stored = np.arange(samples, dtype=np.int32) if shards.kept is None else shards.kept[shard]
        kept.append(stored[np.array([part in wanted for part in parts[shard]], bool)])
    return shards.narrowed(tuple(kept))
