"""Choose the random inputs of a training step: views, timesteps and noise (Eq. 3-6).

All random numbers are a function of (seed, step, micro-batch, rank), so a resumed run draws the same numbers.

Axis letters as in `train.model.multiview`; `f` is the number of target frames, without the reference frame that stage 2
puts before the target frames. A training item is a reference view of an object and target views of the same object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dataset.format.schema import VIEWS_PER_SET, ViewSet
from dataset.reading.epoch_order import Order
from train.device import to_device
from train.model.noise_schedule import NUM_TIMESTEPS, add_noise, alpha_bar_at

Branch = Literal["single", "multi"]
ViewKey = tuple[ViewSet, int]
"""A view of an object: its view set and its index in that set."""
ViewChoice = tuple[ViewKey, list[ViewKey]]
"""The views of one training item: (reference, targets)."""

# Independent random streams of one seed
_STREAMS: Final = {
    "branch": 0,
    "views": 1,
    "noise": 2,
    "parts": 3,
    "posterior": 4,
    "turns": 5,
    "reference": 6,
    "embedding": 7,
}


@dataclass(frozen=True)
class StepKey:
    """Identifies a micro-batch of a run. All random numbers of the micro-batch are a function of this key."""

    seed: int
    step: int
    micro: int = 0
    rank: int = 0


@dataclass(frozen=True)
class ItemRequest:
    """Request to read one item of a micro-batch: a reference view and target views of one object.

    The request does not name the object, because a corrupt object is replaced by another object during reading.
    `choice` names the views to read. If `choice` is None, the views depend on the object (`draw_repeat`).
    """

    number: int  # position in the rank's order
    choice: ViewChoice | None
    seed: int
    repeat_index: int
    branch: Branch
    num_views: int

    def views(self, epoch: int, shard: int, sample: int) -> ViewChoice:
        """Return which views of an object to read.

        Args:
            epoch: Number of the epoch, from 0.
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
        """
        if self.choice is not None:
            return self.choice
        return draw_repeat(self.seed, (epoch, shard, sample), self.repeat_index, self.branch, self.num_views)


@dataclass(frozen=True)
class DiffusionNoise:
    """Random numbers of a micro-batch other than the choice of views: timesteps, noise and dropped image tokens."""

    timesteps: Tensor  # [b] int64: one per object, shared by its frames, as in MVDream
    noise: Tensor  # [b, f, c, h, w]
    dropped: Tensor  # [b] bool: image token replaced by zeros

    def pinned_for(self, device: torch.device) -> "DiffusionNoise":
        """Return a copy in page-locked memory, from which the transfer to a GPU is asynchronous.

        Returns the object itself if `device` is not a GPU.
        """
        if device.type != "cuda":
            return self
        return DiffusionNoise(self.timesteps.pin_memory(), self.noise.pin_memory(), self.dropped.pin_memory())

    def on(self, device: torch.device) -> "DiffusionNoise":
        """Return a copy with the tensors on `device`. The host does not wait for the transfer."""
        return DiffusionNoise(*(to_device(tensor, device) for tensor in (self.timesteps, self.noise, self.dropped)))


@dataclass(frozen=True)
class Inputs:
    """Inputs of the UNet for b objects of F frames each. F is f, or f + 1 if a reference frame comes first."""

    latents: Tensor  # [(b F), c, h, w]
    timesteps: Tensor  # [(b F)]
    cameras: Tensor  # [(b F), 16]
    tokens: Tensor  # [b, 1, c]
    num_frames: int  # F


def generator(key: StepKey, stream: str) -> np.random.Generator:
    """Return the random generator of a micro-batch for one purpose.

    Args:
        key: Key of the micro-batch.
        stream: The purpose, a key of `_STREAMS` such as "views" or "noise". The generators of different purposes are
            independent.
    """
    entropy = (key.seed, _STREAMS[stream], key.step, key.micro, key.rank)
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_branch(seed: int, step: int, single_view_chance: float) -> Branch:
    """Choose at random whether a step uses one target view per object ("single") or several ("multi").

    All micro-batches and ranks of the step use the same branch.

    Args:
        seed: Seed of the run.
        step: Number of the step, from 0.
        single_view_chance: Probability of "single", 0 to 1.
    """
    return "single" if generator(StepKey(seed, step), "branch").random() < single_view_chance else "multi"


def draw_reference_drop(seed: int, step: int, chance: float) -> bool:
    """Return whether a step of stage 2 leaves out the latent of the reference, at random.

    All micro-batches and ranks of the step make the same choice.

    Args:
        seed: Seed of the run.
        step: Number of the step, from 0.
        chance: Probability of leaving out the latent, 0 to 1.
    """
    return bool(generator(StepKey(seed, step), "reference").random() < chance)


def count_pairs(num_views: int) -> int:
    """Return the number of ways to combine one of the 16 random views with a group of `num_views` fixed views.

    The random view is the reference, and the evenly spaced fixed views are the targets of a training item.
    """
    return VIEWS_PER_SET * (VIEWS_PER_SET // num_views)


def draw_views(rng: np.random.Generator, branch: Branch, num_views: int) -> ViewChoice:
    """Draw the reference view and the target views of one object. The reference is one of the random views.

    Args:
        rng: Random generator to draw from.
        branch: single: the target is another random view (a pair of random perspectives, section 3.2). multi: the
            targets are `num_views` evenly spaced fixed views, and the first of them is chosen at random.
        num_views: Number of target views in the branch `multi`. With 4, the views are 90 degrees of azimuth apart.
    """
    reference = int(rng.integers(VIEWS_PER_SET))
    if branch == "single":
        target = (reference + int(rng.integers(1, VIEWS_PER_SET))) % VIEWS_PER_SET
        return ("random", reference), [("random", target)]
    spacing = VIEWS_PER_SET // num_views
    first = int(rng.integers(spacing))
    return ("random", reference), [("fixed", first + spacing * i) for i in range(num_views)]


def draw_repeat(
    seed: int, place: tuple[int, int, int], repeat_index: int, branch: Branch, num_views: int
) -> ViewChoice:
    """Draw the views for one of several uses of an object in an epoch. The views are a function of the arguments.

    Within an epoch, no two uses of an object have the same reference view and the same target views. The first 16 uses
    have 16 different reference views. All choices of target views occur about equally often.

    Args:
        seed: Seed of the run.
        place: Three integers: the epoch (from 0), the index of the shard in the set, and the index of the object in the
            shard.
        repeat_index: Number of earlier uses of the object in the same epoch.
        branch: As in `draw_views`.
        num_views: Number of target views in the branch `multi`.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAMS["turns"], *place)))
    references, distances = rng.permutation(VIEWS_PER_SET), 1 + rng.permutation(VIEWS_PER_SET - 1)
    spacing = VIEWS_PER_SET // num_views
    firsts = rng.permutation(spacing)
    reference = int(references[repeat_index % VIEWS_PER_SET])
    column = repeat_index + repeat_index // VIEWS_PER_SET
    if branch == "single":
        target = (reference + int(distances[column % len(distances)])) % VIEWS_PER_SET
        return ("random", reference), [("random", target)]
    first = int(firsts[column % spacing])
    return ("random", reference), [("fixed", first + spacing * i) for i in range(num_views)]


