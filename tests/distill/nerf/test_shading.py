"""Compare shading and the orientation loss with values calculated by hand."""

import torch

from distill.nerf.field import Samples
from distill.nerf.shading import PointLight, albedo_only, facing_away, lit, orientation_loss

X = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
SAMPLES = Samples(
    density=torch.ones(3),
    albedo=torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.4, 0.6], [1.0, 1.0, 1.0]]),
    normal=torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]),
)
FRAME = torch.tensor([0, 1, 0])
# Frame 0's light is straight above the origin; frame 1's is 45 degrees off the normal of its point.
LIGHT = PointLight(position=torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 1.0]]), ambient=0.25)


def test_albedo_is_unlit():
    assert torch.equal(lit("albedo", LIGHT)(X, SAMPLES, FRAME), SAMPLES.albedo)
    assert torch.equal(albedo_only(X, SAMPLES, FRAME), SAMPLES.albedo)


def test_brightness_is_lamberts():
    brightness = torch.tensor([0.25 + 0.75, 0.25 + 0.75 * 0.5**0.5, 0.25])[:, None]
    torch.testing.assert_close(lit("textureless", LIGHT)(X, SAMPLES, FRAME), brightness.expand(3, 3))
    torch.testing.assert_close(lit("diffuse", LIGHT)(X, SAMPLES, FRAME), brightness * SAMPLES.albedo)


def test_full_ambient_light_is_no_shading():
    light = PointLight(LIGHT.position, ambient=1.0)
    torch.testing.assert_close(lit("diffuse", light)(X, SAMPLES, FRAME), SAMPLES.albedo)


def test_only_normals_away_from_the_camera_count():
    into_the_scene = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3)
    normal = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0]])
    torch.testing.assert_close(facing_away(normal, into_the_scene), torch.tensor([0.0, 1.0, 0.64]))


def test_orientation_loss_is_a_mean_over_rays_that_meet_something():
    away = torch.tensor([[0.5, 0.25, 0.0, 0.0]])
    assert orientation_loss(away, torch.tensor([[1.0, 0.5, 0.1, 0.0]])).item() == 0.25
    assert orientation_loss(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
