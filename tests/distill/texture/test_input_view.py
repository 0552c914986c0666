"""The azimuth and the projection of the input image."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.sds.oracle import Ball, Cuboid, Solids, render_rgba
from distill.texture import input_view
from distill.texture.input_view import AZIMUTHS_DEG, estimate_azimuth_deg, find_input_view, project_image
from distill.texture.phase import refine_texture
from tests.support.distill_texture import ROUNDS, STRIPED, make_ball, make_texture_guidance
from tests.support.distill_toy import SETTINGS

TEXTURED = replace(SETTINGS, texture=replace(ROUNDS, input_weight=1.0))

RED, BLUE, GREEN = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.1, 0.7, 0.2)
FIGURE = (
    Ball((0.0, 0.0, 0.0), 0.3, RED, BLUE),
    Ball((0.35, 0.0, 0.05), 0.1, GREEN, BLUE),
    Ball((0.0, -0.3, -0.2), 0.1, BLUE, RED),
)


def image_of(solids: Solids, azimuth_deg: float, elevation_deg: float = 15.0, shift: int = 0) -> NDArray[np.uint8]:
    c2w, fov_deg = input_view._camera(SETTINGS, elevation_deg, [azimuth_deg])
    rgba = render_rgba(solids, c2w, fov_deg, 64, supersampling=2)[0].permute(1, 2, 0).clamp(0, 1)
    pixels = np.rint(rgba.numpy() * 255).astype(np.uint8)
    return np.roll(pixels, shift, axis=(0, 1))


@pytest.mark.parametrize("azimuth_deg", [-40.0, 0.0, 20.0])
def test_the_azimuth_is_found_for_a_shifted_image(azimuth_deg, monkeypatch):
    def render_truth(scene, c2w, fov_deg, resolution, **_):
        rgba = render_rgba(FIGURE, c2w, fov_deg, resolution, supersampling=2).permute(0, 2, 3, 1)
        return SimpleNamespace(rgb=rgba[..., :3], alpha=rgba[..., 3])

    monkeypatch.setattr(input_view, "render_views", render_truth)
    image = image_of(FIGURE, azimuth_deg, shift=3)
    assert estimate_azimuth_deg(make_ball(), SETTINGS, image, 15.0) == azimuth_deg
    assert azimuth_deg in AZIMUTHS_DEG


def test_nothing_visible_has_azimuth_0_and_no_projection():
    empty = np.zeros((64, 64, 4), np.uint8)
    assert estimate_azimuth_deg(make_ball(), SETTINGS, empty, 15.0) == 0
    assert project_image(make_ball(), TEXTURED, empty, elevation_deg=15.0, azimuth_deg=0.0) is None
    assert find_input_view(make_ball(), TEXTURED, empty, 15.0) is None


def test_the_image_is_scaled_to_the_object():
    state = make_ball()
    small = (Ball((0.0, 0.0, 0.0), 0.2, RED, BLUE),)
    view = project_image(state, TEXTURED, image_of(small, 0.0, shift=5), elevation_deg=15.0, azimuth_deg=0.0)
    assert view is not None
    assert view.overlap > 0.8
    inside = view.confidence[:, 0] > 0
    colors = view.image[0].permute(1, 2, 0).reshape(-1, 3)[inside]
    assert inside.float().mean() > 0.5 * (view.surface.alpha > 0.5).float().mean()
    front = torch.tensor(RED)
    assert ((colors - front).abs().amax(1) < 0.1).float().mean() > 0.8


def test_an_image_of_another_shape_is_not_used(caplog):
    rod = (Cuboid((-0.45, -0.05, -0.05), (0.45, 0.05, 0.05), RED, BLUE),)
    cross = (*rod, Cuboid((-0.05, -0.05, -0.45), (0.05, 0.05, 0.45), RED, BLUE))
    with caplog.at_level("INFO"):
        assert find_input_view(make_ball(), TEXTURED, image_of(cross, 0.0), 0.0) is None
    assert "is not projected" in caplog.text


def test_weight_0_does_not_use_the_image():
    settings = replace(SETTINGS, texture=ROUNDS)
    assert find_input_view(make_ball(), settings, image_of(STRIPED, 0.0), 15.0) is None


def test_the_image_appears_on_the_object():
    """The denoiser knows a gray ball, and the image shows a striped one."""
    state, gray = make_ball(), (Ball((0.0, 0.0, 0.0), 0.45, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),)
    view = find_input_view(state, TEXTURED, image_of(STRIPED, 0.0), 15.0, azimuth_deg=0.0)
    assert view is not None
    errors = []
    for target in (None, view):
        refine_texture(state, TEXTURED, make_texture_guidance(gray), input_view=target, quiet=True)
        shown = view.surface.render(state.field.texture).detach()
        errors.append(float((view.confidence.view(1, 1, 16, 16) * (shown - view.image).square()).mean()))
    assert errors[1] < 0.3 * errors[0]
