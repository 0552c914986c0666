"""Score distillation sampling (SDS, Eq. 7): the loss, and its guidance by a diffusion model.

Notation: z are the latents of the rendered images, z_t are these latents with the noise eps of timestep t, and eps_hat
is the noise that the UNet predicts. x0_hat are the clean latents that follow from z_t and eps_hat.

Like the released code, we do not differentiate the UNet in Eq. 7. The gradient of the loss L with respect to z is then
known in closed form, and the loss is half the squared distance of z to a fixed target. The loss has two forms:

    "eps"  dL/dz = w(t) (eps_hat - eps) / f,  w(t) = 1 - alpha_bar_t     (DreamFusion)
    "x0"   dL/dz = (z - x0_hat) / f                                      (MVDream, released code)

Axis letters: `f` frames, `c h w` of latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.sds.cuda_graph import GraphedFunction, GraphedGradient
from distill.sds.networks import avoid_overflow, prepare_networks
from distill.sds.reference_loss import ReferenceView
from distill.sds.schedule import VIEWS_PER_GROUP, CameraViews, SdsForm
from train.device import fastest_attention, to_device
from train.layers.compile import Compute
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import add_noise, classifier_free_guidance, clean_latents


class Prediction(NamedTuple):
    """Noise [f, c, h, w] that a diffusion model predicts for f latents, with and without classifier-free guidance."""

    guided: Tensor
    conditional: Tensor


Denoise = Callable[[Tensor, Tensor, CameraViews], Prediction]
"""(noisy latents [f, c, h, w], timesteps [f], cameras of the latents) -> predicted noise."""
EncodeImages = Callable[[Tensor], Tensor]
"""Images [f, 3, h, w] in [0, 1] -> latents [f, c, h, w], differentiable."""


@dataclass(frozen=True)
class Guidance:
    """The image encoder, denoiser and noise schedule with which the SDS loss is computed."""

    encode: EncodeImages
    denoise: Denoise
    alphas_cumprod: Tensor  # [t]
    reference: ReferenceView | None = None
    """View of the input image, used only if `DistillSettings.reference_weight` is positive."""
    decode: EncodeImages | None = None
    """Latents [f, c, h, w] -> images [f, 3, h, w] in [0, 1]; used only if `DistillSettings.texture` is set."""


def model_guidance(
    model: MultiViewModel,
    tokens: Tensor,
    elevation_deg: float,
    scale: float,
    compute: Compute | None = None,
    *,
    graphs: bool | None = None,
) -> Guidance:
    """Return the guidance by a diffusion model. The weights of the model are frozen in place.

    Args:
        model: The diffusion model.
        tokens: Embedding of the input image, [1, 1, c], with c channels.
        elevation_deg: Elevation in degrees of the camera that took the input image.
        scale: Classifier-free guidance scale.
        compute: Settings with which the networks of the model are compiled in place. None: do not compile.
        graphs: Whether the UNet and the image encoder, with the gradient of the images, run as CUDA graphs. None: they
            do on a GPU if they are compiled.
    """
    compute = compute or Compute()
    if graphs is None:
        graphs = compute.compile != "none" and tokens.device.type == "cuda"
    avoid_overflow(model, tokens, VIEWS_PER_GROUP)
    prepare_networks(model, compute)
    torch.backends.cudnn.benchmark |= graphs or compute.compile != "none"  # convolutions have only two shapes

    def encode(images: Tensor) -> Tensor:
        with fastest_attention(images.device):
            return model.encode(enlarge(images, model.spec.image_size))

    denoise = model_denoiser(model, tokens, elevation_deg, scale, graphs=graphs)
    return Guidance(
        GraphedGradient(encode) if graphs else encode,
        denoise,
        model.alphas_cumprod,
        decode=torch.no_grad()(model.decode),
    )


def enlarge(images: Tensor, size: int) -> Tensor:
    """Enlarge images with bilinear interpolation, as in the released code.

    Args:
        images: f images with c channels, [f, c, h, w].
        size: Edge of the enlarged images in pixels. Images of this or a larger size are returned unchanged, since the
            model resizes them with antialiasing.

    Returns:
        The enlarged images [f, c, size, size], or `images` unchanged.
    """
    if images.shape[-1] >= size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def model_denoiser(
    model: MultiViewModel, tokens: Tensor, elevation_deg: float, scale: float, *, graphs: bool = False
) -> Denoise:
    """Return a diffusion model as a denoiser with classifier-free guidance.

    The camera labels are relative to the reference camera, which has azimuth 0 and elevation `elevation_deg`. The
    reference image itself is not an input (App. C) unless `train.model.reference.with_reference_image` added it to the
    model.

    Args:
        model: The diffusion model.
        tokens: Embedding of the input image, [1, 1, c], with c channels. The unconditional embedding is zero.
        elevation_deg: Elevation in degrees of the camera that took the input image.
        scale: Classifier-free guidance scale.
        graphs: Whether the UNet runs as a CUDA graph.
    """

    def predict_eagerly(noisy: Tensor, timesteps: Tensor, labels: Tensor, token: Tensor) -> Tensor:
        with fastest_attention(noisy.device):
            return model.predict_noise(noisy, timesteps, labels, token, VIEWS_PER_GROUP)

    predict: Callable[..., Tensor] = GraphedFunction(predict_eagerly) if graphs else predict_eagerly

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


def rescale_deviation(guided: Tensor, conditional: Tensor, fraction: float) -> Tensor:
    """Rescale x0_hat with guidance so that its standard deviation approaches that of x0_hat without guidance.

    x0_hat are the clean latents that the model predicts. Strong guidance raises their contrast (Lin et al. 2023,
    "Common Diffusion Noise Schedules ...", section 3.4). As in MVDream, one standard deviation is computed over all
    views of a group.

    Args:
        guided: x0_hat with guidance for f views, [f, c, h, w], with c channels and h x w pixels.
        conditional: x0_hat without guidance, [f, c, h, w].
        fraction: Interpolation factor in [0, 1]: 0 returns `guided`, 1 rescales it completely.
    """
    axes = (1, 2, 3, 4)
    with_guidance, without = (x.view(-1, VIEWS_PER_GROUP, *x.shape[1:]) for x in (guided, conditional))
    ratio = (without.std(axes, keepdim=True) + 1e-8) / (with_guidance.std(axes, keepdim=True) + 1e-8)
    rescaled: Tensor = with_guidance * (fraction * ratio + 1 - fraction)
    return rescaled.flatten(0, 1)


@torch.no_grad()
def sds_target(
    latents: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction, *, form: SdsForm, rescale: float
) -> Tensor:
    """Return the latents [f, c, h, w] towards which the SDS loss moves the given latents.

    `sds_loss` is half the squared distance to this target, divided by f.

    Args:
        latents: Latents of the f rendered images, [f, c, h, w], with c channels and h x w pixels.
        noise: The noise that was added to the latents, [f, c, h, w].
        alpha_bar: Cumulative product of the noise schedule at the timestep, a scalar.
        prediction: The noise that the model predicted.
        form: "x0": the target is the clean latents according to the prediction (MVDream). "eps": the target is the
            latents minus (1 - alpha_bar) times the difference of predicted and added noise (DreamFusion).
        rescale: The argument `fraction` of `rescale_deviation`; used with the form "x0" only.
    """
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
    """Return the SDS loss, a scalar: half the squared distance of latents to their `sds_target`, divided by f.

    Args:
        latents: Latents of the f rendered images, [f, c, h, w], with c channels, h x w pixels and gradient.
        views: The cameras of the images.
        guidance: Denoiser and noise schedule.
        timesteps: The smallest and the largest possible timestep. One timestep is drawn for all views.
        generator: CPU generator of the random numbers, so that all devices draw the same numbers.
        form: Form of the loss, as in `sds_target`: "x0" (MVDream) or "eps" (DreamFusion).
        rescale: The argument `fraction` of `rescale_deviation`; used with the form "x0" only.
    """
    low, high = timesteps
    timestep = int(torch.randint(low, high + 1, (), generator=generator))
    noise = to_device(torch.randn(latents.shape, generator=generator).to(latents.dtype), latents.device)
    alpha_bar = guidance.alphas_cumprod[timestep]
    noisy = add_noise(latents.detach(), noise, alpha_bar)
    prediction = guidance.denoise(noisy, torch.full((len(latents),), timestep, device=latents.device), views)
    target = sds_target(latents.detach(), noise, alpha_bar, prediction, form=form, rescale=rescale)
    return 0.5 * (latents - target).square().sum() / len(latents)