def sample_items(order: Order, key: StepKey, branch: Branch, items: range, num_views: int) -> list[ItemRequest]:
    """Choose the views of the items of a micro-batch. The views are a function of the arguments.

    If an epoch uses each object once, the views are drawn here. Otherwise the views depend on the object, and
    `ItemRequest.views` draws the views when the object is read.

    Args:
        order: Order in which the rank reads objects.
        key: Key of the micro-batch.
        branch: As in `draw_views`.
        items: Indices of the micro-batch's items in `order`.
        num_views: Number of target views in the branch `multi`.
    """
    rng, once = generator(key, "views"), order.items_per_object == 1
    return [
        ItemRequest(
            number,
            choice=draw_views(rng, branch, num_views) if once else None,
            seed=order.seed,
            repeat_index=0 if once else order.repeat_index(number),
            branch=branch,
            num_views=num_views,
        )
        for number in items
    ]


def draw_noise(key: StepKey, shape: Sequence[int], drop_chance: float) -> DiffusionNoise:
    """Draw timesteps, noise, and the image tokens to drop for a micro-batch.

    The numbers are drawn on the CPU, so that they are the same whatever the training device.

    Args:
        key: Key of the micro-batch.
        shape: Shape [b, f, c, h, w] of the target latents: b objects, f target frames, c channels.
        drop_chance: Probability, for each object, that the image token is replaced by zeros; 0 to 1.
    """
    seed = int(generator(key, "noise").integers(2**63))
    cpu = torch.Generator().manual_seed(seed)
    timesteps = torch.randint(NUM_TIMESTEPS, (shape[0],), generator=cpu)
    noise = torch.randn(tuple(shape), generator=cpu)
    return DiffusionNoise(timesteps, noise, dropped=torch.rand(shape[0], generator=cpu) < drop_chance)


