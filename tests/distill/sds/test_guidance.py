"""The gradients of SDS follow the formulas, and the inputs of the model follow the paper."""

import pytest
import torch
from torch import Tensor

from dataset.camera import relative_camera
from distill.sds.guidance import (
    Guidance,
    Prediction,
    enlarge,
    model_denoiser,
    model_guidance,
    rescale_deviation,
    sds_loss,
    sds_target,
)
from distill.sds.schedule import PRESETS, draw_views
from tests.support.train_micro import micro_model
from train.model.multiview import camera_labels
from train.model.noise_schedule import add_noise, clean_latents, noise_schedule

ALPHAS = noise_schedule().double()
VIEWS = draw_views(PRESETS["paper"], 0, 8)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Recorder:
    """A denoiser with a fixed prediction that records its inputs; the prediction has a gradient."""

    def __init__(self) -> None:
        self.weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        self.asked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, noisy: Tensor, timesteps: Tensor, views) -> Prediction:
        self.asked.append((noisy, timesteps))
        conditional = torch.sin(noisy) * self.weight
        return Prediction(3 * conditional + 0.1, conditional)


def gradient(form, rescale: float) -> tuple[Tensor, Tensor, Tensor, Recorder, float]:
    """Return dL/dz, z, the noise, the denoiser and alpha_bar of one loss."""
    latents, recorder = normal(0, 8, 4, 6, 6).requires_grad_(), Recorder()
    guidance = Guidance(torch.nn.Identity(), recorder, ALPHAS)
    loss = sds_loss(latents, VIEWS, guidance, (20, 980), torch.Generator().manual_seed(3), form=form, rescale=rescale)
    (found,) = torch.autograd.grad(loss, latents)
    noisy, timesteps = recorder.asked[0]
    alpha_bar = ALPHAS[timesteps[0]].item()
    noise = (noisy - alpha_bar**0.5 * latents.detach()) / (1 - alpha_bar) ** 0.5
    return found, latents.detach(), noise, recorder, alpha_bar


def test_plain_gradient_is_the_formula():
    found, _, noise, recorder, alpha_bar = gradient("eps", 0.5)
    eps_hat = 3 * 0.7 * torch.sin(recorder.asked[0][0]) + 0.1
    torch.testing.assert_close(found, (1 - alpha_bar) * (eps_hat - noise) / 8)


def test_x0_gradient_is_the_formula():
    found, latents, _, recorder, alpha_bar = gradient("x0", 0.5)
    noisy = recorder.asked[0][0]
    conditional = 0.7 * torch.sin(noisy)
    x0_guided = (noisy - (1 - alpha_bar) ** 0.5 * (3 * conditional + 0.1)) / alpha_bar**0.5
    x0_plain = (noisy - (1 - alpha_bar) ** 0.5 * conditional) / alpha_bar**0.5
    for group in (slice(0, 4), slice(4, 8)):
        factor = 0.5 * x0_plain[group].std() / x0_guided[group].std() + 0.5
        torch.testing.assert_close(found[group], (latents[group] - factor * x0_guided[group]) / 8)


def test_both_forms_differ_by_a_weight_of_the_noise_level():
    """Without rescaling, z - x0_hat = sqrt((1 - a) / a) (eps_hat - eps)."""
    x0, _, _, _, alpha_bar = gradient("x0", 0.0)
    eps, *_ = gradient("eps", 0.0)
    torch.testing.assert_close(x0, eps / (1 - alpha_bar) * ((1 - alpha_bar) / alpha_bar) ** 0.5)


def test_no_gradient_reaches_the_denoiser():
    latents, recorder = normal(0, 4, 4, 3, 3).requires_grad_(), Recorder()
    sds_loss(
        latents, VIEWS, Guidance(torch.nn.Identity(), recorder, ALPHAS), (20, 980), torch.Generator().manual_seed(3)
    ).backward()
    assert latents.grad is not None
    assert recorder.weight.grad is None
    assert not recorder.asked[0][0].requires_grad


