"""What is evaluated and what it is compared with: the true ring of views, and the ring as a model draws it.

A ring is the fixed set: 16 views at elevation 30, 22.5 degrees apart. A model draws it from the embedding of one view
of the random set as four groups of four orthogonal views, the number that training had in attention; the groups of an
object share nothing but the embedding (and the reference picture, where it is with_reference).

Axis letters: `b` objects, `g` groups, `k` views of a group, `v` views of the ring, others as in
`train.model.multiview`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.format.schema import VIEWS_PER_SET
from dataset.reading.shard_set import ShardSet
from train.data.loader import to_tensor
from train.data.sampling import ViewKey
from train.device import mixed_precision
from train.model.ddim import denoise_views, draw_latents
from train.model.image_encoder import resize
from train.model.multiview import MultiViewModel
from train.model.reference import reads_reference, with_reference_latents

VIEWS_A_GROUP: Final = 4
GROUPS: Final = VIEWS_PER_SET // VIEWS_A_GROUP
RING: Final[list[ViewKey]] = [("fixed", i) for i in range(VIEWS_PER_SET)]
REFERENCES: Final[list[ViewKey]] = [("random", i) for i in range(VIEWS_PER_SET)]

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """One object as it was rendered."""

    uid: str
    ring: UInt8  # [v, h, w, 4]
    ring_angles_deg: NDArray[np.float64]  # [v, 2]: elevation, azimuth
    reference: UInt8  # [h, w, 4]: the one view that is seen
    reference_angles_deg: tuple[float, float]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.ring.shape[1]

    @cached_property
    def on_white(self) -> Float32:
        """The ring [v, h, w, 3] in [0, 1]."""
        return to_arrays(to_tensor(self.ring))

    @property
    def reference_rgb(self) -> Tensor:
        """[3, h, w] in [0, 1] on white."""
        return to_tensor(self.reference[None])[0]


def read_truth(shards: ShardSet, shard: int, sample: int) -> Truth:
    """An object of the set; which of its random views is the reference depends on its uid alone."""
    uid = shards.uid(shard, sample)
    wanted = [*RING, REFERENCES[reference_index(uid)]]
    views, angles_deg = shards.views(shard, sample, wanted), shards.angles_deg(shard, sample, wanted)
    elevation_deg, azimuth_deg = angles_deg[-1].tolist()
    return Truth(uid, views[:-1], angles_deg[:-1], views[-1], (elevation_deg, azimuth_deg))


def reference_index(uid: str) -> int:
    """Which of an object's random views is the one that is seen."""
    return _number(f"reference/{uid}") % VIEWS_PER_SET


def read_ring(shards: ShardSet, shard: int, sample: int, size: int) -> Float32:
    """The ring [v, h, w, 3] of an object in [0, 1] on white, at another set's size."""
    return to_arrays(resize(to_tensor(shards.views(shard, sample, RING)), size).clamp(0, 1))


def to_arrays(pictures: Tensor) -> Float32:
    """Pictures [n, 3, h, w] -> float32 [n, h, w, 3]."""
    arrays: Float32 = pictures.detach().float().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return arrays


def in_groups(ring: Tensor) -> Tensor:
    """[b, v, ...] -> [(b g), k, ...]: every fourth view of the ring is of one group."""
    objects, rest = len(ring), ring.shape[2:]
    grouped = ring.reshape(objects, VIEWS_A_GROUP, GROUPS, *rest).transpose(1, 2)
    return grouped.flatten(0, 1)


def in_ring(groups: Tensor) -> Tensor:
    """The inverse of `in_groups`."""
    objects, rest = len(groups) // GROUPS, groups.shape[2:]
    return groups.reshape(objects, GROUPS, VIEWS_A_GROUP, *rest).transpose(1, 2).flatten(1, 2)


@torch.no_grad()
def condition_on_reference(
    model: MultiViewModel, references: Tensor, cameras: Tensor, *, with_reference: bool
) -> MultiViewModel:
    """Condition the model on reference images [b, 3, h, w] (or not), repeated for every view group of each object.

    `cameras` [b, 16] are the labels of the reference images. Without the reference, a model that reads it as input
    channels gets zeros there.
    """
    channels = reads_reference(model.unet)
    if not with_reference and not channels:
        return model
    latents = model.encode(references.to(model.device))
    if not with_reference:
        latents = torch.zeros_like(latents)
    return with_reference_latents(model, *(each.repeat_interleave(GROUPS, dim=0) for each in (latents, cameras)))


@torch.no_grad()
def draw_rings(
    model: MultiViewModel,
    truths: Sequence[Truth],
    seed: int,
    *,
    steps: int,
    guidance_scale: float,
    with_reference: bool,
) -> list[Float32]:
    """Sample one ring of views [v, h, w, 3] per object, at the cameras and in the image size of the ground truth.

    The noise of an object depends on its uid and the seed only. `with_reference` also conditions the model on the
    reference image. On a GPU, sampling runs in bf16; the metrics are computed in float32.
    """
    references = torch.stack([truth.reference_rgb for truth in truths]).to(model.device)
    labels = [
        model.labels(truth.ring_angles_deg[:, 0], truth.ring_angles_deg[:, 1], *truth.reference_angles_deg)
        for truth in truths
    ]
    own = torch.stack([model.labels(*truth.reference_angles_deg, *truth.reference_angles_deg) for truth in truths])
    noise = [draw_latents(model, GROUPS, VIEWS_A_GROUP, noise_generator(truth.uid, seed)) for truth in truths]
    with mixed_precision(model.device):
        drawn = denoise_views(
            condition_on_reference(model, references, own, with_reference=with_reference),
            torch.cat(noise),
            model.embed_image(references).repeat_interleave(GROUPS, dim=0),
            in_groups(torch.stack(labels)),
            steps=steps,
            guidance_scale=guidance_scale,
        )
    return [of_size(ring, truth.size) for ring, truth in zip(in_ring(drawn), truths, strict=True)]


def of_size(pictures: Tensor, size: int) -> Float32:
    """[n, 3, h, w] -> [n, size, size, 3] in [0, 1]."""
    return to_arrays(resize(pictures.float(), size).clamp(0, 1))


@torch.no_grad()
def embed(model: MultiViewModel, pictures: Float32) -> NDArray[np.float64]:
    """Embeddings [n, d] of pictures [n, h, w, 3] in [0, 1], by the model's own tower."""
    rgb = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(model.device)
    embeddings: NDArray[Any] = model.embed_image(rgb)[:, 0].cpu().numpy()
    return embeddings.astype(np.float64)


@torch.no_grad()
def through_autoencoder(model: MultiViewModel, truth: Truth) -> Float32:
    """The true ring [v, h, w, 3] encoded and decoded: no sample of the model's can be sharper."""
    return of_size(model.decode(model.encode(to_tensor(truth.ring).to(model.device))), truth.size)


def noise_generator(uid: str, seed: int) -> torch.Generator:
    """On the CPU: the same noise on any device."""
    return torch.Generator().manual_seed(_number(f"noise/{seed}/{uid}") % 2**63)


def _number(text: str) -> int:
    return int.from_bytes(sha256(f"isotropic3d evaluation 1/{text}".encode()).digest()[:8], "big")
