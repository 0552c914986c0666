"""Compare volume rendering with the closed form, with a renderer of single rays, and with itself in chunks."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import intrinsics_from_fov, project, spherical_to_c2w
from distill.nerf.field import Field, Samples
from distill.nerf.occupancy import Occupancy
from distill.nerf.rays import Rays, ball_bounds, camera_rays
from distill.nerf.render import render_views
from distill.nerf.settings import FieldSettings, HashGridSettings, MarchSettings
from distill.nerf.shading import PointLight, lit, orientation_loss

FINE = MarchSettings(samples_per_ray=400, min_transmittance=0.0)
FIELD = FieldSettings(
    grid=HashGridSettings(levels=3, log2_table_size=10, base_resolution=4, growth=1.6), radius=0.9, hidden_width=8
)
CAMERAS = spherical_to_c2w([10.0, -20.0], [0.0, 130.0], [1.5, 1.8])


@dataclass(frozen=True)
class Ball:
    """A homogeneous ball, red for x > 0 and blue elsewhere."""

    extent: float
    sigma: Tensor
    radius: float = 1.0

    def density(self, x: Tensor) -> Tensor:
        return self.sigma * (x.norm(dim=-1) <= self.extent)

    def query(self, x: Tensor) -> Samples:
        red = (x[:, :1] > 0).float()
        return Samples(self.density(x), torch.cat([red, 0 * red, 1 - red], -1), F.normalize(x, dim=-1))


def make_field() -> Field:
    generator = torch.Generator().manual_seed(0)
    made = Field(FIELD, generator)
    with torch.no_grad():
        made.grid.table.uniform_(-1, 1, generator=generator)
    return made


@pytest.mark.parametrize(("elevation_deg", "azimuth_deg"), [(0, 0), (30, 77), (-10, 200), (90, 0)])
def test_rays_pass_through_the_pixels_they_are_for(elevation_deg, azimuth_deg):
    c2w = spherical_to_c2w(elevation_deg, azimuth_deg, 1.5)
    rays = camera_rays(c2w[None], 49.13, 16)
    points = (rays.origin + 1.3 * rays.direction).double().numpy()
    pixels, depth = project(points, c2w, intrinsics_from_fov(16, 49.13))
    rows, columns = np.divmod(np.arange(256), 16)
    np.testing.assert_allclose(pixels, np.stack([columns + 0.5, rows + 0.5], -1), atol=1e-4)
    assert (depth > 0).all()
    np.testing.assert_allclose(rays.direction.norm(dim=-1), 1, atol=1e-6)


def test_frames_have_their_own_cameras():
    both = camera_rays(CAMERAS, [30.0, 50.0], 8)
    second = camera_rays(CAMERAS[1:], 50.0, 8)
    assert torch.equal(both.origin[64:], second.origin)
    assert torch.equal(both.direction[64:], second.direction)
    assert both.frame.tolist() == [0] * 64 + [1] * 64


def test_ball_bounds():
    origin = torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.6, -3.0], [0.0, 2.0, -3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    rays = Rays(origin, torch.tensor([[0.0, 0.0, 1.0]]).expand(5, 3), torch.zeros(5))
    near, far = ball_bounds(rays, 1.0)
    torch.testing.assert_close(near, torch.tensor([2.0, 2.2, 3.0, 0.0, 0.0]))
    torch.testing.assert_close(far, torch.tensor([4.0, 3.8, 3.0, 1.0, 0.0]))


def test_homogeneous_ball_is_the_closed_form():
    sigma, extent = 3.0, 0.6
    scene = Ball(extent, torch.tensor(sigma))
    rendered = render_views(scene, CAMERAS[:1], 40.0, 33, settings=MarchSettings(samples_per_ray=2000))
    rays = camera_rays(CAMERAS[:1], 40.0, 33)
    near, far = ball_bounds(rays, extent)
    expected = 1 - torch.exp(-sigma * (far - near))
    torch.testing.assert_close(rendered.alpha.flatten(), expected, atol=6e-3, rtol=0)
    assert rendered.alpha.max() > 0.9
    # the middle ray: mean distance of an exponential cut at the chord's end
    chord, middle = 2 * extent, 33 * 33 // 2
    mean = 1.5 - extent + 1 / sigma - chord * math.exp(-sigma * chord) / (1 - math.exp(-sigma * chord))
    assert rendered.depth.flatten()[middle].item() == pytest.approx(mean, abs=5e-3)
    corner = rendered.rgb[0, 0, 0]
    assert torch.equal(corner, torch.ones(3))
    assert rendered.depth[0, 0, 0] == 0


def test_right_is_right_and_the_background_white():
    rendered = render_views(Ball(0.5, torch.tensor(60.0)), CAMERAS[:1], 50.0, 32, settings=FINE)
    left, right = rendered.rgb[0, 16, 10], rendered.rgb[0, 16, 21]  # azimuth 0: world x points to the right
    torch.testing.assert_close(right, torch.tensor([1.0, 0.0, 0.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(left, torch.tensor([0.0, 0.0, 1.0]), atol=2e-3, rtol=0)


def naive_pixel(field: Field, rays: Rays, index: int, shade) -> tuple[Tensor, Tensor]:
    """Return color on white and the sum of Eq. 8 of one ray, sample by sample through the whole ball."""
    step = FINE.step_length(field.radius)
    near, far = (float(bound[index]) for bound in ball_bounds(rays, field.radius))
    color, away, light, k = torch.zeros(3), torch.zeros(()), torch.ones(()), 0
    while near + k * step < far:
        if k > 0 or near + k * step > near:
            x = rays.origin[index] + rays.direction[index] * (near + k * step)
            samples = field.query(x[None])
            opacity = 1 - torch.exp(-samples.density[0] * step)
            color = color + light * opacity * shade(x[None], samples, rays.frame[index, None])[0]
            away = away + (light * opacity).detach() * (samples.normal[0] @ rays.direction[index]).clamp(min=0) ** 2
            light = light * (1 - opacity)
        k += 1
    return color + light, away


def test_images_equal_the_naive_renderer():
    field, rays = make_field(), camera_rays(CAMERAS, 45.0, 6)
    shade = lit("diffuse", PointLight(torch.tensor([[1.0, -1.0, 2.0], [-2.0, 0.0, 1.0]]), 0.3))
    with torch.no_grad():
        rendered = render_views(field, CAMERAS, 45.0, 6, settings=FINE, shade=shade)
        for index in (0, 8, 15, 21, 36, 50, 57):
            color, away = naive_pixel(field, rays, index, shade)
            torch.testing.assert_close(rendered.rgb.view(-1, 3)[index], color, atol=2e-5, rtol=0)
            torch.testing.assert_close(rendered.away.flatten()[index], away, atol=2e-5, rtol=0)


def gradients(field: Field, settings: MarchSettings) -> tuple[Tensor, list[Tensor]]:
    rendered = render_views(field, CAMERAS, 45.0, 12, settings=settings, generator=torch.Generator().manual_seed(7))
    loss = (rendered.rgb * torch.linspace(0, 1, rendered.rgb.numel()).view_as(rendered.rgb)).sum() + rendered.away.sum()
    return rendered.rgb.detach(), list(torch.autograd.grad(loss, list(field.parameters())))


def test_chunks_change_neither_images_nor_gradients():
    field = make_field()
    whole, whole_gradients = gradients(field, FINE)
    parts, part_gradients = gradients(field, replace(FINE, sample_budget=5_000))
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(part_gradients, whole_gradients, atol=1e-3, rtol=1e-4)


def test_images_have_gradients_by_density():
    sigma = torch.tensor(2.0, requires_grad=True)
    rendered = render_views(Ball(0.6, sigma), CAMERAS[:1], 40.0, 17, settings=FINE)
    (gradient,) = torch.autograd.grad(rendered.alpha[0, 8, 8], sigma)
    assert gradient.item() == pytest.approx(1.2 * math.exp(-2.4), rel=2e-2)


def test_eq_8_does_not_move_density():
    sigma = torch.tensor(2.0, requires_grad=True)
    rendered = render_views(Ball(0.6, sigma), CAMERAS[:1], 40.0, 17, settings=FINE)
    loss = orientation_loss(rendered.away, rendered.alpha)
    assert loss.item() > 0  # the far half of a translucent ball faces away
    (gradient,) = torch.autograd.grad(loss, sigma)
    assert gradient.item() == 0


def test_hidden_samples_are_dropped_without_a_trace():
    scene = Ball(0.5, torch.tensor(30.0))
    all_samples, some = (
        render_views(scene, CAMERAS, 45.0, 16, settings=replace(FINE, min_transmittance=limit)).rgb
        for limit in (0.0, 1e-4)
    )
    torch.testing.assert_close(some, all_samples, atol=2e-4, rtol=0)
    assert not torch.equal(some, all_samples)


def test_shifted_steps_average_to_the_same_image():
    scene = Ball(0.6, torch.tensor(2.0))
    coarse = replace(FINE, samples_per_ray=40)
    generator = torch.Generator().manual_seed(0)
    shifted = torch.stack(
        [render_views(scene, CAMERAS, 45.0, 8, settings=coarse, generator=generator).alpha for _ in range(60)]
    )
    exact = render_views(scene, CAMERAS, 45.0, 8, settings=replace(FINE, samples_per_ray=2000)).alpha
    assert shifted.std(0).max() > 1e-3
    torch.testing.assert_close(shifted.mean(0), exact, atol=1.5e-2, rtol=0)


def test_occupancy_skips_only_emptiness():
    field = make_field()
    settings = replace(FINE, occupancy_threshold=1e-4, occupancy_resolution=24, alpha_threshold=0.0)
    occupancy = Occupancy(field.radius, settings)
    for step in range(0, 5 * settings.occupancy_every, settings.occupancy_every):
        occupancy.update(step, field.density, seed=0)
    share = occupancy.grid.binaries.float().mean().item()
    assert 0.05 < share < 0.7
    with torch.no_grad():
        skipped = render_views(field, CAMERAS, 45.0, 16, settings=settings, occupancy=occupancy).rgb
        whole = render_views(field, CAMERAS, 45.0, 16, settings=settings).rgb
    torch.testing.assert_close(skipped, whole, atol=2e-2, rtol=0)


def test_an_empty_scene_is_white():
    field = make_field()
    rendered = render_views(field, CAMERAS, 45.0, 8, settings=FINE, occupancy=Occupancy(field.radius, FINE))
    assert torch.equal(rendered.rgb, torch.ones(2, 8, 8, 3))
    assert rendered.alpha.abs().max() == 0
    rendered.rgb.sum().backward()


@pytest.mark.parametrize(
    ("threshold", "mean", "is_skipped"),
    [(0.01, 1.0, True), (0.01, 0.02, True), (0.01, 0.001, False), (0.003, 1.0, False), (0.0, 1.0, False)],
)
def test_transparent_samples_are_skipped(threshold, mean, is_skipped):
    """Samples of opacity 0.005 are less than the threshold or the mean of the grid, whichever is smaller."""
    settings = MarchSettings(samples_per_ray=200, min_transmittance=0.0, alpha_threshold=threshold)
    scene = Ball(0.5, torch.tensor(-math.log(1 - 0.005) / settings.step_length(1.0)))
    occupancy = Occupancy(1.0, settings)
    occupancy.grid.binaries.fill_(True)
    occupancy.grid.occs.fill_(mean)
    rendered = render_views(scene, CAMERAS[:1], 40.0, 16, settings=settings, occupancy=occupancy)
    assert (rendered.alpha.max() == 0) == is_skipped
    without_grid = render_views(scene, CAMERAS[:1], 40.0, 16, settings=settings)
    assert without_grid.alpha.max() > 0.1


def test_occupancy_knows_its_cells():
    occupancy = Occupancy(1.0, MarchSettings(occupancy_resolution=4))
    occupancy.grid.binaries[0, 3, 0, 1] = True
    x = torch.tensor([[0.9, -0.9, -0.3], [0.9, -0.9, 0.1], [1.0, -1.0, -0.01], [0.4, -0.9, -0.3]])
    assert occupancy(x).tolist() == [True, False, True, False]


def test_occupancy_updates_are_a_function_of_seed_and_step():
    field, settings = make_field(), MarchSettings(occupancy_resolution=8, occupancy_warmup=0)
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        occupancy = Occupancy(field.radius, settings)
        before = torch.get_rng_state()
        occupancy.update(16, field.density, seed=5)
        occupancy.update(17, field.density, seed=6)  # not every step
        assert torch.equal(torch.get_rng_state(), before)
        states.append(occupancy.grid.occs.clone())
    assert torch.equal(*states)
    other = Occupancy(field.radius, settings)
    other.update(16, field.density, seed=6)
    assert not torch.equal(other.grid.occs, states[0])
