"""Stable Diffusion's noise schedule, adding and removing noise, and classifier-free guidance."""

from typing import Final

import torch
from torch import Tensor

NUM_TIMESTEPS: Final = 1000
BETA_START: Final = 0.00085  # Stable Diffusion's "scaled_linear" schedule
BETA_END: Final = 0.012


def noise_schedule() -> Tensor:
    """Return alpha_bar of the 1000 timesteps, float32 [1000], of diffusers' schedule `scaled_linear`.

    The first entry is 0.99915, not 1.
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def alpha_bar_at(alphas_cumprod: Tensor, timesteps: Tensor, num_axes: int) -> Tensor:
    """Return alpha_bar of b timesteps as a tensor [b, 1, ..., 1], which broadcasts to a batch of b latents.

    Args:
        alphas_cumprod: alpha_bar [1000] of all timesteps.
        timesteps: The timesteps [b], from 0.
        num_axes: Number of axes of the returned tensor.
    """
    return alphas_cumprod[timesteps].view(-1, *[1] * (num_axes - 1))


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the noisy latents z_t = sqrt(alpha_bar) z + sqrt(1 - alpha_bar) eps (Eq. 3).

    Args:
        latents: Clean latents z, any shape.
        noise: Noise eps, same shape.
        alpha_bar: A scalar, or a tensor that broadcasts to the shape of `latents` (from `alpha_bar_at`).
    """
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def clean_latents(noisy: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the clean latents from which `add_noise` computed the noisy latents.

    Args:
        noisy: Noisy latents, any shape.
        noise: The noise that was added, same shape.
        alpha_bar: A scalar, or a tensor that broadcasts to the shape of `noisy` (from `alpha_bar_at`).
    """
    return (noisy - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Return `unconditional` + `guidance_scale` * (`conditional` - `unconditional`).

    `conditional` and `unconditional` are noise predictions of the same shape, with and without the condition.
    """
    guided: Tensor = unconditional + guidance_scale * (conditional - unconditional)
    return guided
