"""Micro-batches of latents against those of images: the same views, labels, latents, loss; damage; other models."""

import math
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Final

import numpy as np
import pytest
import torch

from dataset.errors import UserError
from dataset.format.shards import read_stats
from dataset.io.files import url_to_fs
from dataset.reading.damage import Damage
from dataset.reading.latent_set import LatentSet
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import micro_model
from train.data.latent_cache import cache_bytes, cache_if_small
from train.data.latents import LatentBatch, check_latents, draw_posterior
from train.data.loader import BatchLoader
from train.data.sampling import StepKey, draw_noise
from train.loop.loss import encode_views, predict, training_loss, views_to_images
from train.model.multiview import MultiViewModel
from train.model.reference import ReferenceMode

USES: Final[tuple[ReferenceMode, ...]] = ("none", "attention")
pytestmark = pytest.mark.usefixtures("one_thread")


def _loader(
    shards: ShardSet | LatentSet, chance: float = 0.5, items: int = 1, damage: Damage | None = None
) -> BatchLoader:
    return BatchLoader(shards, 7, 3, 1, 4, chance, "relative", items_per_object=items, damage=damage)


def _latents(loader: BatchLoader, number: int) -> LatentBatch:
    views = loader.load(number)
    assert isinstance(views, LatentBatch)
    return views


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("kind", ["latent_folder", "lean"])
def test_latents_agree_with_images_at_the_same_position(
    image_shards: ShardSet, model: MultiViewModel, items: int, kind: str, request: pytest.FixtureRequest
) -> None:
    """float16 keeps three digits, more than the bfloat16 that training computes with."""
    latents = LatentSet(request.getfixturevalue(kind))
    shapes = set()
    for number in range(5):
        views, ours = (_loader(shards, items=items).load(number) for shards in (image_shards, latents))
        for use in USES:
            expected, found = (encode_views(model, v, use) for v in (views, ours))  # type: ignore[arg-type]
            assert (expected.reference is None) == (found.reference is None) == (use == "none")
            torch.testing.assert_close(found.targets, expected.targets, rtol=2e-3, atol=1e-3)
            torch.testing.assert_close(found.reference, expected.reference, rtol=2e-3, atol=1e-3)
            torch.testing.assert_close(found.tokens, expected.tokens, rtol=2e-3, atol=1e-3)
            assert torch.equal(found.cameras, expected.cameras)
            assert torch.equal(found.reference_camera, expected.reference_camera)
            assert found.cameras.dtype == found.targets.dtype == found.tokens.dtype == torch.float32
        shapes.add(ours.cameras.shape)
    assert shapes == {(3, 4, 16), (3, 1, 16)}  # both branches


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("kind", ["latent_folder", "lean"])
def test_a_set_kept_in_memory_gives_the_same_batches(kind: str, items: int, request: pytest.FixtureRequest) -> None:
    whole = LatentSet(request.getfixturevalue(kind))
    shapes = set()
    for latents in (whole, whole.narrowed(tuple(np.arange(n, dtype=np.int32)[-1:] for n in whole.samples_per_shard))):
        read = _loader(latents, items=items)
        cache = cache_if_small(latents, "relative")
        assert cache is not None
        for number in range(6):
            expected, found = _latents(read, number), _latents(replace(read, cache=cache), number)
            for name, ours in vars(found).items():
                theirs = vars(expected)[name]
                assert (ours is None) == (theirs is None)
                assert ours is None or (torch.equal(ours, theirs) and ours.dtype == theirs.dtype), name
            shapes.add(found.cameras.shape)
    assert shapes == {(3, 4, 16), (3, 1, 16)}  # both branches
    assert cache_if_small(whole, "relative", cache_bytes(whole) - 1) is None


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_step_has_the_same_loss_from_latents_as_from_images(
    image_shards: ShardSet, model: MultiViewModel, latent_folder: Path, use: ReferenceMode, sampled: bool
) -> None:
    step_key, losses = StepKey(7, 4), []
    for shards in (image_shards, LatentSet(latent_folder)):
        with torch.no_grad():
            encoded = encode_views(model, _loader(shards).load(4), use, step_key if sampled else None)
            draw = draw_noise(step_key, encoded.targets.shape, 0.0)
            losses.append(
                float(
                    training_loss(predict(model.unet, encoded, draw, model.alphas_cumprod), draw, model.alphas_cumprod)
                )
            )
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_the_posteriors_mean_is_taken_unless_a_draw_is_asked_for(model: MultiViewModel, latent_folder: Path) -> None:
    views, scale = _latents(_loader(LatentSet(latent_folder), 0.0), 0), model.spec.latent_scale
    mean = encode_views(model, views, "attention")
    assert mean.reference is not None
    assert torch.equal(mean.targets, views.target_mean.float() * scale)
    assert torch.equal(mean.reference, views.reference_mean.float() * scale)


def test_drawn_latents_have_the_posteriors_spread_and_depend_on_the_position_alone(
    model: MultiViewModel, latent_folder: Path
) -> None:
    views = _latents(_loader(LatentSet(latent_folder), 0.0), 0)
    mean = encode_views(model, views, "attention")
    drawn, again, other = (encode_views(model, views, "attention", StepKey(7, 0, micro)) for micro in (0, 0, 1))
    deviations = []
    for name, logvar in (("targets", views.target_logvar), ("reference", views.reference_logvar)):
        assert logvar is not None
        first, second, third, middle = (getattr(encoded, name) for encoded in (drawn, again, other, mean))
        assert torch.equal(first, second)
        assert not torch.equal(first, third)
        eps = (first - middle) / model.spec.latent_scale / (logvar.float() / 2).exp()
        assert float(eps.mean()) == pytest.approx(0, abs=0.1)
        assert float(eps.std()) == pytest.approx(1, abs=0.1)
        deviations.append(eps)
    assert not torch.equal(deviations[0][:, 0], deviations[1])  # targets and reference have numbers of their own
    stage1 = encode_views(model, views, "none", StepKey(7, 0))
    assert torch.equal(stage1.targets, drawn.targets)


