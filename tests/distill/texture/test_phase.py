"""The texture phase: stripes of an oracle appear on a gray ball, whose shape stays as it is."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from dataset.errors import UserError
from distill.config import DistillRequest
from distill.nerf.field import load_field
from distill.nerf.render import render_views
from distill.nerf.settings import HashGridSettings
from distill.sds.checkpoint import Distillation
from distill.sds.oracle import render_truth
from distill.sds.schedule import VIEWS_PER_GROUP, newer_settings
from distill.sds.texture_settings import texture_settings
from distill.texture.denoise import ddim_step, groups_of, timesteps_from
from distill.texture.fit import surface_views
from distill.texture.phase import new_texture, refine_texture, timestep_of_round, views_of_round
from tests.support.distill_texture import GRID, ROUNDS, STRIPED, SYNCHRONIZED, make_ball, make_texture_guidance
from tests.support.distill_toy import ALPHAS, SETTINGS
from train.model.noise_schedule import add_noise

TEXTURED = replace(SETTINGS, texture=ROUNDS)


def distance(state: Distillation) -> float:
    """Mean squared distance of the colors to the stripes, from new cameras."""
    views = views_of_round(SETTINGS, ROUNDS, 7)
    with torch.no_grad():
        shown = render_views(
            state.field, views.c2w, views.fov_deg, 16, settings=SETTINGS.march, occupancy=state.occupancy
        )
    truth = render_truth(STRIPED, views.c2w, views.fov_deg, 16).permute(0, 2, 3, 1)
    inside = shown.alpha > 0.9
    return float((shown.rgb - truth)[inside].square().mean())


@pytest.mark.parametrize("texture", [ROUNDS, SYNCHRONIZED], ids=["rounds", "synchronized"])
def test_stripes_appear_and_the_shape_stays(texture):
    state = make_ball()
    before, points = distance(state), torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    density, parameters = state.field.density(points), dict(state.field.state_dict())
    settings = replace(SETTINGS, texture=replace(texture, keep_mean=False))
    report = refine_texture(state, settings, make_texture_guidance(), quiet=True)
    assert distance(state) < 0.3 * before
    assert torch.equal(state.field.density(points), density)
    assert all(torch.equal(state.field.state_dict()[name], tensor) for name, tensor in parameters.items())
    assert len(report.losses) == report.rounds == texture.rounds


@pytest.mark.parametrize("texture", [ROUNDS, SYNCHRONIZED], ids=["rounds", "synchronized"])
def test_a_repeated_phase_gives_the_same_texture(texture):
    settings = replace(SETTINGS, texture=texture)
    first, second = make_ball(), make_ball()
    for _ in range(2):
        refine_texture(first, settings, make_texture_guidance(), quiet=True)  # the second time replaces the texture
    refine_texture(second, settings, make_texture_guidance(), quiet=True)
    assert torch.equal(first.field.texture.table, second.field.texture.table)


def test_the_mean_color_is_kept():
    state = make_ball()
    views = views_of_round(SETTINGS, ROUNDS, 0)
    surface = surface_views(state.field, views.c2w, views.fov_deg, 16, march=SETTINGS.march, occupancy=state.occupancy)
    renders = surface.render(new_texture(GRID, state.field)).detach()
    targets = 0.5 * renders + 0.1
    shifted = surface.with_mean_of(targets, renders, VIEWS_PER_GROUP)
    weight = surface.facing.view(VIEWS_PER_GROUP, 1, 16, 16)
    means = [(weight * images).sum((0, 2, 3)) / weight.sum() for images in (targets, shifted, renders)]
    assert not torch.allclose(means[0], means[2], atol=0.02)
    torch.testing.assert_close(means[1], means[2], atol=1e-4, rtol=0)


def test_a_texture_of_zeros_changes_nothing_and_renders_agree():
    state = make_ball()
    views = views_of_round(SETTINGS, ROUNDS, 1)
    surface = surface_views(state.field, views.c2w, views.fov_deg, 16, march=SETTINGS.march, occupancy=state.occupancy)
    texture = new_texture(GRID, state.field)
    for spread in (0.0, 0.5):
        with torch.no_grad():
            texture.table.uniform_(-spread, spread, generator=torch.Generator().manual_seed(0))
            state.field.texture = texture
            expected = render_views(
                state.field, views.c2w, views.fov_deg, 16, settings=SETTINGS.march, occupancy=state.occupancy
            ).rgb
            found = surface.render(texture).permute(0, 2, 3, 1)
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)  # light samples are left out


def test_a_textured_field_is_read_back(tmp_path):
    state = make_ball()
    state.field.save(tmp_path / "plain.safetensors")
    state.field.texture = new_texture(GRID, state.field)
    torch.nn.init.uniform_(state.field.texture.table, -1, 1)
    state.field.save(tmp_path / "textured.safetensors")
    x = torch.rand(20, 3) - 0.5
    loaded = load_field(tmp_path / "textured.safetensors")
    assert loaded.texture.settings == GRID
    assert torch.equal(loaded.albedo(x), state.field.albedo(x))
    torch.testing.assert_close(loaded.query(x).albedo, loaded.albedo(x))
    plain = load_field(tmp_path / "plain.safetensors")
    assert plain.texture is None
    assert not torch.allclose(plain.albedo(x), loaded.albedo(x), atol=0.05)


def test_rounds_fall_from_the_first_timestep_to_the_last():
    assert [timestep_of_round(ROUNDS, number) for number in range(3)] == pytest.approx([0.6, 0.4, 0.2])
    assert timestep_of_round(replace(ROUNDS, rounds=1), 0) == 0.6
    assert timesteps_from(0.6, 0.15, 4, 1000) == pytest.approx([600, 450, 300, 150], abs=1)
    assert timesteps_from(1.0, 1.0, 1, 1000) == [999]


def test_cameras_of_a_round_are_groups_of_orthogonal_views():
    views = views_of_round(SETTINGS, replace(ROUNDS, groups=2), 3)
    for group in groups_of(views):
        assert len(group) == VIEWS_PER_GROUP
        np.testing.assert_allclose(np.mod(np.diff(group.azimuth_deg), 360), 90)
        assert len(set(group.elevation_deg)) == 1
    low, high = SETTINGS.cameras.elevation_deg
    assert ((views.elevation_deg >= low) & (views.elevation_deg <= high)).all()


def test_a_ddim_step_keeps_the_noise():
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    noisy = add_noise(clean, noise, ALPHAS[600])
    torch.testing.assert_close(ddim_step(noisy, clean, ALPHAS, 600, 200), add_noise(clean, noise, ALPHAS[200]))
    assert torch.equal(ddim_step(noisy, clean, ALPHAS, 600, None), clean)


def test_the_phase_is_part_of_the_request_only_if_it_runs():
    plain = DistillRequest("image", "model", "tiny", 15.0, 3.0, replace(SETTINGS, texture=None))
    textured = replace(plain, settings=TEXTURED)
    assert "texture" not in plain.as_json()["settings"]
    assert textured.as_json()["settings"]["texture"]["rounds"] == 3
    assert plain.sha256 != textured.sha256
    assert newer_settings(TEXTURED)["texture"] == asdict(ROUNDS)
    assert "texture" not in newer_settings(replace(SETTINGS, texture=None))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rounds": 0}, "texture.rounds is 0"),
        ({"timesteps": (0.0, 0.5)}, "texture.timesteps"),
        ({"grid": HashGridSettings()}, "features_per_level is 2"),
    ],
)
def test_invalid_settings_are_refused(change, complaint):
    with pytest.raises(UserError, match=complaint):
        replace(ROUNDS, **change)


@pytest.mark.parametrize(("size", "levels", "cells"), [(16, 1, 12), (64, 4, 58), (128, 5, 100), (256, 7, 289)])
def test_the_texture_of_larger_models_is_finer(size, levels, cells):
    settings = texture_settings(size)
    assert (settings.resolution, settings.grid.levels) == (size, levels)
    assert settings.grid.resolutions()[-1] == cells
