"""Read training items from a latent set.

A training item is a reference view of an object and target views of the same object. A run on a latent set uses the
same objects and views as a run on the shard set that was encoded. Axis letters as in `train.data.sampling`; `d` is the
width of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from dataset.reading.latent_set import LatentSet, StoredLatents
from train.data.images import ImageBatch
from train.data.sampling import StepKey, ViewChoice, generator
from train.device import to_device
from train.model.fingerprint import model_settings
from train.model.multiview import CameraConvention, MultiViewModel, camera_labels


@dataclass(frozen=True)
class LatentBatch:
    """A micro-batch of means and log variances of the VAE's posteriors in float16, and of image embeddings.

    The means are not multiplied by the latent scale. The log variances are None if the set stores only means.
    """

    reference_mean: Tensor  # [b, c, h, w]
    reference_logvar: Tensor | None  # [b, c, h, w]
    target_mean: Tensor  # [b, f, c, h, w]
    target_logvar: Tensor | None  # [b, f, c, h, w]
    tokens: Tensor  # [b, 1, d]: embeddings of the references
    cameras: Tensor  # [b, f, 16] float32: camera labels of the targets
    reference_camera: Tensor  # [b, 1, 16] float32


TrainingBatch = ImageBatch | LatentBatch


class LatentItem(NamedTuple):
    """The stored latents of one training item: a reference view and target views of the same object."""

    reference: StoredLatents
    targets: StoredLatents
    angles_deg: NDArray[np.float64]  # [1 + f, 2]: elevation and azimuth


@dataclass(frozen=True)
class LatentSource:
    """Reads training items (a reference view and target views of one object) from a latent set."""

    latents: LatentSet
    convention: CameraConvention

    def read(self, shard: int, sample: int, choice: ViewChoice) -> LatentItem:
        """Read the stored latents of the views of one training item.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            choice: The views to read.
        """
        reference, targets = choice
        return LatentItem(
            self.latents.views(shard, sample, [reference], embedding=True),
            self.latents.views(shard, sample, targets),
            self.latents.angles_deg(shard, sample, [reference, *targets]),
        )

    def collate(self, items: Sequence[LatentItem]) -> LatentBatch:
        """Stack training items to a micro-batch, in the given order."""
        angles = np.stack([item.angles_deg for item in items])  # [b, 1 + f, 2]
        elevation_deg, azimuth_deg = angles[..., 0], angles[..., 1]
        labels = camera_labels(self.convention, elevation_deg, azimuth_deg, elevation_deg[:, :1], azimuth_deg[:, :1])
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


def draw_posterior(mean: Tensor, logvar: Tensor | None, key: StepKey, part: int) -> Tensor:
    """Sample latents mean + exp(logvar / 2) * eps, on the device of `mean`.

    The noise eps is a function of `key` and `part`. It is drawn on the CPU and is therefore the same on every device.
    A run that reads images and a run that reads latents draw the same eps.

    Args:
        mean: Means of the posteriors, any shape.
        logvar: Log variances, same shape.
        key: Key of the micro-batch to which the latents belong.
        part: 0 for latents of target views, 1 for latents of reference views.

    Raises:
        UserError: `logvar` is None, because the latent set stores no log variances.
    """
    if logvar is None:
        raise UserError(
            "the latent set has no log variances, which --sample-posterior needs; drop --sample-posterior, or encode "
            "the images again with --logvar into another folder"
        )
    seed = int(generator(key, "posterior").integers(2**63, size=2)[part])
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    deviation = (to_device(logvar, mean.device).float() / 2).exp()
    return mean + deviation * to_device(eps, mean.device)


def check_latents(latents: LatentSet, model: MultiViewModel, *, sample_posterior: bool = False) -> None:
    """Check that `model` can be trained on `latents`. Hashing the weights of the paper's model takes several seconds.

    Args:
        latents: Latent set.
        model: Model to train. Its VAE and image encoder must be the ones that encoded the latent set.
        sample_posterior: Whether training samples latents from the posteriors, which needs log variances.

    Raises:
        UserError: The latents were encoded by another VAE or image encoder, or `sample_posterior` is true and the set
            has no log variances.
    """
    stored = vars(latents.format)
    if changed := [key for key, value in model_settings(model).items() if stored[key] != value]:
        raise UserError(
            f"{latents.url}: encoded by another model ({', '.join(changed)} differ) than the one to be trained; encode "
            "the images with the model to be trained into another folder: `python -m train.encode SHARDS OUT --model "
            "MODEL`"
        )
    if sample_posterior and not latents.format.logvar:
        raise UserError(
            f"{latents.url}: has no log variances, which --sample-posterior needs; drop --sample-posterior, or encode "
            "the images again with --logvar into another folder"
        )
