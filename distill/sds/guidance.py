"""Score distillation sampling (Eq. 7): the SDS loss, and its guidance by a diffusion model or an oracle.

Eq. 7 reads as a loss through the UNet; like the release we never differentiate the UNet. Both forms give the latents z
a gradient in closed form, written as half the squared distance to a fixed target:

    "eps"  dL/dz = w(t) (eps_hat - eps) / f,  w(t) = 1 - alpha_bar_t     (DreamFusion)
    "x0"   dL/dz = (z - x0_hat) / f,          x0_hat from z_t and eps_hat (MVDream, the release)

Axis letters: `f` frames, `c h w` of latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from distill.sds.cuda_graph import GraphedFunction
from distill.sds.reference_loss import Reference
from distill.sds.schedule import VIEWS_PER_GROUP, CameraViews, SdsForm
from train.device import fastest_attention, to_device
from train.layers.compile import Compute, prepare
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import add_noise, classifier_free_guidance, clean_latents


class Prediction(NamedTuple):
    """Predicted noise [f, c, h, w], with classifier-free guidance and without."""

    guided: Tensor
    conditional: Tensor


Denoise = Callable[[Tensor, Tensor, CameraViews], Prediction]
"""(noisy latents [f, c, h, w], timesteps [f], the cameras they show) -> the noise in them."""
EncodeImages = Callable[[Tensor], Tensor]
"""Pictures [f, 3, h, w] in [0, 1] -> latents [f, c, h, w], differentiable."""


@dataclass(frozen=True)
class Guidance:
    """The encoder, denoiser and noise schedule that SDS uses."""

    encode: EncodeImages
    denoise: Denoise
    alphas_cumprod: Tensor  # [t]
    reference: Reference | None = None
    """For `DistillSettings.reference_weight`; not used without it."""


def model_guidance(
    model: MultiViewModel, tokens: Tensor, elevation_deg: float, scale: float, compute: Compute | None = None
) -> Guidance:
    """Guidance by a diffusion model for the picture with embedding `tokens` [1, 1, c], taken from `elevation_deg`.

    `compute` (default: none of it) compiles the model in place. Its weights are frozen.
    """
    compute = compute or Compute()
    model.unet.requires_grad_(False)
    prepare(model.unet, compute)
    prepare(cast(nn.Module, model.vae.encoder), compute)
    torch.backends.cudnn.benchmark |= compute.compile != "none"  # convolutions of two shapes: worth a try of each way

    def encode(images: Tensor) -> Tensor:
        with fastest_attention(images.device):
            return model.encode(images)

    return Guidance(encode, model_denoiser(model, tokens, elevation_deg, scale, compute), model.alphas_cumprod)


def model_denoiser(
    model: MultiViewModel, tokens: Tensor, elevation_deg: float, scale: float, compute: Compute | None = None
) -> Denoise:
    """The model with classifier-free guidance and image tokens [1, 1, c]; unconditional is the zero token.

    Labels are the world camera minus the reference, which is at azimuth 0 and `elevation_deg`; the reference picture
    itself is absent (App. C) unless the model was given it (`train.model.reference.with_reference_image`).
    Compiled on a GPU it is replayed as a CUDA graph.
    """

    def predict_eagerly(noisy: Tensor, timesteps: Tensor, labels: Tensor, token: Tensor) -> Tensor:
        with fastest_attention(noisy.device):
            return model.predict_noise(noisy, timesteps, labels, token, VIEWS_PER_GROUP)

    recorded = compute is not None and compute.compile != "none" and tokens.device.type == "cuda"
    predict: Callable[..., Tensor] = GraphedFunction(predict_eagerly) if recorded else predict_eagerly

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        labels = model.labels(views.elevation_deg, views.azimuth_deg, elevation_deg, 0.0)
        conditional = tokens.expand(len(noisy) // VIEWS_PER_GROUP, -1, -1)
        both = torch.cat([conditional, torch.zeros_like(conditional)])
        predicted = predict(
            torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), torch.cat([labels, labels]), both
        )
        with_image, without = predicted.chunk(2)
        return Prediction(classifier_free_guidance(with_image, without, scale), with_image)

    return denoise


def rescale_deviation(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """x0_hat [f, c, h, w] with guidance, brought `share` of the way to the deviation it has without.

    Strong guidance raises the contrast of x0_hat (Lin et al. 2023, "Common Diffusion Noise Schedules ...", section
    3.4); as in MVDream the deviation is taken over all the views of a group.
    """
    axes = (1, 2, 3, 4)
    with_guidance, without = (x.view(-1, VIEWS_PER_GROUP, *x.shape[1:]) for x in (guided, conditional))
    ratio = (without.std(axes, keepdim=True) + 1e-8) / (with_guidance.std(axes, keepdim=True) + 1e-8)
    rescaled: Tensor = with_guidance * (share * ratio + 1 - share)
    return rescaled.flatten(0, 1)


@torch.no_grad()
def sds_target(
    latents: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction, *, form: SdsForm, rescale: float
) -> Tensor:
    """The SDS target of the latents [f, c, h, w]. `alpha_bar` is a scalar; `rescale` is for "x0" only."""
    if form == "eps":
        return latents - (1 - alpha_bar) * (prediction.guided - noise)
    noisy = add_noise(latents, noise, alpha_bar)
    guided, conditional = (clean_latents(noisy, eps, alpha_bar) for eps in prediction)
    return rescale_deviation(guided, conditional, rescale)


def sds_loss(
    latents: Tensor,
    views: CameraViews,
    guidance: Guidance,
    timesteps: tuple[int, int],
    generator: torch.Generator,
    *,
    form: SdsForm = "x0",
    rescale: float = 0.5,
) -> Tensor:
    """Half the squared distance of the latents [f, c, h, w] to their target, over the number of frames.

    One timestep from `timesteps` (both ends included) serves all views. `generator` is a CPU one, so that a run draws
    the same on every device.
    """
    low, high = timesteps
    timestep = int(torch.randint(low, high + 1, (), generator=generator))
    noise = to_device(torch.randn(latents.shape, generator=generator).to(latents.dtype), latents.device)
    alpha_bar = guidance.alphas_cumprod[timestep]
    noisy = add_noise(latents.detach(), noise, alpha_bar)
    prediction = guidance.denoise(noisy, torch.full((len(latents),), timestep, device=latents.device), views)
    target = sds_target(latents.detach(), noise, alpha_bar, prediction, form=form, rescale=rescale)
    return 0.5 * (latents - target).square().sum() / len(latents)
