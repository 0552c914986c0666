"""The rules that name images by features: known cases, unknown kinds, averages over views, the choice of a rule."""

import numpy as np
import pytest

from distill.evaluate.photos.rules import TITLES, LabelledFeatures, accuracy, best_rule, fit, ranking

KINDS = ("cat", "dog", "mug")


@pytest.fixture
def clusters() -> LabelledFeatures:
    """Ten renders around each of two centers, kinds 0 and 2; kind 1 has none."""
    rng = np.random.default_rng(0)
    centers = np.array([[4.0, 0, 0, 1], [0, 4.0, 0, 1]])
    features = np.repeat(centers, 10, 0) + rng.normal(size=(20, 4))
    return LabelledFeatures(features.astype(np.float32), np.repeat([0, 2], 10), KINDS)


@pytest.mark.parametrize("rule", TITLES)
def test_each_rule_separates_clusters_and_never_names_a_kind_without_renders(rule, clusters):
    score = fit(rule, clusters)
    assert accuracy(score, clusters) == 1
    unseen = np.array([[4, 0, 0, 1], [0, 4, 0, 1]], np.float32)
    scores = score(unseen)
    assert scores.argmax(1).tolist() == [0, 2]
    assert (scores[:, 1] == -np.inf).all()


def test_nearest_and_means_differ_where_they_should():
    """One render of kind 1 is nearest, while the mean of kind 0 is nearer than that of kind 1."""
    angles = np.deg2rad([0, 10, 20, 30, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    renders = LabelledFeatures(features, np.array([0, 0, 0, 1, 1]), ("a", "b"))
    asked = np.array([[np.cos(np.deg2rad(27)), np.sin(np.deg2rad(27))]], np.float32)
    assert fit("nearest", renders)(asked).argmax() == 1
    assert fit("means", renders)(asked).argmax() == 0
    assert fit("nearest", renders)(asked)[0] == pytest.approx(np.cos(np.deg2rad([7, 3])))
    assert fit("means", renders)(asked)[0] == pytest.approx(np.cos(np.deg2rad([17, 33])))


def test_the_probe_returns_log_probabilities(clusters):
    scores = fit("probe", clusters)(clusters.features)
    assert (np.exp(scores).sum(1) <= 1 + 1e-9).all()  # the rest is the kind without renders
    assert np.exp(scores[:10, 0]).min() > 0.9


def test_scores_of_several_views_are_averaged():
    scores = np.array([[3.0, 0, 1], [0, 2.5, 1], [0, 2.5, 1]])
    assert ranking(lambda features: scores[: len(features)], np.zeros((1, 4), np.float32)).tolist() == [0, 2, 1]
    assert ranking(lambda features: scores[: len(features)], np.zeros((3, 4), np.float32)).tolist() == [1, 0, 2]


def test_the_best_rule_is_the_most_accurate_and_of_equals_the_first():
    assert best_rule({"nearest": 0.5, "means": 0.7, "probe": 0.6}) == "means"
    assert best_rule({"nearest": 0.5, "means": 0.5, "probe": 0.4}) == "nearest"
    assert best_rule({"nearest": float("nan"), "means": float("nan"), "probe": 0.1}) == "probe"


def test_accuracy_without_renders_is_nan(clusters):
    assert np.isnan(accuracy(fit("means", clusters), clusters.where(np.zeros(20, bool))))
