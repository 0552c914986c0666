"""The loss of a micro-batch (Eq. 5 and 6), as the whole, by object, or weighted by timestep.

Axis letters as in `train.data.sampling`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train.data.latents import LatentBatch, TrainingBatch, draw_posterior
from train.data.sampling import DiffusionNoise, ImageBatch, StepKey, diffusion_loss, prepare_inputs, split_frames
from train.device import mixed_precision, to_device
from train.model.multiview import MultiViewModel
from train.model.reference import ReferenceMode, concat_reference
from train.model.unet import run_unet


@dataclass(frozen=True)
class Encoded:
    """Views as the UNet meets them, before noise."""

    targets: Tensor  # [b, f, c, h, w]
    reference: Tensor | None  # [b, c, h, w]; None where it is not used
    cameras: Tensor  # [b, f, 16]: the targets'
    reference_camera: Tensor  # [b, 1, 16]
    tokens: Tensor  # [b, 1, c]
    use: ReferenceMode

    @property
    def in_front(self) -> tuple[Tensor, Tensor] | None:
        """The reference's latent and camera, where it joins the targets in attention."""
        if self.use != "attention" or self.reference is None:
            return None
        return self.reference, self.reference_camera


class Read(NamedTuple):
    """What pictures or a latent set say of a micro-batch: (mean, log variance) of posteriors, not scaled."""

    tokens: Tensor  # [b, 1, c]
    targets: tuple[Tensor, Tensor | None]  # [b, f, c, h, w]; no log variance: the latent set keeps means only
    reference: tuple[Tensor, Tensor | None] | None  # [b, c, h, w]; None where it is not used


@torch.no_grad()
def encode_views(
    model: MultiViewModel, views: TrainingBatch, use: ReferenceMode, drawn_at: StepKey | None = None
) -> Encoded:
    """Latents and tokens of a micro-batch's pictures, or those that a latent set gave.

    The latents are the means of the VAE's posteriors; with `drawn_at` they are drawn from these, by that step_key.
    """
    read = _of_latents(model, views, use) if isinstance(views, LatentBatch) else _of_pictures(model, views, use)

    def latents(found: tuple[Tensor, Tensor | None], part: int) -> Tensor:
        chosen = found[0] if drawn_at is None else draw_posterior(*found, drawn_at, part)
        return chosen * model.spec.latent_scale

    reference = None if read.reference is None else latents(read.reference, 1)
    cameras, reference_camera = (to_device(x, model.device) for x in (views.cameras, views.reference_camera))
    return Encoded(latents(read.targets, 0), reference, cameras, reference_camera, read.tokens, use)


def _of_pictures(model: MultiViewModel, views: ImageBatch, use: ReferenceMode) -> Read:
    device, batch = model.device, len(views.cameras)
    with mixed_precision(device):
        reference_rgb = to_device(views.reference, device)
        tokens = model.embed_image(reference_rgb)
        mean, logvar = model.posterior(to_device(views.targets, device).flatten(0, 1))
        reference = None if use == "none" else model.posterior(reference_rgb)
    return Read(tokens, (split_frames(mean, batch), split_frames(logvar, batch)), reference)


def _of_latents(model: MultiViewModel, views: LatentBatch, use: ReferenceMode) -> Read:
    """float32 on the model's device; the log variances stay behind until they are needed."""

    def load(numbers: Tensor) -> Tensor:
        return to_device(numbers, model.device).float()

    reference = None if use == "none" else (load(views.reference_mean), views.reference_logvar)
    return Read(load(views.tokens), (load(views.target_mean), views.target_logvar), reference)


@torch.no_grad()
def show_views(model: MultiViewModel, views: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Reference [b, 3, h, w] and targets [b, f, 3, h, w] as pictures on the CPU; the VAE decodes latents."""
    if not isinstance(views, LatentBatch):
        return views.reference, views.targets
    encoded = encode_views(model, views, "attention")
    frames = torch.cat([encoded.reference[:, None], encoded.targets], 1)  # type: ignore[index]  # there is one
    with mixed_precision(model.device):
        pictures = split_frames(model.decode(frames.flatten(0, 1)), len(frames)).cpu()
    return pictures[:, 0], pictures[:, 1:]


def predict(
    unet: nn.Module,
    encoded: Encoded,
    draw: DiffusionNoise,
    alphas_cumprod: Tensor,
    precision: Callable[[torch.device], AbstractContextManager[Any]] = mixed_precision,
) -> Tensor:
    """The UNet's noise prediction [(b F), c, h, w]; F = f + 1 where the reference joins in attention.

    `unet` as `train.layers.compile.prepare` gives it, or as it was.
    """
    inputs = prepare_inputs(
        encoded.targets,
        encoded.in_front,
        encoded.cameras,
        encoded.tokens,
        draw,
        alphas_cumprod=alphas_cumprod,
    )
    latents, frames = inputs.latents, inputs.num_frames
    if encoded.use == "channels" and encoded.reference is not None:
        latents = concat_reference(latents, encoded.reference, frames)
    context = inputs.tokens.repeat_interleave(frames, dim=0)
    with precision(latents.device):
        return run_unet(unet, latents, inputs.timesteps, inputs.cameras, context, num_frames=frames)


def object_losses(prediction: Tensor, noise: Tensor) -> Tensor:
    """`diffusion_loss` of each object alone, [b]; the mean over b is the whole."""
    targets = noise.shape[1]
    frames = split_frames(prediction, len(noise))
    return (frames[:, -targets:].float() - noise).square().flatten(1).mean(1)


def min_snr_weights(timesteps: Tensor, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / SNR with SNR = alpha_bar / (1 - alpha_bar), for `timesteps` [b].

    Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy" (arXiv:2303.09556), 3.4: the weight
    of the noise's squared error that equals a weight min(SNR, gamma) of the clean latent's. They use gamma = 5.
    """
    alpha = alphas_cumprod[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / snr


def velocity_weights(timesteps: Tensor, alphas_cumprod: Tensor, cap: float) -> Tensor:
    """min(1 / alpha_bar, cap), for `timesteps` [b]: nearly clean latents count 1, nearly pure noise counts `cap`.

    Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models" (arXiv:2202.00512), 4: without
    the cap it makes of the noise's squared error that of v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z. An object's
    shape is decided where there is much noise, and there the noise's own error is tiny.
    """
    return (1 / alphas_cumprod[timesteps]).clamp(max=cap)


def training_loss(
    prediction: Tensor,
    draw: DiffusionNoise,
    alphas_cumprod: Tensor,
    min_snr_gamma: float | None = None,
    velocity_cap: float | None = None,
) -> Tensor:
    """Eq. 5 or 6 of one micro-batch; with a gamma, or a cap, each object counts by its timestep."""
    if min_snr_gamma is not None:
        weights = min_snr_weights(draw.timesteps, alphas_cumprod, min_snr_gamma)
    elif velocity_cap is not None:
        weights = velocity_weights(draw.timesteps, alphas_cumprod, velocity_cap)
    else:
        return diffusion_loss(prediction, draw.noise)
    return (weights * object_losses(prediction, draw.noise)).mean()
