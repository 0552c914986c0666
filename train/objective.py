"""The loss of a micro-batch (Eq. 5 and 6), as the whole, by object, or weighted by timestep.

Axis letters as in `train.batch`.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from train.batch import Draw, Views, diffusion_loss, prepare_inputs, split_frames, to_device
from train.model import MultiViewModel


@dataclass(frozen=True)
class Encoded:
    """Views as the UNet meets them, before noise."""

    targets: Tensor  # [b, f, c, h, w]
    reference: Tensor | None  # [b, c, h, w]; stage 2
    cameras: Tensor  # [b, f, 16]
    tokens: Tensor  # [b, 1, c]


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 on a GPU (weights and optimiser stay float32), float32 on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


@torch.no_grad()
def encode_views(model: MultiViewModel, views: Views, stage: Literal[1, 2]) -> Encoded:
    """Latents and tokens of a micro-batch's pictures."""
    device = model.device
    with autocast(device):
        reference_rgb = to_device(views.reference, device)
        tokens = model.embed_image(reference_rgb)
        targets = split_frames(model.encode(to_device(views.targets, device).flatten(0, 1)), len(tokens))
        reference = model.encode(reference_rgb) if stage == 2 else None
    return Encoded(targets, reference, to_device(views.cameras, device), tokens)


def predict(model: MultiViewModel, encoded: Encoded, draw: Draw) -> Tensor:
    """The UNet's noise prediction [(b F), c, h, w]; F = f + 1 in stage 2."""
    inputs = prepare_inputs(
        encoded.targets,
        encoded.reference,
        encoded.cameras,
        encoded.tokens,
        draw,
        alphas_cumprod=model.alphas_cumprod,
    )
    with autocast(model.device):
        return model.predict_noise(inputs.latents, inputs.timesteps, inputs.cameras, inputs.tokens, inputs.num_frames)


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
