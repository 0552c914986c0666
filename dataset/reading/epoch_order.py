"""Define the order in which training reads objects, as a pure function of (seed, epoch, rank, world).

The shards are shuffled and divided into windows of consecutive shards; then the objects are shuffled within each
window, so that successive reads touch few shards. With several items per object (`items_per_object` = K), every window
is read K times, in a new order each time, before the next window starts. The files of the window are then still in the
page cache, and the items of one object are about a window apart. The first pass over a window has the same order as
with K = 1.

Rank r of `world` ranks reads items r, r + world, r + 2 * world, ... of that order. For a given total batch size, all
ranks together therefore read the same items in a step, whatever the number of ranks. There may be more ranks than
shards. All ranks get the same number of items: the last (items mod world) items of an epoch are dropped. The dropped
items differ between epochs.
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
_PASSES, _REPLACEMENTS = 1, 2  # random streams of a seed, besides that of the object order


def epoch_order(
    samples_per_shard: Sequence[int],
    seed: int,
    epoch: int,
    rank: int,
    world: int,
    *,
    window_shards: int = WINDOW_SHARDS,
) -> Int64:
    """Return the objects that one rank reads in one epoch, in order.

    Args:
        samples_per_shard: Number of objects in each shard.
        seed: Seed of the shuffling, at least 0.
        epoch: Number of the epoch, counted from 0. Each epoch has another order.
        rank: Number of the rank, 0 to `world` - 1.
        world: Number of ranks.
        window_shards: Number of shards whose objects are shuffled together.

    Returns:
        int64 [n, 2] with a row (shard, sample) per object; n = objects // world.

    Raises:
        UserError: `rank`, `seed`, `epoch` or `window_shards` is out of range.
    """
    if not 0 <= rank < world:
        raise UserError(f"rank is {rank}; with {world} ranks (world size), the rank must be 0 to {world - 1}")
    if seed < 0 or epoch < 0 or window_shards < 1:
        raise UserError(
            f"seed and epoch must be at least 0 and window_shards at least 1; got seed {seed}, epoch {epoch} and "
            f"window_shards {window_shards}"
        )
    order = _global_order(tuple(samples_per_shard), seed, epoch, window_shards)
    kept = len(order) // world * world
    return order[rank:kept:world].copy()


@lru_cache(maxsize=2)
def _global_order(samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int) -> Int64:
    """Return (shard, sample) of all objects, [objects, 2], in an epoch's order, before they are divided among ranks."""
    windows = list(_windows(samples_per_shard, seed, epoch, window_shards))
    return np.concatenate(windows) if windows else np.zeros((0, 2), np.int64)


def _windows(samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int) -> Iterator[Int64]:
    """Yield the objects of each window of shards, shuffled, as (shard, sample) [n, 2]."""
    # Sort raw PCG64 words: numpy guarantees this stream in all versions, unlike that of Generator.permutation
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch)))
    shards = _permutation(words, len(samples_per_shard))
    for start in range(0, len(shards), window_shards):
        pairs = np.concatenate([_pairs(int(s), samples_per_shard[s]) for s in shards[start : start + window_shards]])
        yield pairs[_permutation(words, len(pairs))]


@lru_cache(maxsize=3)  # two for the change of epochs, one for another order; 12 bytes per item
def _global_items(
    samples_per_shard: tuple[int, ...], seed: int, epoch: int, window_shards: int, items_per_object: int
) -> Int32:
    """Return (shard, sample, repeat) of all items, [items, 3], in an epoch's order, before division among ranks."""
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch, _PASSES)))
    items = []
    for window in _windows(samples_per_shard, seed, epoch, window_shards):
        for repeat in range(items_per_object):
            shuffled = window[_permutation(words, len(window))] if repeat else window
            items.append(np.pad(shuffled, ((0, 0), (0, 1)), constant_values=repeat).astype(np.int32))
    return np.concatenate(items) if items else np.zeros((0, 3), np.int32)


def _permutation(words: np.random.PCG64, n: int) -> Int64:
    return np.argsort(words.random_raw(n), kind="stable").astype(np.int64)


def _pairs(shard: int, samples: int) -> Int64:
    return np.stack([np.full(samples, shard, np.int64), np.arange(samples, dtype=np.int64)], -1)


