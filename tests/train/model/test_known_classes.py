"""The ImageNet classifier of a table of known objects: probabilities, distances, rounding and storage."""

from dataclasses import replace

import pytest
import torch

from dataset.errors import UserError
from tests.support.train_micro import MICRO
from train.components.component import seeded
from train.model.image_encoder import build_image_encoder
from train.model.known_classes import (
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


def test_the_probability_is_that_of_the_known_classes():
    weight, bias = classifier()
    pooled = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    expected = ((pooled @ weight.T + bias) / TEMPERATURE).softmax(1)
    found = round_classifier(weight, bias, [0, 3]).probability(pooled)
    torch.testing.assert_close(found, expected[:, 0] + expected[:, 3], atol=5e-3, rtol=0)
    everything = round_classifier(weight, bias, range(5)).probability(pooled)
    torch.testing.assert_close(everything, torch.ones(3))


def test_rounding_changes_a_weight_by_at_most_half_a_step_of_its_class():
    weight, bias = classifier()
    weight[1] *= 1000
    weight[2] = 0
    rounded = round_classifier(weight, bias, [1])
    error = (rounded.weight * rounded.scale[:, None] - weight).abs().amax(1)
    assert bool((error <= weight.abs().amax(1) / 127 * 0.501).all())
    assert rounded.weight.dtype == torch.int8


def test_the_probability_of_an_image_is_the_mean_over_it_and_its_mirror_image():
    with seeded(0):
        encoder = build_image_encoder(TimmEncoder("test_efficientnet", 8, 64)).eval()
    weight, bias = classifier(encoder.visual.num_features)
    classes = round_classifier(weight, bias, [2])
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = classes.probability_of_images(encoder, images)
        pixels = encoder.preprocess(images, IMAGE_SIZE)
        each = [classes.probability(encoder.visual.trunk(view)) for view in (pixels, pixels.flip(-1))]
        torch.testing.assert_close(found, sum(each) / len(each))
        torch.testing.assert_close(classes.probability_of_images(encoder, images.flip(-1)), found, atol=1e-4, rtol=0)
        with pytest.raises(UserError, match="no pooled features"):
            classes.probability_of_images(build_image_encoder(MICRO.tower), images)


def test_the_distance_falls_with_probability_and_similarity():
    classes = replace(
        round_classifier(*classifier(), [0]), log_probability=Spread(-1.0, 2.0), similarity=Spread(0.5, 0.1)
    )
    probability, similarity = torch.tensor([0.9, 0.1, 0.9, 0.0]), torch.tensor([0.8, 0.8, 0.2, 0.2])
    found = classes.distance(probability, similarity)
    expected = -((probability + 1e-4).log() + 1) / 2 - SIMILARITY_WEIGHT * (similarity - 0.5) / 0.1
    torch.testing.assert_close(found, expected)
    assert bool(found.isfinite().all())
    assert float(found[0]) == min(found.tolist())


def test_the_spread_of_equal_values_can_be_divided_by():
    assert spread_of(torch.tensor([1.0, 3.0])) == Spread(2.0, 1.0)
    assert spread_of(torch.tensor([2.0, 2.0])) == Spread(2.0, 1.0)


def test_classes_are_read_as_they_were_stored():
    classes = replace(round_classifier(*classifier(), [0, 4]), similarity=Spread(0.25, 0.5))
    found = read_classes(classes.tensors(), classes.settings())
    pooled = torch.rand(2, 8)
    assert torch.equal(found.probability(pooled), classes.probability(pooled))
    assert (found.similarity, found.log_probability) == (classes.similarity, classes.log_probability)
    tensors, settings = classes.tensors(), classes.settings()
    for name in ("class_weight", "class_scale", "class_bias", "class_known"):
        with pytest.raises(ValueError, match="shapes"):
            read_classes({**tensors, name: tensors[name][:2]}, settings)
    for spread in ({"mean": float("nan"), "std": 1.0}, {"mean": 0.0, "std": 0.0}):
        with pytest.raises(ValueError, match="out of range"):
            read_classes(tensors, {**settings, "similarity": spread})
    with pytest.raises(KeyError):
        read_classes(tensors, {})
