"""The loss of a micro-batch (Eq. 5 and 6), as the whole, by object, or weighted by timestep.

Axis letters as in `train.batch`.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from train.batch import Draw, Position, Views, diffusion_loss, prepare_inputs, split_frames, to_device
from train.latent_batch import Batch, LatentViews, draw_posterior
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


class Read(NamedTuple):
    """What pictures or a latent set say of a micro-batch: (mean, log variance) of posteriors, not scaled."""

    tokens: Tensor  # [b, 1, c]
    targets: tuple[Tensor, Tensor | None]  # [b, f, c, h, w]; no log variance: the latent set keeps means only
    reference: tuple[Tensor, Tensor | None] | None  # [b, c, h, w]; stage 2


@torch.no_grad()
def encode_views(
    model: MultiViewModel, views: Batch, stage: Literal[1, 2], drawn_at: Position | None = None
) -> Encoded:
    """Latents and tokens of a micro-batch's pictures, or those that a latent set gave.

    The latents are the means of the VAE's posteriors; with `drawn_at` they are drawn from these, by that position.
    """
    read = _of_latents(model, views, stage) if isinstance(views, LatentViews) else _of_pictures(model, views, stage)

    def latents(found: tuple[Tensor, Tensor | None], part: int) -> Tensor:
        chosen = found[0] if drawn_at is None else draw_posterior(*found, drawn_at, part)
        return chosen * model.spec.latent_scale

    reference = None if read.reference is None else latents(read.reference, 1)
    return Encoded(latents(read.targets, 0), reference, to_device(views.cameras, model.device), read.tokens)


def _of_pictures(model: MultiViewModel, views: Views, stage: Literal[1, 2]) -> Read:
    device, batch = model.device, len(views.cameras)
    with autocast(device):
        reference_rgb = to_device(views.reference, device)
        tokens = model.embed_image(reference_rgb)
        mean, logvar = model.posterior(to_device(views.targets, device).flatten(0, 1))
        reference = model.posterior(reference_rgb) if stage == 2 else None
    return Read(tokens, (split_frames(mean, batch), split_frames(logvar, batch)), reference)


def _of_latents(model: MultiViewModel, views: LatentViews, stage: Literal[1, 2]) -> Read:
    """float32 on the model's device; the log variances stay behind until they are needed."""

    def load(numbers: Tensor) -> Tensor:
        return to_device(numbers, model.device).float()

    reference = (load(views.reference_mean), views.reference_logvar) if stage == 2 else None
    return Read(load(views.tokens), (load(views.target_mean), views.target_logvar), reference)


@torch.no_grad()
def show_views(model: MultiViewModel, views: Batch) -> tuple[Tensor, Tensor]:
    """Reference [b, 3, h, w] and targets [b, f, 3, h, w] as pictures on the CPU; the VAE decodes latents."""
    if not isinstance(views, LatentViews):
        return views.reference, views.targets
    encoded = encode_views(model, views, 2)
    frames = torch.cat([encoded.reference[:, None], encoded.targets], 1)  # type: ignore[index]  # stage 2 has one
    with autocast(model.device):
        pictures = split_frames(model.decode(frames.flatten(0, 1)), len(frames)).cpu()
    return pictures[:, 0], pictures[:, 1:]


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
