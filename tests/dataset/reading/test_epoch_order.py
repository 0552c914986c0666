from itertools import groupby, product

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.reading.epoch_order import Order, epoch_order, resume_item

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
    """A change of this order changes resumed training runs without notice."""
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
    with pytest.raises(UserError, match="rank is 2"):
        epoch_order((4,), 0, 0, 2, 2)
    with pytest.raises(UserError, match="seed -1"):
        epoch_order((4,), -1, 0, 0, 1)
    with pytest.raises(UserError, match="3 objects are too few for 4 ranks"):
        Order((3,), seed=0, world=4).item(0)


@pytest.mark.parametrize("items", [2, 4])
def test_every_object_has_its_items_inside_its_window_each_turn_once(items: int) -> None:
    for sizes, epoch in product(SIZES, (0, 3)):
        order = Order(sizes, 5, items_per_object=items, window_shards=1)
        start = epoch * order.per_epoch
        numbers = range(start, start + order.per_epoch)
        seen = [(*order.item(i)[1:], order.repeat_index(i)) for i in numbers]
        assert sorted(seen) == sorted((*place, turn) for place in every(sizes) for turn in range(items))
        assert {order.item(i)[0] for i in numbers} == {epoch}
        done = 0  # a window of one shard: pass after pass over its objects, then the next
        for shard, _ in groupby(pairs(epoch_order(sizes, 5, epoch, 0, 1, window_shards=1)), lambda place: place[0]):
            for turn in range(items):
                part = seen[done : done + sizes[shard]]
                assert set(part) == {(shard, sample, turn) for sample in range(sizes[shard])}
                done += sizes[shard]


def test_the_first_pass_is_the_order_of_one_item_an_object_and_later_ones_differ() -> None:
    sizes = (8,) * 4
    once = pairs(epoch_order(sizes, 2, 0, 0, 1))
    order = Order(sizes, 2, items_per_object=3)
    passes = [[order.item(i)[1:] for i in range(turn * 32, (turn + 1) * 32)] for turn in range(3)]
    assert passes[0] == once
    assert len({tuple(places) for places in passes}) == 3


def test_one_item_an_object_is_the_order_that_it_was() -> None:
    order = Order((3, 2, 2), 0)
    expected = [(2, 0), (0, 1), (1, 1), (0, 0), (2, 1), (1, 0), (0, 2)]
    assert [order.item(i)[1:] for i in range(7)] == expected
    assert {order.repeat_index(i) for i in range(20)} == {0}


def test_the_order_of_several_items_is_pinned() -> None:
    """A change of this order changes resumed training runs without notice."""
    order = Order((2, 1), 0, items_per_object=2)
    assert [(*order.item(i)[1:], order.repeat_index(i)) for i in range(6)] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (1, 0, 1),
        (0, 0, 1),
        (0, 1, 1),
    ]


def test_ranks_share_out_the_items_of_an_epoch_and_a_step_sees_the_same_ones() -> None:
    sizes = (3, 4, 4)
    alone = Order(sizes, 1, items_per_object=3)
    everything = [(*alone.item(i), alone.repeat_index(i)) for i in range(alone.per_epoch)]
    for world in (2, 4, 8):  # eight ranks, three shards
        ranks = [Order(sizes, 1, rank, world, items_per_object=3) for rank in range(world)]
        count = ranks[0].per_epoch
        assert count == 33 // world
        steps = [(*order.item(i), order.repeat_index(i)) for i in range(count) for order in ranks]
        assert steps == everything[: count * world]


def test_a_position_on_another_world_leaves_nothing_of_the_epoch_out() -> None:
    sizes, items = (5, 3, 6), 2
    for before_world, now_world, i in product((1, 2, 3), (1, 2, 4), (0, 3, 9, 40)):
        before = Order(sizes, 4, 0, before_world, items_per_object=items)
        now = Order(sizes, 4, 0, now_world, items_per_object=items)
        place, told = resume_item(i, before, now)
        epoch, done = i // before.per_epoch, i % before.per_epoch * before_world
        at = divmod(place, now.per_epoch)
        assert at[0] * 28 + at[1] * now_world <= epoch * 28 + done or at == (epoch + 1, 0)
        assert epoch * 28 + done - (at[0] * 28 + at[1] * now_world) < now_world
        assert (told == "") == (before_world == now_world)
        if told:
            assert f"{now_world} ranks instead of {before_world}" in told
    assert resume_item(7, Order((4,), 0, 0, 2), Order((4,), 0, 1, 2)) == (7, "")
    assert "2 of them are repeated" in resume_item(3, Order((8,), 0, 0, 2), Order((8,), 0, 0, 4))[1]


def test_a_position_in_another_order_is_refused() -> None:
    with pytest.raises(UserError, match="items_per_object"):
        resume_item(3, Order((8,), 0), Order((8,), 0, items_per_object=2))
    with pytest.raises(UserError, match="samples_per_shard and seed"):
        resume_item(3, Order((8,), 0), Order((7,), 1))


def test_replacements_are_a_function_of_the_place_in_the_epoch_and_reach_every_object() -> None:
    order, sizes = Order((5, 4), 0), (5, 4)
    found = [[order.replacement(i, attempt) for attempt in range(1, 30)] for i in range(20)]
    assert found == [[Order(sizes, 0).replacement(i, a) for a in range(1, 30)] for i in range(20)]
    assert {place[1:] for row in found for place in row} == every(sizes)
    assert {row[0][0] for row in found[:9]} == {0}
    assert len({tuple(row) for row in found}) == 20
    two = [Order(sizes, 0, rank, 2) for rank in range(2)]  # the same place of the epoch on two ranks
    assert [two[i % 2].replacement(i // 2, 1) for i in range(8)] == [row[0] for row in found[:8]]


def test_sets_that_cannot_feed_are_explained() -> None:
    with pytest.raises(UserError, match="no objects to train on"):
        _ = Order((0, 0), 0).per_epoch
    with pytest.raises(UserError, match=r"3 objects are too few for 4 ranks.*at most 3 ranks"):
        _ = Order((1, 2), 0, world=4, items_per_object=4).per_epoch
    with pytest.raises(UserError, match="rank is 4"):
        _ = Order((9,), 0, rank=4, world=4).per_epoch
    with pytest.raises(UserError, match="items_per_object 0"):
        _ = Order((9,), 0, items_per_object=0).per_epoch
