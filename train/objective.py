"""The loss of a micro-batch (Eq. 5 and 6), as the whole, by object, or weighted by timestep.

Axis letters as in `train.batch`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.ablation import ReferenceUse, concat_reference
from train.batch import Draw, Views, diffusion_loss, prepare_inputs, split_frames, to_device
from train.compute import mixed_precision
from train.model import MultiViewModel, run_unet


@dataclass(frozen=True)
class Encoded:
    """Views as the UNet meets them, before noise."""

    targets: Tensor  # [b, f, c, h, w]
    reference: Tensor | None  # [b, c, h, w]; None where it is not used
    cameras: Tensor  # [b, f, 16]
    tokens: Tensor  # [b, 1, c]
    use: ReferenceUse


@torch.no_grad()
def encode_views(model: MultiViewModel, views: Views, use: ReferenceUse) -> Encoded:
    """Latents and tokens of a micro-batch's pictures."""
    device = model.device
    with mixed_precision(device):
        reference_rgb = to_device(views.reference, device)
        tokens = model.embed_image(reference_rgb)
        targets = split_frames(model.encode(to_device(views.targets, device).flatten(0, 1)), len(tokens))
        reference = None if use == "none" else model.encode(reference_rgb)
    return Encoded(targets, reference, to_device(views.cameras, device), tokens, use)


def predict(
    unet: nn.Module,
    encoded: Encoded,
    draw: Draw,
    alphas_cumprod: Tensor,
    precision: Callable[[torch.device], AbstractContextManager[Any]] = mixed_precision,
) -> Tensor:
    """The UNet's noise prediction [(b F), c, h, w]; F = f + 1 where the reference joins in attention.

    `unet` as `train.compute.prepare` gives it, or as it was.
    """
    inputs = prepare_inputs(
        encoded.targets,
        encoded.reference if encoded.use == "attention" else None,
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


def training_loss(prediction: Tensor, draw: Draw, alphas_cumprod: Tensor, min_snr_gamma: float | None = None) -> Tensor:
    """Eq. 5 or 6 of one micro-batch; with a gamma each object counts by its timestep."""
    if min_snr_gamma is None:
        return diffusion_loss(prediction, draw.noise)
    weights = min_snr_weights(draw.timesteps, alphas_cumprod, min_snr_gamma)
    return (weights * object_losses(prediction, draw.noise)).mean()
