"""Damaged objects in training: replacement, counts, messages, and the error beyond the allowed share."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.errors import UserError
from dataset.format.shards import read_stats
from dataset.io.files import url_to_fs
from dataset.reading.damage import Damage
from dataset.reading.epoch_order import Order
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from train.data.loaded_views import LoadedViews
from train.data.loader import BatchLoader
from train.data.random_views import load_random_views, read_loaded_views, read_random_views
from train.data.sampling import StepKey, draw_views, generator


def flip(folder: Path, number: int, suffixes: tuple[str, ...]) -> None:
    """Flip a bit of some members of an object of the first shard."""
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    members = read_stats(*url_to_fs(folder), "shard-000000").samples[number].members
    for suffix in suffixes:
        data[members[suffix].offset + 30] ^= 4
    tar.write_bytes(bytes(data))


@pytest.mark.parametrize("items", [1, 3])
def test_a_damaged_object_is_replaced_by_the_same_one_each_time_and_the_rest_stays(
    tmp_path: Path, items: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_set(tmp_path, 6, 16)
    make = partial(
        BatchLoader,
        seed=3,
        objects=3,
        accumulation=1,
        num_views=4,
        single_view_chance=0.3,
        convention="relative",
        items_per_object=items,
    )
    sound = [make(ShardSet(folder)).load(number) for number in range(4)]
    flip(folder, 2, ("meta.json",))
    loader = make(ShardSet(folder), damage=Damage(6, 0.2))
    broken = list(loader.micro_batches(0, 4))
    steps = [(number, row) for number in range(4) for row in range(3)]
    bad = [(number, row) for number, row in steps if loader.order.item(number * 3 + row)[1:] == (0, 2)]
    assert bad
    for number in range(4):
        for row in range(3):
            same = torch.equal(broken[number].targets[row], sound[number].targets[row])
            assert same == ((number, row) not in bad)
    fresh = make(ShardSet(folder), damage=Damage(6, 0.2))
    for number in (3, 0, 2, 1):  # any order, any reader: the very same replacement
        assert torch.equal(fresh.load(number).targets, broken[number].targets)
        assert torch.equal(fresh.load(number).cameras, broken[number].cameras)
    assert loader.damage is not None
    assert list(loader.damage.reasons) == ["synthetic-0002"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # once per loader, however often the object is drawn
    assert "warning: replaced a damaged object (1 so far, 1 allowed)" in lines[0]
    assert "synthetic-0002.meta.json" in lines[0]
    loader.damage.log_all()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("warning: 1 damaged objects were replaced (1 allowed):\n  synthetic-0002: ")
    Damage(3).log_all()
    assert capsys.readouterr().err == ""


def test_an_object_with_a_bad_image_serves_where_that_image_is_not_wanted(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 1, 16)
    loader = BatchLoader(ShardSet(folder), 3, 1, 1, 4, 0.0, "relative")
    sound = [loader.load(number) for number in range(8)]
    numbers = [draw_views(generator(StepKey(3, number), "views"), "multi", 4)[0][1] for number in range(8)]
    flip(folder, 0, (f"random_{numbers[0]:02d}.webp",))
    for number in range(8):
        if numbers[number] == numbers[0]:
            with pytest.raises(UserError, match=f"random_{numbers[0]:02d}.webp is truncated or corrupt"):
                BatchLoader(ShardSet(folder), 3, 1, 1, 4, 0.0, "relative").load(number)
        else:
            assert torch.equal(loader.load(number).reference, sound[number].reference)
    assert len(set(numbers)) > 1


def test_more_damage_than_the_share_stops_and_names_it(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 4, 16)
    flip(folder, 1, ("meta.json",))
    flip(folder, 3, ("meta.json",))
    with pytest.raises(UserError, match=r"1 of 4 objects .* --max-corrupt-fraction 0\.001 allows at most 0"):
        list(
            BatchLoader(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", readers=1, damage=Damage(4)).micro_batches(0, 2)
        )
    damage = Damage(4, 0.25)
    loader = BatchLoader(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", damage=damage)
    with pytest.raises(
        UserError, match=r"2 of 4 objects .*synthetic-000[13], synthetic-000[13]\), but .*allows at most 1"
    ):
        list(loader.micro_batches(0, 2))
    assert set(damage.reasons) == {"synthetic-0001", "synthetic-0003"}
    allowed = BatchLoader(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", damage=Damage(4, 0.5))
    assert len(list(allowed.micro_batches(0, 2))) == 2


def test_storage_that_fails_is_no_damage(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 4, 16)
    damage = Damage(4, 0.9)
    loader = BatchLoader(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", damage=damage)
    (folder / "shard-000000.tar").rename(folder / "away")
    with pytest.raises(UserError, match="cannot be read"):
        loader.load(0)
    assert damage.reasons == {}


def test_the_parts_training_passes_over_damage_too(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, 16)
    sound = load_random_views(ShardSet(folder), 0, 0, objects=6, views=2).images
    flip(folder, 1, tuple(f"{view_set}_{i:02d}.webp" for view_set in ("fixed", "random") for i in range(16)))
    with pytest.raises(UserError, match=r"synthetic-0001\..* is truncated or corrupt"):
        load_random_views(ShardSet(folder), 0, 0, objects=6, views=2)
    damage = Damage(3, 0.5)
    views = load_random_views(ShardSet(folder), 0, 0, objects=6, views=2, damage=damage)
    images, numbers = views.images, views.objects
    order = Order(ShardSet(folder).samples_per_shard, 0)
    places = [order.item(i)[1:] for i in range(6)]
    assert [torch.equal(a, b) for a, b in zip(images, sound, strict=True)] == [place != (0, 1) for place in places]
    assert list(damage.reasons) == ["synthetic-0001"]
    assert len(set(numbers.tolist())) == 2


def test_held_out_objects_count_with_the_others(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 4, 16)
    flip(folder, 1, ("meta.json",))
    whole, damage = ShardSet(folder), Damage(4, 0.25)
    loader = BatchLoader(whole, 3, 1, 1, 4, 0.0, "relative", damage=damage)
    held_out = loader.of_objects(whole.narrowed((np.array([1, 2], np.int32),)))
    for number in range(2):
        held_out.fixed(number, 1)
    assert held_out.damage is damage
    assert list(damage.reasons) == ["synthetic-0001"]


def test_what_an_earlier_process_met_counts() -> None:
    damage = Damage(10, 0.2)
    damage.restore({"a": "torn"})
    damage.add("b", "b.meta.json is corrupt")
    damage.add("a", "torn again")
    assert set(damage.reasons) == {"a", "b"}
    with pytest.raises(UserError, match=r"3 of 10 objects are damaged so far \(a, b, c\), but .* allows at most 2"):
        damage.add("c", "c.meta.json is corrupt")


def test_what_other_ranks_met_counts() -> None:
    damage = Damage(10, 0.2)
    damage.add("a", "a is torn")
    damage.merge({"a": "a is torn", "b": "b is torn"})
    assert set(damage.reasons) == {"a", "b"}
    damage.merge({"b": "b is torn"})
    with pytest.raises(
        UserError, match=r"the ranks read 3 damaged objects\. 3 of 10 .*\(.*c.*\), but .* allows at most 2"
    ):
        damage.merge({"c": "c is torn"})


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(UserError, match="--max-corrupt-fraction is"):
        Damage(3, 1.5)


def test_a_damaged_object_is_replaced_among_views_loaded_beforehand(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 6, 16)
    sound = list(read_random_views(ShardSet(folder), 3, 4, objects=3, views=2))
    flip(folder, 2, ("fixed_05.webp",))
    shards, damage = ShardSet(folder), Damage(6, 0.2)
    loaded = LoadedViews(shards, torch.device("cpu"), (16, 16, 4))
    broken = list(read_loaded_views(loaded, 3, 4, objects=3, views=2, damage=damage))
    order = Order(shards.samples_per_shard, 3)
    for number in range(4):
        for row in range(3):
            same = torch.equal(broken[number].rgba[row], sound[number].rgba[row])
            assert same == (order.item(number * 3 + row)[1:] != (0, 2))
    assert list(damage.reasons) == ["synthetic-0002"]
    with pytest.raises(UserError, match="synthetic-0002"):
        list(read_loaded_views(loaded, 3, 4, objects=3, views=2))
