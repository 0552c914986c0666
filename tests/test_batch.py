"""What a step trains on: views, labels, noise, the clean reference; and that it is a function of the position."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.camera import relative_camera
from dataset.errors import UserError
from dataset.image import composite_white
from dataset.order import Order, StreamState, epoch_order
from dataset.shards import open_set, read_stats
from dataset.stream import ShardSet
from tests.make_shards import make_shard_set
from tests.train_micro import micro_model, zero_camera
from train.batch import (
    Draw,
    Feed,
    Inputs,
    Position,
    add_noise,
    diffusion_loss,
    draw_branch,
    draw_noise,
    draw_turn,
    draw_views,
    generator,
    load_random_views,
    prepare_inputs,
    to_tensor,
)
from train.model import MultiViewModel, noise_schedule


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(make_shard_set(tmp_path_factory.mktemp("set"), 5, 16))


@pytest.fixture(scope="module")
def model() -> MultiViewModel:
    return micro_model()


def _draw(batch: int = 2, frames: int = 3, dropped: tuple[bool, ...] = (False, False)) -> Draw:
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, frames, 4, 8, 8, generator=g)
    return Draw(torch.tensor([3, 700][:batch]), noise, torch.tensor(dropped[:batch]))


def _prepare(reference: Tensor | None, draw: Draw) -> Inputs:
    g = torch.Generator().manual_seed(1)
    targets, cameras = torch.randn(2, 3, 4, 8, 8, generator=g), torch.randn(2, 3, 16, generator=g)
    tokens = torch.randn(2, 1, 32, generator=g)
    return prepare_inputs(targets, reference, cameras, tokens, draw, alphas_cumprod=noise_schedule())


def test_branch_is_single_in_30_percent_of_steps_and_depends_on_seed_and_step() -> None:
    branches = [draw_branch(0, step, 0.3) for step in range(4000)]
    assert Counter(branches)["single"] / 4000 == pytest.approx(0.3, abs=0.025)
    assert branches == [draw_branch(0, step, 0.3) for step in range(4000)]
    assert branches != [draw_branch(1, step, 0.3) for step in range(4000)]
    assert {draw_branch(0, step, 0.0) for step in range(50)} == {"multi"}


def test_multi_view_targets_are_four_orthogonal_fixed_views_from_any_first_one() -> None:
    rng = np.random.default_rng(0)
    firsts, references = set(), set()
    for _ in range(300):
        reference, targets = draw_views(rng, "multi", 4)
        assert reference[0] == "random"
        assert [view_set for view_set, _ in targets] == ["fixed"] * 4
        assert [index - targets[0][1] for _, index in targets] == [0, 4, 8, 12]
        firsts.add(targets[0][1])
        references.add(reference[1])
    assert (firsts, references) == (set(range(4)), set(range(16)))


def test_single_view_target_is_any_other_random_view() -> None:
    rng = np.random.default_rng(0)
    distances = set()
    for _ in range(500):
        reference, targets = draw_views(rng, "single", 4)
        distances.add((targets[0][1] - reference[1]) % 16)
        assert (reference[0], len(targets), targets[0][0]) == ("random", 1, "random")
    assert distances == set(range(1, 16))


def _feed(shards: ShardSet, chance: float, rank: int = 0, world: int = 1, accumulation: int = 2) -> Feed:
    return Feed(shards, 3, 2, accumulation, 4, chance, "relative", rank, world)


def test_views_and_labels_are_those_of_the_object(shards: ShardSet) -> None:
    views = _feed(shards, 0.0).load(0)
    assert views.targets.shape == (2, 4, 3, 16, 16)
    _, shard, sample = Order(shards.samples_per_shard, 3).item(0)
    meta = shards.meta(shard, sample)
    reference, targets = draw_views(generator(Position(3, 0), "views"), "multi", 4)
    picture = composite_white(shards.views(shard, sample, [targets[1]]))[0]
    np.testing.assert_array_equal(views.targets[0, 1].permute(1, 2, 0).numpy(), picture)
    ref = meta.views[reference[0]][reference[1]]
    for i, (view_set, index) in enumerate(targets):
        view = meta.views[view_set][index]
        label = relative_camera(view.elevation_deg, view.azimuth_deg, ref.elevation_deg, ref.azimuth_deg)
        np.testing.assert_array_equal(views.cameras[0, i].numpy(), label)


def test_the_reference_would_have_the_zero_label_relative_to_itself() -> None:
    np.testing.assert_array_equal(relative_camera(17.0, 120.0, 17.0, 120.0), np.array(zero_camera(), np.float32))
    assert np.abs(zero_camera()).sum() > 1


def test_reading_ahead_keeps_the_order_and_resuming_continues_it(shards: ShardSet) -> None:
    feed = _feed(shards, 0.3)
    whole = list(feed.micro_batches(0, 6))
    assert len(whole) == 12
    resumed = list(feed.micro_batches(4, 6))
    for number, views in enumerate(whole):
        assert torch.equal(views.targets, feed.load(number).targets)
    for before, after in zip(whole[8:], resumed, strict=True):
        assert torch.equal(before.reference, after.reference)
        assert torch.equal(before.cameras, after.cameras)
    assert len({views.targets.shape[1] for views in whole[:2]}) == 1  # one branch a step


def test_ranks_share_the_branch_and_nothing_else(shards: ShardSet) -> None:
    for number in range(8):
        first, second = (_feed(shards, 0.5, rank, 2).load(number) for rank in (0, 1))
        assert first.targets.shape == second.targets.shape
        assert not torch.equal(first.reference, second.reference)


def test_noise_depends_on_every_part_of_the_position_and_on_nothing_else() -> None:
    latents = torch.zeros(4, 2, 3, 8, 8)
    base = draw_noise(Position(0, 0, 0, 0), latents, 0.1)
    again = draw_noise(Position(0, 0, 0, 0), latents + 1, 0.1)
    assert torch.equal(base.noise, again.noise)
    assert torch.equal(base.timesteps, again.timesteps)
    for position in (Position(1, 0), Position(0, 1), Position(0, 0, 1), Position(0, 0, 0, 1)):
        assert not torch.equal(base.noise, draw_noise(position, latents, 0.1).noise)


def test_draws_have_the_right_distribution() -> None:
    draw = draw_noise(Position(0, 0), torch.zeros(4000, 1, 1, 2, 2), 0.1)
    assert float(draw.dropped.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert (int(draw.timesteps.min()), int(draw.timesteps.max())) == (0, 999)
    assert float(draw.timesteps.float().mean()) == pytest.approx(499.5, abs=20)
    assert float(draw.noise.std()) == pytest.approx(1, abs=0.03)


def test_eq_3_against_its_formula() -> None:
    alphas = noise_schedule()
    z, eps, t = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 3, 4, 8, 8), torch.tensor([0, 999])
    noisy = add_noise(z, eps, t, alphas)
    for i in range(2):
        a = float(alphas[t[i]])
        torch.testing.assert_close(noisy[i], a**0.5 * z[i] + (1 - a) ** 0.5 * eps[i], rtol=1e-5, atol=1e-6)


def test_stage_2_puts_the_clean_reference_in_front() -> None:
    """Eq. 4 and 6: z_v exactly, t_v = 0, pi_v the matrix of (0, 0)."""
    reference = torch.randn(2, 4, 8, 8)
    draw = _draw()
    with_reference, without = _prepare(reference, draw), _prepare(None, draw)
    assert (with_reference.num_frames, without.num_frames) == (4, 3)
    latents = with_reference.latents.view(2, 4, 4, 8, 8)
    assert torch.equal(latents[:, 0], reference)  # bit for bit: no noise, no scale of the schedule
    timesteps = with_reference.timesteps.view(2, 4)
    assert timesteps[:, 0].tolist() == [0, 0]
    assert timesteps[:, 1:].tolist() == [[3] * 3, [700] * 3]
    cameras = with_reference.cameras.view(2, 4, 16)
    assert cameras[:, 0].tolist() == [zero_camera()] * 2
    assert torch.equal(latents[:, 1:].flatten(0, 1), without.latents)
    assert torch.equal(cameras[:, 1:].flatten(0, 1), without.cameras)


def test_dropped_tokens_are_zeros() -> None:
    kept, dropped = _prepare(None, _draw()), _prepare(None, _draw(dropped=(True, False)))
    assert dropped.tokens[0].abs().sum() == 0
    assert torch.equal(dropped.tokens[1], kept.tokens[1])
    assert kept.tokens[0].abs().sum() > 0


def test_the_loss_ignores_the_references_prediction() -> None:
    noise = torch.randn(2, 3, 4, 8, 8)
    prediction = torch.randn(8, 4, 8, 8, requires_grad=True)
    loss = diffusion_loss(prediction, noise)
    expected = (prediction.view(2, 4, 4, 8, 8)[:, 1:] - noise).square().mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None
    gradient = prediction.grad.view(2, 4, 4, 8, 8)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1:].abs().min() > 0


def test_the_network_sees_the_reference_and_runs_without_it(model: MultiViewModel) -> None:
    draw = _draw()
    outputs = []
    for reference in (torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8), None):
        inputs = _prepare(reference, draw)
        with torch.no_grad():
            predicted = model.predict_noise(
                inputs.latents, inputs.timesteps, inputs.cameras, inputs.tokens, inputs.num_frames
            )
        outputs.append(predicted.view(2, -1, 4, 8, 8)[:, -3:])
    assert outputs[0].shape == outputs[2].shape
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4


def test_random_views_of_the_parts_come_from_the_objects_named(shards: ShardSet) -> None:
    pictures, numbers = load_random_views(shards, 0, 0, objects=7, views=2)
    assert pictures.shape == (7, 2, 3, 16, 16)
    assert len(set(numbers.tolist())) == 5  # five objects: two come twice
    again, _ = load_random_views(shards, 0, 0, objects=7, views=2)
    assert torch.equal(pictures, again)
    assert not any(torch.equal(pair[0], pair[1]) for pair in pictures)
    other, _ = load_random_views(shards, 0, 1, objects=7, views=2)
    assert not torch.equal(pictures, other)


def test_without_new_options_a_run_reads_what_it_read_before(shards: ShardSet) -> None:
    """Against the loop that training had before there were items, filters and replacements."""
    feed = _feed(shards, 0.3)
    for number, views in enumerate(feed.micro_batches(0, 4)):
        step, micro = divmod(number, 2)
        rng = generator(Position(3, step, micro), "views")
        branch = draw_branch(3, step, 0.3)
        for row, i in enumerate(range(number * 2, number * 2 + 2)):
            epoch, place = divmod(i, 5)
            shard, sample = map(int, epoch_order(shards.samples_per_shard, 3, epoch, 0, 1)[place])
            reference, targets = draw_views(rng, branch, 4)
            pictures = to_tensor(shards.views(shard, sample, [reference, *targets]))
            assert torch.equal(views.reference[row], pictures[0])
            assert torch.equal(views.targets[row], pictures[1:])
            meta = shards.meta(shard, sample)
            ref = meta.views[reference[0]][reference[1]]
            chosen = [meta.views[view_set][index] for view_set, index in targets]
            labels = [
                relative_camera(view.elevation_deg, view.azimuth_deg, ref.elevation_deg, ref.azimuth_deg)
                for view in chosen
            ]
            np.testing.assert_array_equal(views.cameras[row].numpy(), np.stack(labels))


def _turns(shards: ShardSet, rank: int = 0, world: int = 1, items: int = 3, objects: int = 2) -> Feed:
    return Feed(shards, 3, objects, 1, 4, 0.0, "relative", rank, world, items_per_object=items)


def test_items_of_an_object_have_other_references_and_every_pair_once() -> None:
    for branch, per_epoch in (("multi", 64), ("single", 240)):
        drawn = [draw_turn(3, (2, 1, 0), turn, branch, 4) for turn in range(per_epoch)]  # type: ignore[arg-type]
        assert len({(reference, tuple(targets)) for reference, targets in drawn}) == per_epoch
        assert len({reference for reference, _ in drawn[:16]}) == 16
        assert all(reference not in targets for reference, targets in drawn)
        assert drawn == [draw_turn(3, (2, 1, 0), turn, branch, 4) for turn in range(per_epoch)]  # type: ignore[arg-type]
    firsts = Counter(draw_turn(3, (2, 1, 0), turn, "multi", 4)[1][0][1] for turn in range(16))
    assert firsts == {0: 4, 1: 4, 2: 4, 3: 4}
    first_items = {
        str(draw_turn(seed, (epoch, 0, i), 0, "multi", 4)) for seed in (0, 1) for epoch in (0, 1) for i in range(9)
    }
    assert len(first_items) > 20


def test_several_items_are_the_views_of_their_objects_and_the_epoch_is_longer(shards: ShardSet) -> None:
    feed = _turns(shards)
    assert feed.order.per_epoch == 15
    for number in range(3):
        views = feed.load(number)
        for row in range(2):
            i = number * 2 + row
            epoch, shard, sample = feed.order.item(i)
            reference, targets = draw_turn(3, (epoch, shard, sample), feed.order.turn(i), "multi", 4)
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
        feed, told = _turns(shards, rank, 2).resumed(state)
        assert "resumed on 2 ranks instead of 1: epoch 0 goes on after 12 of its 15 items" in told
        assert torch.equal(feed.load(3).reference[0], truth[3].reference[rank])
        assert feed.state(3).item == 6
        again, told = _turns(shards, rank, 2).resumed(feed.state(4))  # and on the same world
        assert told == ""
        assert torch.equal(again.load(4).targets, feed.load(4).targets)
    one, told = alone.resumed(alone.state(4))
    assert told == ""
    assert torch.equal(one.load(4).targets, truth[4].targets)


def test_a_state_of_another_order_is_refused(shards: ShardSet) -> None:
    with pytest.raises(UserError, match="items_per_object"):
        _turns(shards).resumed(StreamState(3, 12, 1, 2))


def test_what_cannot_feed_is_refused_when_the_feed_is_made(shards: ShardSet) -> None:
    with pytest.raises(UserError, match="5 objects cannot feed 6 ranks"):
        _feed(shards, 0.3, 0, 6)
    with pytest.raises(UserError, match="65 items an object: there are 1 to 64"):
        _turns(shards, items=65)
    with pytest.raises(UserError, match="share of damaged objects"):
        Feed(shards, 3, 2, 1, 4, 0.3, "relative", max_damaged_share=1.5)
    assert _feed(shards, 0.3, 4, 5).load(0).targets.shape[0] == 2  # more ranks than shards: no trouble


def _damage(folder: Path, number: int, suffixes: tuple[str, ...]) -> None:
    """Flip a bit of some members of an object of the first shard."""
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    members = read_stats(*open_set(folder), "shard-000000").samples[number].members
    for suffix in suffixes:
        data[members[suffix].offset + 30] ^= 4
    tar.write_bytes(bytes(data))


@pytest.mark.parametrize("items", [1, 3])
def test_a_damaged_object_is_replaced_by_the_same_one_each_time_and_the_rest_stays(
    tmp_path: Path, items: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_set(tmp_path, 6, 16)
    make = partial(
        Feed,
        seed=3,
        objects=3,
        accumulation=1,
        num_views=4,
        single_view_chance=0.3,
        convention="relative",
        items_per_object=items,
        max_damaged_share=0.2,
    )
    sound = [make(ShardSet(folder)).load(number) for number in range(4)]
    _damage(folder, 2, ("meta.json",))
    feed = make(ShardSet(folder))
    broken = list(feed.micro_batches(0, 4))
    bad = [(number, row) for number in range(4) for row in range(3) if feed.order.item(number * 3 + row)[1:] == (0, 2)]
    assert bad
    for number in range(4):
        for row in range(3):
            same = torch.equal(broken[number].targets[row], sound[number].targets[row])
            assert same == ((number, row) not in bad)
    fresh = make(ShardSet(folder))
    for number in (3, 0, 2, 1):  # any order, any reader: the very same replacement
        assert torch.equal(fresh.load(number).targets, broken[number].targets)
        assert torch.equal(fresh.load(number).cameras, broken[number].cameras)
    assert list(feed.damage.found) == ["synthetic-0002"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # once a feed, however often the object is drawn
    assert "passed over (1 of at most 1 damaged objects)" in told[0]
    assert "synthetic-0002.meta.json" in told[0]


def test_an_object_with_a_bad_picture_serves_where_that_picture_is_not_wanted(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 1, 16)
    feed = Feed(ShardSet(folder), 3, 1, 1, 4, 0.0, "relative")
    sound = [feed.load(number) for number in range(8)]
    numbers = [draw_views(generator(Position(3, number), "views"), "multi", 4)[0][1] for number in range(8)]
    _damage(folder, 0, (f"random_{numbers[0]:02d}.webp",))
    for number in range(8):
        if numbers[number] == numbers[0]:
            with pytest.raises(UserError, match=f"random_{numbers[0]:02d}.webp is truncated or corrupt"):
                Feed(ShardSet(folder), 3, 1, 1, 4, 0.0, "relative").load(number)
        else:
            assert torch.equal(feed.load(number).reference, sound[number].reference)
    assert len(set(numbers)) > 1


def test_more_damage_than_the_share_stops_and_names_it(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 4, 16)
    _damage(folder, 1, ("meta.json",))
    _damage(folder, 3, ("meta.json",))
    with pytest.raises(
        UserError, match=r"1 of 4 objects met so far are damaged .* the 0 that a share of 0\.001 allows"
    ):
        list(Feed(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative").micro_batches(0, 2))
    feed = Feed(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", max_damaged_share=0.25)
    with pytest.raises(UserError, match=r"2 of 4 objects .*synthetic-000[13], synthetic-000[13]\), more than the 1"):
        list(feed.micro_batches(0, 2))
    assert set(feed.damage.found) == {"synthetic-0001", "synthetic-0003"}
    allowed = Feed(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", max_damaged_share=0.5)
    assert len(list(allowed.micro_batches(0, 2))) == 2


def test_storage_that_fails_is_no_damage(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 4, 16)
    feed = Feed(ShardSet(folder), 3, 4, 1, 4, 0.0, "relative", max_damaged_share=0.9)
    (folder / "shard-000000.tar").rename(folder / "away")
    with pytest.raises(UserError, match="cannot be read"):
        feed.load(0)
    assert feed.damage.found == {}


def test_readers_change_nothing(shards: ShardSet) -> None:
    one, four = replace(_feed(shards, 0.3), readers=1), replace(_feed(shards, 0.3), readers=4)
    for first, second in zip(one.micro_batches(0, 5), four.micro_batches(0, 5), strict=True):
        assert torch.equal(first.targets, second.targets)


def test_a_filtered_set_feeds_only_what_it_keeps(shards: ShardSet) -> None:
    kept = (np.array([1, 3], np.int32), np.zeros(0, np.int32))
    small = ShardSet(shards.url, kept=kept)
    feed = _feed(small, 0.0)
    assert {small.uid(*feed.order.item(i)[1:]) for i in range(12)} == {"synthetic-0001", "synthetic-0003"}
    _, shard, sample = feed.order.item(0)
    reference, _ = draw_views(generator(Position(3, 0), "views"), "multi", 4)
    truth = composite_white(shards.views(shard, int(kept[0][sample]), [reference]))[0]
    np.testing.assert_array_equal(feed.load(0).reference[0].permute(1, 2, 0).numpy(), truth)


def test_planes_composite_as_pixels_do_to_the_last_bit() -> None:
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)  # colour, alpha
    rgba = np.concatenate([every[..., :1]] * 3 + [every[..., 1:]], -1)[None]
    np.testing.assert_array_equal(to_tensor(rgba).permute(0, 2, 3, 1).numpy(), composite_white(rgba))
