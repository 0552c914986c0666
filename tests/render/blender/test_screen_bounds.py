"""The rectangle of a picture that an object can be in."""

import numpy as np
import pytest

from dataset.camera import convert_c2w, project
from render.blender.screen_bounds import MARGIN, PixelBox, object_box
from render.rigs.cameras import Pose

POSES = [Pose(elevation, azimuth) for elevation in (-10.0, 30.0) for azimuth in (0.0, 67.5, 200.0)]
POSES += [Pose(10.0, 30.0, 2.0, fov_deg=30.0), Pose(10.0, 30.0, 2.0, width=1.3)]


@pytest.mark.parametrize("resolution", [16, 100, 256])
@pytest.mark.parametrize("pose", POSES)
def test_the_box_is_the_projection_with_a_margin(pose, resolution):
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (500, 3))
    if pose.width is None:
        pixels, _ = project(points, pose.c2w(), pose.K(resolution))
    else:
        local = points @ convert_c2w(pose.c2w(), "blender", "opencv")[:3, :3]
        pixels = local[:, :2] * resolution / pose.width + resolution / 2
    box = object_box(points.T, pose, resolution)
    low, high = np.floor(pixels.min(0)) - MARGIN, np.ceil(pixels.max(0)) + MARGIN
    assert [box.left, box.top] == np.maximum(low, 0).tolist()
    assert [box.right, box.bottom] == np.minimum(high, resolution).tolist()


def test_what_leaves_the_image_is_cut_off_and_what_is_outside_has_an_empty_box():
    pose = Pose(0.0, 0.0)
    assert object_box([[-9.0, 9.0], [0, 0], [-9.0, 9.0]], pose, 64) == PixelBox(0, 0, 64, 64)
    aside = object_box([[5.0, 5.1], [0, 0], [0, 0]], pose, 64)
    assert aside.is_empty()
    assert not PixelBox(1, 2, 3, 4).is_empty()


def test_a_point_behind_the_camera_means_the_whole_image():
    points = [[0.0, 0.1], [0.0, -3.0], [0.0, 0.0]]  # the camera stands at y = -1.5
    assert object_box(points, Pose(0.0, 0.0), 64) == PixelBox(0, 0, 64, 64)
