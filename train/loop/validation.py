"""Measure the loss of the validation objects by timestep. The model is not trained on these objects.

Timesteps, noise and views depend only on the seed of the run, so successive validations differ only in the model.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from train.data.latents import TrainingBatch
from train.data.loader import BatchLoader
from train.data.sampling import DiffusionNoise
from train.device import to_device
from train.loop.loss import encode_views, object_losses, predict
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import NUM_TIMESTEPS
from train.model.reference import ReferenceMode

MAX_OBJECTS: Final = 64  # largest number of held-out objects that are used
BUCKET: Final = 250  # timesteps per bucket
_STREAM: Final = 1001  # random stream, in addition to those of `train.data.sampling`


def bucket_names() -> list[str]:
    """Return the names of the four buckets (ranges) of timesteps: t000-249, t250-499, t500-749 and t750-999."""
    return [f"t{start:03d}-{start + BUCKET - 1:03d}" for start in range(0, NUM_TIMESTEPS, BUCKET)]


def fixed_noise(seed: int, number: int, latents: Tensor) -> DiffusionNoise:
    """Draw the noise and one timestep per bucket for one validation object. No image token is dropped.

    Args:
        seed: Seed of the run.
        number: Index of the object among the validation objects, from 0. Seed and index determine the numbers drawn.
        latents: Latents [k, f, c, h, w]: the latents [c, h, w] of the object's f targets, repeated for each of the k
            buckets.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM, number)))
    starts = np.arange(0, NUM_TIMESTEPS, BUCKET)
    timesteps = torch.from_numpy(starts + rng.integers(BUCKET, size=len(starts)))
    cpu = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(latents.shape, generator=cpu)
    device = latents.device
    dropped = torch.zeros(len(starts), dtype=torch.bool, device=device)
    return DiffusionNoise(to_device(timesteps, device), to_device(noise, device), dropped)


def validation_views(loader: BatchLoader, number: int) -> TrainingBatch:
    """Read the views of one validation object: `num_views` evenly spaced targets and a randomly chosen reference.

    The choice of views depends only on the seed of the run and on `number`.

    Args:
        loader: Loader of the validation objects.
        number: Index of the object, from 0, in the order in which a loader reads the objects if there is one rank.
    """
    return loader.fixed(number, 1, micro=number)


@torch.no_grad()
def validate(
    model: MultiViewModel, loader: BatchLoader, use: ReferenceMode, *, with_reference: bool = True
) -> Mapping[str, float]:
    """Return mean losses (Eq. 5 or 6, unweighted) of the validation objects as a dictionary.

    The entry `loss` is the mean over all timesteps. There is also one entry per bucket of timesteps, by its name
    (`bucket_names`). The same model gives the same numbers at any step and with any batch size.

    Args:
        model: Model to validate.
        loader: Loader of the validation objects, of which the first MAX_OBJECTS are used.
        use: How the UNet uses the reference image.
        with_reference: Whether the UNet gets the latent of the reference image. If False, only the image token
            describes the reference image.
    """
    losses = []
    for number in range(min(MAX_OBJECTS, len(loader.shards))):
        once = encode_views(model, validation_views(loader, number), use)
        buckets = NUM_TIMESTEPS // BUCKET
        encoded = replace(
            once,
            targets=once.targets.expand(buckets, *once.targets.shape[1:]),
            reference=once.reference.expand(buckets, *once.reference.shape[1:])
            if once.reference is not None and with_reference
            else None,
            cameras=once.cameras.expand(buckets, *once.cameras.shape[1:]),
            reference_camera=once.reference_camera.expand(buckets, *once.reference_camera.shape[1:]),
            tokens=once.tokens.expand(buckets, *once.tokens.shape[1:]),
        )
        draw = fixed_noise(loader.seed, number, encoded.targets)
        losses.append(object_losses(predict(model.unet, encoded, draw, model.alphas_cumprod), draw.noise))
    means = torch.stack(losses).double().mean(0).tolist()
    return {"loss": sum(means) / len(means), **dict(zip(bucket_names(), means, strict=True))}
