"""What one step trains on: which views, cameras, timesteps and noise (Eq. 3-6).

Everything random is a function of (seed, step, micro-batch, rank): a resumed run draws what the first would have drawn.

Axis letters as in `train.model`; `f` counts target frames, the reference of stage 2 comes in front of them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dataset.camera import mvdream_camera
from dataset.errors import UserError
from dataset.loader import MAX_DAMAGED_SHARE, Damage, read_or_replace
from dataset.order import Order, StreamState, same_place
from dataset.schema import VIEWS_PER_SET, ViewSet
from dataset.stream import ShardSet
from train.model import NUM_TIMESTEPS, CameraConvention, camera_labels

Branch = Literal["single", "multi"]
Wanted = tuple[ViewSet, int]
Drawn = tuple[Wanted, list[Wanted]]
T = TypeVar("T")

# Independent random streams of one seed
_STREAMS: Final = {"branch": 0, "views": 1, "noise": 2, "parts": 3, "posterior": 4, "turns": 5}
_PREFETCH: Final = 3  # micro-batches read ahead
_READERS: Final = 2  # threads


@dataclass(frozen=True)
class Position:
    """Where in training a micro-batch stands."""

    seed: int
    step: int
    micro: int = 0
    rank: int = 0


@dataclass(frozen=True)
class Views:
    """Pictures in [0, 1] on white, and labels relative to the reference."""

    reference: Tensor  # [b, 3, h, w]
    targets: Tensor  # [b, f, 3, h, w]
    cameras: Tensor  # [b, f, 16]


@dataclass(frozen=True)
class Draw:
    """The random part of a micro-batch beyond its views."""

    timesteps: Tensor  # [b] int64: one a object, shared by its frames (MVDream's choice)
    noise: Tensor  # [b, f, c, h, w]
    dropped: Tensor  # [b] bool: image token replaced by zeros


@dataclass(frozen=True)
class Inputs:
    """What the UNet sees. F = f + 1 frames an object in stage 2 (reference first), f in stage 1."""

    latents: Tensor  # [(b F), c, h, w]
    timesteps: Tensor  # [(b F)]
    cameras: Tensor  # [(b F), 16]
    tokens: Tensor  # [b, 1, c]
    num_frames: int  # F


def generator(position: Position, stream: str) -> np.random.Generator:
    """A random stream that belongs to this position alone."""
    entropy = (position.seed, _STREAMS[stream], position.step, position.micro, position.rank)
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_branch(seed: int, step: int, single_view_chance: float) -> Branch:
    """Single- or multi-view branch of a step: the same for all its micro-batches and ranks."""
    return "single" if generator(Position(seed, step), "branch").random() < single_view_chance else "multi"


def draw_views(rng: np.random.Generator, branch: Branch, num_views: int) -> Drawn:
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


def draw_turn(seed: int, place: tuple[int, int, int], turn: int, branch: Branch, num_views: int) -> Drawn:
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


def load_views(
    shards: ShardSet,
    order: Order,
    position: Position,
    branch: Branch,
    *,
    objects: int,
    num_views: int,
    first_item: int,
    convention: CameraConvention,
    damage: Damage | None = None,
) -> Views:
    """Read a micro-batch: `objects` items of this rank's order from `first_item` on."""

    def read(shard: int, sample: int, drawn: Drawn) -> tuple[Tensor, Tensor]:
        reference, targets = drawn
        labels = _labels(shards, shard, sample, reference, targets, convention=convention)
        return to_tensor(shards.views(shard, sample, [reference, *targets])), labels

    items = range(first_item, first_item + objects)
    loaded = read_items(order, position, branch, items, num_views=num_views, uid=shards.uid, read=read, damage=damage)
    pictures = torch.stack([pictures for pictures, _ in loaded])
    return Views(pictures[:, 0], pictures[:, 1:], torch.stack([labels for _, labels in loaded]))