@pytest.mark.parametrize("deviation", [0.1, 1.0, 3.0])
def test_a_drawn_latent_has_the_mean_and_the_deviation_of_its_posterior(deviation: float) -> None:
    mean = torch.full((1, 4, 4, 64, 64), -2.0)
    logvar = torch.full_like(mean, 2 * math.log(deviation))
    targets, reference = (draw_posterior(mean, logvar, StepKey(0, 5), part) for part in (0, 1))
    for drawn in (targets, reference):
        assert drawn.mean().item() == pytest.approx(-2.0, abs=0.02 * deviation)
        assert drawn.std().item() == pytest.approx(deviation, rel=0.01)
    assert not torch.equal(targets, reference)


def test_shown_latents_look_like_their_images_through_the_vae(
    image_shards: ShardSet, model: MultiViewModel, latent_folder: Path
) -> None:
    views, ours = _loader(image_shards, 0.0).load(0), _latents(_loader(LatentSet(latent_folder), 0.0), 0)
    assert all(a is b for a, b in zip(views_to_images(model, views), (views.reference, views.targets), strict=True))  # type: ignore[union-attr]
    reference, targets = views_to_images(model, ours)
    assert (reference.shape, targets.shape) == ((3, 3, 32, 32), (3, 4, 3, 32, 32))
    with torch.no_grad():
        expected = model.decode(model.encode(views.targets.flatten(0, 1))).view_as(targets)  # type: ignore[union-attr]
    torch.testing.assert_close(targets, expected, rtol=0, atol=5e-3)


def test_latents_of_another_model_and_missing_variances_are_refused(
    latent_folder: Path, lean: Path, model: MultiViewModel
) -> None:
    latents = LatentSet(latent_folder)
    check_latents(latents, model, sample_posterior=True)
    check_latents(LatentSet(lean), model)
    with pytest.raises(UserError, match=r"another model \(vae_sha256, image_tower_sha256 differ\)"):
        check_latents(latents, micro_model(seed=1))
    with pytest.raises(UserError, match=r"latent_scale differ"):
        check_latents(latents, replace(model, spec=replace(model.spec, latent_scale=1.0)))
    with pytest.raises(UserError, match="has no log variances, which --sample-posterior needs"):
        check_latents(LatentSet(lean), model, sample_posterior=True)
    with pytest.raises(UserError, match="has no log variances"):
        encode_views(model, _loader(LatentSet(lean)).load(0), "none", StepKey(7, 0))


@pytest.mark.parametrize("items", [1, 3])
def test_a_damaged_object_is_replaced_as_among_images(latent_folder: Path, tmp_path: Path, items: int) -> None:
    whole = [_latents(_loader(LatentSet(latent_folder), 0.0, items), number) for number in range(5)]
    damaged = Path(copytree(latent_folder, tmp_path / "set"))
    tar = damaged / "shard-000000.tar"
    data, members = bytearray(tar.read_bytes()), read_stats(*url_to_fs(damaged), "shard-000000").samples[1].members
    for suffix, place in members.items():
        if suffix.startswith("random"):
            data[place.offset + 200] ^= 4
    tar.write_bytes(bytes(data))
    damage = Damage(5, 0.2)
    loader = _loader(LatentSet(damaged), 0.0, items, damage)
    rows = [(number, row) for number in range(5) for row in range(3)]
    bad = [place for place in rows if loader.order.item(place[0] * 3 + place[1])[1:] == (0, 1)]
    assert bad
    found = [_latents(loader, number) for number in range(5)]
    for number, row in rows:
        same = torch.equal(found[number].reference_mean[row], whole[number].reference_mean[row])
        assert same == ((number, row) not in bad)
    again = _loader(LatentSet(damaged), 0.0, items, Damage(5, 0.2))
    kept = replace(again, damage=Damage(5, 0.2), cache=cache_if_small(LatentSet(damaged), "relative"))
    for number in (4, 1, 0, 3, 2):
        assert torch.equal(_latents(again, number).target_mean, found[number].target_mean)
        assert torch.equal(_latents(kept, number).target_mean, found[number].target_mean)
    assert kept.damage is not None
    assert list(kept.damage.reasons) == ["synthetic-0001"]
    assert list(damage.reasons) == ["synthetic-0001"]
    with pytest.raises(UserError, match="1 of 5 objects are damaged so far"):
        list(_loader(LatentSet(damaged), 0.0, items, Damage(5)).micro_batches(0, 5))


def test_a_filtered_latent_set_feeds_only_what_it_keeps(latent_folder: Path) -> None:
    whole = LatentSet(latent_folder)
    small = whole.narrowed((np.array([1], np.int32), np.zeros(0, np.int32), np.array([0], np.int32)))
    loader = _loader(small, 0.0)
    assert {small.uid(*loader.order.item(i)[1:]) for i in range(8)} == {"synthetic-0001", "synthetic-0004"}
    shard, sample = {1: (0, 1), 4: (2, 0)}[int(small.uid(*loader.order.item(0)[1:])[-4:])]
    reference = whole.views(shard, sample, [("random", i) for i in range(16)]).mean
    first = _latents(loader, 0).reference_mean[0].numpy()
    assert any(np.array_equal(first, one) for one in reference)
