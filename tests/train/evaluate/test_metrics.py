"""Metrics of images and of poses against naive references, invariances and known values."""

import numpy as np
import pytest
from numpy.typing import NDArray

from train.evaluate.metrics import (
    FRONT_AND_BACK,
    bootstrap,
    cosines,
    front_back_confusion,
    image_scores,
    mean_of,
    nearest_view_scores,
    object_box,
    squared_distances,
    ssim,
    ssim_map,
    wilson,
)


def _images(number: int, side: int = 24, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((number, side, side, 3))


def _naive_ssim(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Wang et al. 2004, Eq. 13, window by window, one color at a time."""
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2, found = 0.01**2, 0.03**2, []
    for channel in range(3):
        a, b = first[..., channel], second[..., channel]
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
                cov = (window * p * q).sum() - mp * mq
                found.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(found))


def test_ssim_is_the_papers_formula() -> None:
    first, noise = _images(2, side=18)
    second = np.clip(first + 0.3 * (noise - 0.5), 0, 1)
    assert ssim(ssim_map(first, second)) == pytest.approx(_naive_ssim(first, second), abs=1e-6)
    assert ssim(ssim_map(first, first)) == pytest.approx(1.0)
    assert ssim(ssim_map(first, second)) == pytest.approx(ssim(ssim_map(second[:, ::-1], first[:, ::-1])))


def test_ssim_of_flat_images_is_its_first_term() -> None:
    gray = np.full((16, 16, 3), 0.5)
    expected = (2 * 0.5 * 0.8 + 1e-4) / (0.5**2 + 0.8**2 + 1e-4)
    assert ssim(ssim_map(gray, gray + 0.3)) == pytest.approx(expected)


def test_box_of_what_is_seen() -> None:
    alpha = np.zeros((10, 12), np.uint8)
    alpha[2:5, 7:9] = 255
    alpha[9, 0] = 11  # too faint to count
    assert object_box(alpha) == (slice(2, 5), slice(7, 9))
    assert object_box(np.zeros((10, 12), np.uint8)) == (slice(0, 10), slice(0, 12))


def test_scores_in_the_box_do_not_see_the_background() -> None:
    """A wrong object alone in a large white frame: the whole image hides it, the box does not."""
    truth = np.ones((1, 40, 40, 3))
    truth[:, 15:25, 10:20] = 0.2
    alpha = np.zeros((1, 40, 40), np.uint8)
    alpha[:, 15:25, 10:20] = 255
    wrong = truth.copy()
    wrong[:, 15:25, 10:20] = 0.3
    found = image_scores(wrong, truth, alpha)
    assert found["psnr_box"][0] == pytest.approx(20.0)
    assert found["psnr"][0] == pytest.approx(20.0 + 10 * np.log10(16))
    assert found["ssim_box"][0] < found["ssim"][0] < 1
    outside = truth.copy()
    outside[:, :3] = 0.0
    assert image_scores(outside, truth, alpha)["psnr_box"][0] == pytest.approx(100.0)


def test_distances_and_cosines_of_all_pairs() -> None:
    first, second = _images(3, side=4), _images(5, side=4, seed=1)
    naive = [[((a - b) ** 2).mean() for b in second] for a in first]
    np.testing.assert_allclose(squared_distances(first, second), naive)
    a, b = np.random.default_rng(2).normal(size=(3, 8)), np.random.default_rng(3).normal(size=(2, 5, 8))
    expected = [[[p @ q / (np.linalg.norm(p) * np.linalg.norm(q)) for q in part] for p in a] for part in b]
    np.testing.assert_allclose(cosines(a, b), expected)
    np.testing.assert_allclose(cosines(7 * a, b), cosines(a, b))
    np.testing.assert_allclose(np.diagonal(cosines(a, a)), 1.0)


@pytest.mark.parametrize("turn", [0, 1, 5, 8, 15])
def test_a_turned_ring_is_found_turned(turn: int) -> None:
    truth = _images(16, side=6)
    right, degrees = nearest_view_scores(squared_distances(np.roll(truth, turn, 0), truth))
    assert right.tolist() == [float(turn == 0)] * 16
    assert degrees == pytest.approx([min(turn, 16 - turn) * 22.5] * 16)


def test_front_and_back_confused_and_not() -> None:
    truth = _images(16, side=6)
    for turn, confused in ((0, 0.0), (8, 1.0)):
        found = front_back_confusion(squared_distances(np.roll(truth, turn, 0), truth), truth)
        assert np.flatnonzero(np.isfinite(found)).tolist() == sorted(FRONT_AND_BACK)
        assert found[list(FRONT_AND_BACK)].tolist() == [confused] * 10
    azimuths_deg = {i * 22.5 for i in FRONT_AND_BACK}
    assert azimuths_deg == {0, 22.5, 45, 315, 337.5, 135, 157.5, 180, 202.5, 225}


def test_where_both_sides_look_alike_there_is_nothing_to_confuse() -> None:
    half = _images(8, side=6)
    vase = np.concatenate([half, half + 0.01])  # 40 dB from the other side
    assert np.isnan(front_back_confusion(squared_distances(vase, vase), vase)).all()


def test_means_leave_out_what_is_no_number() -> None:
    assert mean_of([1.0, float("nan"), 3.0]) == 2.0
    assert np.isnan(mean_of([]))
    assert np.isnan(mean_of([float("nan")]))


def test_bootstrap_is_the_normal_interval_of_many_values_and_a_function() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    low, high = bootstrap(values)
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.03)
    assert bootstrap(values) == (low, high) != bootstrap(values, seed=1)
    assert bootstrap([*values, float("nan")]) == (low, high)
    assert bootstrap([3.0] * 5) == (3.0, 3.0)
    assert np.isnan(bootstrap([3.0])).all()
    shifted = bootstrap(values + 1)
    assert shifted == pytest.approx((low + 1, high + 1))


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = [low < 0 < high for low, high in (bootstrap(rng.normal(size=40), seed=i) for i in range(200))]
    assert 0.88 < np.mean(hits) < 0.99


def test_wilson_intervals_have_known_values() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson(20, 20) == pytest.approx(tuple(1 - end for end in wilson(0, 20)[::-1]))
    assert np.isnan(wilson(0, 0)).all()
