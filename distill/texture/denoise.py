"""Denoise renders in several DDIM steps: the images to which the texture phase fits the albedo.

Axis letters: `f` frames (images), `c h w` of latents, `H W` of images.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.sds.guidance import Denoise, rescale_deviation
from distill.sds.schedule import VIEWS_PER_GROUP, CameraViews
from train.model.noise_schedule import add_noise, clean_latents


def timesteps_from(first: float, last: float, count: int, num_timesteps: int) -> list[int]:
    """Return timesteps that are spaced evenly between two fractions of the noise schedule, in order.

    Args:
        first: Fraction of the first timestep, in [0, 1].
        last: Fraction of the last timestep.
        count: Number of timesteps.
        num_timesteps: Number of timesteps of the noise schedule.
    """
    fractions = np.linspace(first, last, count)
    return [min(num_timesteps - 1, int(fraction * num_timesteps)) for fraction in fractions]


@torch.no_grad()
def predict_clean(
    denoise: Denoise, noisy: Tensor, timestep: int, views: CameraViews, *, alphas_cumprod: Tensor, rescale: float
) -> Tensor:
    """Return the clean latents [f, c, h, w] that the model predicts. The groups of views are denoised one by one.

    Args:
        denoise: The denoiser.
        noisy: Noisy latents [f, c, h, w].
        timestep: Timestep of the noise.
        views: The f cameras.
        alphas_cumprod: Cumulative products of the noise schedule [t].
        rescale: The argument `fraction` of `rescale_deviation`.
    """
    parts = []
    for group, cameras in zip(torch.split(noisy, VIEWS_PER_GROUP), groups_of(views), strict=True):
        timesteps = torch.full((len(group),), timestep, device=noisy.device)
        guided, conditional = (
            clean_latents(group, noise, alphas_cumprod[timestep]) for noise in denoise(group, timesteps, cameras)
        )
        parts.append(rescale_deviation(guided, conditional, rescale))
    return torch.cat(parts)


def ddim_step(noisy: Tensor, clean: Tensor, alphas_cumprod: Tensor, timestep: int, following: int | None) -> Tensor:
    """Return the latents [f, c, h, w] at the following timestep of DDIM without new noise.

    Args:
        noisy: Latents [f, c, h, w] at `timestep`.
        clean: Predicted clean latents [f, c, h, w].
        alphas_cumprod: Cumulative products of the noise schedule [t].
        timestep: The current timestep.
        following: The following timestep; None after the last one, which returns `clean`.
    """
    if following is None:
        return clean
    alpha_bar = alphas_cumprod[timestep]
    noise = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
    return add_noise(clean, noise, alphas_cumprod[following])


@torch.no_grad()
def denoise_from(
    denoise: Denoise,
    latents: Tensor,
    noise: Tensor,
    timesteps: Sequence[int],
    views: CameraViews,
    *,
    alphas_cumprod: Tensor,
    rescale: float,
) -> Tensor:
    """Noise latents to the first timestep, denoise them through all timesteps, and return them, [f, c, h, w].

    Args:
        denoise: The denoiser.
        latents: Clean latents [f, c, h, w] of renders.
        noise: Noise of the same shape.
        timesteps: Timesteps of DDIM, largest first.
        views: The f cameras.
        alphas_cumprod: Cumulative products of the noise schedule [t].
        rescale: The argument `fraction` of `rescale_deviation`.
    """
    noisy = add_noise(latents, noise, alphas_cumprod[timesteps[0]])
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        clean = predict_clean(denoise, noisy, timestep, views, alphas_cumprod=alphas_cumprod, rescale=rescale)
        noisy = ddim_step(noisy, clean, alphas_cumprod, timestep, following)
    return noisy


def groups_of(views: CameraViews) -> list[CameraViews]:
    """Return the groups of `VIEWS_PER_GROUP` consecutive cameras."""
    starts = range(0, len(views), VIEWS_PER_GROUP)
    parts = (slice(start, start + VIEWS_PER_GROUP) for start in starts)
    return [
        CameraViews(views.elevation_deg[p], views.azimuth_deg[p], views.distance[p], views.fov_deg[p]) for p in parts
    ]
