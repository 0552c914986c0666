"""Read training items from a shard set as images on white, with camera labels.

A training item is a reference view of an object and target views of the same object. Axis letters as in
`train.data.sampling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.reading.shard_set import ShardSet
from train.data.sampling import ViewChoice
from train.model.multiview import CameraConvention, camera_labels


@dataclass(frozen=True)
class ImageBatch:
    """A micro-batch of reference views and target views, as images in [0, 1] on white, with camera labels."""

    reference: Tensor  # [b, 3, h, w]
    targets: Tensor  # [b, f, 3, h, w]
    cameras: Tensor  # [b, f, 16]: camera labels of the targets
    reference_camera: Tensor  # [b, 1, 16]


@dataclass(frozen=True)
class ImageSource:
    """Reads training items (a reference view and target views of one object) from a shard set."""

    shards: ShardSet
    convention: CameraConvention

    def read(self, shard: int, sample: int, choice: ViewChoice) -> tuple[Tensor, Tensor]:
        """Return images [1 + f, 3, h, w] and camera labels [1 + f, 16] of the reference view and then f target views.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            choice: The views to read.
        """
        reference, targets = choice
        angles_deg = self.shards.angles_deg(shard, sample, [reference, *targets])
        labels = camera_labels(self.convention, angles_deg[:, 0], angles_deg[:, 1], *angles_deg[0].tolist())
        return to_tensor(self.shards.views(shard, sample, [reference, *targets])), labels

    def collate(self, items: Sequence[tuple[Tensor, Tensor]]) -> ImageBatch:
        """Stack items from `read` into a batch. An item has images [1 + f, 3, h, w] and camera labels [1 + f, 16]."""
        images, labels = (torch.stack(tensors) for tensors in zip(*items, strict=True))
        return ImageBatch(images[:, 0], images[:, 1:], labels[:, 1:], labels[:, :1])


def to_tensor(rgba: NDArray[np.uint8]) -> Tensor:
    """Composite f RGBA views uint8 [f, h, w, 4] on white. Return images [f, 3, h, w] in [0, 1].

    The images are bit-identical to those of `composite_white`, but this function is ten times as fast because it works
    on whole color planes. It uses NumPy because reader threads call it: torch would spread the work of each thread over
    all cores.
    """
    planes = np.ascontiguousarray(rgba.transpose(0, 3, 1, 2))
    alpha, colors = (part.astype(np.float32) / 255 for part in (planes[:, 3:], planes[:, :3]))
    colors *= alpha
    colors += 1 - alpha
    return torch.from_numpy(colors)


def on_white(rgba: Tensor) -> Tensor:
    """Composite RGBA views uint8 [..., h, w, 4] on white, on the views' device. Return images [..., 3, h, w] in [0, 1].

    The images are bit-identical to those of `to_tensor`.
    """
    planes = rgba.movedim(-1, -3).contiguous()
    alpha, colors = (part.float() / 255 for part in (planes[..., 3:, :, :], planes[..., :3, :, :]))
    return colors.mul_(alpha).add_(1 - alpha)
