"""Load the micro-batches of one rank in a reproducible order, read ahead by threads.

`dataset.reading.epoch_order` determines the order of the objects, `train.data.sampling` chooses their views, and an
`ItemSource` reads and collates them (`train.data.images`, `latents` or `latent_cache`). Axis letters as in
`train.data.sampling`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Generic, Protocol, TypeVar

from dataset.errors import UserError
from dataset.io.read_ahead import map_ahead
from dataset.reading.damage import Damage, read_or_replace
from dataset.reading.epoch_order import Order, StreamState, resume_item
from dataset.reading.latent_set import LatentSet
from train.data.images import ImageSource
from train.data.latent_cache import LatentCache
from train.data.latents import LatentSource, TrainingBatch
from train.data.sampling import (
    Branch,
    ItemRequest,
    StepKey,
    ViewChoice,
    count_pairs,
    draw_branch,
    sample_items,
)
from train.data.training_set import TrainingSet, require_enough_objects
from train.model.multiview import CameraConvention

_PREFETCH: Final = 3  # micro-batches read ahead
READERS: Final = 2  # threads

T = TypeVar("T")


class ItemSource(Protocol[T]):
    """Reads the views of one item, and stacks items into a micro-batch."""

    def read(self, shard: int, sample: int, choice: ViewChoice, /) -> T:
        """Read the views `choice` of an object. Raises DamagedMember when one of these views is corrupt."""
        ...

    def collate(self, items: Sequence[T], /) -> TrainingBatch:
        """Stack items in the given order."""
        ...


@dataclass(frozen=True)
class ReplaceCorrupt(Generic[T]):
    """Reads items from a source and, if `damage` is given, replaces corrupt objects by others.

    A replacement does not change the other items of the batch.
    """

    source: ItemSource[T]
    shards: TrainingSet
    order: Order
    damage: Damage | None

    def read(self, request: ItemRequest) -> T:
        """Read one item. Raises DamagedMember or UserError as `read_or_replace` does."""

        def read_at(epoch: int, shard: int, sample: int) -> T:
            return self.source.read(shard, sample, request.views(epoch, shard, sample))

        return read_or_replace(self.order, request.number, self.damage, self.shards.uid, read_at)


@dataclass(frozen=True)
class BatchLoader:
    """All micro-batches of a rank, in order, read ahead by threads (decoding WebP releases Python's lock).

    Each micro-batch is a function of its number and these fields; `readers`, `damage` and `cache` do not change it.
    Raises UserError when the set has too few objects for the ranks and, while reading, when more objects are corrupt
    than `damage` allows (without `damage`, at the first one).
    """

    shards: TrainingSet
    seed: int
    objects: int  # objects per micro-batch, or items if epochs repeat objects
    accumulation: int
    num_views: int
    single_view_chance: float
    convention: CameraConvention
    rank: int = 0
    world: int = 1
    items_per_object: int = 1  # repeats per epoch, each with another reference
    readers: int = READERS
    first_step: int = 0  # the step that begins at `first_item`; see `resumed`
    first_item: int = 0
    damage: Damage | None = field(default=None, compare=False, repr=False)
    cache: LatentCache | None = field(default=None, compare=False, repr=False)  # the set `shards` in memory

    def __post_init__(self) -> None:
        """Raise UserError when there are too few objects for the ranks, or too many items per object."""
        if not 1 <= self.items_per_object <= (pairs := count_pairs(self.num_views)):
            raise UserError(
                f"items_per_object is {self.items_per_object}; it must be between 1 and {pairs}, the number of ways to "
                f"combine a reference view with {self.num_views} target views"
            )
        require_enough_objects(self.shards, self.world)

    @property
    def order(self) -> Order:
        """The order of this rank's items."""
        per_shard = self.shards.samples_per_shard
        return Order(per_shard, self.seed, self.rank, self.world, items_per_object=self.items_per_object)

    def item(self, number: int) -> int:
        """Return the number of this rank's first item of a micro-batch.

        Micro-batches are numbered since training began.
        """
        return self.first_item + (number - self.first_step * self.accumulation) * self.objects

    def state(self, step: int) -> StreamState:
        """Return the position that a checkpoint stores before step `step`. The position is the same for all ranks."""
        return StreamState(step, self.item(step * self.accumulation), self.world, self.items_per_object)

    def resumed(self, state: StreamState) -> tuple["BatchLoader", str]:
        """Return the loader that resumes from `state`, and a message if the number of ranks changed."""
        before = replace(self.order, rank=0, world=state.world, items_per_object=state.items_per_object)
        first_item, message = resume_item(state.item, before, self.order)
        return replace(self, first_step=state.step, first_item=first_item), message

    def of_objects(self, shards: TrainingSet) -> "BatchLoader":
        """Return a loader of other objects of the same set. It is for one rank and shares this loader's `damage`."""
        return replace(self, shards=shards, rank=0, world=1, cache=None)

    def load(self, number: int) -> TrainingBatch:
        """Read micro-batch `number`, counted since training began."""
        key = self.step_key(number)
        branch = draw_branch(self.seed, key.step, self.single_view_chance)
        return self._read(self.order, key, branch, self.objects, self.item(number))

    def step_key(self, number: int) -> StepKey:
        """Return the key of micro-batch `number`."""
        step, micro = divmod(number, self.accumulation)
        return StepKey(self.seed, step, micro, self.rank)

    def fixed(self, first: int, objects: int, micro: int = 0) -> TrainingBatch:
        """Read the views of the multi-view branch for `objects` objects, beginning with item `first`.

        The result does not depend on the step or the rank.
        Batches with a different `micro` have independent random numbers.
        """
        order = Order(self.shards.samples_per_shard, self.seed)
        return self._read(order, StepKey(self.seed, 0, micro), "multi", objects, first)

    def micro_batches(self, first_step: int, last_step: int) -> Iterator[TrainingBatch]:
        """Yield the micro-batches of steps first_step ... last_step - 1, in order."""
        return self.ahead(self.load, first_step, last_step)

    def ahead(self, load: Callable[[int], T], first_step: int, last_step: int) -> Iterator[T]:
        """Yield `load(number)` for each micro-batch of these steps, in order, computed ahead by threads."""
        numbers = iter(range(first_step * self.accumulation, last_step * self.accumulation))
        with ThreadPoolExecutor(self.readers, thread_name_prefix="loader") as readers:
            yield from map_ahead(readers, load, numbers, max(_PREFETCH, self.readers))

    def _read(self, order: Order, key: StepKey, branch: Branch, objects: int, first_item: int) -> TrainingBatch:
        items = range(first_item, first_item + objects)
        requests = sample_items(order, key, branch, items, self.num_views)
        if self.cache is not None:
            return self._collate(self.cache, order, requests)
        if isinstance(self.shards, LatentSet):
            return self._collate(LatentSource(self.shards, self.convention), order, requests)
        return self._collate(ImageSource(self.shards, self.convention), order, requests)

    def _collate(self, source: ItemSource[T], order: Order, requests: Sequence[ItemRequest]) -> TrainingBatch:
        items = ReplaceCorrupt(source, self.shards, order, self.damage)
        return source.collate([items.read(request) for request in requests])
