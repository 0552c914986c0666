"""The ring of fixed views, the choice of views, centering, and the reduction of images."""

import numpy as np
import pytest

from dataset.camera import intrinsics, spherical_to_c2w
from dataset.copy.downscale import average_blocks
from dataset.importing.errors import CameraFileError
from dataset.importing.images import area_average, padded
from dataset.importing.placement import choose_views, find_ring, nearest_point, place_cameras
from dataset.importing.settings import ImportSettings
from tests.support.make_posed_images import RING, SPIRAL


def cameras(angles: list[tuple[float, float]], distance: float = 1.5) -> np.ndarray:
    return np.stack([spherical_to_c2w(elevation, azimuth, distance) for elevation, azimuth in angles])


def test_the_ring_is_found_in_any_order_and_at_any_distance():
    order = np.random.default_rng(0).permutation(20)
    angles = [*RING, *SPIRAL[:4]]
    found = find_ring(cameras([angles[i] for i in order], 7.0))
    assert [order[i] for i in found] == list(range(16))


@pytest.mark.parametrize(("shift", "count"), [(0.9, 16), (-0.9, 16), (1.1, 0)])
def test_the_tolerance_is_one_degree(shift, count):
    assert len(find_ring(cameras([*RING[:15], (30 + shift, 337.5)]))) == count
    assert len(find_ring(cameras([*RING[:15], (30, 337.5 + shift)]))) == count


def test_a_rolled_camera_is_not_of_the_ring():
    c2w = cameras(RING)
    angle = np.deg2rad(2)
    roll = np.eye(4)
    roll[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert find_ring(c2w) == list(range(16))
    c2w[5] = c2w[5] @ roll
    assert find_ring(c2w) == []


def test_of_equal_views_the_first_and_of_similar_views_the_nearest_is_fixed():
    assert find_ring(cameras([*RING, *RING])) == list(range(16))
    near = [(elevation + 0.5, azimuth) for elevation, azimuth in RING]
    assert find_ring(cameras([*near, *RING])) == list(range(16, 32))


def test_views_are_spread_evenly_when_some_are_left_out():
    chosen, left_out = choose_views(cameras([*RING, *SPIRAL]), 4)
    assert left_out == 12
    assert chosen[:16] == [(("fixed", i), i) for i in range(16)]
    assert chosen[16:] == [(("random", i), 16 + 4 * i) for i in range(4)]
    chosen, left_out = choose_views(cameras(RING), 4)
    assert (len(chosen), left_out) == (16, 0)
    chosen, left_out = choose_views(cameras(RING[:15]), 100)
    assert [key for key, _ in chosen] == [("random", i) for i in range(15)]


def test_the_nearest_point_is_where_the_axes_meet():
    c2w = cameras(SPIRAL)
    c2w[:, :3, 3] += (1, 2, 3)
    np.testing.assert_allclose(nearest_point(c2w), (1, 2, 3), atol=1e-12)
    with pytest.raises(CameraFileError, match="are parallel"):
        nearest_point(c2w[:1])


def test_automatic_scale_shows_what_our_renderer_shows():
    K = np.stack([intrinsics(64)] * 16)
    placed = place_cameras(cameras(SPIRAL, 6.0), K, 64, "perspective", ImportSettings("nerf", scale="auto"))
    np.testing.assert_allclose(placed.c2w, cameras(SPIRAL, 1.5), atol=1e-12)
    assert (placed.scale, placed.unseen) == (0.25, 0)
    np.testing.assert_array_equal(placed.K, K)


def test_cameras_at_the_origin_or_turned_away_are_refused():
    K = np.stack([intrinsics(64)] * 16)
    c2w = cameras(SPIRAL)
    with pytest.raises(CameraFileError, match="all cameras look away from the origin"):
        place_cameras(c2w @ np.diag([1.0, -1, -1, 1]), K, 64, "perspective", ImportSettings("nerf"))
    c2w[3, :3, 3] = 0
    with pytest.raises(CameraFileError, match="camera number 3 is at the origin"):
        place_cameras(c2w, K, 64, "perspective", ImportSettings("nerf"))


def test_areas_are_averaged_in_premultiplied_alpha():
    rgba = np.random.default_rng(0).integers(0, 256, (30, 30, 4)).astype(np.uint8)
    np.testing.assert_array_equal(area_average(rgba, 30), rgba)
    np.testing.assert_array_equal(area_average(rgba, 10), average_blocks(rgba, 3))
    red = np.zeros((30, 30, 4), np.uint8)
    red[:, :15] = (200, 10, 0, 255)
    small = area_average(red, 20)  # a pixel of the result covers 1.5 x 1.5 pixels
    np.testing.assert_array_equal(small[:, :10], np.broadcast_to([200, 10, 0, 255], (20, 10, 4)))
    assert not small[:, 10:].any()
    small = area_average(red, 12)  # 2.5 x 2.5: all colors stay those of the opaque pixels
    assert {tuple(pixel) for pixel in small.reshape(-1, 4)[:, :3]} == {(200, 10, 0), (0, 0, 0)}
    mean = rgba[..., 3].mean()
    assert area_average(rgba, 7)[..., 3].mean() == pytest.approx(mean, abs=0.5)


def test_padding_keeps_the_image_in_the_middle():
    rgba = np.full((4, 9, 4), 7, np.uint8)
    square = padded(rgba)
    assert square.shape == (9, 9, 4)
    assert square[2:6].all()
    assert not square[:2].any()
    assert not square[6:].any()
