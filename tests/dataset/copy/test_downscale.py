from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dataset.camera import intrinsics, project
from dataset.copy.downscale import AVERAGED_FROM, average_blocks, downscale_sample
from dataset.errors import UserError
from dataset.format.schema import (
    VIEW_SETS,
    VIEWS_PER_SET,
    dump_meta,
    member_name,
    meta_name,
    parse_meta,
    validate_sample,
)
from dataset.images.prepare import UInt8, composite_white, decode_webp, encode_webp
from tests.support.make_shards import make_sample


def random_picture(side: int, seed: int = 0) -> UInt8:
    """Pixels of all kinds: transparent with a color, faint, half-transparent, opaque."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (side, side, 4), np.uint8)
    picture[..., 3] = rng.choice(np.array([0, 0, 1, 2, 100, 255, 255], np.uint8), (side, side))
    return picture


def naive(picture: UInt8, factor: int) -> UInt8:
    """Mean of premultiplied colors and of alphas, in exact fractions, halves rounded up."""
    side = picture.shape[0] // factor
    small = np.zeros((side, side, 4), np.uint8)
    for y in range(side):
        for x in range(side):
            block = picture[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].reshape(-1, 4).tolist()
            alpha = Fraction(sum(pixel[3] for pixel in block), len(block))
            if alpha < Fraction(1, 2):
                continue
            means = [Fraction(sum(pixel[c] * pixel[3] for pixel in block), len(block)) / alpha for c in range(3)]
            small[y, x] = [int(value + Fraction(1, 2)) for value in (*means, alpha)]
    return small


def test_a_known_block() -> None:
    """One opaque red pixel of four gives red with alpha 1/4; colors of transparent pixels do not matter."""
    picture = np.array([[[255, 0, 0, 255], [0, 255, 0, 0]], [[0, 0, 255, 0], [9, 9, 9, 0]]], np.uint8)
    assert average_blocks(picture, 2).tolist() == [[[255, 0, 0, 64]]]


@pytest.mark.parametrize("factor", [1, 2, 3, 6, 12])
def test_the_mean_is_that_of_exact_fractions(factor: int) -> None:
    picture = random_picture(12, factor)
    assert np.array_equal(average_blocks(picture, factor), naive(picture, factor))


def test_nothing_overflows() -> None:
    assert (average_blocks(np.full((512, 512, 4), 255, np.uint8), 512) == 255).all()


def test_compositing_and_averaging_change_places() -> None:
    picture = random_picture(48)
    on_white = composite_white(picture).reshape(12, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(composite_white(average_blocks(picture, 4)) - on_white).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(("shape", "factor"), [((6, 6, 4), 4), ((6, 6, 4), 0), ((6, 6, 3), 2)])
def test_a_factor_must_fit(shape: tuple[int, ...], factor: int) -> None:
    with pytest.raises(ValueError, match="cannot be divided into blocks"):
        average_blocks(np.zeros(shape, np.uint8), factor)


def test_points_of_the_world_move_with_the_pixels() -> None:
    sample = make_sample("a", 0, 32)
    before = parse_meta(sample[meta_name("a")], "a")
    small = downscale_sample(sample, before, 8, "set")
    after = validate_sample(small, "a")
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    for view_set in VIEW_SETS:
        for i in range(VIEWS_PER_SET):
            old, new = before.views[view_set][i], after.views[view_set][i]
            assert np.array_equal(new.K, intrinsics(8))
            pixels, depths = project(points, old.c2w, old.K)
            moved, same = project(points, new.c2w, new.K)
            assert np.allclose(moved * 4, pixels)
            assert np.array_equal(same, depths)
            picture = decode_webp(small[member_name("a", view_set, i)], "a")
            assert new.alpha_coverage == pytest.approx(picture[..., 3].mean() / 255)
            assert new.alpha_coverage == pytest.approx(old.alpha_coverage, abs=1 / 255)
            assert replace(new, K=old.K, alpha_coverage=old.alpha_coverage) == old


def test_an_objects_middle_stays_in_the_middle_of_its_image() -> None:
    """Measured in the image, not read from the metadata: centroids of alpha in pixels."""
    sample = make_sample("a", 1, 64)
    small = downscale_sample(sample, parse_meta(sample[meta_name("a")], "a"), 16, "set")

    def centroid(members: dict[str, bytes]) -> tuple[float, float]:
        alpha = decode_webp(members["a.random_03.webp"], "a")[..., 3].astype(float)
        middles = np.arange(len(alpha)) + 0.5
        return float(alpha.sum(0) @ middles / alpha.sum()), float(alpha.sum(1) @ middles / alpha.sum())

    assert np.allclose(np.array(centroid(small)) * 4, centroid(sample), atol=0.05)


def test_the_rendered_size_is_remembered_through_two_reductions() -> None:
    members = make_sample("a", 0, 32)
    for resolution in (16, 8):
        members = downscale_sample(members, parse_meta(members[meta_name("a")], "a"), resolution, "set")
    after = parse_meta(members[meta_name("a")], "a")
    assert (after.resolution, after.renderer[AVERAGED_FROM]) == (8, 32)


def test_an_image_that_is_none_or_of_another_size_is_named() -> None:
    sample = make_sample("a", 0, 16)
    meta = parse_meta(sample[meta_name("a")], "a")
    for data, told in ((b"no picture", "not a readable WebP"), (encode_webp(random_picture(8)), "shape")):
        with pytest.raises(UserError, match=rf"set/a\.fixed_02\.webp.*{told}"):
            downscale_sample({**sample, "a.fixed_02.webp": data}, meta, 8, "set")
    with pytest.raises(ValueError, match="the target resolution 5 does not divide 16"):
        downscale_sample(sample, meta, 5, "set")
    assert dump_meta(meta) == sample[meta_name("a")]
