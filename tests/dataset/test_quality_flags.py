import numpy as np
import pytest

from dataset.quality_flags import alpha_coverage, image_flags, in_order, is_clipped, noise_level, speckle


def pictures(color, rows=slice(4, 12), columns=slice(4, 12), alpha=255, count=4):
    """Pictures [16, 16, 4] that are empty but for a rectangle of one color."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[rows, columns] = (*color, alpha)
    return [picture] * count


def test_an_ordinary_object_has_no_flag():
    assert image_flags(pictures((120, 90, 60))) == ()


@pytest.mark.parametrize(
    ("gray", "flags"),
    [
        (0, ("near-black", "black-parts")),
        (12, ("near-black",)),
        (13, ()),
        (242, ()),
        (243, ("near-white",)),
        (253, ("near-white",)),
        (254, ("near-white", "white-parts")),
    ],
)
def test_the_limits_of_black_and_white_are_0_05_and_0_95(gray, flags):
    assert image_flags(pictures((gray,) * 3)) == flags


def test_luminance_is_rec_709_over_all_images_weighted_by_alpha():
    assert image_flags(pictures((0, 0, 255))) == ()  # 0.0722
    assert image_flags(pictures((0, 0, 170))) == ("near-black",)  # 0.0481
    white, black = pictures((255,) * 3, count=1), pictures((0,) * 3, count=1)
    dark = pictures((3,) * 3, count=1)
    assert image_flags(white + black) == ("black-parts",)
    assert image_flags(white + dark * 25) == ("near-black",)
    assert image_flags(white + pictures((3,) * 3, alpha=10, count=1)) == ("near-white", "white-parts")


def test_color_where_nothing_is_does_not_count():
    picture = pictures((0, 0, 0), count=1)[0].copy()
    picture[:2] = (255, 255, 255, 0)
    assert image_flags([picture]) == ("near-black", "black-parts")


def test_more_than_a_fiftieth_of_black_pixels_is_flagged():
    image = np.zeros((16, 16, 4), np.uint8)
    image[2:12, 2:12] = (120, 90, 60, 255)
    image[2, 2:4] = (2, 0, 1, 255)
    assert image_flags([image]) == ()
    image[2, 4] = (2, 2, 2, 255)
    assert image_flags([image]) == ("black-parts",)
    image[2, 4] = (3, 2, 2, 255)
    assert image_flags([image]) == ()


def test_nothing_is_empty_and_covers_little():
    assert image_flags(pictures((200,) * 3, alpha=0)) == ("empty", "low-coverage")


def test_coverage_is_the_mean_over_all_images():
    spot = slice(4, 5)
    assert image_flags(pictures((99,) * 3, spot, spot)) == ("low-coverage",)
    large = pictures((99,) * 3, count=1)
    assert image_flags(pictures((99,) * 3, spot, spot) + large) == ()
    assert alpha_coverage(large[0]) == pytest.approx(64 / 256)


@pytest.mark.parametrize("place", [(0, 7), (15, 7), (7, 0), (7, 15)])
def test_one_touch_of_one_border_is_clipped(place):
    touching = pictures((99,) * 3, count=1)[0].copy()
    touching[place] = (99, 99, 99, 1)
    assert is_clipped(touching)
    assert not is_clipped(pictures((99,) * 3)[0])
    assert image_flags([*pictures((99,) * 3), touching]) == ("clipped",)


def test_white_parts_are_more_than_60_percent_of_the_visible_pixels():
    white, gray = pictures((255,) * 3, count=1), pictures((90,) * 3, count=1)
    assert image_flags(3 * white + 2 * gray) == ()
    assert image_flags(4 * white + 2 * gray) == ("white-parts",)
    assert image_flags(4 * pictures((255, 255, 253), count=1) + 2 * gray) == ()


def test_one_empty_view_is_flagged():
    seen, empty = pictures((99,) * 3, count=3), pictures((99,) * 3, slice(0), count=1)
    assert image_flags(seen + empty) == ("empty-views",)
    assert image_flags(empty) == ("empty", "low-coverage")


def noisy_picture(deviation, seed, size=64):
    """A gray picture [size, size, 4] whose three channels have the same normally distributed noise."""
    noise = np.random.default_rng(seed).normal(0, deviation, (size, size, 1))
    picture = np.full((size, size, 4), 255, np.uint8)
    picture[..., :3] = (128 + noise).round().clip(0, 255)
    return picture


@pytest.mark.parametrize("deviation", [2.0, 8.0, 20.0])
def test_speckle_and_noise_level_measure_the_deviation_of_noise(deviation):
    first, second = noisy_picture(deviation, 0), noisy_picture(deviation, 1)
    assert speckle(first) == pytest.approx(deviation, rel=0.1)
    assert noise_level(first, second) == pytest.approx(deviation, rel=0.1)
    assert noise_level(first, first) == 0.0


def test_gradients_edges_of_objects_and_transparent_pixels_are_no_speckle():
    picture = noisy_picture(0.0, 0)
    picture[..., :3] = np.arange(64)[:, None, None] * 3
    assert speckle(picture) == 0.0
    picture[:20, :, :] = 0
    picture[20:, 30:, 3] = 128
    assert speckle(picture) == 0.0
    assert speckle(picture[:2]) == 0.0
    picture[..., 3] = 0
    assert (speckle(picture), noise_level(picture, picture)) == (0.0, 0.0)


def test_a_pattern_has_speckle_but_no_noise():
    picture = noisy_picture(0.0, 0)
    picture[::2, ::2, :3] = 0
    assert speckle(picture) > 50
    assert noise_level(picture, picture) == 0.0


def test_flags_are_ordered_as_the_schema_lists_them():
    assert in_order(["missing-texture", "near-black", "clipped", "clipped"]) == (
        "clipped",
        "near-black",
        "missing-texture",
    )
    assert image_flags(pictures((0,) * 3, slice(0, 1), slice(0, 1))) == (
        "clipped",
        "near-black",
        "black-parts",
        "low-coverage",
    )
