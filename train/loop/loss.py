"""Compute the loss of a micro-batch (Eq. 5 and 6), optionally per object or with weights by timestep.

Axis letters as in `train.data.sampling`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train.data.images import ImageBatch
from train.data.latents import LatentBatch, TrainingBatch, draw_posterior
from train.data.sampling import DiffusionNoise, StepKey, diffusion_loss, prepare_inputs, split_frames
from train.device import mixed_precision, to_device
from train.model.multiview import MultiViewModel
from train.model.reference import ReferenceMode, concat_reference
from train.model.unet import run_unet


@dataclass(frozen=True)
class Encoded:
    """Scaled latents, image tokens and camera labels of a micro-batch, before noise is added."""

    targets: Tensor  # [b, f, c, h, w]
    reference: Tensor | None  # [b, c, h, w]; None if it is not used or left out
    cameras: Tensor  # [b, f, 16]: camera labels of the targets
    reference_camera: Tensor  # [b, 1, 16]
    tokens: Tensor  # [b, 1, c]
    use: ReferenceMode

    @property
    def reference_frame(self) -> tuple[Tensor, Tensor] | None:
        """Return latents [b, c, h, w] and camera labels [b, 1, 16] of the reference frames of the b objects.

        Return None if the UNet does not read the reference as a frame.
        """
        if self.use != "attention" or self.reference is None:
            return None
        return self.reference, self.reference_camera


class Posteriors(NamedTuple):
    """Image tokens of a micro-batch, and the posteriors that the VAE computes from the views.

    A posterior is a pair (mean, log variance). The means are not multiplied by the latent scale.
    """

    tokens: Tensor  # [b, 1, c]
    targets: tuple[Tensor, Tensor | None]  # [b, f, c, h, w]; the log variance is None if the latent set has only means
    reference: tuple[Tensor, Tensor | None] | None  # [b, c, h, w]; None if it is not used


@torch.no_grad()
def encode_views(
    model: MultiViewModel, views: TrainingBatch, use: ReferenceMode, sample_with: StepKey | None = None
) -> Encoded:
    """Return the latents and image tokens of a micro-batch.

    A micro-batch of images is encoded. A micro-batch of a latent set contains latents and tokens already.

    Args:
        model: Model whose VAE and image encoder are used.
        views: The micro-batch.
        use: How the UNet uses the reference image.
        sample_with: Key of random numbers. The latents are sampled from the VAE's posteriors with these random numbers.
            None: the latents are the means of the posteriors.
    """
    read = _from_latents(model, views, use) if isinstance(views, LatentBatch) else _from_images(model, views, use)

    def latents(posterior: tuple[Tensor, Tensor | None], part: int) -> Tensor:
        chosen = posterior[0] if sample_with is None else draw_posterior(*posterior, sample_with, part)
        return chosen * model.spec.latent_scale

    reference = None if read.reference is None else latents(read.reference, 1)
    cameras, reference_camera = (to_device(x, model.device) for x in (views.cameras, views.reference_camera))
    return Encoded(latents(read.targets, 0), reference, cameras, reference_camera, read.tokens, use)


def _from_images(model: MultiViewModel, views: ImageBatch, use: ReferenceMode) -> Posteriors:
    device, batch = model.device, len(views.cameras)
    with mixed_precision(device):
        reference_rgb = to_device(views.reference, device)
        tokens = model.embed_image(reference_rgb)
        mean, logvar = model.posterior(to_device(views.targets, device).flatten(0, 1))
        reference = None if use == "none" else model.posterior(reference_rgb)
    return Posteriors(tokens, (split_frames(mean, batch), split_frames(logvar, batch)), reference)


def _from_latents(model: MultiViewModel, views: LatentBatch, use: ReferenceMode) -> Posteriors:
    """Return the stored posteriors, the means as float32 on the model's device.

    The log variances stay on the CPU until they are needed.
    """

    def load(numbers: Tensor) -> Tensor:
        return to_device(numbers, model.device).float()

    reference = None if use == "none" else (load(views.reference_mean), views.reference_logvar)
    return Posteriors(load(views.tokens), (load(views.target_mean), views.target_logvar), reference)


@torch.no_grad()
def views_to_images(model: MultiViewModel, views: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return reference views [b, 3, h, w] and target views [b, f, 3, h, w] of a micro-batch as images on the CPU.

    b is the number of objects, f the number of target views per object. If the micro-batch is from a latent set, the
    model's VAE decodes its latents.
    """
    if not isinstance(views, LatentBatch):
        return views.reference, views.targets
    encoded = encode_views(model, views, "attention")
    frames = torch.cat([encoded.reference[:, None], encoded.targets], 1)  # type: ignore[index]  # there is one
    with mixed_precision(model.device):
        images = split_frames(model.decode(frames.flatten(0, 1)), len(frames)).cpu()
    return images[:, 0], images[:, 1:]


