"""The loader: views and labels, reading ahead, items, ranks, resuming, filtered sets; damaged objects: test_damage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.camera import mvdream_camera, relative_camera
from dataset.errors import UserError
from dataset.format.schema import ALL_VIEWS
from dataset.images.prepare import composite_white
from dataset.reading.epoch_order import Order, StreamState, epoch_order
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from train.data.images import on_white, to_tensor
from train.data.loaded_views import LoadedViews, load_if_worthwhile
from train.data.loader import BatchLoader
from train.data.random_views import ViewCache, load_random_views, read_loaded_views, read_random_views
from train.data.sampling import StepKey, add_embedding_noise, draw_branch, draw_repeat, draw_views, generator


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(make_shard_set(tmp_path_factory.mktemp("set"), 5, 16))


def _loader(shards: ShardSet, chance: float, rank: int = 0, world: int = 1, accumulation: int = 2) -> BatchLoader:
    return BatchLoader(shards, 3, 2, accumulation, 4, chance, "relative", rank, world)


def test_views_and_labels_are_those_of_the_object(shards: ShardSet) -> None:
    views = _loader(shards, 0.0).load(0)
    assert views.targets.shape == (2, 4, 3, 16, 16)
    _, shard, sample = Order(shards.samples_per_shard, 3).item(0)
    meta = shards.meta(shard, sample)
    reference, targets = draw_views(generator(StepKey(3, 0), "views"), "multi", 4)
    image = composite_white(shards.views(shard, sample, [targets[1]]))[0]
    np.testing.assert_array_equal(views.targets[0, 1].permute(1, 2, 0).numpy(), image)
    ref = meta.views[reference[0]][reference[1]]
    for i, (view_set, index) in enumerate(targets):
        view = meta.views[view_set][index]
        label = relative_camera(view.elevation_deg, view.azimuth_deg, ref.elevation_deg, ref.azimuth_deg)
        np.testing.assert_array_equal(views.cameras[0, i].numpy(), label)


def test_reading_ahead_keeps_the_order_and_resuming_continues_it(shards: ShardSet) -> None:
    loader = _loader(shards, 0.3)
    whole = list(loader.micro_batches(0, 6))
    assert len(whole) == 12
    resumed = list(loader.micro_batches(4, 6))
    for number, views in enumerate(whole):
        assert torch.equal(views.targets, loader.load(number).targets)
    for before, after in zip(whole[8:], resumed, strict=True):
        assert torch.equal(before.reference, after.reference)
        assert torch.equal(before.cameras, after.cameras)
    assert len({views.targets.shape[1] for views in whole[:2]}) == 1  # one branch a step


def test_ranks_share_the_branch_and_nothing_else(shards: ShardSet) -> None:
    for number in range(8):
        first, second = (_loader(shards, 0.5, rank, 2).load(number) for rank in (0, 1))
        assert first.targets.shape == second.targets.shape
        assert not torch.equal(first.reference, second.reference)


def _assert_angles_are_the_images(shards: ShardSet, images: Tensor, angles_deg: Tensor) -> None:
    """Every image is one of the set's, and has the angles that the set stores for it."""
    places = [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    stored = torch.cat([to_tensor(shards.views(*place, ALL_VIEWS)) for place in places])
    named = torch.cat([torch.from_numpy(shards.angles_deg(*place, ALL_VIEWS)) for place in places])
    for image, angles in zip(images.flatten(0, 1), angles_deg.flatten(0, 1), strict=True):
        same = (stored == image).flatten(1).all(1)
        assert bool((named[same] == angles).all(1).any())


def test_random_views_of_the_parts_come_from_the_objects_named(shards: ShardSet) -> None:
    views = load_random_views(shards, 0, 0, objects=7, views=2)
    images, angles_deg, numbers = views.images, views.angles_deg, views.objects
    for composited, rgba in zip(images, views.rgba.numpy(), strict=True):
        assert torch.equal(composited, to_tensor(rgba))
    assert images.shape == (7, 2, 3, 16, 16)
    _assert_angles_are_the_images(shards, images, angles_deg)
    assert len(set(numbers.tolist())) == 5  # five objects: two come twice
    again = load_random_views(shards, 0, 0, objects=7, views=2).images
    assert torch.equal(images, again)
    assert not any(torch.equal(pair[0], pair[1]) for pair in images)
    other = load_random_views(shards, 0, 1, objects=7, views=2).images
    assert not torch.equal(images, other)


def test_without_new_options_a_run_reads_what_it_read_before(shards: ShardSet) -> None:
    """Compare with a plain loop without repeats, filters and replacements."""
    loader = _loader(shards, 0.3)
    for number, views in enumerate(loader.micro_batches(0, 4)):
        step, micro = divmod(number, 2)
        rng = generator(StepKey(3, step, micro), "views")
        branch = draw_branch(3, step, 0.3)
        for row, i in enumerate(range(number * 2, number * 2 + 2)):
            epoch, place = divmod(i, 5)
            shard, sample = map(int, epoch_order(shards.samples_per_shard, 3, epoch, 0, 1)[place])
            reference, targets = draw_views(rng, branch, 4)
            images = to_tensor(shards.views(shard, sample, [reference, *targets]))
            assert torch.equal(views.reference[row], images[0])
            assert torch.equal(views.targets[row], images[1:])
            meta = shards.meta(shard, sample)
            ref = meta.views[reference[0]][reference[1]]
            chosen = [meta.views[view_set][index] for view_set, index in targets]
            labels = [
                relative_camera(view.elevation_deg, view.azimuth_deg, ref.elevation_deg, ref.azimuth_deg)
                for view in chosen
            ]
            np.testing.assert_array_equal(views.cameras[row].numpy(), np.stack(labels))
            np.testing.assert_array_equal(views.reference_camera[row].numpy(), mvdream_camera([0.0], [0.0]))


def test_absolute_labels_are_each_views_own_camera_the_references_too(shards: ShardSet) -> None:
    loader = _loader(shards, 0.0)
    relative, absolute = loader.load(0), replace(loader, convention="absolute").load(0)
    assert torch.equal(relative.targets, absolute.targets)
    step_key = StepKey(3, 0)
    rng = generator(step_key, "views")
    for row in range(2):
        epoch, place = divmod(row, 5)
        shard, sample = map(int, epoch_order(shards.samples_per_shard, 3, epoch, 0, 1)[place])
        reference, targets = draw_views(rng, "multi", 4)
        angles = shards.angles_deg(shard, sample, [reference, *targets])
        labels = mvdream_camera(angles[:, 0], angles[:, 1])
        np.testing.assert_array_equal(absolute.reference_camera[row].numpy(), labels[:1])
        np.testing.assert_array_equal(absolute.cameras[row].numpy(), labels[1:])


def _turns(shards: ShardSet, rank: int = 0, world: int = 1, items: int = 3, objects: int = 2) -> BatchLoader:
    return BatchLoader(shards, 3, objects, 1, 4, 0.0, "relative", rank, world, items_per_object=items)


def test_several_items_are_the_views_of_their_objects_and_the_epoch_is_longer(shards: ShardSet) -> None:
    loader = _turns(shards)
    assert loader.order.per_epoch == 15
    for number in range(3):
        views = loader.load(number)
        for row in range(2):
            i = number * 2 + row
            epoch, shard, sample = loader.order.item(i)
            reference, targets = draw_repeat(3, (epoch, shard, sample), loader.order.repeat_index(i), "multi", 4)
            truth = composite_white(shards.views(shard, sample, [reference, *targets]))
            np.testing.assert_array_equal(views.reference[row].permute(1, 2, 0).numpy(), truth[0])
            np.testing.assert_array_equal(views.targets[row].permute(0, 2, 3, 1).numpy(), truth[1:])


def test_a_run_resumed_on_another_number_of_ranks_goes_on_at_the_same_items(shards: ShardSet) -> None:
    """Global batches of 4 items: one rank, then two."""
    alone = _turns(shards, objects=4)
    truth = [alone.load(number) for number in range(6)]
    state = alone.state(3)
    assert state == (3, 12, 1, 3)
    for rank in range(2):
        loader, told = _turns(shards, rank, 2).resumed(state)
        assert "resumed on 2 ranks instead of 1: epoch 0 resumes after 12 of its 15 items" in told
        assert torch.equal(loader.load(3).reference[0], truth[3].reference[rank])
        assert loader.state(3).item == 6
        again, told = _turns(shards, rank, 2).resumed(loader.state(4))  # and on the same world
        assert told == ""
        assert torch.equal(again.load(4).targets, loader.load(4).targets)
    one, told = alone.resumed(alone.state(4))
    assert told == ""
    assert torch.equal(one.load(4).targets, truth[4].targets)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_a_state_counts_the_items_of_all_micro_batches(shards: ShardSet, accumulation: int) -> None:
    loader = _loader(shards, 0.5, accumulation=accumulation)
    assert loader.state(4) == StreamState(4, 4 * accumulation * loader.objects, 1, 1)
    resumed, notice = loader.resumed(loader.state(4))
    assert notice == ""
    numbers = range(4 * accumulation, 7 * accumulation)
    assert [resumed.item(number) for number in numbers] == [loader.item(number) for number in numbers]
    assert resumed.state(6) == loader.state(6)


def test_a_state_of_another_order_is_refused(shards: ShardSet) -> None:
    with pytest.raises(UserError, match="items_per_object"):
        _turns(shards).resumed(StreamState(3, 12, 1, 2))


def test_what_cannot_feed_is_refused_when_the_loader_is_made(shards: ShardSet) -> None:
    with pytest.raises(UserError, match="5 objects are too few for 6 ranks"):
        _loader(shards, 0.3, 0, 6)
    with pytest.raises(UserError, match="items_per_object is 65; it must be between 1 and 64"):
        _turns(shards, items=65)
    assert _loader(shards, 0.3, 4, 5).load(0).targets.shape[0] == 2  # more ranks than shards


def test_readers_change_nothing(shards: ShardSet) -> None:
    one, four = replace(_loader(shards, 0.3), readers=1), replace(_loader(shards, 0.3), readers=4)
    for first, second in zip(one.micro_batches(0, 5), four.micro_batches(0, 5), strict=True):
        assert torch.equal(first.targets, second.targets)


def test_a_filtered_set_feeds_only_what_it_keeps(shards: ShardSet) -> None:
    kept = (np.array([1, 3], np.int32), np.zeros(0, np.int32))
    small = ShardSet(shards.url, kept=kept)
    loader = _loader(small, 0.0)
    assert {small.uid(*loader.order.item(i)[1:]) for i in range(12)} == {"synthetic-0001", "synthetic-0003"}
    _, shard, sample = loader.order.item(0)
    reference, _ = draw_views(generator(StepKey(3, 0), "views"), "multi", 4)
    truth = composite_white(shards.views(shard, int(kept[0][sample]), [reference]))[0]
    np.testing.assert_array_equal(loader.load(0).reference[0].permute(1, 2, 0).numpy(), truth)


def test_planes_composite_as_pixels_do_to_the_last_bit() -> None:
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)  # colour, alpha
    rgba = np.concatenate([every[..., :1]] * 3 + [every[..., 1:]], -1)[None]
    for composited in (to_tensor(rgba), on_white(torch.from_numpy(rgba))):
        np.testing.assert_array_equal(composited.permute(0, 2, 3, 1).numpy(), composite_white(rgba))


