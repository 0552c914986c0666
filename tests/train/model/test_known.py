"""The table of known objects: distances, nearest kinds, the warning, and damaged or missing files."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset.errors import UserError
from tests.support.known_table import table_of_white
from tests.support.train_micro import MICRO
from train.components.component import seeded
from train.model.image_encoder import build_image_encoder
from train.model.known import (
    KNOWN_FOLDER,
    KnownObjects,
    copy_known,
    describe_unknown,
    feature_kinds,
    image_features,
    read_known,
    remove_known,
    unknown_warnings,
    write_known,
)
from train.model.known_classes import Spread, round_classifier
from train.model.timm_encoder import TimmEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

AXES = KnownObjects(
    mean=torch.tensor([1.0, 1.0, 1.0]),
    projection=torch.eye(3),
    representatives=torch.eye(3),
    kind_numbers=torch.tensor([1, -1, 0]),
    kinds=("cat", "chair"),
    neighbors=1,
    threshold=0.5,
    image_encoder_sha256="0",
)


def test_distances_are_cosine_distances_after_the_projection():
    embeddings = 1 + torch.tensor([[5.0, 0, 0], [0, 0, -2], [1, 1, 0]])
    torch.testing.assert_close(AXES.distances(embeddings), torch.tensor([0.0, 1.0, 1 - 0.5**0.5]))
    stretched = replace(AXES, projection=torch.diag(torch.tensor([1.0, 1e-6, 1])))
    assert float(stretched.distances(embeddings)[2]) < 1e-6
    two = replace(AXES, neighbors=2)
    torch.testing.assert_close(two.distances(embeddings)[:1], torch.tensor([0.5]))
    many = replace(AXES, neighbors=99)
    torch.testing.assert_close(many.distances(embeddings)[:1], torch.tensor([2 / 3]))


def test_the_score_of_kinds_is_one_minus_the_probability_of_the_best_kind():
    """Two representatives of kind 0 are one kind; the one without a kind competes with the kinds."""
    table = replace(
        AXES,
        representatives=torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1]]),
        kind_numbers=torch.tensor([0, 0, 1, -1]),
        score="kinds",
    )
    embeddings = 1 + torch.tensor([[3.0, 0, 0], [0, 0, 2], [1, 1, 1]])
    best = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1.4 / 3**0.5, 1 / 3**0.5, 1 / 3**0.5]])
    expected = 1 - (10 * best).softmax(1).amax(1)
    torch.testing.assert_close(table.distances(embeddings), expected)


def test_nearest_kinds_skip_objects_without_a_kind_and_name_each_kind_once():
    embedding = 1 + torch.tensor([0.3, 5.0, 0.2])
    assert AXES.nearest_kinds(embedding) == ("chair", "cat")
    assert AXES.nearest_kinds(embedding, 1) == ("chair",)
    twice = replace(AXES, kind_numbers=torch.tensor([1, 1, 0]))
    assert twice.nearest_kinds(embedding) == ("chair", "cat")
    assert replace(AXES, kind_numbers=torch.tensor([-1, -1, -1]), kinds=()).nearest_kinds(embedding) == ()


def test_the_warning_says_what_to_expect_and_what_to_do():
    assert describe_unknown("a.png", ["cat", "owl", "cow"]) == (
        "a.png is unlike anything the model was trained on. The nearest known kinds are: cat, owl, cow. Expect a poor "
        "result; for other kinds of objects, use another model (MODEL=... or --model)."
    )
    assert "nearest" not in describe_unknown("a.png", [])


def test_a_table_is_read_as_it_was_written(tmp_path):
    write_known(replace(AXES, statistics={"views": 4}), tmp_path)
    known = read_known(tmp_path)
    for name, value in vars(replace(AXES, statistics={"views": 4})).items():
        found = getattr(known, name)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value
    copy_known(tmp_path, tmp_path / "other")
    assert (tmp_path / "other" / KNOWN_FOLDER / "known.json").is_file()
    remove_known(tmp_path)
    assert read_known(tmp_path) is None
    remove_known(tmp_path)
    copy_known(tmp_path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def with_classes():
    classes = round_classifier(torch.arange(15.0).reshape(5, 3), torch.arange(5.0), [1, 3])
    classes = replace(classes, log_probability=Spread(-1.0, 2.0), similarity=Spread(0.25, 0.5))
    return replace(AXES, score="classes", features="pooled", classes=classes)


def test_a_table_with_a_classifier_is_read_as_it_was_written(tmp_path):
    table = with_classes()
    write_known(table, tmp_path)
    found = read_known(tmp_path)
    embeddings, probabilities = 1 + torch.tensor([[5.0, 0, 0], [1, 1, 0]]), torch.tensor([0.5, 0.1])
    assert torch.equal(found.distances(embeddings, probabilities), table.distances(embeddings, probabilities))
    expected = table.classes.distance(probabilities, torch.tensor([1.0, 0.5**0.5]))
    torch.testing.assert_close(table.distances(embeddings, probabilities), expected)
    assert found.nearest_kinds(embeddings[0]) == table.nearest_kinds(embeddings[0])


@pytest.mark.parametrize("change", [{"classes": None}, {"classes": {}}, {"classes": []}])
def test_a_damaged_classifier_is_one_clear_error(change, tmp_path):
    write_known(with_classes(), tmp_path)
    damage_json(tmp_path, **change)
    with pytest.raises(UserError, match="known: not a readable table of known objects"):
        read_known(tmp_path)
    write_known(with_classes(), tmp_path)
    damage_tensor(tmp_path, "class_weight", torch.zeros(5, 4, dtype=torch.int8))
    with pytest.raises(UserError, match="the classifier does not fit the features"):
        read_known(tmp_path)


def test_without_a_table_nothing_is_said(tmp_path, caplog):
    white = np.ones((8, 8, 3), np.float32)
    with caplog.at_level(logging.INFO, "train"):
        assert unknown_warnings(tmp_path, [("a.png", white)]) == [None]
    assert caplog.text == ""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "train"):
        assert unknown_warnings(tmp_path, [("a.png", white), ("b.png", white)]) == [None, None]
    assert caplog.text.count("no table of known objects") == 1


def test_pooled_features_are_those_that_the_embedding_is_computed_from():
    with seeded(0):
        image_encoder = build_image_encoder(TimmEncoder("test_efficientnet", 8, 64)).eval()
    small = build_image_encoder(MICRO.tower).eval()
    assert feature_kinds(image_encoder) == ("pooled_224", "pooled", "embedding")
    assert feature_kinds(small) == ("embedding",)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = image_features(image_encoder, images, "pooled")
        torch.testing.assert_close(image_encoder.visual.head(pooled), image_encoder(images))
        assert torch.equal(image_features(image_encoder, images, "embedding"), image_encoder(images))
        enlarged = image_features(image_encoder, images, "pooled_224")
        assert enlarged.shape == pooled.shape
        assert not torch.allclose(enlarged, pooled)
    with pytest.raises(UserError, match="no pooled features"):
        image_features(small, images, "pooled")


def damage_json(folder, **changes):
    path = folder / KNOWN_FOLDER / "known.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage_tensor(folder, name, tensor):
    path = folder / KNOWN_FOLDER / "known.safetensors"
    save_file({**load_file(path), name: tensor}, path)


DAMAGES = {
    "no settings": lambda folder: (folder / KNOWN_FOLDER / "known.json").unlink(),
    "no tensors": lambda folder: (folder / KNOWN_FOLDER / "known.safetensors").unlink(),
    "cut tensors": lambda folder: (folder / KNOWN_FOLDER / "known.safetensors").write_bytes(b"123"),
    "not JSON": lambda folder: (folder / KNOWN_FOLDER / "known.json").write_text("{"),
    "a list": lambda folder: (folder / KNOWN_FOLDER / "known.json").write_text("[]"),
    "no number": lambda folder: damage_json(folder, threshold=None),
    "NaN": lambda folder: damage_json(folder, threshold=float("nan")),
    "a missing kind": lambda folder: damage_json(folder, kinds=["cat"]),
    "other features": lambda folder: damage_json(folder, features="colors"),
    "other score": lambda folder: damage_json(folder, score="best"),
    "no neighbors": lambda folder: damage_json(folder, neighbors=0),
    "other shape": lambda folder: damage_tensor(folder, "mean", torch.zeros(4)),
    "flat": lambda folder: damage_tensor(folder, "projection", torch.zeros(3)),
    "infinite": lambda folder: damage_tensor(folder, "projection", torch.eye(3) * torch.inf),
    "empty": lambda folder: damage_tensor(folder, "kind_numbers", torch.zeros(0).short()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_table_is_one_clear_error(damage, tmp_path):
    write_known(AXES, tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match="known: not a readable table of known objects") as info:
        read_known(tmp_path)
    assert "make it again with `python -m train.known SHARDS --model" in str(info.value)
    assert str(tmp_path) in str(info.value)
    assert "\n" not in str(info.value)


def test_images_are_compared_with_the_training_images(base, tmp_path):
    """A table whose only representative is a white image: white is known, a black square is not."""
    white, black = np.ones((32, 32, 3), np.float32), np.zeros((32, 32, 3), np.float32)
    with table_of_white(base) as known:
        assert unknown_warnings(base, [("white.png", white)]) == [None]
        found = unknown_warnings(base, [("black.png", black), ("white.png", white)])
        assert found == [describe_unknown("black.png", ["paper"]), None]
        write_known(replace(known, image_encoder_sha256="0"), base)
        with pytest.raises(UserError, match="known: made with another image encoder than the one in"):
            unknown_warnings(base, [("white.png", white)])
