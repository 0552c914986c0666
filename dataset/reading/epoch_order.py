"""The order in which training meets objects: a pure function of (seed, epoch, rank, world).

Shards are shuffled, then objects inside a window of neighboring shards, so that reading stays local. With several
items an object (`items_per_object` = K) the window is the bounded buffer: it is passed K times, each time shuffled
anew, before the next window begins, so its files are read while the machine still remembers them, and an object's
items lie about a window apart. The first pass has the order of K = 1.

Rank r of `world` takes every world-th item of that order, starting at r: one step of all ranks together sees the same
items whatever the number of ranks (there may be more ranks than shards). All ranks get the same count; the last
(items mod world) of an epoch's order are dropped, other ones each epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
WINDOW_SHARDS: Final = 4
_PASSES, _REPLACEMENTS = 1, 2  # random streams of a seed beside the objects' own


def epoch_order(
    samples_per_shard: Sequence[int],
    seed: int,
    epoch: int,
    rank: int,
    world: int,
    *,
    window_shards: int = WINDOW_SHARDS,
) -> Int64:
    """One rank's objects of one epoch, in order: int64 [n, 2] of (shard, sample), n = objects // world.

    Raises UserError when rank, seed, epoch or `window_shards` is out of range.
    """
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} is not of a world of {world}")
    if seed < 0 or epoch < 0 or window_shards < 1:
        raise UserError(f"seed {seed} and epoch {epoch} must be >= 0 and window_shards {window_shards} >= 1")
    order = _global_order(tuple(samples_per_shard), seed, epoch, window_shards)
    kept = len(order) // world * world
    return order[rank:kept:world].copy()


@lru_cache(maxsize=2)
def _global_order(samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int) -> Int64:
    """All objects [objects, 2] in the order of an epoch, before the split among ranks."""
    windows = list(_windows(samples_per_shard, seed, epoch, window_shards))
    return np.concatenate(windows) if windows else np.zeros((0, 2), np.int64)


def _windows(samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int) -> Iterator[Int64]:
    """The shuffled objects [n, 2] of one window after the other."""
    # Raw PCG64 words, sorted: numpy promises this stream for ever, unlike Generator.permutation's
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch)))
    shards = _permutation(words, len(samples_per_shard))
    for start in range(0, len(shards), window_shards):
        pairs = np.concatenate([_pairs(int(s), samples_per_shard[s]) for s in shards[start : start + window_shards]])
        yield pairs[_permutation(words, len(pairs))]


@lru_cache(maxsize=3)  # two epochs where one ends, and another order's beside them; 12 bytes an item
def _global_items(
    samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int, items_per_object: int
) -> Int32:
    """All items [items, 3] of (shard, sample, turn) in the order of an epoch, before the split among ranks."""
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch, _PASSES)))
    items = []
    for window in _windows(samples_per_shard, seed, epoch, window_shards):
        for turn in range(items_per_object):
            shuffled = window[_permutation(words, len(window))] if turn else window
            items.append(np.pad(shuffled, ((0, 0), (0, 1)), constant_values=turn).astype(np.int32))
    return np.concatenate(items) if items else np.zeros((0, 3), np.int32)


def _permutation(words: np.random.PCG64, n: int) -> Int64:
    return np.argsort(words.random_raw(n), kind="stable").astype(np.int64)


def _pairs(shard: int, samples: int) -> Int64:
    return np.stack([np.full(samples, shard, np.int64), np.arange(samples, dtype=np.int64)], -1)


@dataclass(frozen=True)
class Order:
    """One rank's endless sequence of items, epoch after epoch, open at any place: resuming needs only a number.

    An item is an object and its turn, 0 ... items_per_object - 1. An epoch holds every object items_per_object times.
    """

    samples_per_shard: tuple[int, ...]
    seed: int
    rank: int = 0
    world: int = 1
    window_shards: int = WINDOW_SHARDS
    items_per_object: int = 1

    @property
    def objects(self) -> int:
        return sum(self.samples_per_shard)

    @property
    def per_epoch(self) -> int:
        """Items of this rank in an epoch. Raises UserError when there are no objects, or fewer than ranks."""
        if not 0 <= self.rank < self.world:
            raise UserError(f"rank {self.rank} is not of a world of {self.world}")
        if self.seed < 0 or self.window_shards < 1 or self.items_per_object < 1:
            raise UserError(
                f"seed {self.seed} must be >= 0, window_shards {self.window_shards} and items_per_object "
                f"{self.items_per_object} >= 1"
            )
        if self.objects == 0:
            raise UserError("no objects to train on: an epoch would be empty; render some, or loosen the filters")
        if self.objects < self.world:
            raise UserError(
                f"{self.objects} objects cannot feed {self.world} ranks; render more, loosen the filters, or start "
                f"at most {self.objects} ranks"
            )
        return self.objects * self.items_per_object // self.world

    def item(self, i: int) -> tuple[int, int, int]:
        """(epoch, shard, sample) of this rank's i-th item since training began."""
        epoch, place = self._place(i)
        shard, sample, _ = self._items(epoch)[place]
        return epoch, int(shard), int(sample)

    def repeat_index(self, i: int) -> int:
        """How many items of the same object came before the i-th in its epoch."""
        epoch, place = self._place(i)
        return int(self._items(epoch)[place, 2])

    def replacement(self, i: int, attempt: int) -> tuple[int, int, int]:
        """(epoch, shard, sample) to read in place of this rank's i-th item: a function of the epoch's place alone.

        Drawn evenly from all objects of the set; `attempt` 1, 2, ... when a replacement will not do either.
        """
        epoch, place = self._place(i)
        entropy = np.random.SeedSequence((self.seed, epoch, _REPLACEMENTS, place, attempt))
        items = self._items(epoch)
        shard, sample, _ = items[int(entropy.generate_state(1, np.uint64)[0]) % len(items)]
        return epoch, int(shard), int(sample)

    def _place(self, i: int) -> tuple[int, int]:
        """(epoch, place in the epoch's order of all ranks)."""
        epoch, place = divmod(i, self.per_epoch)
        return epoch, place * self.world + self.rank

    def _items(self, epoch: int) -> Int32:
        return _global_items(self.samples_per_shard, self.seed, epoch, self.window_shards, self.items_per_object)


class StreamState(NamedTuple):
    """Where a run stands before step `step`, for its checkpoint: `item` items of each rank are behind."""

    step: int
    item: int
    world: int
    items_per_object: int


def same_place(i: int, before: Order, now: Order) -> tuple[int, str]:
    """(item, message for the user): where `now` resumes when `before` stopped before its i-th item.

    For a run that resumes on another number of ranks. Both orders count a rank's items; the epoch's items that all
    ranks had before are behind the new position, up to now.world - 1 of them excepted, which come again: nothing is
    left out. Raises UserError when the two are orders of different items.
    """
    unchanged = ("samples_per_shard", "seed", "window_shards", "items_per_object")
    if changed := [name for name in unchanged if getattr(before, name) != getattr(now, name)]:
        raise UserError(f"the position of a run with another {' and '.join(changed)} means nothing here; start anew")
    if before.world == now.world:
        return i, ""
    epoch, place = divmod(i, before.per_epoch)
    done = place * before.world
    again = done % now.world
    told = (
        f"resumed on {now.world} ranks instead of {before.world}: epoch {epoch} resumes after "
        f"{done - again} of its {before.objects * before.items_per_object} items"
    )
    return epoch * now.per_epoch + done // now.world, told + (f" ({again} of them come again)" if again else "")
