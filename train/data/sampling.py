"""Choose the random inputs of a training step: views, timesteps and noise (Eq. 3-6).

All random numbers are a function of (seed, step, micro-batch, rank), so a resumed run draws the same ones.

Axis letters as in `train.model.multiview`; `f` is the number of target frames. Stage 2 puts the reference frame before
them.
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
_STREAMS: Final = {"branch": 0, "views": 1, "noise": 2, "parts": 3, "posterior": 4, "turns": 5}


@dataclass(frozen=True)
class StepKey:
    """Identifies a micro-batch of a run. All of its random numbers are a function of this key."""

    seed: int
    step: int
    micro: int = 0
    rank: int = 0


@dataclass(frozen=True)
class ItemRequest:
    """One item of a micro-batch (a reference and its targets), before it is known which object is read.

    `choice` names the views to read. If `choice` is None, `draw_repeat` chooses the views from the object that is read,
    which is another one if the first one is corrupt.
    """

    number: int  # position in the rank's order
    choice: ViewChoice | None
    seed: int
    repeat_index: int
    branch: Branch
    num_views: int

    def views(self, epoch: int, shard: int, sample: int) -> ViewChoice:
        """Return the views to read of the object at index `sample` of shard `shard`."""
        if self.choice is not None:
            return self.choice
        return draw_repeat(self.seed, (epoch, shard, sample), self.repeat_index, self.branch, self.num_views)


@dataclass(frozen=True)
class DiffusionNoise:
    """Random numbers of a micro-batch, apart from the choice of its views."""

    timesteps: Tensor  # [b] int64: one per object, shared by its frames, as in MVDream
    noise: Tensor  # [b, f, c, h, w]
    dropped: Tensor  # [b] bool: image token replaced by zeros

    def pinned_for(self, device: torch.device) -> "DiffusionNoise":
        """Return a copy in page-locked memory if `device` is a GPU, so that the transfer to it is asynchronous."""
        if device.type != "cuda":
            return self
        return DiffusionNoise(self.timesteps.pin_memory(), self.noise.pin_memory(), self.dropped.pin_memory())

    def on(self, device: torch.device) -> "DiffusionNoise":
        """Return a copy on `device`. The host does not wait for the transfer."""
        return DiffusionNoise(*(to_device(tensor, device) for tensor in (self.timesteps, self.noise, self.dropped)))


@dataclass(frozen=True)
class Inputs:
    """Inputs of the UNet. F is the number of frames per object: f in stage 1, f + 1 in stage 2 (reference first)."""

    latents: Tensor  # [(b F), c, h, w]
    timesteps: Tensor  # [(b F)]
    cameras: Tensor  # [(b F), 16]
    tokens: Tensor  # [b, 1, c]
    num_frames: int  # F


def generator(key: StepKey, stream: str) -> np.random.Generator:
    """Return the random generator of a micro-batch for one purpose, such as "views" or "noise" (`_STREAMS`)."""
    entropy = (key.seed, _STREAMS[stream], key.step, key.micro, key.rank)
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_branch(seed: int, step: int, single_view_chance: float) -> Branch:
    """Choose the single- or multi-view branch of a step, the same for all its micro-batches and ranks."""
    return "single" if generator(StepKey(seed, step), "branch").random() < single_view_chance else "multi"


def count_pairs(num_views: int) -> int:
    """Return the number of ways to combine a reference view with a group of `num_views` target views."""
    return VIEWS_PER_SET * (VIEWS_PER_SET // num_views)


def draw_views(rng: np.random.Generator, branch: Branch, num_views: int) -> ViewChoice:
    """Draw the reference and the targets of one object. The reference comes from the random set.

    In the branch `single`, the target is another view of the random set (a pair of random perspectives, section 3.2).
    In the branch `multi`, the targets are `num_views` evenly spaced views of the fixed set, starting at a random one.
    Four such views are orthogonal.
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
    """Draw the views for one of several uses of an object in an epoch. The result is a function of the arguments.

    All repeats of an object have different pairs of reference and targets, and each group of targets is used equally
    often. The first 16 repeats also have different references.

    Args:
        seed: Seed of the run.
        place: Epoch, shard index and sample index of the object.
        repeat_index: Number of earlier items of the same object in the epoch.
        branch: As in `draw_views`.
        num_views: Targets of the multi-view branch.
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
    """Choose the views of the items of a micro-batch. The result is a function of the arguments.

    If an epoch uses each object once, the views are drawn from the random stream of `key`. Otherwise `draw_repeat`
    draws them as soon as the object is known.
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
    """Draw timesteps, noise, and the tokens to drop, for target latents of shape [b, f, c, h, w].

    All are drawn on the CPU, so that they are the same on any device.
    """
    seed = int(generator(key, "noise").integers(2**63))
    cpu = torch.Generator().manual_seed(seed)
    timesteps = torch.randint(NUM_TIMESTEPS, (shape[0],), generator=cpu)
    noise = torch.randn(tuple(shape), generator=cpu)
    return DiffusionNoise(timesteps, noise, dropped=torch.rand(shape[0], generator=cpu) < drop_chance)


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

    Eq. 4: the reference bypasses the noise schedule (whose first alpha_bar is not 1), and its timestep is 0. With
    relative labels, its camera label is the matrix for elevation = azimuth = 0 (pi_v in Eq. 6), not a vector of zeros.

    Args:
        targets: Latents [b, f, c, h, w].
        reference: Latent [b, c, h, w] and camera [b, 1, 16] of the reference frame; None adds no reference frame.
        cameras: Camera labels [b, f, 16] of the targets.
        tokens: Image tokens [b, 1, c].
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
    """Reshape [(b f), ...] to [b, f, ...]."""
    return flat.reshape(batch, -1, *flat.shape[1:])


def diffusion_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error of the predicted noise of the targets (Eq. 5 and 6), a scalar.

    Args:
        prediction: Predicted noise [(b F), c, h, w]. If F = f + 1, the reference frame in front is ignored.
        noise: True noise [b, f, c, h, w] of the targets.
    """
    batch, targets = noise.shape[:2]
    frames = split_frames(prediction, batch)
    return functional.mse_loss(frames[:, -targets:].float(), noise)
