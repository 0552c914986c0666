"""The loss on held-out objects, by timestep.

Timesteps, noise and views depend on the run's seed only, so that successive validations differ by the model alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from train.data.latents import TrainingBatch
from train.data.loader import Feed
from train.data.sampling import DiffusionNoise
from train.device import to_device
from train.loop.loss import encode_views, object_losses, predict
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import NUM_TIMESTEPS
from train.model.reference import ReferenceMode

MAX_OBJECTS: Final = 64  # of the held-out objects that a validation looks at
BUCKET: Final = 250  # timesteps
_STREAM: Final = 1001  # random numbers of its own beside `train.data.sampling`'s streams


def bucket_names() -> list[str]:
    """`t000-249` and so on, one a bucket."""
    return [f"t{start:03d}-{start + BUCKET - 1:03d}" for start in range(0, NUM_TIMESTEPS, BUCKET)]


def fixed_draw(seed: int, number: int, latents: Tensor) -> DiffusionNoise:
    """For held-out object `number`, its latents [k, f, c, h, w] once a bucket: a timestep of each bucket, and noise.

    Drawn on the CPU; nothing is dropped.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM, number)))
    starts = np.arange(0, NUM_TIMESTEPS, BUCKET)
    timesteps = torch.from_numpy(starts + rng.integers(BUCKET, size=len(starts)))
    cpu = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(latents.shape, generator=cpu)
    device = latents.device
    dropped = torch.zeros(len(starts), dtype=torch.bool, device=device)
    return DiffusionNoise(to_device(timesteps, device), to_device(noise, device), dropped)


def validation_views(feed: Feed, number: int) -> TrainingBatch:
    """The fixed views of one held-out object: those of the multi-view branch, a random reference."""
    return feed.fixed(number, 1, micro=number)


@torch.no_grad()
def validate(model: MultiViewModel, feed: Feed, use: ReferenceMode) -> Mapping[str, float]:
    """Mean loss (Eq. 5 or 6, unweighted) of the first MAX_OBJECTS held-out objects, by bucket, and their mean `loss`.

    `feed` is that of the held-out objects. The same model gives the same numbers, whenever and on whatever batch size.
    """
    losses = []
    for number in range(min(MAX_OBJECTS, len(feed.shards))):
        once = encode_views(model, validation_views(feed, number), use)
        buckets = NUM_TIMESTEPS // BUCKET
        encoded = replace(
            once,
            targets=once.targets.expand(buckets, *once.targets.shape[1:]),
            reference=None if once.reference is None else once.reference.expand(buckets, *once.reference.shape[1:]),
            cameras=once.cameras.expand(buckets, *once.cameras.shape[1:]),
            reference_camera=once.reference_camera.expand(buckets, *once.reference_camera.shape[1:]),
            tokens=once.tokens.expand(buckets, *once.tokens.shape[1:]),
        )
        draw = fixed_draw(feed.seed, number, encoded.targets)
        losses.append(object_losses(predict(model.unet, encoded, draw, model.alphas_cumprod), draw.noise))
    means = torch.stack(losses).double().mean(0).tolist()
    return {"loss": sum(means) / len(means), **dict(zip(bucket_names(), means, strict=True))}
