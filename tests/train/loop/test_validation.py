"""Held-out objects: their choice, that no part of training reads them, and the loss on them."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataset.errors import UserError
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE, split_of
from dataset.reading.shard_set import ShardSet
from tests.support.train_cli import resolved
from tests.support.train_micro import micro_model, micro_run
from train.__main__ import AutoencoderOptions, ImageEncoderOptions, run_component
from train.data.loader import BatchLoader
from train.data.sampling import DiffusionNoise
from train.data.splits import split_set
from train.loop import loop
from train.loop.loop import train
from train.loop.loss import encode_views, object_losses, predict
from train.loop.validation import bucket_names, fixed_noise, validate, validation_views
from train.model.reference import ReferenceMode

HELD_OUT = "synthetic-0003"  # of the six


pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")


def _loader(shards: ShardSet, seed: int = 7) -> BatchLoader:
    return BatchLoader(
        shards, seed, objects=2, accumulation=1, num_views=4, single_view_chance=0.3, convention="relative"
    )


def _noted_reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Record the uids of objects that are read from now on."""
    read: set[str] = set()
    plain = ShardSet.read

    def noted(self: ShardSet, shard: int, sample: int, members: list[str]) -> dict[str, bytes]:
        read.update(name.split(".")[0] for name in members)
        return plain(self, shard, sample, members)

    monkeypatch.setattr(ShardSet, "read", noted)
    return read


def test_one_object_in_twenty_by_its_uid_alone() -> None:
    parts = [split_of(f"object-{i}", VALIDATION_SHARE, TEST_SHARE) for i in range(20_000)]
    for part in ("validation", "test"):
        assert parts.count(part) / len(parts) == pytest.approx(0.05, abs=0.006)  # four deviations
    # Pinned: a change of the hash would move objects of finished runs from one part to the other
    pinned = [split_of(f"synthetic-{i:04d}", VALIDATION_SHARE, TEST_SHARE) for i in range(60)]
    assert [i for i, part in enumerate(pinned) if part == "validation"] == [3, 34, 53, 56]
    assert [i for i, part in enumerate(pinned) if part == "test"] == [50, 59]


def test_a_smaller_set_is_the_set_with_fewer_objects(shards: Path) -> None:
    whole = ShardSet(shards)
    subset = ShardSet(whole.url, whole.index, (np.array([1, 3], np.int32), np.array([0], np.int32)))
    assert subset.uids() == ["synthetic-0001", HELD_OUT, "synthetic-0004"]
    assert (len(subset), subset.samples_per_shard) == (3, (2, 1))
    assert subset.meta(0, 1).uid == HELD_OUT
    wanted = [("fixed", 2), ("random", 15)]
    assert np.array_equal(subset.views(0, 1, wanted), whole.views(0, 3, wanted))
    assert sorted(subset.objects(seed=1)) == [(0, 0), (0, 1), (1, 0)]
    assert pickle.loads(pickle.dumps(subset)).uids() == subset.uids()  # noqa: S301


