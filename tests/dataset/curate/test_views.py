"""Contrast and texture of synthetic views whose values are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dataset.curate.views import SIDE, contrast, is_visible, reduce_views, texture
from dataset.images.prepare import composite_white


def opaque(luma: NDArray[np.float64]) -> NDArray[np.float32]:
    """Views [f, s, s, 4] in gray, without background."""
    return np.stack([luma, luma, luma, np.ones_like(luma)], -1).astype(np.float32)


def checkerboard(square: int, views: int = 3) -> NDArray[np.float32]:
    place = np.arange(SIDE) // square
    return opaque(np.tile(((place[:, None] + place) % 2).astype(float), (views, 1, 1)))


def test_one_color_has_neither_texture_nor_contrast() -> None:
    views = opaque(np.full((2, SIDE, SIDE), 0.3))
    assert texture(views) == 0
    assert contrast(views) == pytest.approx(0, abs=1e-6)


def test_the_outline_is_no_texture() -> None:
    views = opaque(np.full((1, SIDE, SIDE), 0.3))
    views[:, :, : SIDE // 2] = 0
    views[:, :, SIDE // 2] *= 0.5  # antialiased
    assert texture(views) == 0
    assert contrast(views) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("square", [1, 2, 4, 8])
def test_a_checkerboard_has_the_texture_of_its_edges(square: int) -> None:
    edges = SIDE // square - 1  # of SIDE - 1 neighbors
    assert texture(checkerboard(square)) == pytest.approx(np.sqrt(edges / (SIDE - 1)), rel=1e-5)
    assert contrast(checkerboard(square)) == pytest.approx(0.5, abs=1e-6)


def test_edges_of_equal_luma_count_by_channel() -> None:
    views = checkerboard(1)
    views[..., 1:3] = 0  # red against black: one of three channels
    assert texture(views) == pytest.approx(np.sqrt(1 / 3), rel=1e-5)


def test_contrast_is_the_mean_over_the_views_that_show_the_object() -> None:
    half = np.zeros((SIDE, SIDE))
    half[:, : SIDE // 2] = 1
    views = opaque(np.stack([half, np.full((SIDE, SIDE), 0.7)]))
    assert contrast(views) == pytest.approx(0.25, abs=1e-6)
    assert contrast(np.concatenate([views, np.zeros_like(views)])) == pytest.approx(0.25, abs=1e-6)


def test_partly_transparent_pixels_weigh_by_their_alpha() -> None:
    views = opaque(np.zeros((1, 2, 2)))
    views[0, 0] = (0.25, 0.25, 0.25, 0.25)  # white, alpha 1/4
    weight = 0.5 / 2.5
    assert contrast(views) == pytest.approx(np.sqrt(weight * (1 - weight)), rel=1e-5)


def test_nothing_visible_has_zeros() -> None:
    views = np.zeros((4, SIDE, SIDE, 4), np.float32)
    assert (texture(views), contrast(views)) == (0, 0)
    assert not is_visible(views).any()


def test_reduction_averages_what_is_seen_on_white() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 4 * SIDE, 4 * SIDE, 4), np.uint8)
    views = reduce_views(images)
    assert views.shape == (2, SIDE, SIDE, 4)
    expected = composite_white(images).reshape(2, SIDE, 4, SIDE, 4, 3).mean((2, 4))
    np.testing.assert_allclose(views[..., :3] + 1 - views[..., 3:], expected, atol=0.006)
    small = rng.integers(0, 256, (1, 8, 8, 4), np.uint8)
    np.testing.assert_allclose(reduce_views(small)[..., 3], small[..., 3] / 255, atol=1e-6)
    assert reduce_views(np.zeros((1, 100, 100, 4), np.uint8)).shape == (1, SIDE, SIDE, 4)