def test_one_timestep_for_all_views_within_the_range():
    recorder, latents = Recorder(), normal(0, 8, 4, 2, 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sds_loss(latents, VIEWS, Guidance(torch.nn.Identity(), recorder, ALPHAS), (500, 502), generator)
    drawn = [timesteps for _, timesteps in recorder.asked]
    assert all(len(set(timesteps.tolist())) == 1 for timesteps in drawn)
    assert {int(timesteps[0]) for timesteps in drawn} == {500, 501, 502}


def test_noise_and_clean_latents_invert_each_other():
    latents, noise = normal(1, 4, 2, 3, 3), normal(2, 4, 2, 3, 3)
    for alpha_bar in (ALPHAS[0], ALPHAS[500], ALPHAS[999]):
        torch.testing.assert_close(clean_latents(add_noise(latents, noise, alpha_bar), noise, alpha_bar), latents)


def test_perfect_prediction_pulls_nowhere():
    latents, noise = normal(1, 4, 2, 3, 3), normal(2, 4, 2, 3, 3)
    for form in ("eps", "x0"):
        target = sds_target(latents, noise, ALPHAS[400], Prediction(noise, noise), form=form, rescale=0.5)
        torch.testing.assert_close(target, latents)


def test_images_are_enlarged_linearly_and_never_reduced():
    """Bilinear, with pixel centers at half integers: weights 0.25 and 0.75 between two pixels."""
    row = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    torch.testing.assert_close(enlarge(row, 4), torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(1, 3, 4, 4))
    assert enlarge(row, 2) is row
    assert enlarge(row, 1) is row


def test_the_encoder_receives_enlarged_images():
    model = micro_model()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    guidance = model_guidance(model, torch.zeros(1, 1, 32), 0.0, 1.0)
    size = model.spec.image_size
    expected = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(guidance.encode(images), model.encode(expected))
    assert not torch.allclose(guidance.encode(images), model.encode(images), atol=1e-4)  # bicubic


def test_rescaling_restores_the_deviation_of_each_group():
    guided, conditional = normal(1, 8, 4, 5, 5) * 6 + 1, normal(2, 8, 4, 5, 5)
    whole = rescale_deviation(guided, conditional, 1.0)
    for group in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(whole[group].std(), conditional[group].std())
    torch.testing.assert_close(rescale_deviation(guided, conditional, 0.0), guided)
    torch.testing.assert_close(rescale_deviation(guided, conditional, 0.5), (whole + guided) / 2)


class FakeModel:
    """Predicts a different number for each token, and records its inputs."""

    def labels(self, elevation_deg, azimuth_deg, ref_elevation_deg, ref_azimuth_deg) -> Tensor:
        return camera_labels("relative", elevation_deg, azimuth_deg, ref_elevation_deg, ref_azimuth_deg)

    def predict_noise(self, latents, timesteps, cameras, tokens, num_frames) -> Tensor:
        self.asked = latents, timesteps, cameras, tokens, num_frames
        return latents + tokens.repeat_interleave(num_frames, 0).sum(-1)[..., None, None]


def test_model_is_called_with_and_without_the_image():
    model, noisy = FakeModel(), normal(0, 8, 4, 3, 3)
    tokens = torch.tensor([[[1.0, 2.0]]])
    denoise = model_denoiser(model, tokens, elevation_deg=20.0, scale=10.0)
    prediction = denoise(noisy, torch.full((8,), 321), VIEWS)
    torch.testing.assert_close(prediction.conditional, noisy + 3)
    torch.testing.assert_close(prediction.guided, noisy + 30)
    latents, timesteps, cameras, asked_tokens, num_frames = model.asked
    assert num_frames == 4
    assert timesteps.tolist() == [321] * 16
    assert torch.equal(latents, torch.cat([noisy, noisy]))
    assert torch.equal(asked_tokens[:, 0], torch.tensor([[1.0, 2.0]] * 2 + [[0.0, 0.0]] * 2))
    expected = torch.from_numpy(relative_camera(VIEWS.elevation_deg, VIEWS.azimuth_deg, 20.0, 0.0))
    torch.testing.assert_close(cameras, torch.cat([expected, expected]))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_guidance_scales_0_and_1_are_the_models_own_answers(scale):
    model, noisy = FakeModel(), normal(0, 4, 4, 3, 3)
    denoise = model_denoiser(model, torch.ones(1, 1, 2), elevation_deg=0.0, scale=scale)
    guided = denoise(noisy, torch.full((4,), 5), draw_views(PRESETS["tiny"], 0, 4)).guided
    torch.testing.assert_close(guided, noisy + 2 * scale)