def predict(
    unet: nn.Module,
    encoded: Encoded,
    draw: DiffusionNoise,
    alphas_cumprod: Tensor,
    precision: Callable[[torch.device], AbstractContextManager[Any]] = mixed_precision,
) -> Tensor:
    """Add noise to the targets of a micro-batch and return the noise [(b F), c, h, w] that the UNet predicts.

    The micro-batch has b objects with f targets each; latents are [c, h, w]. The UNet predicts the noise of F frames
    per object: F = f + 1 if the targets attend to the reference, which is the first frame; otherwise F = f.

    Args:
        unet: UNet, which may be compiled.
        encoded: The micro-batch before noise is added.
        draw: Timesteps, noise and dropped tokens.
        alphas_cumprod: alpha_bar [1000] of the noise schedule.
        precision: Function that returns the context in which the UNet runs on a given device, such as autocast.
    """
    inputs = prepare_inputs(
        encoded.targets,
        encoded.reference_frame,
        encoded.cameras,
        encoded.tokens,
        draw,
        alphas_cumprod=alphas_cumprod,
    )
    latents, frames = inputs.latents, inputs.num_frames
    if encoded.use == "channels":  # without a reference, its input channels are zero
        reference = torch.zeros_like(encoded.targets[:, 0]) if encoded.reference is None else encoded.reference
        latents = concat_reference(latents, reference, frames)
    context = inputs.tokens.repeat_interleave(frames, dim=0)
    with precision(latents.device):
        return run_unet(unet, latents, inputs.timesteps, inputs.cameras, context, num_frames=frames)


def object_losses(prediction: Tensor, noise: Tensor) -> Tensor:
    """Return the loss of each of b objects, [b]. The mean over the objects is `diffusion_loss`.

    Args:
        prediction: Predicted noise [(b F), c, h, w] of F frames per object. If F = f + 1, the first frame (the
            reference) is ignored.
        noise: True noise [b, f, c, h, w] of the f targets per object.
    """
    targets = noise.shape[1]
    frames = split_frames(prediction, len(noise))
    return (frames[:, -targets:].float() - noise).square().flatten(1).mean(1)


def min_snr_weights(timesteps: Tensor, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Return the loss weights min(SNR, gamma) / SNR, where SNR = alpha_bar / (1 - alpha_bar).

    `timesteps` [b] contains one timestep per object, and the returned weights [b] are those of the objects.
    `alphas_cumprod` [1000] contains alpha_bar of every timestep of the noise schedule.

    Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy" (arXiv:2303.09556), 3.4. The squared
    error of the noise, multiplied by this weight, equals the squared error of the clean latent, multiplied by
    min(SNR, gamma). The authors use gamma = 5.
    """
    alpha = alphas_cumprod[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / snr


def velocity_weights(timesteps: Tensor, alphas_cumprod: Tensor, cap: float) -> Tensor:
    """Return the loss weights min(1 / alpha_bar, cap).

    `timesteps` [b] contains one timestep per object, and the returned weights [b] are those of the objects.
    `alphas_cumprod` [1000] contains alpha_bar of every timestep of the noise schedule. The weight is about 1 for
    latents with little noise, and `cap` for latents that are almost pure noise.

    Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models" (arXiv:2202.00512), 4. Without
    the cap, the weighted squared error of the noise equals the squared error of v = sqrt(alpha_bar) eps -
    sqrt(1 - alpha_bar) z, where eps is the noise and z the clean latent. The shape of an object is determined at high
    noise levels. At these levels, the unweighted error of the noise is tiny.
    """
    return (1 / alphas_cumprod[timesteps]).clamp(max=cap)


def training_loss(
    prediction: Tensor,
    draw: DiffusionNoise,
    alphas_cumprod: Tensor,
    min_snr_gamma: float | None = None,
    velocity_cap: float | None = None,
) -> Tensor:
    """Return the loss of one micro-batch (Eq. 5 or 6), a scalar tensor: the mean of the losses of the b objects.

    Args:
        prediction: Predicted noise [(b F), c, h, w] of F frames per object. If F is the number of targets per object
            plus 1, the first frame (the reference) is ignored.
        draw: Timesteps and true noise of the micro-batch.
        alphas_cumprod: alpha_bar [1000] of the noise schedule.
        min_snr_gamma: If given, the losses of the objects are weighted by `min_snr_weights` with this gamma.
        velocity_cap: If given, the losses of the objects are weighted by `velocity_weights` with this cap. Ignored if
            `min_snr_gamma` is given.
    """
    if min_snr_gamma is not None:
        weights = min_snr_weights(draw.timesteps, alphas_cumprod, min_snr_gamma)
    elif velocity_cap is not None:
        weights = velocity_weights(draw.timesteps, alphas_cumprod, velocity_cap)
    else:
        return diffusion_loss(prediction, draw.noise)
    return (weights * object_losses(prediction, draw.noise)).mean()
