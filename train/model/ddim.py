"""Sample views from the multi-view model with DDIM and classifier-free guidance.

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
    """Predict the noise [b, f, c, h, w] of latents with classifier-free guidance.

    The token of the unconditional prediction is zero.

    Args:
        model: The model.
        latents: Noisy latents [b, f, c, h, w]: f frames (views) of each of b objects.
        timestep: Timestep of all latents, 0 to 999.
        cameras: Camera labels [b, f, 16].
        tokens: Conditioning tokens [b, 1, d], one of width d per object.
        guidance_scale: Scale of classifier-free guidance.
    """
    frames = latents.shape[1]
    both = torch.cat([latents, latents]).flatten(0, 1)
    timesteps = torch.full((len(both),), timestep, device=latents.device)
    labels = torch.cat([cameras, cameras]).flatten(0, 1)
    context = torch.cat([tokens, torch.zeros_like(tokens)])
    predicted = model.predict_noise(both, timesteps, labels, context, frames)
    conditional, unconditional = predicted.view(2, *latents.shape)
    return classifier_free_guidance(conditional, unconditional, guidance_scale)


def ddim_timesteps(steps: int) -> list[int]:
    """Return the timesteps of DDIM, largest first. As in LDM, these are k * (1000 // steps) + 1, for k from 0.

    The interval `1000 // steps` is rounded down, so there are more than `steps` timesteps if `steps` does not divide
    1000. If the largest timestep would be 1000, which is out of range, 1 is not added to any timestep. LDM fails in
    this case.

    Args:
        steps: Requested number of timesteps, 1 to 1000.

    Raises:
        UserError: `steps` is out of range.
    """
    if not 1 <= steps <= NUM_TIMESTEPS:
        raise UserError(f"the number of DDIM steps is {steps}; --ddim-steps must be 1 to {NUM_TIMESTEPS}")
    multiples = range(0, NUM_TIMESTEPS, NUM_TIMESTEPS // steps)
    offset = 1 if multiples[-1] + 1 < NUM_TIMESTEPS else 0
    return [timestep + offset for timestep in reversed(multiples)]


def sampling_settings(steps: int) -> dict[str, int]:
    """Return the setting `timesteps`, the number of DDIM timesteps; no setting if this number equals `steps`.

    The setting is stored with the settings of a result. Results that were stored before `ddim_timesteps` followed LDM's
    rule lack this setting, so these results are not resumed. `steps` is the requested number of DDIM steps.
    """
    count = len(ddim_timesteps(steps))
    return {} if count == steps else {"timesteps": count}


def ddim_scheduler(steps: int, device: torch.device) -> Any:
    """Return diffusers' DDIM scheduler with Stable Diffusion's noise schedule and the timesteps of `ddim_timesteps`.

    Args:
        steps: Requested number of timesteps, 1 to 1000.
        device: Device of the timesteps.

    Raises:
        UserError: `steps` is out of range.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    timesteps = ddim_timesteps(steps)
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps, device=device)  # sets the interval between timesteps
    scheduler.timesteps = torch.tensor(timesteps, device=device)
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
    eta: float = 0.0,
) -> Tensor:
    """Sample images [b, f, 3, H, W] in [0, 1] of f views of each of b objects.

    Args:
        model: The model.
        tokens: Conditioning tokens [b, 1, d], one of width d per object.
        cameras: Camera labels [b, f, 16] of the views.
        steps: Number of DDIM steps, as in `ddim_timesteps`.
        guidance_scale: Scale of classifier-free guidance.
        generator: Generator of the noise. If it is on the CPU, the same seed gives the same noise on any device.
        eta: Amount of new noise in each step, as in `denoise_views`.
    """
    noise = draw_latents(model, cameras.shape[0], cameras.shape[1], generator)
    return denoise_views(
        model, noise, tokens, cameras, steps=steps, guidance_scale=guidance_scale, eta=eta, generator=generator
    )


def draw_latents(model: MultiViewModel, objects: int, frames: int, generator: torch.Generator) -> Tensor:
    """Draw the initial noise [objects, frames, c, h, w] on the generator's device. `model` determines c, h and w."""
    channels = int(model.unet.config.out_channels)  # type: ignore[union-attr, arg-type]
    size = model.spec.latent_size
    return torch.randn(objects, frames, channels, size, size, generator=generator, device=generator.device)


@torch.no_grad()
def denoise_views(
    model: MultiViewModel,
    noise: Tensor,
    tokens: Tensor,
    cameras: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample images [b, f, 3, H, W] in [0, 1] of f views of each of b objects from initial noise.

    Args:
        model: The model.
        noise: Initial noise [b, f, c, h, w] in the shape of the latents.
        tokens: Conditioning tokens [b, 1, d], one of width d per object.
        cameras: Camera labels [b, f, 16] of the views.
        steps: Number of DDIM steps, as in `ddim_timesteps`.
        guidance_scale: Scale of classifier-free guidance.
        eta: Amount of new noise in each step, from 0 (none, as in MVDream) to 1 (as much as in DDPM, as in the released
            code of Isotropic3D).
        generator: Generator of the new noise; used only if `eta` is not 0.
    """
    batch, frames = cameras.shape[:2]
    latents = noise.to(model.device)
    scheduler = ddim_scheduler(steps, model.device)
    for timestep in scheduler.timesteps:
        noise = guided_noise(model, latents, int(timestep), cameras, tokens, guidance_scale=guidance_scale)
        latents = scheduler.step(noise, timestep, latents, eta=eta, generator=generator, return_dict=False)[0]
    images = model.decode(latents.flatten(0, 1))
    return images.view(batch, frames, *images.shape[1:])
