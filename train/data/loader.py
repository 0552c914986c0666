"""Load the micro-batches of one rank in a reproducible order, read ahead by threads.

A training item is a reference view of an object and target views of the same object; a micro-batch is a stack of items.
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
    """Protocol of a reader that reads the views of training items, and stacks items into a micro-batch."""

    def read(self, shard: int, sample: int, choice: ViewChoice, /) -> T:
        """Read the views `choice` of one object.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            choice: The views to read.

        Raises:
            DamagedMember: One of these views is corrupt.
        """
        ...

    def collate(self, items: Sequence[T], /) -> TrainingBatch:
        """Stack training items, in the given order, into a micro-batch."""
        ...


@dataclass(frozen=True)
class ReplaceCorrupt(Generic[T]):
    """Reads training items from `source` and, if `damage` is given, replaces each corrupt object by another object.

    A replacement does not change the other items of the batch.
    """

    source: ItemSource[T]
    shards: TrainingSet
    order: Order
    damage: Damage | None

    def read(self, request: ItemRequest) -> T:
        """Read one training item, if necessary of another object.

        Raises:
            DamagedMember: The object is corrupt, and `damage` is None.
            UserError: More objects are corrupt than `damage` allows.
        """

        def read_at(epoch: int, shard: int, sample: int) -> T:
            return self.source.read(shard, sample, request.views(epoch, shard, sample))

        return read_or_replace(self.order, request.number, self.damage, self.shards.uid, read_at)


@dataclass(frozen=True)
class BatchLoader:
    """Loads the micro-batches of one rank, read ahead by threads.

    Micro-batches are numbered from 0 at the beginning of training. Each micro-batch is a function of its number and the
    fields of this class. Only `readers`, `damage` and `cache` do not change the micro-batches.

    Raises:
        UserError: The set has fewer objects than there are ranks, `items_per_object` is out of range or, while reading,
            more objects are corrupt than `damage` allows.
        DamagedMember: While reading, an object is corrupt and `damage` is None.
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
        """Raise UserError when the set has fewer objects than there are ranks or `items_per_object` is out of range."""
        if not 1 <= self.items_per_object <= (pairs := count_pairs(self.num_views)):
            raise UserError(
                f"items_per_object is {self.items_per_object}; it must be between 1 and {pairs}, the number of ways to "
                f"combine a reference view with {self.num_views} target views"
            )
        require_enough_objects(self.shards, self.world)

    @property
    def order(self) -> Order:
        """The order in which this rank reads the objects of the set."""
        per_shard = self.shards.samples_per_shard
        return Order(per_shard, self.seed, self.rank, self.world, items_per_object=self.items_per_object)

    def item(self, number: int) -> int:
        """Return the index, in this rank's `order`, of the first item of micro-batch `number` (from 0)."""
        return self.first_item + (number - self.first_step * self.accumulation) * self.objects

    def state(self, step: int) -> StreamState:
        """Return the position in the data at the beginning of step `step` (from 0), as a checkpoint stores it.

        The position is the same for all ranks.
        """
        return StreamState(step, self.item(step * self.accumulation), self.world, self.items_per_object)

    def resumed(self, state: StreamState) -> tuple["BatchLoader", str]:
        """Return a loader that continues from the position `state` of a checkpoint, and a log message.

        The message is empty unless the number of ranks has changed. Raises UserError when `items_per_object` has
        changed.
        """
        before = replace(self.order, rank=0, world=state.world, items_per_object=state.items_per_object)
        first_item, message = resume_item(state.item, before, self.order)
        return replace(self, first_step=state.step, first_item=first_item), message

    def of_objects(self, shards: TrainingSet) -> "BatchLoader":
        """Return a single-rank loader for the objects of `shards`, such as the validation objects.

        The new loader keeps this loader's other settings and shares its `damage`. `shards` is another part of the set
        that this loader reads.
        """
        return replace(self, shards=shards, rank=0, world=1, cache=None)

    def load(self, number: int) -> TrainingBatch:
        """Read micro-batch `number` of this rank, counted from 0 at the beginning of training."""
        key = self.step_key(number)
        branch = draw_branch(self.seed, key.step, self.single_view_chance)
        return self._read(self.order, key, branch, self.objects, self.item(number))

    def step_key(self, number: int) -> StepKey:
        """Return the key of the random numbers of micro-batch `number` (from 0) of this rank."""
        step, micro = divmod(number, self.accumulation)
        return StepKey(self.seed, step, micro, self.rank)

    def fixed(self, first: int, objects: int, micro: int = 0) -> TrainingBatch:
        """Read a batch that does not depend on the step or the rank, with the views of the multi-view branch.

        Args:
            first: Index of the first object in the order of a run with one rank.
            objects: Number of objects to read.
            micro: Index that seeds the choice of views. The choices for different indices are independent.
        """
        order = Order(self.shards.samples_per_shard, self.seed)
        return self._read(order, StepKey(self.seed, 0, micro), "multi", objects, first)

    def micro_batches(self, first_step: int, last_step: int) -> Iterator[TrainingBatch]:
        """Yield this rank's micro-batches of the steps `first_step` to `last_step` - 1 (from 0), in order."""
        return self.ahead(self.load, first_step, last_step)

    def ahead(self, load: Callable[[int], T], first_step: int, last_step: int) -> Iterator[T]:
        """Yield `load(number)` for each micro-batch of some steps, in order. Threads call `load` ahead of time.

        Args:
            load: Function of the number of a micro-batch, counted from 0 at the beginning of training.
            first_step: The first step, from 0.
            last_step: The step after the last one.
        """
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
