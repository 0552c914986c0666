"""The micro-batches of a rank, read ahead in an exact order, from a set of pictures or of latents.

Which views of which object come when: `dataset.reading.epoch_order` and `train.data.sampling`. Axis letters as in
`train.data.sampling`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from dataset.format.latents import encode_on
from dataset.format.schema import VIEWS_PER_SET
from dataset.format.shards import SET_NAME
from dataset.io.files import exists, url_to_fs
from dataset.io.read_ahead import map_ahead
from dataset.reading.damage import Damage, read_or_replace
from dataset.reading.epoch_order import Order, StreamState, same_place
from dataset.reading.filters import Filters, select
from dataset.reading.latent_set import LatentSet, open_views
from dataset.reading.shard_set import ShardSet
from train.data.latent_cache import LatentCache
from train.data.latents import TrainingBatch, read_latents, stack_latents
from train.data.sampling import (
    Branch,
    ImageBatch,
    StepKey,
    ViewChoice,
    ViewKey,
    count_pairs,
    draw_branch,
    generator,
    read_items,
)
from train.model.multiview import CameraConvention, camera_labels

_PREFETCH: Final = 3  # micro-batches read ahead
_PART_READERS: Final = 8  # threads that read for a part's training: at first they decode all of it
_KEPT_BYTES: Final = 3 << 30  # of decoded views: all of 6,000 objects at 64 pixels
READERS: Final = 2  # threads

TrainingSet = ShardSet | LatentSet
T = TypeVar("T")


def open_training_set(url: str, filters: Filters, world: int = 1) -> TrainingSet:
    """The set at `url`, of either kind, without the objects that the filters leave out; what was found is printed.

    Raises UserError when it is missing, unfinished, or too small for `world` ranks.
    """
    found: TrainingSet = open_views(url)
    if isinstance(found, LatentSet):
        print(
            f"{url}: a latent set (it holds latents.json): VAE and image encoder are not run; "
            "reference and truth in samples/ are what the VAE makes of the latents"
        )
    if filters != Filters():
        fs, root = url_to_fs(url)
        if isinstance(found, LatentSet) and not exists(fs, f"{root}/{SET_NAME}"):
            raise UserError(
                f"{url}: no manifest and outcome tables to filter by; {encode_on(url)}, which copies them from the "
                "pictures"
            )
        selection = select(url, filters)
        print(selection)
        found = found.narrowed(selection.kept)
    check_feeds(found, world)
    return found


def check_feeds(shards: TrainingSet, world: int) -> None:
    """Raise UserError when the set has no objects, or fewer than ranks."""
    _ = Order(shards.samples_per_shard, 0, 0, world).per_epoch


def require_images(shards: TrainingSet, what: str) -> ShardSet:
    """The set, where it holds pictures. Raises UserError, naming `what` needs them, where it holds latents."""
    if isinstance(shards, LatentSet):
        raise UserError(
            f"{what} cannot be trained from {shards.url}, which holds latents: give the pictures with --shards, or "
            "with --init-from the model that encoded the latents"
        )
    return shards


@dataclass(frozen=True)
class Feed:
    """All micro-batches of a rank, in order, read ahead by threads (WebP decoding leaves Python's lock alone).

    Which batch has which number is a function of these fields; `readers`, `damage` and `kept` (`shards` in memory)
    change nothing of it. Raises UserError when the set cannot feed all ranks, or when its damaged objects are more than
    `damage` allows (without it, at the first one).
    """

    shards: TrainingSet
    seed: int
    objects: int  # a micro-batch; with several items an object, items
    accumulation: int
    num_views: int
    single_view_chance: float
    convention: CameraConvention
    rank: int = 0
    world: int = 1
    items_per_object: int = 1  # an epoch: each with another reference
    readers: int = READERS
    first_step: int = 0  # `first_item` is where this step begins; see `resumed`
    first_item: int = 0
    damage: Damage | None = field(default=None, compare=False, repr=False)
    kept: LatentCache | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.items_per_object <= (pairs := count_pairs(self.num_views)):
            raise UserError(
                f"{self.items_per_object} items an object: there are 1 to {pairs} pairs of a reference and "
                f"{self.num_views} targets"
            )
        check_feeds(self.shards, self.world)  # what cannot feed all ranks is refused now

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
        """The feed that resumes at the same place on another number of ranks, and the message for the user."""
        before = replace(self.order, rank=0, world=state.world, items_per_object=state.items_per_object)
        first_item, told = same_place(state.item, before, self.order)
        return replace(self, first_step=state.step, first_item=first_item), told

    def beside(self, shards: TrainingSet) -> "Feed":
        """The feed of other objects of the same set, for one rank; damaged ones count together with those of this."""
        return replace(self, shards=shards, rank=0, world=1, kept=None)

    def load(self, number: int) -> TrainingBatch:
        """Micro-batch `number` since training began: a pure function of it."""
        step_key = self.step_key(number)
        branch = draw_branch(self.seed, step_key.step, self.single_view_chance)
        return self._read(self.order, step_key, branch, self.objects, self.item(number))

    def step_key(self, number: int) -> StepKey:
        """Where micro-batch `number` stands."""
        step, micro = divmod(number, self.accumulation)
        return StepKey(self.seed, step, micro, self.rank)

    def fixed(self, first: int, objects: int, micro: int = 0) -> TrainingBatch:
        """`objects` objects from the `first` on, with views of the multi-view branch: the same at all times and ranks.

        `micro` tells apart the random numbers of several such batches.
        """
        order = Order(self.shards.samples_per_shard, self.seed)
        return self._read(order, StepKey(self.seed, 0, micro), "multi", objects, first)

    def _read(self, order: Order, step_key: StepKey, branch: Branch, objects: int, first_item: int) -> TrainingBatch:
        def taken(read: Callable[[int, int, ViewChoice], T]) -> list[T]:
            return read_items(
                order,
                step_key,
                branch,
                range(first_item, first_item + objects),
                num_views=self.num_views,
                uid=self.shards.uid,
                read=read,
                damage=self.damage,
            )

        if self.kept is not None:
            return self.kept.stack(taken(self.kept.read), self.convention)
        if isinstance(self.shards, LatentSet):
            return stack_latents(taken(partial(read_latents, self.shards)), self.convention)
        return stack_views(taken(partial(read_views, self.shards, self.convention)))

    def micro_batches(self, first_step: int, last_step: int) -> Iterator[TrainingBatch]:
        """Micro-batches of steps first_step ... last_step - 1. Reading ahead does not change the order."""
        return self.ahead(self.load, first_step, last_step)

    def ahead(self, load: Callable[[int], T], first_step: int, last_step: int) -> Iterator[T]:
        """What `load` makes of the numbers of these steps' micro-batches, in order, made ahead by threads."""
        numbers = iter(range(first_step * self.accumulation, last_step * self.accumulation))
        with ThreadPoolExecutor(self.readers, thread_name_prefix="feed") as readers:
            yield from map_ahead(readers, load, numbers, max(_PREFETCH, self.readers))


def read_views(
    shards: ShardSet, convention: CameraConvention, shard: int, sample: int, choice: ViewChoice
) -> tuple[Tensor, Tensor]:
    """One item: pictures [1 + f, 3, h, w] and labels [1 + f, 16], the reference first."""
    reference, targets = choice
    angles_deg = shards.angles_deg(shard, sample, [reference, *targets])
    labels = camera_labels(convention, angles_deg[:, 0], angles_deg[:, 1], *angles_deg[0].tolist())
    return to_tensor(shards.views(shard, sample, [reference, *targets])), labels


def stack_views(items: Sequence[tuple[Tensor, Tensor]]) -> ImageBatch:
    """A micro-batch of items, as `read_views` gives them."""
    pictures, labels = (torch.stack(parts) for parts in zip(*items, strict=True))
    return ImageBatch(pictures[:, 0], pictures[:, 1:], labels[:, 1:], labels[:, :1])


def to_tensor(rgba: NDArray[np.uint8]) -> Tensor:
    """RGBA views uint8 [f, h, w, 4] -> pictures on white [f, 3, h, w] in [0, 1].

    To the last bit what `composite_white` gives; a plane at a time it takes a tenth of the time. For threads that read:
    NumPy stays in its thread, where torch would share all cores between all of them.
    """
    planes = np.ascontiguousarray(rgba.transpose(0, 3, 1, 2))
    alpha, colours = (part.astype(np.float32) / 255 for part in (planes[:, 3:], planes[:, :3]))
    colours *= alpha
    colours += 1 - alpha
    return torch.from_numpy(colours)


def on_white(rgba: Tensor) -> Tensor:
    """`to_tensor` of tensors [..., h, w, 4] where they are, a GPU perhaps; the same to the last bit."""
    planes = rgba.movedim(-1, -3).contiguous()
    alpha, colours = (part.float() / 255 for part in (planes[..., 3:, :, :], planes[..., :3, :, :]))
    return colours.mul_(alpha).add_(1 - alpha)


class ComponentViews(NamedTuple):
    """RGBA views uint8 [objects, views, h, w, 4], elevation and azimuth [objects, views, 2] in degrees, and object
    numbers [objects] (equal: same object).
    """

    rgba: Tensor
    angles_deg: Tensor
    objects: Tensor

    def to(self, device: torch.device) -> "ComponentViews":
        """The same views on `device`."""
        return ComponentViews(*(part.to(device) for part in self))

    @property
    def pictures(self) -> Tensor:
        """On white, [objects, views, 3, h, w] in [0, 1]; composited where the views are."""
        return on_white(self.rgba)


class ViewCache:
    """Decoded views, kept in memory as far as there is room: a part's training sees them again and again."""

    def __init__(self, shards: ShardSet, room: int = _KEPT_BYTES) -> None:
        self.shards, self.room = shards, room
        self._kept: dict[tuple[int, int, ViewKey], NDArray[np.uint8]] = {}

    def views(self, shard: int, sample: int, wanted: Sequence[ViewKey]) -> NDArray[np.uint8]:
        """As `ShardSet.views`."""
        missing = [view for view in wanted if (shard, sample, view) not in self._kept]
        if not missing:
            return np.stack([self._kept[shard, sample, view] for view in wanted])
        read = dict(zip(missing, self.shards.views(shard, sample, missing), strict=True))
        if self.room > 0:  # threads may overdraw by what each of them reads
            self._kept.update({(shard, sample, view): picture for view, picture in read.items()})
            self.room -= sum(picture.nbytes for picture in read.values())
        return np.stack([read[view] if view in read else self._kept[shard, sample, view] for view in wanted])


def load_random_views(
    shards: ShardSet,
    seed: int,
    step: int,
    *,
    objects: int,
    views: int,
    damage: Damage | None = None,
    kept: ViewCache | None = None,
) -> ComponentViews:
    """For the parts' training: `views` different pictures of each of `objects` objects, from both sets."""
    rng, order = generator(StepKey(seed, step), "parts"), Order(shards.samples_per_shard, seed)
    read_views = (kept or shards).views
    pictures, angles_deg, places = [], [], []
    for i in range(step * objects, (step + 1) * objects):
        indices = rng.choice(2 * VIEWS_PER_SET, size=views, replace=False)
        wanted: list[ViewKey] = [
            ("fixed" if index < VIEWS_PER_SET else "random", int(index) % VIEWS_PER_SET) for index in indices
        ]

        def read(
            _: int, shard: int, sample: int, wanted: list[ViewKey] = wanted
        ) -> tuple[NDArray[np.uint8], NDArray[np.float64], tuple[int, int]]:
            return read_views(shard, sample, wanted), shards.angles_deg(shard, sample, wanted), (shard, sample)

        picture, angles, place = read_or_replace(order, i, damage, shards.uid, read)
        pictures.append(picture)
        angles_deg.append(angles)
        places.append(place)
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    return ComponentViews(
        torch.from_numpy(np.stack(pictures)),
        torch.from_numpy(np.stack(angles_deg)),
        torch.tensor([numbers[place] for place in places]),
    )


def read_random_views(
    shards: ShardSet, seed: int, steps: int, *, objects: int, views: int, damage: Damage | None = None
) -> Iterator[ComponentViews]:
    """What `load_random_views` returns, for steps 0, 1, ...; read ahead by threads, decoded once."""
    load = partial(load_random_views, shards, seed, objects=objects, views=views, damage=damage, kept=ViewCache(shards))
    with ThreadPoolExecutor(_PART_READERS, thread_name_prefix="views") as pool:
        yield from map_ahead(pool, load, range(steps), _PART_READERS + _PREFETCH)
