import json

import numpy as np
import pytest

from dataset import camera
from dataset.errors import UserError
from tests.support.paths import GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "cameras.json").read_text())
ANGLES = [(e, a) for e in (-90, -60, -10, 0, 30, 89, 90) for a in (0, 22.5, 90, 123, 270, 359)]


@pytest.mark.parametrize(
    ("key", "function"),
    [("mvdream_camera", camera.mvdream_camera), ("isotropic3d_released_camera", camera.released_isotropic3d_camera)],
)
def test_golden_cameras(key, function):
    for case in GOLDEN[key]:
        np.testing.assert_allclose(function(case["elevation_deg"], case["azimuth_deg"]), case["c2w"], atol=1e-6, rtol=0)


def test_golden_four_views_broadcast():
    labels = camera.mvdream_camera(15, np.arange(4) * 90)
    np.testing.assert_allclose(labels, GOLDEN["mvdream_get_camera_4_elev15"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("elevation", "azimuth"), ANGLES)
def test_spherical_round_trip(elevation, azimuth):
    c2w = camera.spherical_to_c2w(elevation, azimuth, 1.5)
    np.testing.assert_allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(camera.c2w_to_spherical(c2w), (elevation, azimuth, 1.5), atol=1e-6)


def test_known_positions():
    np.testing.assert_allclose(camera.spherical_to_c2w(0, 0, 2)[:3, 3], [0, -2, 0], atol=1e-12)
    np.testing.assert_allclose(camera.spherical_to_c2w(0, 90, 2)[:3, 3], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.spherical_to_c2w(90, 0, 2)[:3, 3], [0, 0, 2], atol=1e-12)


@pytest.mark.parametrize("source", ["blender", "opengl", "opencv"])
@pytest.mark.parametrize("target", ["blender", "opengl", "opencv"])
def test_conventions_round_trip(source, target):
    c2w = camera.spherical_to_c2w(20, 50, 1.5)
    back = camera.convert_c2w(camera.convert_c2w(c2w, source, target), target, source)
    np.testing.assert_allclose(back, c2w, atol=1e-12)


def test_conventions_known_values():
    c2w = camera.spherical_to_c2w(0, 0, 1)  # at -y, looking along +y
    opencv = camera.convert_c2w(c2w, "blender", "opencv")
    np.testing.assert_allclose(opencv[:3, 2], [0, 1, 0], atol=1e-12)  # z forwards
    np.testing.assert_allclose(opencv[:3, 1], [0, 0, -1], atol=1e-12)  # y down
    opengl = camera.convert_c2w(c2w, "blender", "opengl")
    np.testing.assert_allclose(opengl[:3, 3], [0, 0, 1], atol=1e-12)  # in front of the object, glTF's +z
    np.testing.assert_allclose(opengl[:3, 1], [0, 1, 0], atol=1e-12)


def test_unknown_convention_is_named():
    with pytest.raises(UserError, match="colmap"):
        camera.convert_c2w(np.eye(4), "colmap", "blender")  # type: ignore[arg-type]


def test_intrinsics_known_field_of_view():
    K = camera.intrinsics(256)
    assert camera.fov_deg(K, 256) == pytest.approx(49.13, abs=0.01)  # lens 35 on a 32 mm sensor
    np.testing.assert_allclose(camera.intrinsics_from_fov(256, camera.fov_deg(K, 256)), K)
    with pytest.raises(UserError, match="180"):
        camera.intrinsics_from_fov(256, 180)


def test_projection():
    c2w, K = camera.spherical_to_c2w(0, 0, 1.5), camera.intrinsics(256)
    half = 1.5 * 16 / 35  # half the frame's width at the origin's depth
    points = np.array([[0, 0, 0], [half, 0, 0], [0, 0, half], [0, -0.5, 0], [0, -2, 0]])
    pixels, depth = camera.project(points, c2w, K)
    np.testing.assert_allclose(pixels[:4], [[128, 128], [256, 128], [128, 0], [128, 128]], atol=1e-9)
    np.testing.assert_allclose(depth, [1.5, 1.5, 1.5, 1.0, -0.5], atol=1e-12)
    assert np.isnan(pixels[4]).all()


def test_projection_agrees_with_a_naive_matrix_product():
    rng = np.random.default_rng(0)
    c2w, K, point = camera.spherical_to_c2w(33, 71, 1.5), camera.intrinsics(64), rng.normal(size=3) * 0.3
    x, y, z, _ = np.linalg.inv(c2w) @ [*point, 1]
    expected = [K[0, 0] * x / -z + 32, K[1, 1] * -y / -z + 32]
    np.testing.assert_allclose(camera.project(point[None], c2w, K)[0][0], expected)


def test_relative_camera_is_the_camera_of_the_differences():
    np.testing.assert_array_equal(camera.relative_camera(30, 100, 30, 100), camera.mvdream_camera(0, 0))
    np.testing.assert_array_equal(camera.relative_camera(30, [90, 180], 10, 20), camera.mvdream_camera(20, [70, 160]))
    assert camera.relative_camera(30, 0, 0, 0).dtype == np.float32


@pytest.mark.parametrize("elevation_deg", [90, -90])
def test_the_azimuth_of_a_camera_exactly_at_a_pole_is_that_of_its_right_axis(elevation_deg):
    c2w = camera.spherical_to_c2w(elevation_deg, 30, 1.5)
    c2w[:2, 3] = 0  # not cos(90 degrees) in floating point
    np.testing.assert_allclose(camera.c2w_to_spherical(c2w), (elevation_deg, 30, 1.5))
