"""Which renders the judge learns from, which are held out, and that stored features are used again."""

import numpy as np
import pytest
import torch
from torch import nn

from dataset.errors import UserError
from dataset.images.prepare import composite_white
from dataset.reading.shard_set import ShardSet
from distill.evaluate.photos.class_bank import ClassBank, fit_rules, open_bank, select_renders
from distill.evaluate.photos.judge import Judge
from distill.evaluate.photos.rules import LabelledFeatures

KINDS = {f"synthetic-{i:04d}": "box" if i % 2 else "ball" for i in range(5)}


@pytest.fixture
def judge() -> Judge:
    return Judge(nn.Flatten(), 4, torch.device("cpu"))


def test_objects_of_known_kinds_are_selected_up_to_a_limit(box_shards):
    shards = ShardSet(box_shards)
    found = select_renders([shards, shards], KINDS, 60)
    assert sorted(each.uid for each in found) == sorted(KINDS)  # each once; synthetic-0005 has no kind
    assert [each.kind for each in found] == ["ball"] * 3 + ["box"] * 2
    assert all(shards.uid(*each.place) == each.uid for each in found)
    fewer = select_renders([shards], KINDS, 2)
    assert [each.uid for each in fewer] == [each.uid for each in found[:2] + found[3:]]
    with pytest.raises(UserError, match="objects of 0 known kinds"):
        select_renders([shards], {}, 60)


def test_features_are_those_of_the_random_views_and_are_stored(box_shards, judge, tmp_path, monkeypatch):
    shards = ShardSet(box_shards)
    objects = select_renders([shards], KINDS, 60)
    bank = open_bank(judge, objects, 2, tmp_path, "sha")
    assert bank.renders.features.shape == (10, 48)
    assert bank.renders.labels.tolist() == [0] * 6 + [1] * 4
    views = composite_white(shards.views(*objects[1].place, [("random", 0), ("random", 8)]))
    assert np.array_equal(bank.renders.features[2:4], judge.features(views))
    monkeypatch.setattr(Judge, "features", lambda *_: pytest.fail("the features are stored"))
    again = open_bank(judge, objects, 2, tmp_path, "sha")
    assert np.array_equal(again.renders.features, bank.renders.features)


@pytest.mark.parametrize("damage", [b"", b"no tensors"])
def test_damaged_features_are_computed_again(box_shards, judge, tmp_path, damage):
    objects = select_renders([ShardSet(box_shards)], KINDS, 60)
    before = open_bank(judge, objects, 1, tmp_path, "sha")
    (path,) = tmp_path.glob("judge-*.safetensors")
    path.write_bytes(damage)
    after = open_bank(judge, objects, 1, tmp_path, "sha")
    assert np.array_equal(after.renders.features, before.renders.features)
    open_bank(judge, objects, 1, tmp_path, "other weights")
    assert len(list(tmp_path.glob("judge-*.safetensors"))) == 2


def test_all_views_of_every_fifth_object_are_held_out():
    uids = tuple(f"{kind}{i}" for kind in "ab" for i in range(7) for _ in range(2))
    labels = np.repeat([0, 1], 14)
    bank = ClassBank(LabelledFeatures(np.zeros((28, 1), np.float32), labels, ("a", "b")), uids)
    assert bank.objects == {"a": 7, "b": 7}
    held_out = {uid for uid, held in zip(uids, bank.held_out, strict=True) if held}
    assert held_out == {"a1", "a6", "b1", "b6"}
    assert bank.held_out.sum() == 8


def test_accuracy_is_measured_without_the_held_out_renders():
    """Held-out renders look like the other kind: right only for a rule that has seen them."""
    features = np.array([[1, 0], [0.1, 1], [0, 1], [1, 0.1]], np.float32)
    bank = ClassBank(LabelledFeatures(features, np.array([0, 0, 1, 1]), ("a", "b")), ("a0", "a1", "b0", "b1"))
    rules = fit_rules(bank)
    assert rules.accuracies["nearest"] == 0
    assert rules.held_out == 2
    assert rules.scores["nearest"](features).argmax(1).tolist() == [0, 0, 1, 1]  # fitted to all renders


def test_objects_are_named_by_the_mean_over_their_renders():
    """Of the held-out object a1, one render looks like b and two look more like a; b1 looks like a twice."""
    features = np.array([[1, 0]] * 3 + [[0.6, 1], [1, 0.2], [1, 0.3]] + [[0, 1]] * 3 + [[1, 0.1], [1, 0.9], [0.5, 1]])
    uids = tuple(np.repeat(["a0", "a1", "b0", "b1"], 3))
    bank = ClassBank(LabelledFeatures(features.astype(np.float32), np.repeat([0, 0, 1, 1], 3), ("a", "b")), uids)
    rules = fit_rules(bank)
    assert rules.accuracies["nearest"] == pytest.approx(3 / 6)
    assert rules.object_accuracies["nearest"] == 0.5
