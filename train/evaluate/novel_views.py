"""Sample rings of novel views from a model, at the cameras of an object's true views.

A ring is the 16 fixed views of an object. All have an elevation of 30 degrees, and adjacent views differ by 22.5
degrees of azimuth. From the embedding of one random view (the reference), a model samples the ring in four groups of
four orthogonal views, because models are trained on four views that attend to each other. The groups of an object share
only the embedding and, if the model is conditioned on the reference image, this image.

Axis letters: `b` objects, `g` groups, `k` views of a group, `v` views of the ring. For other letters, see
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

from dataset.format.schema import ALL_VIEWS, VIEWS_PER_SET
from dataset.reading.rendered_object import Place, RenderedObject, read_object
from dataset.reading.shard_set import ShardSet
from train.data.images import to_tensor
from train.device import mixed_precision
from train.model.ddim import denoise_views, draw_latents
from train.model.image_encoder import resize
from train.model.multiview import MultiViewModel
from train.model.reference import reads_reference, with_reference_latents

VIEWS_PER_GROUP: Final = 4
GROUPS_PER_RING: Final = VIEWS_PER_SET // VIEWS_PER_GROUP
RING: Final = ALL_VIEWS[:VIEWS_PER_SET]  # the fixed set
REFERENCES: Final = ALL_VIEWS[VIEWS_PER_SET:]  # the random set


@dataclass(frozen=True)
class EvaluationObject:
    """An object to evaluate: the 16 true views of its ring, and the reference view from which a model samples."""

    rendered: RenderedObject  # the views of the ring, then the reference

    @property
    def uid(self) -> str:
        """The uid of the object."""
        return self.rendered.uid

    @property
    def size(self) -> int:
        """Height and width of the images in pixels."""
        return self.rendered.size

    @property
    def ring(self) -> NDArray[np.uint8]:
        """The true views of the ring as RGBA images uint8 [16, h, w, 4]."""
        return self.rendered.images[:VIEWS_PER_SET]

    @cached_property
    def ring_on_white(self) -> NDArray[np.float32]:
        """The true views of the ring as images [16, h, w, 3] in [0, 1] on white."""
        return self.rendered.on_white[:VIEWS_PER_SET]

    @property
    def ring_angles_deg(self) -> NDArray[np.float64]:
        """Elevation and azimuth in degrees of the cameras of the ring's 16 views, [16, 2]."""
        return self.rendered.angles_deg[:VIEWS_PER_SET]

    @property
    def reference(self) -> NDArray[np.uint8]:
        """The reference view as RGBA image uint8 [h, w, 4]."""
        image: NDArray[np.uint8] = self.rendered.images[-1]
        return image

    @property
    def reference_rgb(self) -> Tensor:
        """The reference view as image [3, h, w] in [0, 1] on white."""
        return to_tensor(self.reference[None])[0]

    @property
    def reference_angles_deg(self) -> tuple[float, float]:
        """Elevation and azimuth in degrees of the camera of the reference view."""
        elevation_deg, azimuth_deg = self.rendered.angles_deg[-1].tolist()
        return elevation_deg, azimuth_deg


def read_evaluation_object(shards: ShardSet, place: Place) -> EvaluationObject:
    """Read the ring and the reference view of an object. The object's uid determines which view is the reference.

    Args:
        shards: Shard set that contains the object.
        place: Index of the object's shard in the set, and index of the object in the shard.

    Raises:
        UserError: The shard cannot be read.
        DamagedMember: A view is corrupt.
    """
    reference = REFERENCES[reference_index(shards.uid(*place))]
    return EvaluationObject(read_object(shards, place, [*RING, reference]))


def reference_index(uid: str) -> int:
    """Return the index, 0 to 15, of the random view that is used as reference of object `uid`."""
    return _hash(f"reference/{uid}") % VIEWS_PER_SET


def read_ring(shards: ShardSet, place: Place, size: int) -> NDArray[np.float32]:
    """Read the 16 fixed views of an object, resized to images [16, size, size, 3] in [0, 1] on white.

    `place` is the index of the object's shard in the set, and the index of the object in the shard.
    """
    return to_arrays(resize(to_tensor(shards.views(*place, RING)), size).clamp(0, 1))


def to_arrays(images: Tensor) -> NDArray[np.float32]:
    """Convert a tensor of images [n, 3, h, w] on any device to a float32 array [n, h, w, 3]."""
    arrays: NDArray[np.float32] = images.detach().float().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return arrays


def in_groups(ring: Tensor) -> Tensor:
    """Split each of b rings of v views, [b, v, ...], into g groups of k views, [(b g), k, ...].

    A group contains every g-th view of a ring; g = k = 4 and v = 16.
    """
    objects, rest = len(ring), ring.shape[2:]
    grouped = ring.reshape(objects, VIEWS_PER_GROUP, GROUPS_PER_RING, *rest).transpose(1, 2)
    return grouped.flatten(0, 1)


