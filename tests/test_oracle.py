"""Score distillation with a denoiser that knows the truth must rebuild it, seen from cameras that no step has used."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import spherical_to_c2w
from distill.guidance import Guidance, add_noise
from distill.look import view_distance, view_fov_deg
from distill.loop import train_step
from distill.march import Rays, camera_rays, render_views
from distill.oracle import Ball, Box, oracle_denoiser, render_truth, trace
from distill.schedule import PRESETS, DistillSettings, SdsForm, draw_views
from distill.state import Distillation, new_distillation
from train.model import noise_schedule

RED, BLUE, YELLOW, BROWN, GREEN = (0.85, 0.15, 0.1), (0.1, 0.2, 0.8), (0.95, 0.8, 0.2), (0.3, 0.2, 0.1), (0.1, 0.7, 0.2)
# A figure with one face: red and yellow in front (-y), blue and brown behind, a green hand to its left (+x).
FIGURE = (
    Box((-0.22, -0.22, -0.45), (0.22, 0.22, 0.1), RED, BLUE),
    Ball((0.0, 0.0, 0.25), 0.2, YELLOW, BROWN),
    Ball((0.32, 0.0, -0.2), 0.12, GREEN, GREEN),
)
TINY = PRESETS["tiny"]
HELD_OUT = spherical_to_c2w([12.0, 20.0, 24.0, 5.0], [0.0, 105.0, 180.0, 285.0], view_distance(TINY))
MIXING = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(0)))[0]
ALPHAS = noise_schedule()


def encode(images: Tensor) -> Tensor:
    """A frozen linear stand-in for the VAE: patches of 4 x 4 pixels, rotated; [f, 48, h / 4, w / 4]."""
    return torch.einsum("oc,fchw->fohw", MIXING, F.pixel_unshuffle(images * 2 - 1, 4))


def rebuild(settings: DistillSettings) -> Distillation:
    """Distil the figure from its oracle."""
    guidance = Guidance(
        encode,
        oracle_denoiser(lambda v: render_truth(FIGURE, v.c2w, v.fov_deg, settings.coarse_resolution), encode, ALPHAS),
        ALPHAS,
    )
    state = new_distillation(settings, "cpu")
    for step in range(settings.steps):
        train_step(state, settings, guidance, step)
    return state


def psnr(pictures: Tensor, truth: Tensor) -> list[float]:
    """Decibels of each frame [f, h, w, 3] in [0, 1]."""
    return (-10 * (pictures - truth).square().flatten(1).mean(1).log10()).tolist()


def look(state: Distillation) -> Tensor:
    with torch.no_grad():
        return render_views(
            state.field, HELD_OUT, view_fov_deg(TINY), 64, settings=TINY.march, occupancy=state.occupancy
        ).rgb


@pytest.mark.parametrize("form", ["x0", "eps"])
def test_the_oracles_scene_is_rebuilt(form: SdsForm):
    truth = render_truth(FIGURE, HELD_OUT, view_fov_deg(TINY), 64).permute(0, 2, 3, 1)
    settings = replace(TINY, steps=120, sds_form=form)
    before = psnr(look(new_distillation(settings, "cpu")), truth)
    pictures = look(rebuild(settings))
    after = psnr(pictures, truth)
    assert max(before) < 15, f"the blob alone is too close to the truth to show anything: {before}"
    assert min(after) >= 23, f"held-out PSNR {after}"
    assert psnr(pictures[[2]], truth[[0]].flip(2))[0] < 15, "the back shows the face"


def test_trace_hits_where_geometry_says():
    origin = torch.tensor([[0.0, -3.0, 0.25], [0.0, 3.0, 0.25], [0.1, -3.0, -0.1], [0.1, 3.0, -0.1], [0.0, -3.0, 0.6]])
    direction = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])[[0, 1, 0, 1, 0]]
    rays = Rays(origin, direction, torch.zeros(5))
    body, head, _ = FIGURE
    torch.testing.assert_close(head.hit(rays), torch.tensor([2.8, 2.8, torch.inf, torch.inf, torch.inf]))
    torch.testing.assert_close(body.hit(rays), torch.tensor([torch.inf, torch.inf, 2.78, 2.78, torch.inf]))
    expected = torch.tensor([YELLOW, BROWN, RED, BLUE, (1.0, 1.0, 1.0)])
    torch.testing.assert_close(trace(FIGURE, rays), expected)


def test_boxes_equal_a_march_through_them():
    box = Box((-0.3, -0.1, -0.2), (0.2, 0.4, 0.5), RED, BLUE)
    rays = camera_rays(spherical_to_c2w([25.0], [40.0], 1.5), 50.0, 24)
    steps = torch.arange(0.0, 3.0, 0.002)
    x = rays.origin[:, None] + rays.direction[:, None] * steps[:, None]
    inside = ((x > torch.tensor(box.low)) & (x < torch.tensor(box.high))).all(-1)
    first = torch.where(inside.any(1), steps[inside.int().argmax(1)], torch.inf)
    found = box.hit(rays)
    both = first.isfinite() & found.isfinite()
    assert both.sum() > 100
    assert (first.isfinite() != found.isfinite()).sum() <= 2  # rays that graze an edge
    torch.testing.assert_close(found[both], first[both], atol=2.1e-3, rtol=0)


def test_cameras_on_the_left_see_the_hand_in_front():
    front, left = render_truth(FIGURE, spherical_to_c2w([0.0, 0.0], [0.0, 90.0], 1.5), 49.13, 32)
    torch.testing.assert_close(front[:, 20, 23], torch.tensor(GREEN))
    torch.testing.assert_close(left[:, 20, 16], torch.tensor(GREEN), atol=0.1, rtol=0)


def test_the_oracle_answers_with_the_noise_that_is_there():
    views = draw_views(TINY, 0, 4)
    pictures = render_truth(FIGURE, views.c2w, views.fov_deg, 16)
    latents = encode(pictures)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    noisy = add_noise(latents, noise, ALPHAS[600])
    answer = oracle_denoiser(lambda _: pictures, encode, ALPHAS)(noisy, torch.full((4,), 600), views)
    torch.testing.assert_close(answer.guided, noise, atol=1e-5, rtol=0)
    assert torch.equal(answer.guided, answer.conditional)
