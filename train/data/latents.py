"""What one step trains on, from a latent set: the same views of the same objects as `train.data.loader` reads as
pictures.

Axis letters as in `train.data.sampling`; `d` numbers of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dataset.reading.latent_set
from dataset.errors import UserError
from dataset.reading.latent_set import LatentSet
from train.data.sampling import ImageBatch, StepKey, ViewChoice, generator
from train.device import to_device
from train.model.fingerprint import model_settings
from train.model.multiview import CameraConvention, MultiViewModel, camera_labels


@dataclass(frozen=True)
class LatentBatch:
    """The posteriors of a micro-batch's views, float16, not yet multiplied by the latent scale.

    The log variances are None where the set keeps means only.
    """

    reference_mean: Tensor  # [b, c, h, w]
    reference_logvar: Tensor | None  # [b, c, h, w]
    target_mean: Tensor  # [b, f, c, h, w]
    target_logvar: Tensor | None  # [b, f, c, h, w]
    tokens: Tensor  # [b, 1, d]: the references' embeddings
    cameras: Tensor  # [b, f, 16] float32: the targets'
    reference_camera: Tensor  # [b, 1, 16] float32


TrainingBatch = ImageBatch | LatentBatch


class LatentItem(NamedTuple):
    """One item's views, as `read_latents` reads and `stack_latents` takes them."""

    reference: dataset.reading.latent_set.StoredLatents
    targets: dataset.reading.latent_set.StoredLatents
    angles_deg: NDArray[np.float64]  # [1 + f, 2]


def read_latents(latents: LatentSet, shard: int, sample: int, choice: ViewChoice) -> LatentItem:
    """What `train.data.loader.read_views` would read of the pictures."""
    reference, targets = choice
    return LatentItem(
        latents.views(shard, sample, [reference], embedding=True),
        latents.views(shard, sample, targets),
        latents.angles_deg(shard, sample, [reference, *targets]),
    )


def stack_latents(items: Sequence[LatentItem], convention: CameraConvention) -> LatentBatch:
    """A micro-batch of items."""
    angles = np.stack([item.angles_deg for item in items])  # [b, 1 + f, 2]
    elevation_deg, azimuth_deg = angles[..., 0], angles[..., 1]
    labels = camera_labels(convention, elevation_deg, azimuth_deg, elevation_deg[:, :1], azimuth_deg[:, :1])
    return LatentBatch(
        reference_mean=_stack([item.reference.mean[0] for item in items]),
        reference_logvar=_stack_or_none(
            [item.reference.logvar if item.reference.logvar is None else item.reference.logvar[0] for item in items]
        ),
        target_mean=_stack([item.targets.mean for item in items]),
        target_logvar=_stack_or_none([item.targets.logvar for item in items]),
        tokens=_stack([item.reference.embedding for item in items if item.reference.embedding is not None]),
        cameras=labels[:, 1:],
        reference_camera=labels[:, :1],
    )


def _stack(arrays: list[NDArray[np.float16]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _stack_or_none(arrays: list[NDArray[np.float16] | None]) -> Tensor | None:
    present = [array for array in arrays if array is not None]
    return _stack(present) if present else None


def draw_posterior(mean: Tensor, logvar: Tensor | None, step_key: StepKey, part: int) -> Tensor:
    """mean + exp(logvar / 2) * eps, on the mean's device. `part` 0: the targets, 1: the reference.

    eps is a function of the step_key and the part, drawn on the CPU, so that a run draws the same numbers on any device
    and from pictures as from latents. Raises UserError without log variances.
    """
    if logvar is None:
        raise UserError("this latent set keeps no log variances to draw from; leave --sample-posterior out")
    seed = int(generator(step_key, "posterior").integers(2**63, size=2)[part])
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    deviation = (to_device(logvar, mean.device).float() / 2).exp()
    return mean + deviation * to_device(eps, mean.device)


def check_latents(latents: LatentSet, model: MultiViewModel, *, sample_posterior: bool = False) -> None:
    """Refuse latents that another VAE or image encoder made. Hashes the weights: seconds for the paper's.

    Refused too: drawing from the posteriors (`sample_posterior`) where the set keeps means only.
    """
    found = vars(latents.format)
    if changed := [key for key, value in model_settings(model).items() if found[key] != value]:
        raise UserError(
            f"{latents.url}: encoded by another model ({', '.join(changed)} differ); encode the pictures with this one "
            "into another folder: `python -m train.encode SHARDS OUT --model MODEL`"
        )
    if sample_posterior and not latents.format.logvar:
        raise UserError(
            f"{latents.url}: keeps no log variances to draw from; leave --sample-posterior out, or encode again with "
            "--logvar into another folder"
        )