def add_embedding_noise(tokens: Tensor, largest: float, key: StepKey) -> Tensor:
    """Return embeddings with Gaussian noise added, so that the model also accepts embeddings unlike those of renders.

    Args:
        tokens: Embeddings [b, 1, c] of b objects.
        largest: Largest standard deviation of the noise, as a multiple of the embeddings' mean standard deviation over
            the objects. The multiple is drawn for each object, uniformly from 0 to `largest`.
        key: Key of the micro-batch.
    """
    rng = generator(key, "embedding")
    levels = rng.uniform(0, largest, size=(len(tokens), 1, 1))
    noise = torch.from_numpy((levels * rng.standard_normal(tokens.shape)).astype(np.float32))
    if tokens.device.type == "cuda":
        noise = noise.pin_memory()
    return tokens + to_device(noise, tokens.device) * tokens.std(0, correction=0).mean()


def prepare_inputs(
    targets: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    cameras: Tensor,
    tokens: Tensor,
    draw: DiffusionNoise,
    *,
    alphas_cumprod: Tensor,
) -> Inputs:
    """Add noise to the target latents and, in stage 2, put the clean reference in front of them.

    Eq. 4: the timestep of the reference is 0, but no noise is added to the reference. (Timestep 0 of the noise schedule
    would add a little noise, because its alpha_bar is below 1.) With relative labels, the camera label of the reference
    is the matrix for elevation = azimuth = 0 (pi_v in Eq. 6), not a vector of zeros.

    Args:
        targets: Latents [b, f, c, h, w]: b objects, f target frames, c channels.
        reference: Latent [b, c, h, w] and camera [b, 1, 16] of the reference frame; None adds no reference frame.
        cameras: Camera labels [b, f, 16] of the targets.
        tokens: Image tokens [b, 1, d]: one token of width d for each object.
        draw: Timesteps, noise and dropped tokens.
        alphas_cumprod: alpha_bar [1000] of the noise schedule.
    """
    latents = add_noise(targets, draw.noise, alpha_bar_at(alphas_cumprod, draw.timesteps, targets.ndim))
    timesteps = draw.timesteps[:, None].expand(latents.shape[:2])
    if reference is not None:
        clean, camera = reference
        latents = torch.cat([clean[:, None], latents], dim=1)
        timesteps = functional.pad(timesteps, (1, 0), value=0)
        cameras = torch.cat([camera, cameras], dim=1)
    kept = torch.where(draw.dropped[:, None, None], torch.zeros_like(tokens), tokens)
    return Inputs(latents.flatten(0, 1), timesteps.flatten(), cameras.flatten(0, 1), kept, latents.shape[1])


def split_frames(flat: Tensor, batch: int) -> Tensor:
    """Reshape `flat` [(b f), ...] to [b, f, ...] for b = `batch` objects of f frames each."""
    return flat.reshape(batch, -1, *flat.shape[1:])


def diffusion_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error of the predicted noise of the target frames (Eq. 5 and 6), a scalar tensor.

    Args:
        prediction: Predicted noise [(b F), c, h, w] of b objects with F frames. If F = f + 1, the first frame of each
            object is the reference frame and is ignored.
        noise: True noise [b, f, c, h, w] of the f target frames of each object.
    """
    batch, targets = noise.shape[:2]
    frames = split_frames(prediction, batch)
    return functional.mse_loss(frames[:, -targets:].float(), noise)
