"""Adaptive sampling: pixels stop where their noise is low, and neither threads nor speed have a say in it."""

import numpy as np
import pytest

from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.make_models import box_glb

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402

pytestmark = pytest.mark.integration

RESOLUTION = 64
MAX_SAMPLES = 64  # four times what Cycles takes before it looks at the noise for the first time


def see(tmp_path, noise_threshold, samples=MAX_SAMPLES, threads=1):
    """One picture of a box before the map with the strongest sun."""
    scene.build(box_glb(tmp_path / "b.glb", size=(1, 0.5, 0.7)), "longest")
    lights.light_scene(Light("sunrise.exr", 40.0), environment_maps(bundled_maps())["sunrise.exr"])
    cycles.configure(Settings(RESOLUTION, samples, noise_threshold), threads)
    return cycles.render_view(Pose(20.0, 30.0), 1, tmp_path)


def test_threads_change_no_pixel_that_stops_early(tmp_path):
    alone, together, again = (see(tmp_path, 0.075, threads=threads) for threads in (1, 2, 1))
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(alone, again)


def test_a_lower_threshold_comes_closer_to_all_samples(tmp_path):
    everything, near, far = (see(tmp_path, threshold).astype(float) for threshold in (0.0, 0.05, 1.0))
    assert 0 < np.square(near - everything).mean() < np.square(far - everything).mean()
