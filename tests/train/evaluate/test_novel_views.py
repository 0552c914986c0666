"""Rings of novel views: their cameras, groups and noise, and what they are judged by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.camera import relative_camera
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import micro_model
from train.evaluate import novel_views
from train.evaluate.novel_views import condition_on_reference, draw_rings, in_groups, in_ring, read_evaluation_object
from train.evaluate.score import RingScorer
from train.model.multiview import MultiViewModel
from train.model.reference import start_channel_concat

pytestmark = pytest.mark.usefixtures("one_thread")
HELD_OUT = "synthetic-0003"  # the validation split of six
METHODS = ("model.alone", "model.reference", "nearest-training-object", "mean-picture", "autoencoder")


def test_a_perfect_ring_and_one_that_is_turned(shards: Path, model: MultiViewModel) -> None:
    truth, scorer = read_evaluation_object(ShardSet(shards), (0, 2)), RingScorer(model, {})  # a box of six colors
    perfect = scorer.scores(truth.ring_on_white, truth)
    for name, value in {
        "psnr": 100,
        "ssim": 1,
        "psnr_box": 100,
        "ssim_box": 1,
        "similarity": 1,
        "pose_pixels": 1,
    }.items():
        assert perfect[name] == pytest.approx([value] * 16)
    assert perfect["pose_embedding"] == [1.0] * 16
    turned = scorer.scores(np.roll(truth.ring_on_white, 8, 0), truth)
    for by in ("pixels", "embedding"):
        assert np.nanmax(perfect[f"front_back_{by}"]) == 0
        assert np.nanmin(turned[f"front_back_{by}"]) == 1
        assert turned[f"turned_{by}_deg"] == pytest.approx([180.0] * 16)


def test_groups_are_orthogonal_and_come_back_as_the_ring() -> None:
    ring = torch.arange(2 * 16 * 3).reshape(2, 16, 3)
    groups = in_groups(ring)
    assert groups.shape == (8, 4, 3)
    assert (groups[1, :, 0] // 3).tolist() == [1, 5, 9, 13]  # 90 degrees apart
    assert torch.equal(in_ring(groups), ring)


def test_each_view_is_drawn_at_its_own_camera(
    shards: Path, model: MultiViewModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that paints its camera's first numbers: they must be the truth's, relative to the reference."""

    def paint(_: Any, noise: Tensor, tokens: Tensor, cameras: Tensor, **__: Any) -> Tensor:
        assert len(noise) == len(tokens) == len(cameras) == 8
        return ((cameras[..., :3] + 1) / 2)[..., None, None].expand(8, 4, 3, 32, 32)

    monkeypatch.setattr(novel_views, "denoise_views", paint)
    truths = [read_evaluation_object(ShardSet(shards), (0, i)) for i in (1, 2)]
    drawn = draw_rings(model, truths, 0, steps=2, guidance_scale=1.0, with_reference=False)
    for truth, ring in zip(truths, drawn, strict=True):
        labels = relative_camera(*truth.ring_angles_deg.T, *truth.reference_angles_deg)
        np.testing.assert_allclose(ring[:, 0, 0] * 2 - 1, labels[:, :3], atol=1e-5)


def test_rings_depend_on_object_and_seed_and_not_on_neighbours(shards: Path, model: MultiViewModel) -> None:
    truths = [read_evaluation_object(ShardSet(shards), (0, i)) for i in (1, 2)]

    def draw(chosen: Sequence[Any], seed: int = 0, with_reference: bool = False) -> list[Any]:
        return list(draw_rings(model, chosen, seed, steps=2, guidance_scale=2.0, with_reference=with_reference))

    both, alone = draw(truths), draw(truths[1:])
    np.testing.assert_allclose(both[1], alone[0], atol=1e-4)
    assert np.array_equal(draw(truths[1:])[0], alone[0])
    assert not np.array_equal(draw(truths[1:], seed=1)[0], alone[0])
    assert not np.array_equal(draw(truths[1:], with_reference=True)[0], alone[0])


@pytest.mark.parametrize("with_reference", [False, True])
def test_rings_in_bf16_are_those_of_float32_but_for_rounding(
    shards: Path, model: MultiViewModel, monkeypatch: pytest.MonkeyPatch, with_reference: bool
) -> None:
    """As a GPU draws them; the model's own weights stay float32."""
    truths = [read_evaluation_object(ShardSet(shards), (0, i)) for i in (1, 2)]
    options: dict[str, Any] = {"steps": 2, "guidance_scale": 2.0, "with_reference": with_reference}
    exact = draw_rings(model, truths, 0, **options)
    monkeypatch.setattr(novel_views, "mixed_precision", lambda _: torch.autocast("cpu", torch.bfloat16))
    for rounded, ring in zip(draw_rings(model, truths, 0, **options), exact, strict=True):
        assert rounded.dtype == np.float32
        assert 0 < float(np.abs(rounded - ring).max()) < 0.2
        assert float(np.abs(rounded - ring).mean()) < 0.02


def test_a_model_with_reference_channels_sees_zeros_when_it_is_not_shown() -> None:
    model = micro_model()
    start_channel_concat(model.unet)
    references = torch.rand(2, 3, 32, 32)
    unseen, seen = (
        condition_on_reference(model, references, torch.zeros(2, 16), with_reference=with_reference).unet.reference
        for with_reference in (False, True)
    )
    assert unseen.shape == seen.shape == (8, 4, 8, 8)
    assert not unseen.any()
    torch.testing.assert_close(seen[::4], model.encode(references))
    plain = micro_model()
    assert condition_on_reference(plain, references, torch.zeros(2, 16), with_reference=False) is plain
