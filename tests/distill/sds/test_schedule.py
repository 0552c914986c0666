"""The plan of each step: the numbers of the paper, and draws that depend on (seed, step) only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.camera import project
from dataset.errors import UserError
from distill.sds.schedule import (
    PRESETS,
    RandomPurpose,
    draw_views,
    orientation_weight,
    plan_step,
    random_stream,
    timestep_range,
    torch_stream,
)


def spans(values, low: float, high: float) -> bool:
    """Return whether values fill a range: all are inside and both ends are nearly reached."""
    slack = 0.05 * (high - low)
    return low <= np.min(values) < low + slack and high - slack < np.max(values) <= high


PAPER, TINY = PRESETS["paper"], PRESETS["tiny"]


def test_paper_timesteps_anneal_over_8000_steps():
    assert timestep_range(PAPER, 0) == (980, 980)
    assert timestep_range(PAPER, 4_000) == (500, 740)
    assert timestep_range(PAPER, 8_000) == timestep_range(PAPER, 9_999) == (20, 500)


def test_paper_orientation_weight_is_eq_10():
    assert orientation_weight(PAPER, 0) == 0
    assert orientation_weight(PAPER, 1_000) == pytest.approx(200)
    assert orientation_weight(PAPER, 5_000) == orientation_weight(PAPER, 9_000) == 1_000
    assert orientation_weight(replace(PAPER, coarse_fraction=0.0), 0) == 1_000


def test_paper_resolution_and_views_change_at_5000():
    before, after = plan_step(PAPER, 4_999), plan_step(PAPER, 5_000)
    assert (before.resolution, len(before.views)) == (64, 8)
    assert (after.resolution, len(after.views)) == (256, 4)


def test_steps_stretch_every_schedule():
    short = replace(PAPER, steps=100)
    for part in (0, 10, 49, 50, 80, 99):
        long_plan, short_plan = plan_step(PAPER, part * 100), plan_step(short, part)
        assert short_plan.timesteps == long_plan.timesteps
        assert short_plan.orientation_weight == pytest.approx(long_plan.orientation_weight)
        assert short_plan.resolution == long_plan.resolution


def test_shading_shares():
    coarse = {plan_step(PAPER, step).shading for step in range(0, 5_000, 50)}
    assert coarse == {"albedo"}
    fine = [plan_step(PAPER, step) for step in range(5_000, 10_000, 5)]
    shares = {kind: sum(plan.shading == kind for plan in fine) / len(fine) for kind in ("albedo", "diffuse")}
    assert shares["albedo"] == pytest.approx(0.25, abs=0.04)
    assert shares["diffuse"] == pytest.approx(0.375, abs=0.05)
    ambient = [plan.ambient for plan in fine if plan.shading != "albedo"]
    assert np.mean(ambient) == pytest.approx(0.5, abs=0.05)
    assert spans(ambient, 0, 1)


def test_half_of_the_steps_draw_low_elevations():
    """The release mixes angles uniform in [0, 30] with angles whose sine is uniform in [0, 1/3]."""
    elevation = np.concatenate([draw_views(PAPER, step, 8).elevation_deg[::4] for step in range(3000)])
    for limit in (3, 8, 13, 18, 19.5, 25):
        share = 0.5 * limit / 30 + 0.5 * min(1, 3 * np.sin(np.deg2rad(limit)))
        assert np.mean(elevation < limit) == pytest.approx(share, abs=0.02)


def test_the_preset_tiny_draws_uniform_elevations():
    elevation = np.concatenate([draw_views(TINY, step, 4).elevation_deg[:1] for step in range(3000)])
    for limit in (5, 10, 19.5, 25):
        assert np.mean(elevation < limit) == pytest.approx(limit / 30, abs=0.03)


def test_views_come_in_orthogonal_groups():
    views = draw_views(PAPER, 3, 8)
    for group in (slice(0, 4), slice(4, 8)):
        gaps = np.diff(views.azimuth_deg[group]) % 360
        np.testing.assert_allclose(gaps, 90)
        for values in (views.elevation_deg, views.distance, views.fov_deg):
            assert len(set(values[group])) == 1
    assert views.azimuth_deg[0] != views.azimuth_deg[4]


def test_cameras_stay_in_their_ranges_and_frame_the_object():
    many = [draw_views(PAPER, step, 8) for step in range(300)]
    elevation, fov, distance = (
        np.concatenate([getattr(v, name) for v in many]) for name in ("elevation_deg", "fov_deg", "distance")
    )
    assert spans(elevation, 0, 30)
    assert spans(fov, 15, 60)
    assert spans(distance * np.tan(np.deg2rad(fov) / 2), 0.8, 1.0)
    azimuth = np.concatenate([v.azimuth_deg for v in many])
    assert np.histogram(azimuth, bins=8, range=(0, 360))[0].min() > 200


def test_tiny_frames_as_the_training_renders_do():
    views = draw_views(TINY, 0, 4)
    np.testing.assert_allclose(views.distance, 1.5, atol=1e-4)
    focal = 64 * 35 / 32
    K = np.array([[focal, 0, 32], [0, focal, 32], [0, 0, 1]])
    pixel, _ = project(np.array([[0.0, 0.0, 0.5]]), views.c2w[0], K)
    assert 32 - 26 < pixel[0, 1] < 32 - 20


def test_lights_surround_the_cameras():
    plans = [plan_step(PAPER, step) for step in range(200)]
    lights = np.concatenate([plan.light_position for plan in plans])
    assert spans(np.linalg.norm(lights, axis=-1), 0.8, 1.5)
    cameras = np.concatenate([plan.views.c2w[:, :3, 3] for plan in plans])
    assert np.mean((lights * cameras).sum(-1) > 0) > 0.9


def test_a_group_of_views_shares_the_noise_and_the_distance_of_its_lights():
    plan = plan_step(replace(PAPER, shading=replace(PAPER.shading, light_perturbation=1e9)), 7)
    distance = np.linalg.norm(plan.light_position, axis=-1)
    direction = plan.light_position / distance[:, None]  # of the noise: the camera is negligible
    for values in (distance, direction):
        groups = values.reshape(2, 4, -1)
        np.testing.assert_allclose(groups, np.repeat(groups[:, :1], 4, axis=1), atol=1e-6)
        assert np.abs(groups[0] - groups[1]).max() > 1e-3


def test_without_noise_the_light_is_in_the_direction_of_each_camera():
    plan = plan_step(replace(PAPER, shading=replace(PAPER.shading, light_perturbation=0.0)), 7)
    camera, light = plan.views.c2w[:, :3, 3], plan.light_position
    np.testing.assert_allclose(np.cross(camera, light), 0, atol=1e-9)
    assert ((camera * light).sum(-1) > 0).all()


def test_draws_are_functions_of_seed_step_and_purpose():
    first, again = plan_step(PAPER, 7_001), plan_step(PAPER, 7_001)
    np.testing.assert_array_equal(first.views.c2w, again.views.c2w)
    np.testing.assert_array_equal(first.light_position, again.light_position)
    draws = {
        (seed, step, purpose): torch.rand((), generator=torch_stream(seed, step, purpose)).item()
        for seed in (0, 1)
        for step in (0, 1, 2)
        for purpose in RandomPurpose
    }
    assert len(set(draws.values())) == len(draws)
    assert random_stream(0, 1, RandomPurpose.NOISE).random() == random_stream(0, 1, RandomPurpose.NOISE).random()


@pytest.mark.parametrize("change", [{"steps": 0}, {"seed": -1}, {"fine_views": 6}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        replace(PAPER, **change)
