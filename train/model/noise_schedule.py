"""Stable Diffusion's noise schedule, adding and removing noise, and classifier-free guidance."""

from typing import Final

import torch
from torch import Tensor

NUM_TIMESTEPS: Final = 1000
BETA_START: Final = 0.00085  # Stable Diffusion's "scaled_linear" schedule
BETA_END: Final = 0.012


def noise_schedule() -> Tensor:
    """Return alpha_bar_t [1000] in float32 for `scaled_linear` betas. The first entry is 0.99915, not 1."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def alpha_bar_at(alphas_cumprod: Tensor, timesteps: Tensor, num_axes: int) -> Tensor:
    """Return `alphas_cumprod` [t] at `timesteps` [b], with shape [b, 1, ..., 1] of `num_axes` axes."""
    return alphas_cumprod[timesteps].view(-1, *[1] * (num_axes - 1))


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return z_t = sqrt(alpha_bar) z + sqrt(1 - alpha_bar) eps (Eq. 3).

    `latents` and `noise` have the same shape [...]. `alpha_bar` is a scalar or broadcasts to this shape
    (`alpha_bar_at`).
    """
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def clean_latents(noisy: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Invert `add_noise`: return z from `noisy` [...] and `noise` [...]. `alpha_bar` broadcasts to their shape."""
    return (noisy - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Return eps_0 + s (eps_y - eps_0) for two noise predictions of the same shape [...]."""
    guided: Tensor = unconditional + guidance_scale * (conditional - unconditional)
    return guided