def read_items(
    order: Order,
    position: Position,
    branch: Branch,
    items: range,
    *,
    num_views: int,
    uid: Callable[[int, int], str],
    read: Callable[[int, int, Drawn], T],
    damage: Damage | None,
) -> list[T]:
    """`read(shard, sample, views drawn)` of a micro-batch's items.

    Where the order has one item an object, views are drawn by the position, else by the item (`draw_turn`). With
    `damage`, a damaged object is replaced (`dataset.loader`); the batch's other items are what they would be anyhow.
    """
    rng = generator(position, "views")
    results = []
    for i in items:
        drawn = draw_views(rng, branch, num_views) if order.items_per_object == 1 else None

        def read_one(epoch: int, shard: int, sample: int, i: int = i, drawn: Drawn | None = drawn) -> T:
            place = (epoch, shard, sample)
            return read(shard, sample, drawn or draw_turn(order.seed, place, order.turn(i), branch, num_views))

        results.append(read_or_replace(order, i, damage, uid, read_one))
    return results


def to_tensor(rgba: NDArray[np.uint8]) -> Tensor:
    """RGBA views uint8 [f, h, w, 4] -> pictures on white [f, 3, h, w] in [0, 1].

    To the last bit what `composite_white` gives; a plane at a time it takes a tenth of the time.
    """
    planes = np.ascontiguousarray(rgba.transpose(0, 3, 1, 2))
    alpha, colours = (part.astype(np.float32) / 255 for part in (planes[:, 3:], planes[:, :3]))
    colours *= alpha
    colours += 1 - alpha
    return torch.from_numpy(colours)


def _labels(
    shards: ShardSet,
    shard: int,
    sample: int,
    reference: Wanted,
    targets: list[Wanted],
    *,
    convention: CameraConvention,
) -> Tensor:
    angles_deg = shards.angles_deg(shard, sample, [reference, *targets])
    ref_elevation_deg, ref_azimuth_deg = angles_deg[0].tolist()
    return camera_labels(convention, angles_deg[1:, 0], angles_deg[1:, 1], ref_elevation_deg, ref_azimuth_deg)


