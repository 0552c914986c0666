"""Sample views from the multi-view model: DDIM with classifier-free guidance.

Axis letters as in `train.model.multiview`.
"""

from typing import Any

import torch
from torch import Tensor

from dataset.errors import UserError
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import BETA_END, BETA_START, NUM_TIMESTEPS, classifier_free_guidance


def guided_noise(
    model: MultiViewModel, latents: Tensor, timestep: int, cameras: Tensor, tokens: Tensor, *, guidance_scale: float
) -> Tensor:
    """Predict noise [b, f, c, h, w] with classifier-free guidance; the unconditional token is zero.

    `latents` [b, f, c, h, w], `cameras` [b, f, 16], `tokens` [b, 1, c].
    """
    frames = latents.shape[1]
    both = torch.cat([latents, latents]).flatten(0, 1)
    timesteps = torch.full((len(both),), timestep, device=latents.device)
    labels = torch.cat([cameras, cameras]).flatten(0, 1)
    context = torch.cat([tokens, torch.zeros_like(tokens)])
    predicted = model.predict_noise(both, timesteps, labels, context, frames)
    conditional, unconditional = predicted.view(2, *latents.shape)
    return classifier_free_guidance(conditional, unconditional, guidance_scale)


def ddim_scheduler(steps: int, device: torch.device) -> Any:
    """Return diffusers' DDIM scheduler with Stable Diffusion's settings and our noise schedule.

    Raises UserError when `steps` is not in 1 to 1000.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if not 1 <= steps <= NUM_TIMESTEPS:
        raise UserError(f"the number of DDIM steps is {steps}; it must be 1 to {NUM_TIMESTEPS}")
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1 if steps < NUM_TIMESTEPS else 0,
    )
    scheduler.set_timesteps(steps, device=device)
    return scheduler


@torch.no_grad()
def sample_views(
    model: MultiViewModel,
    tokens: Tensor,
    cameras: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator,
) -> Tensor:
    """Sample images [b, f, 3, h, w] in [0, 1] for `tokens` [b, 1, c] and `cameras` [b, f, 16].

    Use a CPU `generator`: the same seed then gives the same noise on any device.
    """
    noise = draw_latents(model, cameras.shape[0], cameras.shape[1], generator)
    return denoise_views(model, noise, tokens, cameras, steps=steps, guidance_scale=guidance_scale)


def draw_latents(model: MultiViewModel, objects: int, frames: int, generator: torch.Generator) -> Tensor:
    """Draw the initial noise [b, f, c, h, w], on the generator's device."""
    channels = int(model.unet.config.out_channels)  # type: ignore[union-attr, arg-type]
    size = model.spec.latent_size
    return torch.randn(objects, frames, channels, size, size, generator=generator, device=generator.device)


@torch.no_grad()
def denoise_views(
    model: MultiViewModel, noise: Tensor, tokens: Tensor, cameras: Tensor, *, steps: int, guidance_scale: float
) -> Tensor:
    """Sample images [b, f, 3, h, w] from initial noise [b, f, c, h, w]; see `sample_views` for the other arguments.

    `tokens` [b, 1, c], `cameras` [b, f, 16].
    """
    batch, frames = cameras.shape[:2]
    latents = noise.to(model.device)
    scheduler = ddim_scheduler(steps, model.device)
    for timestep in scheduler.timesteps:
        noise = guided_noise(model, latents, int(timestep), cameras, tokens, guidance_scale=guidance_scale)
        latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
    images = model.decode(latents.flatten(0, 1))
    return images.view(batch, frames, *images.shape[1:])
