"""What one step trains on, from a latent set: the same views of the same objects as `train.batch` reads as pictures.

Axis letters as in `train.batch`; `d` numbers of an embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from dataset.latents import LatentSet
from dataset.order import Order
from train.batch import Branch, Position, draw_views, generator
from train.encoder import model_settings
from train.model import CameraConvention, MultiViewModel, camera_labels


@dataclass(frozen=True)
class LatentViews:
    """The posteriors of a micro-batch's views, float16, not yet multiplied by the latent scale.

    The log variances are None where the set keeps means only.
    """

    reference_mean: Tensor  # [b, c, h, w]
    reference_logvar: Tensor | None  # [b, c, h, w]
    target_mean: Tensor  # [b, f, c, h, w]
    target_logvar: Tensor | None  # [b, f, c, h, w]
    tokens: Tensor  # [b, 1, d]: the references' embeddings
    cameras: Tensor  # [b, f, 16] float32

    def to(self, device: torch.device) -> "LatentViews":
        """On a device."""
        return LatentViews(
            self.reference_mean.to(device),
            None if self.reference_logvar is None else self.reference_logvar.to(device),
            self.target_mean.to(device),
            None if self.target_logvar is None else self.target_logvar.to(device),
            self.tokens.to(device),
            self.cameras.to(device),
        )


def load_latent_views(
    latents: LatentSet,
    order: Order,
    position: Position,
    branch: Branch,
    *,
    objects: int,
    num_views: int,
    first_item: int,
    convention: CameraConvention,
) -> LatentViews:
    """Read a micro-batch: the views that `train.batch.load_views` would read of the pictures at this position."""
    rng = generator(position, "views")
    references, targets, angles_deg = [], [], []
    for i in range(first_item, first_item + objects):
        _, shard, sample = order.item(i)
        reference, wanted = draw_views(rng, branch, num_views)
        references.append(latents.views(shard, sample, [reference], embedding=True))
        targets.append(latents.views(shard, sample, wanted))
        angles_deg.append(latents.angles_deg(shard, sample, [reference, *wanted]))
    angles = np.stack(angles_deg)  # [b, 1 + f, 2]
    elevation_deg, azimuth_deg = angles[..., 0], angles[..., 1]
    return LatentViews(
        reference_mean=_stack([views.mean[0] for views in references]),
        reference_logvar=_stack_or_none(
            [views.logvar if views.logvar is None else views.logvar[0] for views in references]
        ),
        target_mean=_stack([views.mean for views in targets]),
        target_logvar=_stack_or_none([views.logvar for views in targets]),
        tokens=_stack([views.embedding for views in references if views.embedding is not None]),
        cameras=camera_labels(
            convention, elevation_deg[:, 1:], azimuth_deg[:, 1:], elevation_deg[:, :1], azimuth_deg[:, :1]
        ),
    )


def _stack(arrays: list[NDArray[np.float16]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _stack_or_none(arrays: list[NDArray[np.float16] | None]) -> Tensor | None:
    present = [array for array in arrays if array is not None]
    return _stack(present) if present else None


def mean_latents(views: LatentViews, latent_scale: float) -> tuple[Tensor, Tensor]:
    """Scaled reference [b, c, h, w] and targets [b, f, c, h, w] in float32: what `MultiViewModel.encode` gives."""
    return views.reference_mean.float() * latent_scale, views.target_mean.float() * latent_scale


def sample_latents(views: LatentViews, position: Position, latent_scale: float) -> tuple[Tensor, Tensor]:
    """As `mean_latents`, drawn from the posteriors: mean + exp(logvar / 2) * eps, on the device of the views.

    eps is a function of the position, drawn on the CPU, so that a run draws the same numbers on any device. A set that
    keeps means only gives the means.
    """
    if views.reference_logvar is None or views.target_logvar is None:
        return mean_latents(views, latent_scale)
    cpu = torch.Generator().manual_seed(int(generator(position, "posterior").integers(2**63)))
    drawn = []
    for mean, logvar in (
        (views.reference_mean, views.reference_logvar),
        (views.target_mean, views.target_logvar),
    ):
        eps = torch.randn(mean.shape, generator=cpu).to(mean.device)
        drawn.append((mean.float() + (logvar.float() / 2).exp() * eps) * latent_scale)
    return drawn[0], drawn[1]


def check_latents(latents: LatentSet, model: MultiViewModel) -> None:
    """Refuse latents that another VAE or image tower made. Hashes the weights: seconds for the paper's."""
    found = vars(latents.format)
    if changed := [key for key, value in model_settings(model).items() if found[key] != value]:
        raise UserError(
            f"{latents.url}: encoded by another model ({', '.join(changed)} differ); encode the pictures with this one "
            "into another folder: `python -m train.encode SHARDS OUT --model MODEL`"
        )
