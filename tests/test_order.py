from itertools import product

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.order import Order, epoch_order

SIZES = [(5,), (1, 1, 1), (3, 0, 4), (2, 7, 1, 5, 3), (4,) * 9]


def pairs(order: np.ndarray) -> list[tuple[int, int]]:  # type: ignore[type-arg]
    return [(int(shard), int(sample)) for shard, sample in order]


def every(sizes: tuple[int, ...]) -> set[tuple[int, int]]:
    return {(shard, sample) for shard, size in enumerate(sizes) for sample in range(size)}


def test_ranks_partition_the_epoch_and_only_the_remainder_is_dropped() -> None:
    for sizes, world, seed, epoch in product(SIZES, (1, 2, 3, 4), (0, 1), (0, 1, 2)):
        ranks = [pairs(epoch_order(sizes, seed, epoch, rank, world)) for rank in range(world)]
        seen = [pair for rank in ranks for pair in rank]
        assert {len(rank) for rank in ranks} == {sum(sizes) // world}
        assert len(set(seen)) == len(seen)
        assert set(seen) <= every(sizes)
        assert len(seen) == sum(sizes) // world * world


def test_one_rank_sees_every_object_once() -> None:
    for sizes in SIZES:
        for epoch in range(5):
            order = pairs(epoch_order(sizes, 3, epoch, 0, 1))
            assert len(order) == sum(sizes)
            assert set(order) == every(sizes)


def test_a_step_sees_the_same_objects_whatever_the_world() -> None:
    alone = pairs(epoch_order((5, 7, 12), 0, 4, 0, 1))
    for world in (2, 3, 4):
        ranks = [pairs(epoch_order((5, 7, 12), 0, 4, rank, world)) for rank in range(world)]
        assert [pair for step in zip(*ranks, strict=True) for pair in step] == alone


def test_the_order_is_a_function_and_differs_by_epoch_and_seed() -> None:
    sizes = (8,) * 8
    orders = {
        (seed, epoch): tuple(pairs(epoch_order(sizes, seed, epoch, 0, 1))) for seed in range(3) for epoch in range(10)
    }
    assert len(set(orders.values())) == len(orders)
    for (seed, epoch), order in orders.items():
        assert tuple(pairs(epoch_order(list(sizes), seed, epoch, 0, 1))) == order


def test_the_order_is_pinned() -> None:
    """A change here silently changes every resumed training run."""
    assert pairs(epoch_order((3, 2, 2), 0, 0, 0, 1)) == [(2, 0), (0, 1), (1, 1), (0, 0), (2, 1), (1, 0), (0, 2)]


def test_reading_stays_inside_a_window_of_shards() -> None:
    for window in (1, 2, 4):
        order = epoch_order((6,) * 8, 1, 0, 0, 1, window_shards=window)
        windows = order[:, 0].reshape(-1, 6 * window)
        assert all(len(set(row.tolist())) == window for row in windows)


def test_every_place_is_equally_likely() -> None:
    """Mean rank of each object over many epochs: uniform permutations give 5.5 +- 0.29 (n = 12, 144 draws)."""
    places = np.zeros((3, 4))
    for epoch in range(144):
        for place, (shard, sample) in enumerate(epoch_order((4, 4, 4), 0, epoch, 0, 1)):
            places[shard, sample] += place / 144
    assert np.abs(places - 5.5).max() < 4 * 0.29


def test_items_run_over_epochs_without_a_seam() -> None:
    for rank in range(3):
        order = Order((4, 3, 4), seed=7, rank=rank, world=3)
        assert order.per_epoch == 3
        items = [order.item(i) for i in range(10)]
        expected = [(epoch, *pair) for epoch in range(4) for pair in pairs(epoch_order((4, 3, 4), 7, epoch, rank, 3))]
        assert items == expected[:10]
        assert [order.item(i) for i in (9, 0, 5)] == [items[9], items[0], items[5]]


def test_impossible_requests_are_explained() -> None:
    with pytest.raises(UserError, match="rank 2"):
        epoch_order((4,), 0, 0, 2, 2)
    with pytest.raises(UserError, match="seed -1"):
        epoch_order((4,), -1, 0, 0, 1)
    with pytest.raises(UserError, match="3 objects cannot feed 4 ranks"):
        Order((3,), seed=0, world=4).item(0)
