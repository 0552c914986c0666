import subprocess
import sys

import numpy as np

from dataset.camera import c2w_to_spherical
from render.rigs.cameras import light, noise_seed
from render.rigs.rig import poses

HDRIS = [f"{name}.exr" for name in ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")]


def test_both_sets_stand_at_the_sixteen_azimuths():
    views = poses(0, "chair")
    assert list(views) == ["fixed", "random"]
    for view_set in views.values():
        assert [pose.azimuth_deg for pose in view_set] == [22.5 * i for i in range(16)]
        assert {pose.distance for pose in view_set} == {1.5}
    assert {pose.elevation_deg for pose in views["fixed"]} == {30.0}


def test_random_elevations_are_uniform_over_the_papers_range():
    drawn = np.array([[p.elevation_deg for p in poses(3, f"object{i}")["random"]] for i in range(400)])
    assert drawn.min() >= -10
    assert drawn.max() <= 40
    counts, _ = np.histogram(drawn, bins=10, range=(-10, 40))
    assert np.abs(counts - 640).max() < 5 * np.sqrt(640)  # five standard deviations of each bin
    assert np.abs(np.corrcoef(drawn.T) - np.eye(16)).max() < 0.25  # one draw a view, not one an object


def test_a_pose_is_the_camera_it_says():
    for pose in poses(1, "a")["random"]:
        elevation, azimuth, distance = c2w_to_spherical(pose.c2w())
        np.testing.assert_allclose(
            (elevation, azimuth, distance), (pose.elevation_deg, pose.azimuth_deg, 1.5), atol=1e-9
        )


def test_everything_is_a_function_of_seed_and_uid():
    assert poses(0, "a") == poses(0, "a")
    assert light(0, "a", HDRIS) == light(0, "a", HDRIS[::-1])
    for other in ((1, "a"), (0, "b")):
        assert poses(0, "a")["random"] != poses(*other)["random"]
        assert light(0, "a", HDRIS) != light(*other, HDRIS)
        assert noise_seed(0, "a") != noise_seed(*other)


def test_another_process_draws_the_same():
    code = "from render.rigs.cameras import *; from render.rigs.rig import poses; "
    code += "print(poses(7, 'x')['random'][3], light(7, 'x', ['a', 'b']), noise_seed(7, 'x'))"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert answer.strip() == f"{poses(7, 'x')['random'][3]} {light(7, 'x', ['a', 'b'])} {noise_seed(7, 'x')}"


def test_every_map_is_drawn_and_every_rotation():
    lights = [light(0, f"o{i}", HDRIS) for i in range(400)]
    counts = [sum(entry.hdri == name for entry in lights) for name in HDRIS]
    assert min(counts) > 20
    turns, _ = np.histogram([entry.rotation_deg for entry in lights], bins=4, range=(0, 360))
    assert turns.sum() == 400
    assert turns.min() > 60


def test_the_exposure_is_uniform_in_its_range_and_changes_nothing_else():
    plain = [light(0, f"o{i}", HDRIS) for i in range(400)]
    varied = [light(0, f"o{i}", HDRIS, 0.5) for i in range(400)]
    assert [(one.hdri, one.rotation_deg) for one in plain] == [(one.hdri, one.rotation_deg) for one in varied]
    assert {one.exposure for one in plain} == {0.0}
    stops = sorted(one.exposure for one in varied)
    assert -0.5 <= stops[0] < -0.45
    assert 0.45 < stops[-1] <= 0.5
    assert abs(sum(stops) / 400) < 0.05