def test_small_sets_are_trained_on_as_a_whole_and_that_is_said(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ShardSet(shards)
    assert split_set(whole, "auto") == (whole, None)
    assert "all 6 objects, because sets of fewer than 20" in capsys.readouterr().err
    assert split_set(whole, "off") == (whole, None)
    assert "all 6 objects, because sets of fewer than 20" in capsys.readouterr().err
    assert split_set(whole, "off", 0.0) == (whole, None)
    assert capsys.readouterr().err == ""


def test_divided_parts_share_nothing_and_lose_nothing(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ShardSet(shards)
    training, held_out = split_set(whole, "on")
    assert held_out is not None
    assert held_out.uids() == [HELD_OUT]
    assert training.uids() == [uid for uid in whole.uids() if uid != HELD_OUT]
    assert "1 of 6 objects (chosen by a hash of the uid) are not trained on" in capsys.readouterr().err


def test_a_smaller_set_is_divided_again(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ShardSet(shards)
    kept = (np.array([1, 3], np.int32), np.array([0], np.int32))
    training, held_out = split_set(ShardSet(whole.url, whole.index, kept), "on")
    assert held_out is not None
    assert (held_out.uids(), training.uids()) == ([HELD_OUT], ["synthetic-0001", "synthetic-0004"])
    assert "1 of 3 objects (chosen by a hash of the uid) are not trained on" in capsys.readouterr().err


def test_a_set_without_an_object_to_hold_out(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ShardSet(shards)
    monkeypatch.setattr("train.data.splits.VALIDATION_SHARE", 0.001)
    with pytest.raises(
        UserError, match=r"6 training objects and 0 validation objects, and both must be at least 1.*--validation off"
    ):
        split_set(whole, "on")
    monkeypatch.setattr("train.data.splits.MIN_OBJECTS", 6)
    assert split_set(whole, "auto") == (whole, None)
    assert "validation is off, because the hash of the uid chose none of the 6 objects" in capsys.readouterr().err


def test_the_draw_has_a_timestep_of_each_bucket_and_depends_on_seed_and_object_alone() -> None:
    latents = torch.zeros(4, 2, 4, 8, 8)
    draws = [fixed_noise(seed, number, latents) for seed in range(3) for number in range(20)]
    for draw in draws:
        assert (draw.timesteps // 250).tolist() == [0, 1, 2, 3]
        assert not draw.dropped.any()
    assert len({tuple(draw.timesteps.tolist()) for draw in draws}) > 50
    again = fixed_noise(1, 4, latents)
    assert torch.equal(again.noise, draws[24].noise)
    assert torch.equal(again.timesteps, draws[24].timesteps)
    assert bucket_names() == ["t000-249", "t250-499", "t500-749", "t750-999"]


@pytest.mark.parametrize("use", ["none", "attention"])
def test_validation_is_the_mean_loss_by_bucket(shards: Path, use: ReferenceMode) -> None:
    model, loader = micro_model(), _loader(ShardSet(shards))
    found = validate(model, loader, use)
    assert found == validate(model, loader, use)
    sums = [0.0] * 4
    with torch.no_grad():
        for number in range(6):  # one bucket at a time, not four at once
            encoded = encode_views(model, validation_views(loader, number), use)
            draw = fixed_noise(7, number, encoded.targets.expand(4, -1, -1, -1, -1))
            for i in range(4):
                one = DiffusionNoise(draw.timesteps[i : i + 1], draw.noise[i : i + 1], draw.dropped[i : i + 1])
                sums[i] += float(object_losses(predict(model.unet, encoded, one, model.alphas_cumprod), one.noise)) / 6
    assert [found[name] for name in bucket_names()] == pytest.approx(sums, rel=1e-5)
    assert found["loss"] == pytest.approx(sum(sums) / 4, rel=1e-5)
    assert found != validate(model, replace(loader, seed=8), use)


def test_test_objects_are_in_neither_part(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a share of one half, objects 0 and 4 of the six are for testing."""
    whole = ShardSet(shards)
    training, held_out = split_set(whole, "on", 0.5)
    assert held_out is not None
    assert (training.uids(), held_out.uids()) == ([f"synthetic-{i:04d}" for i in (1, 2, 5)], [HELD_OUT])
    monkeypatch.setattr("train.data.splits.MIN_OBJECTS", 6)
    training, held_out = split_set(whole, "off", 0.5)  # validation is off; test objects stay out
    assert held_out is None
    assert training.uids() == [f"synthetic-{i:04d}" for i in (1, 2, 3, 5)]
    assert split_set(whole, "off") == (whole, None)  # none of the six is in the default twentieth
    assert split_set(whole, "off", 0.0) == (whole, None)


@pytest.mark.parametrize("share", [-0.1, 0.95, 1.0])
def test_a_test_share_that_leaves_nothing_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--test-share is"):
        resolved("stage1", f"--test-share={share}")


@pytest.mark.parametrize("part", [AutoencoderOptions, ImageEncoderOptions])
def test_parts_trained_alone_leave_the_test_objects_out_too(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any
) -> None:
    monkeypatch.setattr("train.data.splits.MIN_OBJECTS", 6)
    read = _noted_reads(monkeypatch)
    run_component(part(out=tmp_path, shards=str(shards), steps=2, batch_size=8, device="cpu", test_share=0.5))
    assert read == {f"synthetic-{i:04d}" for i in (1, 2, 5)}


@pytest.mark.parametrize(("test_share", "trained"), [(0.05, (0, 1, 2, 4, 5)), (0.5, (1, 2, 5))])
def test_nothing_of_a_held_out_object_is_read_by_training(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_share: float, trained: tuple[int, ...]
) -> None:
    read = _noted_reads(monkeypatch)
    monkeypatch.setattr(loop, "_validate_and_sample", lambda *_: None)  # the one place that may
    run = micro_run(shards, tmp_path / "run", 6)
    train(replace(run, recipe=replace(run.recipe, validation="on", test_share=test_share)))
    assert read == {f"synthetic-{i:04d}" for i in trained}  # parts and both stages' views


def test_validation_changes_nothing_of_the_training_and_is_logged(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for every in (1, 1000):
        run = micro_run(shards, tmp_path / f"every-{every}", 3)
        train(replace(run, recipe=replace(run.recipe, validation="on", validate_every=every)))
        weights.append(load_file(run.out / "unet" / "diffusion_pytorch_model.safetensors"))
        assert capsys.readouterr().err.count("validation  loss") == (3 if every == 1 else 1)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
