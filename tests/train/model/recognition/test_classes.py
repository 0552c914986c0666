"""The ImageNet classifier of a table of known objects: probabilities, distances, rounding and storage."""

from dataclasses import replace

import pytest
import torch

from dataset.errors import UserError
from tests.support.train_micro import MICRO
from train.components.component import seeded
from train.model.image_encoder import build_image_encoder
from train.model.recognition.classes import (
    IMAGE_SIZE,
    SIMILARITY_WEIGHT,
    TEMPERATURE,
    Spread,
    read_classes,
    round_classifier,
    spread_of,
)
from train.model.timm_encoder import TimmEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


def classifier(channels: int = 8, classes: int = 5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(classes, channels, generator=generator), torch.randn(classes, generator=generator)


def pairs_of(classes):
    return [(number, 0) for number in classes]


def test_the_probability_is_that_of_the_known_classes():
    weight, bias = classifier()
    pooled = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    expected = ((pooled @ weight.T + bias) / TEMPERATURE).softmax(1)
    some = round_classifier(weight, bias, [(0, 0), (3, 1), (3, 0)])
    found = some.probability(some.logits(pooled))
    torch.testing.assert_close(found, expected[:, 0] + expected[:, 3], atol=5e-3, rtol=0)
    everything = round_classifier(weight, bias, pairs_of(range(5)))
    torch.testing.assert_close(everything.probability(everything.logits(pooled)), torch.ones(3))


def test_a_class_counts_most_for_the_kind_with_the_fewest_classes():
    """Kind 0 has the classes 0 to 2, kind 1 the class 2, kind 2 none, kind 3 the class 4."""
    classes = round_classifier(*classifier(), [(0, 0), (1, 0), (2, 0), (2, 1), (4, 3)])
    logits = torch.tensor([[0.0, 0, 9, 0, 0], [1, 2, 3, 4, 5]])
    p = logits.softmax(1)
    expected = torch.stack([p[:, 0] + p[:, 1] + p[:, 2] / 4, p[:, 2] * 3 / 4, torch.zeros(2), p[:, 4]], 1)
    torch.testing.assert_close(classes.kind_probabilities(logits, 4), expected)
    assert classes.kind_probabilities(logits, 4)[0].argmax() == 1


def test_the_logits_of_an_image_are_the_mean_over_it_and_its_mirror_image():
    with seeded(0):
        encoder = build_image_encoder(TimmEncoder("test_efficientnet", 8, 64)).eval()
    weight, bias = classifier(encoder.visual.num_features)
    classes = round_classifier(weight, bias, [(2, 0)])
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = classes.logits_of_images(encoder, images)
        pixels = encoder.preprocess(images, IMAGE_SIZE)
        each = [classes.logits(encoder.visual.trunk(view)) for view in (pixels, pixels.flip(-1))]
        torch.testing.assert_close(found, sum(each) / len(each))
        torch.testing.assert_close(classes.logits_of_images(encoder, images.flip(-1)), found, atol=1e-4, rtol=0)
        with pytest.raises(UserError, match="no pooled features"):
            classes.logits_of_images(build_image_encoder(MICRO.tower), images)


def test_the_distance_falls_with_probability_and_similarity():
    classes = replace(
        round_classifier(*classifier(), [(0, 0)]), log_probability=Spread(-1.0, 2.0), similarity=Spread(0.5, 0.1)
    )
    logits = torch.zeros(4, 5)
    logits[:, 0] = torch.tensor([9.0, 1.0, 9.0, -60.0])
    similarity = torch.tensor([0.8, 0.8, 0.2, 0.2])
    found = classes.distance(logits, similarity)
    probability = (logits / TEMPERATURE).softmax(1)[:, 0]
    expected = -((probability + 1e-4).log() + 1) / 2 - SIMILARITY_WEIGHT * (similarity - 0.5) / 0.1
    torch.testing.assert_close(found, expected)
    assert bool(found.isfinite().all())
    assert float(found[0]) == min(found.tolist())


def test_the_spread_of_equal_values_can_be_divided_by():
    assert spread_of(torch.tensor([1.0, 3.0])) == Spread(2.0, 1.0)
    assert spread_of(torch.tensor([2.0, 2.0])) == Spread(2.0, 1.0)


def test_classes_are_read_as_they_were_stored():
    classes = replace(round_classifier(*classifier(), [(0, 0), (4, 1)]), similarity=Spread(0.25, 0.5))
    found = read_classes(classes.tensors(), classes.settings(), 2)
    logits = found.logits(torch.rand(2, 8))
    assert torch.equal(found.probability(logits), classes.probability(logits))
    assert torch.equal(found.kind_probabilities(logits, 2), classes.kind_probabilities(logits, 2))
    assert (found.similarity, found.log_probability) == (classes.similarity, classes.log_probability)
    tensors, settings = classes.tensors(), classes.settings()
    for name in ("class_weight", "class_scale", "class_bias"):
        with pytest.raises(ValueError, match="shapes"):
            read_classes({**tensors, name: tensors[name][:2]}, settings, 2)
    for pairs in ([[5, 0]], [[0, 2]], [[-1, 0]]):
        with pytest.raises(ValueError, match="a class or a kind of the classifier is out of range"):
            read_classes({**tensors, "class_kinds": torch.tensor(pairs)}, settings, 2)
    for pairs in (torch.zeros(1, 3), torch.zeros(2)):
        with pytest.raises(ValueError, match="shapes"):
            read_classes({**tensors, "class_kinds": pairs}, settings, 2)
    with pytest.raises(ValueError, match="a class or a kind of the classifier is out of range"):
        read_classes({**tensors, "class_kinds": torch.zeros(0, 2)}, settings, 2)
    for spread in ({"mean": float("nan"), "std": 1.0}, {"mean": 0.0, "std": 0.0}):
        with pytest.raises(ValueError, match="is NaN, infinite or out of range"):
            read_classes(tensors, {**settings, "similarity": spread}, 2)
    with pytest.raises(KeyError):
        read_classes(tensors, {}, 2)