@dataclass(frozen=True)
class Order:
    """The endless sequence of items that one rank reads during training, with access by index.

    An item is an object with its repeat index, 0 to `items_per_object` - 1. An epoch contains every object
    `items_per_object` times. To resume training, only the index of the next item is needed.
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
        """Number of items of this rank per epoch.

        Raises:
            UserError: A field is out of range, or there are no objects, or fewer objects than ranks.
        """
        if not 0 <= self.rank < self.world:
            raise UserError(
                f"rank is {self.rank}; with {self.world} ranks (world size), the rank must be 0 to {self.world - 1}"
            )
        if self.seed < 0 or self.window_shards < 1 or self.items_per_object < 1:
            raise UserError(
                f"seed must be at least 0, window_shards and items_per_object at least 1; got seed {self.seed}, "
                f"window_shards {self.window_shards} and items_per_object {self.items_per_object}"
            )
        if self.objects == 0:
            raise UserError(
                "no objects to train on: an epoch would be empty; render objects, or give filters that keep some"
            )
        if self.objects < self.world:
            raise UserError(
                f"{self.objects} objects are too few for {self.world} ranks; render more objects, give filters that "
                f"keep more objects, or start at most {self.objects} ranks"
            )
        return self.objects * self.items_per_object // self.world

    def item(self, i: int) -> tuple[int, int, int]:
        """Return (epoch, shard, sample) of this rank's item number `i`, counted from 0 since the start of training."""
        epoch, position = self._place(i)
        shard, sample, _ = self._items(epoch)[position]
        return epoch, int(shard), int(sample)

    def repeat_index(self, i: int) -> int:
        """Return the repeat index of this rank's item number `i`, counted from 0 since the start of training.

        Among the items of one object in one epoch, over all ranks, the first item has repeat index 0, the next 1, etc.
        """
        epoch, position = self._place(i)
        return int(self._items(epoch)[position, 2])

    def replacement(self, i: int, attempt: int) -> tuple[int, int, int]:
        """Return (epoch, shard, sample) of an object to read instead of this rank's item number `i`, which is damaged.

        The object is drawn uniformly from all objects. It depends only on the position of the item in the epoch and on
        `attempt`, which is 1 for the first replacement, 2 if that object is damaged too, and so on.
        """
        epoch, position = self._place(i)
        entropy = np.random.SeedSequence((self.seed, epoch, _REPLACEMENTS, position, attempt))
        items = self._items(epoch)
        shard, sample, _ = items[int(entropy.generate_state(1, np.uint64)[0]) % len(items)]
        return epoch, int(shard), int(sample)

    def _place(self, i: int) -> tuple[int, int]:
        """Return the epoch of this rank's item number `i`, and the position of this item among those of all ranks."""
        epoch, position = divmod(i, self.per_epoch)
        return epoch, position * self.world + self.rank

    def _items(self, epoch: int) -> Int32:
        return _global_items(self.samples_per_shard, self.seed, epoch, self.window_shards, self.items_per_object)


class StreamState(NamedTuple):
    """How much data a training run has read, as stored in a checkpoint.

    Before the step number `step`, each of `world` ranks has read `item` items.
    """

    step: int
    item: int
    world: int
    items_per_object: int


def resume_item(i: int, before: Order, now: Order) -> tuple[int, str]:
    """Return the number of the item with which a stopped training run resumes, and a notice for the user.

    The number of ranks may have changed. In this case, no item is left out, up to `now.world` - 1 items are read twice,
    and the notice says so. Otherwise the notice is empty.

    Args:
        i: Number of items that each rank of the stopped run had read, in the order `before`.
        before: Order of any rank of the stopped run.
        now: Order of any rank of the resumed run. The returned number counts items of this order.

    Raises:
        UserError: The two orders contain different items.
    """
    unchanged = ("samples_per_shard", "seed", "window_shards", "items_per_object")
    if changed := [name for name in unchanged if getattr(before, name) != getattr(now, name)]:
        raise UserError(
            f"cannot resume the training run: the settings {' and '.join(changed)} differ from those of the stopped "
            "run; use the previous settings and set, or start a new run"
        )
    if before.world == now.world:
        return i, ""
    epoch, position = divmod(i, before.per_epoch)
    done = position * before.world
    again = done % now.world
    notice = (
        f"resumed on {now.world} ranks instead of {before.world}: epoch {epoch} resumes after "
        f"{done - again} of its {before.objects * before.items_per_object} items"
    )
    return epoch * now.per_epoch + done // now.world, notice + (f" ({again} of them are repeated)" if again else "")