def test_kept_views_are_the_views_that_are_read(image_shards):
    """With space for all, some and no views; a cached view is not read again."""
    expected = [load_random_views(image_shards, 3, step, objects=4, views=2) for step in range(6)]
    found = list(read_random_views(image_shards, 3, 6, objects=4, views=2))
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    for room in (0, 20_000, 1 << 30):
        kept = ViewCache(image_shards, room)
        for step, theirs in enumerate(expected):
            ours = load_random_views(image_shards, 3, step, objects=4, views=2, cache=kept)
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    kept.shards = None  # all of step 0 is there by now
    load_random_views(image_shards, 3, 0, objects=4, views=2, cache=kept)


def test_views_loaded_beforehand_are_the_views_that_are_read(image_shards):
    expected = list(read_random_views(image_shards, 3, 6, objects=4, views=2))
    loaded = LoadedViews(image_shards, torch.device("cpu"), tuple(expected[0].rgba.shape[2:]))
    found = list(read_loaded_views(loaded, 3, 6, objects=4, views=2))
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert load_if_worthwhile(image_shards, torch.device("cpu"), 10**9) is None


def test_noise_of_embeddings_is_that_of_the_step_and_differs_between_objects():
    tokens = torch.randn(4000, 1, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    noise = add_embedding_noise(tokens, 0.5, StepKey(0, 5)) - tokens
    assert torch.equal(add_embedding_noise(tokens, 0.5, StepKey(0, 5)) - tokens, noise)
    assert not torch.equal(add_embedding_noise(tokens, 0.5, StepKey(0, 6)) - tokens, noise)
    rms = noise.square().mean().sqrt() / 3  # levels uniform in [0, 0.5]: 0.5 / sqrt(3)
    assert float(rms) == pytest.approx(0.5 / 3**0.5, rel=0.05)
    levels = noise.square().mean((1, 2)).sqrt() / 3
    assert float(levels.quantile(0.1)) < 0.1
    assert float(levels.quantile(0.9)) > 0.4
    assert torch.equal(add_embedding_noise(tokens, 0.0, StepKey(0, 5)), tokens)
