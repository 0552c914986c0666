"""Projection, representatives and threshold of the table of known objects, on embeddings with known answers."""

import numpy as np
import pytest
import torch

from train.components.known_objects import (
    Distances,
    choose_threshold,
    cross_validated_warnings,
    fit_projection,
    select_representatives,
    separation,
)


def test_the_projection_keeps_what_tells_groups_apart_and_drops_what_varies_within_them():
    generator = torch.Generator().manual_seed(0)
    groups = [f"kind {i % 4}" for i in range(400)]
    embeddings = torch.randn(400, 6, generator=generator) * torch.tensor([20.0, 1, 1, 1, 1, 1])
    embeddings[:, 3] += torch.tensor([6.0 * (i % 4) for i in range(400)])
    mean, projection = fit_projection(embeddings, groups, dimensions=1, shrinkage=0.0)
    assert mean.shape == (6,)
    torch.testing.assert_close(mean, embeddings.mean(0))
    assert projection.shape == (6, 1)
    direction = projection[:, 0] / projection.norm()
    assert abs(float(direction[3])) > 0.99
    assert abs(float(direction[0])) < 0.01


def test_the_projection_scales_the_variance_within_groups_to_one():
    generator = torch.Generator().manual_seed(1)
    groups = [f"kind {i % 2}" for i in range(1000)]
    spread = torch.tensor([0.1, 3.0, 50.0])
    embeddings = torch.randn(1000, 3, generator=generator) * spread
    mean, projection = fit_projection(embeddings, groups, shrinkage=0.0)
    projected = (embeddings - mean) @ projection
    within = torch.cat([projected[i::2] - projected[i::2].mean(0) for i in range(2)])
    torch.testing.assert_close(within.T @ within / 1000, torch.eye(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("embeddings", [torch.ones(3, 5), torch.eye(3)], ids=["all equal", "one of each group"])
def test_the_projection_of_too_little_data_is_finite(embeddings):
    mean, projection = fit_projection(embeddings, ["a", "b", "c"])
    assert bool(mean.isfinite().all())
    assert bool(projection.isfinite().all())


def test_representatives_cover_every_group_and_its_far_members():
    angles = torch.tensor([0.0, 0.01, 0.02, 0.03, 1.5, 3.0])
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    assert select_representatives(directions, ["a"] * 6, limit=3).tolist() == [3, 4, 5]
    chosen = select_representatives(directions, ["a", "a", "a", "a", None, "b"], limit=2)
    assert {4, 5} <= set(chosen.tolist())
    assert len(chosen) == 3
    assert select_representatives(directions, ["a"] * 6).tolist() == list(range(6))


def test_equal_rows_are_selected_once_each():
    chosen = select_representatives(torch.tensor([[1.0, 0.0]] * 4), ["a"] * 4)
    assert chosen.tolist() == [0, 1, 2, 3]


def known_of(**groups):
    return {name: np.array(values, float) for name, values in groups.items()}


def test_without_unknown_images_the_threshold_is_a_quantile_of_the_worst_group():
    renders, photos = np.arange(100) / 100, np.arange(10) / 10 + 5
    distances = Distances({"renders": renders, "photos": photos}, np.empty(0))
    threshold = choose_threshold(distances, 0.1)
    assert (photos > threshold).sum() <= 1
    assert threshold == pytest.approx(5.9) or threshold == pytest.approx(5.8)
    assert choose_threshold(Distances({"renders": renders}, np.empty(0)), 0.1) == pytest.approx(0.9, abs=0.011)
    with pytest.raises(ValueError, match="no images of known kinds"):
        choose_threshold(Distances({}, np.ones(3)), 0.1)


def test_unknown_images_far_away_raise_the_threshold():
    distances = Distances(known_of(renders=np.linspace(0, 1, 50)), np.linspace(3, 4, 20))
    threshold = choose_threshold(distances, 0.1)
    assert threshold == pytest.approx(2.0)  # halfway between the last known and the first unknown image


def test_unknown_images_that_look_known_do_not_make_false_warnings():
    distances = Distances(known_of(renders=np.linspace(0, 1, 50)), np.linspace(0, 1, 20))
    threshold = choose_threshold(distances, 0.1)
    assert (distances.known["renders"] > threshold).mean() <= 0.1
    assert (distances.unknown > threshold).any()


def test_counts_with_thresholds_chosen_without_the_images():
    far = Distances(known_of(renders=np.linspace(0, 1, 50)), np.linspace(3, 4, 20))
    assert cross_validated_warnings(far, 0.1) == {"renders": 0, "unknown": 20}
    outlier = Distances(known_of(renders=[0, 0, 0, 0, 9]), np.empty(0))
    assert choose_threshold(outlier, 0.0) == 9
    assert cross_validated_warnings(outlier, 0.0) == {"renders": 1, "unknown": 0}


def test_the_area_under_the_curve():
    assert separation(Distances(known_of(a=[0, 1], b=[2]), np.array([3.0, 4]))) == 1
    assert separation(Distances(known_of(a=[0, 1, 2, 3]), np.array([1.0]))) == pytest.approx(1.5 / 4)
    assert separation(Distances(known_of(a=[0]), np.empty(0))) is None
    assert separation(Distances({}, np.ones(1))) is None
