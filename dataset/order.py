"""The order in which training meets objects: a pure function of (seed, epoch, rank, world).

Shards are shuffled, then objects inside a window of neighbouring shards, so that reading stays local. Rank r of `world`
takes every world-th object of that order, starting at r: one step of all ranks together sees the same objects whatever
the number of ranks. All ranks get the same count; the last (objects mod world) of an epoch's order are dropped, other
ones each epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError

Int64 = NDArray[np.int64]
WINDOW_SHARDS: Final = 4


def epoch_order(
    samples_per_shard: Sequence[int],
    seed: int,
    epoch: int,
    rank: int,
    world: int,
    *,
    window_shards: int = WINDOW_SHARDS,
) -> Int64:
    """One rank's objects of one epoch, in order: int64 [n, 2] of (shard, sample), n = objects // world."""
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
    # Raw PCG64 words, sorted: numpy promises this stream for ever, unlike Generator.permutation's
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch)))
    shards = _permutation(words, len(samples_per_shard))
    windows = []
    for start in range(0, len(shards), window_shards):
        pairs = np.concatenate([_pairs(int(s), samples_per_shard[s]) for s in shards[start : start + window_shards]])
        windows.append(pairs[_permutation(words, len(pairs))])
    return np.concatenate(windows) if windows else np.zeros((0, 2), np.int64)


def _permutation(words: np.random.PCG64, n: int) -> Int64:
    return np.argsort(words.random_raw(n), kind="stable").astype(np.int64)


def _pairs(shard: int, samples: int) -> Int64:
    return np.stack([np.full(samples, shard, np.int64), np.arange(samples, dtype=np.int64)], -1)


@dataclass(frozen=True)
class Order:
    """One rank's endless sequence of objects, epoch after epoch, open at any place: resuming needs only a number."""

    samples_per_shard: tuple[int, ...]
    seed: int
    rank: int = 0
    world: int = 1
    window_shards: int = WINDOW_SHARDS

    @property
    def per_epoch(self) -> int:
        """Objects of this rank in an epoch. Raises UserError when there are fewer objects than ranks."""
        count = sum(self.samples_per_shard) // self.world
        if count == 0:
            raise UserError(f"{sum(self.samples_per_shard)} objects cannot feed {self.world} ranks; render more")
        return count

    def item(self, i: int) -> tuple[int, int, int]:
        """(epoch, shard, sample) of this rank's i-th object since training began."""
        epoch, place = divmod(i, self.per_epoch)
        shard, sample = _rank_order(self, epoch)[place]
        return epoch, int(shard), int(sample)


@lru_cache(maxsize=4)
def _rank_order(order: Order, epoch: int) -> Int64:
    return epoch_order(
        order.samples_per_shard, order.seed, epoch, order.rank, order.world, window_shards=order.window_shards
    )
