"""The L2 loss at the reference view: its camera, its effect on the field, and that it is off by default."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.distill.oracle_objects import ALPHAS, encode
from dataset.camera import DISTANCE, spherical_to_c2w
from dataset.errors import UserError
from distill.nerf.field import Samples
from distill.nerf.settings import MarchSettings
from distill.sds.checkpoint import Distillation, new_distillation
from distill.sds.guidance import Guidance
from distill.sds.loop import train_step
from distill.sds.oracle import Ball, Solids, oracle_guidance, render_rgba
from distill.sds.reference_loss import FOV_DEG, ReferenceView, new_reference_view, reference_loss
from distill.sds.schedule import PRESETS, DistillSettings, plan_step

ELEVATION_DEG = 15.0
TINY = replace(
    PRESETS["tiny"],
    steps=24,
    coarse_resolution=16,
    fine_resolution=16,
    march=replace(PRESETS["tiny"].march, samples_per_ray=32, occupancy_resolution=16),
)
HALF_FRAME = TINY.cameras.half_frame
MODELS: Final[Solids] = (Ball((0.0, 0.0, 0.0), 0.4, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)),)
PICTURES: Final[Solids] = (Ball((0.1, 0.0, 0.1), 0.35, (0.1, 0.8, 0.1), (0.1, 0.1, 0.9)),)


def picture(
    solids: Solids, elevation_deg: float = ELEVATION_DEG, size: int = 32, azimuth_deg: float = 0.0
) -> np.ndarray:
    """Return a cut-out [h, w, 4], uint8, of the scene, framed as in training renders."""
    c2w = spherical_to_c2w([elevation_deg], [azimuth_deg], DISTANCE)
    rgba = render_rgba(solids, c2w, FOV_DEG, size)[0].permute(1, 2, 0)
    color = (rgba[..., :3] - 1 + rgba[..., 3:]) / rgba[..., 3:].clamp(min=1e-6)
    return (torch.cat([color, rgba[..., 3:]], -1).clamp(0, 1) * 255).round().byte().numpy()


class AnalyticSolid:
    """The scene of one ball as a density."""

    radius = 0.87

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    def density(self, x: Tensor) -> Tensor:
        return 1e3 * ((x - torch.tensor(self.ball.center)).norm(dim=-1) < self.ball.radius)

    def query(self, x: Tensor) -> Samples:
        front, back = torch.tensor(self.ball.front), torch.tensor(self.ball.back)
        albedo = torch.where((x[:, 1] < self.ball.center[1])[:, None], front, back)
        return Samples(self.density(x), albedo, torch.zeros_like(x))


def loss_of(solid: AnalyticSolid, reference: ReferenceView) -> float:
    return float(reference_loss(solid, reference, 32, settings=MarchSettings(samples_per_ray=256)))


def test_the_camera_is_the_renders():
    solid = AnalyticSolid(PICTURES[0])
    right = loss_of(solid, new_reference_view(picture(PICTURES), ELEVATION_DEG, HALF_FRAME))
    higher = loss_of(solid, new_reference_view(picture(PICTURES), ELEVATION_DEG + 30, HALF_FRAME))
    mirrored = loss_of(solid, new_reference_view(picture(PICTURES)[:, ::-1].copy(), ELEVATION_DEG, HALF_FRAME))
    assert right < 0.01
    assert higher > 3 * right
    assert mirrored > 10 * right


def test_the_camera_has_the_azimuth_of_the_image():
    solid, image = AnalyticSolid(PICTURES[0]), picture(PICTURES, azimuth_deg=70.0)
    right = loss_of(solid, new_reference_view(image, ELEVATION_DEG, HALF_FRAME, azimuth_deg=70.0))
    front = loss_of(solid, new_reference_view(image, ELEVATION_DEG, HALF_FRAME))
    assert right < 0.01
    assert front > 10 * right


def test_a_preset_with_other_frames_keeps_the_size_of_the_object_in_them():
    doubled = Ball((0.2, 0.0, 0.2), 0.7, PICTURES[0].front, PICTURES[0].back)
    wide = new_reference_view(picture(PICTURES), ELEVATION_DEG, (1.8 * HALF_FRAME[0], 2.2 * HALF_FRAME[1]))
    solid = AnalyticSolid(doubled)
    solid.radius = 1.74
    assert loss_of(solid, wide) < 0.015


def test_an_image_with_background_has_no_outline():
    opaque = picture(PICTURES)
    opaque[..., 3] = 255
    with pytest.raises(UserError, match="--background rembg"):
        new_reference_view(opaque, ELEVATION_DEG, HALF_FRAME)
    with pytest.raises(UserError, match="reference_weight is -1"):
        replace(TINY, reference_weight=-1.0)


def guidance_of(settings: DistillSettings, step: int) -> Guidance:
    """A model that generates one ball, and a reference image of another."""
    reference = new_reference_view(picture(PICTURES), ELEVATION_DEG, HALF_FRAME)
    return replace(oracle_guidance(MODELS, plan_step(settings, step), encode, ALPHAS), reference=reference)


def run(settings: DistillSettings, *, with_picture: bool = True) -> tuple[Distillation, list[Mapping[str, float]]]:
    state, losses = new_distillation(settings, "cpu"), []
    for step in range(settings.steps):
        guidance = guidance_of(settings, step)
        guidance = guidance if with_picture else replace(guidance, reference=None)
        result = train_step(state, settings, guidance, step)
        losses.append({name: float(loss) for name, loss in result.losses.items()})
    return state, losses


def test_without_weight_nothing_changes_to_the_bit():
    settings = replace(TINY, steps=3)
    (one, losses), (other, others) = run(settings), run(settings, with_picture=False)
    assert losses == others
    assert "reference" not in losses[0]
    for name, tensor in one.field.state_dict().items():
        assert torch.equal(tensor, other.field.state_dict()[name]), name


def test_with_weight_the_reference_view_and_no_draw_changes():
    (plain, without), (forced, losses) = run(TINY), run(replace(TINY, reference_weight=1000.0))
    # The first step renders the same field: cameras, jitter, noise and timestep are as they were.
    assert {name: losses[0][name] for name in without[0]} == without[0]
    reference = guidance_of(TINY, 0).reference
    assert reference is not None
    with torch.no_grad():
        plain_error, forced_error = (
            float(reference_loss(state.field, reference, 32, settings=TINY.march, occupancy=state.occupancy))
            for state in (plain, forced)
        )
    assert forced_error < 0.5 * plain_error


def test_a_weight_without_an_image_raises():
    with pytest.raises(ValueError, match="no reference view"):
        run(replace(TINY, steps=1, reference_weight=1.0), with_picture=False)


def test_a_larger_image_is_averaged_over_the_area_of_each_pixel():
    class Nothing(AnalyticSolid):
        def density(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x))

    image = torch.ones(4, 8, 8)
    image[3] = (torch.arange(8)[:, None] + torch.arange(8)) % 2  # a checkered mask
    reference = ReferenceView(image, spherical_to_c2w([ELEVATION_DEG], [0.0], DISTANCE))
    loss = reference_loss(Nothing(MODELS[0]), reference, 4, settings=MarchSettings(samples_per_ray=8))
    assert loss.item() == pytest.approx(0.5**2)