def in_ring(groups: Tensor) -> Tensor:
    """Join groups [(b g), k, ...] of k views into b rings [b, v, ...], with v = g k. This inverts `in_groups`."""
    objects, rest = len(groups) // GROUPS_PER_RING, groups.shape[2:]
    return groups.reshape(objects, GROUPS_PER_RING, VIEWS_PER_GROUP, *rest).transpose(1, 2).flatten(1, 2)


@torch.no_grad()
def condition_on_reference(
    model: MultiViewModel, references: Tensor, cameras: Tensor, *, with_reference: bool
) -> MultiViewModel:
    """Return the model conditioned on the reference images of b objects, for sampling the groups of their rings.

    Args:
        model: Model to condition.
        references: Reference images [b, 3, h, w] in [0, 1]. Each is used for all groups of views of its object.
        cameras: Camera labels [b, 16] of the reference images.
        with_reference: If False, the model is not conditioned on the images. A UNet with input channels for the
            reference image then gets zeros in these channels. A model without such channels is returned unchanged.
    """
    channels = reads_reference(model.unet)
    if not with_reference and not channels:
        return model
    latents = model.encode(references.to(model.device))
    if not with_reference:
        latents = torch.zeros_like(latents)
    return with_reference_latents(
        model, *(each.repeat_interleave(GROUPS_PER_RING, dim=0) for each in (latents, cameras))
    )


@torch.no_grad()
def draw_rings(
    model: MultiViewModel,
    truths: Sequence[EvaluationObject],
    seed: int,
    *,
    steps: int,
    guidance_scale: float,
    with_reference: bool,
) -> list[NDArray[np.float32]]:
    """Sample a ring of 16 views [16, h, w, 3] in [0, 1] for each object, at the cameras and size of the true views.

    On a GPU, sampling runs in bf16.

    Args:
        model: Model to sample from.
        truths: The objects.
        seed: Seed of the initial noise. The noise of an object depends only on its uid and this seed.
        steps: Number of DDIM steps.
        guidance_scale: Scale of classifier-free guidance.
        with_reference: Whether to condition the model on the reference image in addition to its embedding.
    """
    references = torch.stack([truth.reference_rgb for truth in truths]).to(model.device)
    labels = [
        model.labels(truth.ring_angles_deg[:, 0], truth.ring_angles_deg[:, 1], *truth.reference_angles_deg)
        for truth in truths
    ]
    own = torch.stack([model.labels(*truth.reference_angles_deg, *truth.reference_angles_deg) for truth in truths])
    noise = [draw_latents(model, GROUPS_PER_RING, VIEWS_PER_GROUP, noise_generator(t.uid, seed)) for t in truths]
    with mixed_precision(model.device):
        sampled = denoise_views(
            condition_on_reference(model, references, own, with_reference=with_reference),
            torch.cat(noise),
            model.embed_image(references).repeat_interleave(GROUPS_PER_RING, dim=0),
            in_groups(torch.stack(labels)),
            steps=steps,
            guidance_scale=guidance_scale,
        )
    return [resized(ring, truth.size) for ring, truth in zip(in_ring(sampled), truths, strict=True)]


def resized(images: Tensor, size: int) -> NDArray[np.float32]:
    """Resize n images [n, 3, h, w] and clamp them to [0, 1]. Return an array [n, size, size, 3]."""
    return to_arrays(resize(images.float(), size).clamp(0, 1))


@torch.no_grad()
def embed(model: MultiViewModel, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the embeddings [n, d] that the image encoder of `model` computes from images [n, h, w, 3] in [0, 1]."""
    rgb = torch.from_numpy(images).permute(0, 3, 1, 2).to(model.device)
    embeddings: NDArray[Any] = model.embed_image(rgb)[:, 0].cpu().numpy()
    return embeddings.astype(np.float64)


@torch.no_grad()
def through_autoencoder(model: MultiViewModel, truth: EvaluationObject) -> NDArray[np.float32]:
    """Return the true ring [16, h, w, 3] in [0, 1] of an object, encoded and decoded by the model's autoencoder.

    The same autoencoder decodes the views that the model samples. Sampled views are therefore not expected to have
    better metrics than this ring.
    """
    return resized(model.decode(model.encode(to_tensor(truth.ring).to(model.device))), truth.size)


def noise_generator(uid: str, seed: int) -> torch.Generator:
    """Return the random generator for the initial noise of object `uid`, as a function of uid and seed.

    The generator is on the CPU, so that the noise is the same on every device.
    """
    return torch.Generator().manual_seed(_hash(f"noise/{seed}/{uid}") % 2**63)


def _hash(text: str) -> int:
    return int.from_bytes(sha256(f"isotropic3d evaluation 1/{text}".encode()).digest()[:8], "big")
