"""What one step trains on: which views, cameras, timesteps and noise (Eq. 3-6).

Everything random is a function of (seed, step, micro-batch, rank): a resumed run draws what the first would have drawn.

Axis letters as in `train.model.multiview`; `f` counts target frames, the reference of stage 2 comes in front of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dataset.format.schema import VIEWS_PER_SET, ViewSet
from dataset.reading.damage import Damage, read_or_replace
from dataset.reading.epoch_order import Order
from train.device import to_device
from train.model.noise_schedule import NUM_TIMESTEPS, add_noise, alpha_bar_at

Branch = Literal["single", "multi"]
ViewKey = tuple[ViewSet, int]
ViewChoice = tuple[ViewKey, list[ViewKey]]
T = TypeVar("T")

# Independent random streams of one seed
_STREAMS: Final = {"branch": 0, "views": 1, "noise": 2, "parts": 3, "posterior": 4, "turns": 5}


@dataclass(frozen=True)
class StepKey:
    """Where in training a micro-batch stands."""

    seed: int
    step: int
    micro: int = 0
    rank: int = 0


@dataclass(frozen=True)
class ImageBatch:
    """Pictures in [0, 1] on white, and camera labels."""

    reference: Tensor  # [b, 3, h, w]
    targets: Tensor  # [b, f, 3, h, w]
    cameras: Tensor  # [b, f, 16]: the targets'
    reference_camera: Tensor  # [b, 1, 16]


@dataclass(frozen=True)
class DiffusionNoise:
    """The random part of a micro-batch beyond its views."""

    timesteps: Tensor  # [b] int64: one a object, shared by its frames (MVDream's choice)
    noise: Tensor  # [b, f, c, h, w]
    dropped: Tensor  # [b] bool: image token replaced by zeros

    def ready_for(self, device: torch.device) -> "DiffusionNoise":
        """Page-locked where they will go to a GPU, so that the copy takes no time of the host's."""
        if device.type != "cuda":
            return self
        return DiffusionNoise(self.timesteps.pin_memory(), self.noise.pin_memory(), self.dropped.pin_memory())

    def on(self, device: torch.device) -> "DiffusionNoise":
        """The same numbers on a device; the host does not wait."""
        return DiffusionNoise(*(to_device(part, device) for part in (self.timesteps, self.noise, self.dropped)))


@dataclass(frozen=True)
class Inputs:
    """What the UNet sees. F = f + 1 frames an object in stage 2 (reference first), f in stage 1."""

    latents: Tensor  # [(b F), c, h, w]
    timesteps: Tensor  # [(b F)]
    cameras: Tensor  # [(b F), 16]
    tokens: Tensor  # [b, 1, c]
    num_frames: int  # F


def generator(step_key: StepKey, stream: str) -> np.random.Generator:
    """A random stream that belongs to this step_key alone."""
    entropy = (step_key.seed, _STREAMS[stream], step_key.step, step_key.micro, step_key.rank)
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_branch(seed: int, step: int, single_view_chance: float) -> Branch:
    """Single- or multi-view branch of a step: the same for all its micro-batches and ranks."""
    return "single" if generator(StepKey(seed, step), "branch").random() < single_view_chance else "multi"


def count_pairs(num_views: int) -> int:
    """Pairs of a reference and a group of `num_views` targets that an object has: its items at most, in an epoch."""
    return VIEWS_PER_SET * (VIEWS_PER_SET // num_views)


def draw_views(rng: np.random.Generator, branch: Branch, num_views: int) -> ViewChoice:
    """(reference, targets) of one object. The reference comes from the random set.

    single: any other view of the random set (a pair of random perspectives, 3.2). multi: `num_views` views of the fixed
    set, evenly spaced (four: orthogonal), from a random first one.
    """
    reference = int(rng.integers(VIEWS_PER_SET))
    if branch == "single":
        target = (reference + int(rng.integers(1, VIEWS_PER_SET))) % VIEWS_PER_SET
        return ("random", reference), [("random", target)]
    spacing = VIEWS_PER_SET // num_views
    first = int(rng.integers(spacing))
    return ("random", reference), [("fixed", first + spacing * i) for i in range(num_views)]


def draw_repeat(seed: int, place: tuple[int, int, int], turn: int, branch: Branch, num_views: int) -> ViewChoice:
    """(reference, targets) as `draw_views` has them, of one of several items of an object in an epoch.

    A function of seed, place (epoch, shard, sample) and turn. The pairs of reference and targets of an object's items
    differ, its first 16 items' references too, and the groups of targets come equally often.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAMS["turns"], *place)))
    references, distances = rng.permutation(VIEWS_PER_SET), 1 + rng.permutation(VIEWS_PER_SET - 1)
    spacing = VIEWS_PER_SET // num_views
    firsts = rng.permutation(spacing)
    reference, column = int(references[turn % VIEWS_PER_SET]), turn + turn // VIEWS_PER_SET
    if branch == "single":
        target = (reference + int(distances[column % len(distances)])) % VIEWS_PER_SET
        return ("random", reference), [("random", target)]
    first = int(firsts[column % spacing])
    return ("random", reference), [("fixed", first + spacing * i) for i in range(num_views)]


def read_items(
    order: Order,
    step_key: StepKey,
    branch: Branch,
    items: range,
    *,
    num_views: int,
    uid: Callable[[int, int], str],
    read: Callable[[int, int, ViewChoice], T],
    damage: Damage | None,
) -> list[T]:
    """`read(shard, sample, views drawn)` of a micro-batch's items.

    Where the order has one item an object, views are drawn by the step_key, else by the item (`draw_repeat`). With
    `damage`, a damaged object is replaced (`dataset.reading.damage`); the batch's other items are what they would be
    anyhow.
    """
    rng = generator(step_key, "views")
    results = []
    for i in items:
        drawn = draw_views(rng, branch, num_views) if order.items_per_object == 1 else None

        def read_one(epoch: int, shard: int, sample: int, i: int = i, choice: ViewChoice | None = drawn) -> T:
            place = (epoch, shard, sample)
            return read(
                shard, sample, drawn or draw_repeat(order.seed, place, order.repeat_index(i), branch, num_views)
            )

        results.append(read_or_replace(order, i, damage, uid, read_one))
    return results


def draw_noise(step_key: StepKey, shape: Sequence[int], drop_chance: float) -> DiffusionNoise:
    """Timesteps, noise and dropped tokens for target latents of a shape [b, f, c, h, w].

    On the CPU, so that a run draws the same numbers on any device.
    """
    seed = int(generator(step_key, "noise").integers(2**63))
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
    """Noised target latents [b, f, c, h, w] with, in stage 2, the clean reference in front.

    Eq. 4: the reference bypasses the noise schedule (whose first alpha_bar is not 1), its timestep is 0, and its
    camera, for relative labels, that of elevation = azimuth = 0 (Eq. 6's pi_v), which is a matrix, not zeros.
    `reference`: latent [b, c, h, w] and camera [b, 1, 16]. `cameras` [b, f, 16] are the targets'.
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
    """[(b f), ...] -> [b, f, ...]."""
    return flat.reshape(batch, -1, *flat.shape[1:])


def diffusion_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Eq. 5 and 6, averaged over numbers: squared error of the targets' noise; a reference frame in front is left out.

    `prediction` [(b F), c, h, w], `noise` [b, f, c, h, w] with f <= F.
    """
    batch, targets = noise.shape[:2]
    frames = split_frames(prediction, batch)
    return functional.mse_loss(frames[:, -targets:].float(), noise)