def draw_noise(position: Position, latents: Tensor, drop_chance: float) -> Draw:
    """Timesteps, noise and dropped tokens for target latents [b, f, c, h, w].

    Drawn on the CPU, so that a run draws the same numbers on any device.
    """
    seed = int(generator(position, "noise").integers(2**63))
    cpu = torch.Generator().manual_seed(seed)
    batch = latents.shape[0]
    timesteps = torch.randint(NUM_TIMESTEPS, (batch,), generator=cpu)
    noise = torch.randn(latents.shape, generator=cpu)
    dropped = torch.rand(batch, generator=cpu) < drop_chance
    device = latents.device
    return Draw(to_device(timesteps, device), to_device(noise, device), to_device(dropped, device))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the GPU: from page-locked memory, behind the work it has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Eq. 3: sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps. `timesteps` [b] for latents [b, ...]."""
    alpha = alphas_cumprod[timesteps].view(-1, *[1] * (latents.ndim - 1))
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def prepare_inputs(
    targets: Tensor,
    reference: Tensor | None,
    cameras: Tensor,
    tokens: Tensor,
    draw: Draw,
    *,
    alphas_cumprod: Tensor,
) -> Inputs:
    """Noised target latents [b, f, c, h, w] with, in stage 2, the clean reference latent [b, c, h, w] in front.

    Eq. 4: the reference bypasses the noise schedule (whose first alpha_bar is not 1), its timestep is 0, and its camera
    is that of elevation = azimuth = 0 (Eq. 6's pi_v), which is a matrix, not zeros. `cameras` [b, f, 16].
    """
    latents = add_noise(targets, draw.noise, draw.timesteps, alphas_cumprod)
    timesteps = draw.timesteps[:, None].expand(latents.shape[:2])
    if reference is not None:
        front = to_device(torch.from_numpy(mvdream_camera(0.0, 0.0)).to(cameras.dtype), cameras.device)
        latents = torch.cat([reference[:, None], latents], dim=1)
        timesteps = functional.pad(timesteps, (1, 0), value=0)
        cameras = torch.cat([front.expand(len(cameras), 1, -1), cameras], dim=1)
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


@dataclass(frozen=True)
class Feed:
    """All micro-batches of a rank, in order, read ahead by threads (WebP decoding leaves Python's lock alone).

    Which batch has which number is a function of these fields; `readers` and `damage` change nothing of it. Raises
    UserError when the set cannot feed all ranks, or when its damaged objects are more than the share allowed.
    """

    shards: ShardSet
    seed: int
    objects: int  # a micro-batch; with several items an object, items
    accumulation: int
    num_views: int
    single_view_chance: float
    convention: CameraConvention
    rank: int = 0
    world: int = 1
    items_per_object: int = 1  # an epoch: each with another reference
    max_damaged_share: float = MAX_DAMAGED_SHARE
    readers: int = _READERS
    first_step: int = 0  # `first_item` is where this step begins; see `resumed`
    first_item: int = 0
    damage: Damage = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        pairs = VIEWS_PER_SET * (VIEWS_PER_SET // self.num_views)
        if not 1 <= self.items_per_object <= pairs:
            raise UserError(
                f"{self.items_per_object} items an object: there are 1 to {pairs} pairs of a reference and "
                f"{self.num_views} targets"
            )
        object.__setattr__(self, "damage", Damage(len(self.shards), self.max_damaged_share))
        _ = self.order.per_epoch  # what cannot feed all ranks is refused now

    @property
    def order(self) -> Order:
        """This rank's items."""
        per_shard = self.shards.samples_per_shard
        return Order(per_shard, self.seed, self.rank, self.world, items_per_object=self.items_per_object)

    def item(self, number: int) -> int:
        """This rank's first item of micro-batch `number` since training began."""
        return self.first_item + (number - self.first_step * self.accumulation) * self.objects

    def state(self, step: int) -> StreamState:
        """For the checkpoint before step `step`; the same for all ranks."""
        return StreamState(step, self.item(step * self.accumulation), self.world, self.items_per_object)

    def resumed(self, state: StreamState) -> tuple["Feed", str]:
        """(the feed that goes on there, what to tell the person): on another number of ranks, at the same place."""
        before = replace(self.order, rank=0, world=state.world, items_per_object=state.items_per_object)
        first_item, told = same_place(state.item, before, self.order)
        return replace(self, first_step=state.step, first_item=first_item), told

    def load(self, number: int) -> Views:
        """Micro-batch `number` since training began: a pure function of it."""
        step, micro = divmod(number, self.accumulation)
        return load_views(
            self.shards,
            self.order,
            Position(self.seed, step, micro, self.rank),
            draw_branch(self.seed, step, self.single_view_chance),
            objects=self.objects,
            num_views=self.num_views,
            first_item=self.item(number),
            convention=self.convention,
            damage=self.damage,
        )

    def picture(self, objects: int) -> Views:
        """The first objects of the order with the multi-view branch's views: what the pictures of a run show."""
        order = Order(self.shards.samples_per_shard, self.seed)
        return load_views(
            self.shards,
            order,
            Position(self.seed, 0),
            "multi",
            objects=min(objects, len(self.shards)),
            num_views=self.num_views,
            first_item=0,
            convention=self.convention,
            damage=self.damage,
        )

    def micro_batches(self, first_step: int, last_step: int) -> Iterator[Views]:
        """Micro-batches of steps first_step ... last_step - 1. Reading ahead does not change the order."""
        numbers = iter(range(first_step * self.accumulation, last_step * self.accumulation))
        with ThreadPoolExecutor(self.readers, thread_name_prefix="feed") as readers:
            waiting: deque[Future[Views]] = deque()
            for number in numbers:
                waiting.append(readers.submit(self.load, number))
                if len(waiting) > max(_PREFETCH, self.readers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def load_random_views(shards: ShardSet, seed: int, step: int, *, objects: int, views: int) -> tuple[Tensor, Tensor]:
    """For the parts' training: `views` different pictures of each of `objects` objects, from both sets.

    Returns pictures on white [objects, views, 3, h, w] in [0, 1] and object numbers [objects] (equal: same object).
    """
    rng = generator(Position(seed, step), "parts")
    order = Order(shards.samples_per_shard, seed)
    places = [order.item(i)[1:] for i in range(step * objects, (step + 1) * objects)]
    pictures = []
    for shard, sample in places:
        indices = rng.choice(2 * VIEWS_PER_SET, size=views, replace=False)
        wanted: list[Wanted] = [
            ("fixed" if index < VIEWS_PER_SET else "random", int(index) % VIEWS_PER_SET) for index in indices
        ]
        pictures.append(to_tensor(shards.views(shard, sample, wanted)))
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    return torch.stack(pictures), torch.tensor([numbers[place] for place in places])
