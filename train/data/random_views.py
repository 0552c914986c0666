"""Load random views of random objects, to train the autoencoder and the image encoder."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.format.schema import VIEWS_PER_SET
from dataset.io.read_ahead import map_ahead
from dataset.reading.damage import Damage, read_or_replace
from dataset.reading.epoch_order import Order
from dataset.reading.shard_set import ShardSet
from train.data.images import on_white
from train.data.loaded_views import LoadedViews, load_if_worthwhile
from train.data.memory import memory_bytes
from train.data.sampling import StepKey, ViewKey, generator

_READERS: Final = 8  # threads, which decode every view in the first epoch
_CHOOSERS: Final = 2  # threads, which only choose views
_AHEAD: Final = _READERS + 3  # batches
_CACHE_BYTES: Final = (3 << 30, 32 << 30)  # of decoded views, at least and at most; 3 GiB: 6,000 objects at 64 pixels


class ComponentViews(NamedTuple):
    """A batch of views of several objects, the same number of views per object."""

    rgba: Tensor  # uint8 [objects, views, h, w, 4]
    angles_deg: Tensor  # [objects, views, 2]: elevation and azimuth
    objects: Tensor  # [objects]: numbers of the objects in the set, in the order of its shards and samples

    def to(self, device: torch.device) -> "ComponentViews":
        """Return the batch with its tensors copied to `device`."""
        return ComponentViews(*(tensor.to(device) for tensor in self))

    @property
    def images(self) -> Tensor:
        """Return the views composited on white as images [objects, views, 3, h, w] in [0, 1], on the views' device."""
        return on_white(self.rgba)


def _default_room() -> int:
    least, most = _CACHE_BYTES
    return max(least, min(most, memory_bytes() // 8))


class ViewCache:
    """Reads views and keeps up to `room` bytes of decoded views in memory, because training reads each view often."""

    def __init__(self, shards: ShardSet, room: int | None = None) -> None:
        """Create an empty cache for the views of `shards` that grows to about `room` bytes.

        None: an eighth of the memory of the machine or container, but at least 3 GiB and at most 32 GiB.
        """
        self.shards, self.room = shards, _default_room() if room is None else room
        self._views: dict[tuple[int, int, ViewKey], NDArray[np.uint8]] = {}

    def views(self, shard: int, sample: int, keys: Sequence[ViewKey]) -> NDArray[np.uint8]:
        """Return views of one object as RGBA uint8 [f, h, w, 4], from memory if possible.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            keys: The f views to return.
        """
        missing = [key for key in keys if (shard, sample, key) not in self._views]
        if not missing:
            return np.stack([self._views[shard, sample, key] for key in keys])
        read = dict(zip(missing, self.shards.views(shard, sample, missing), strict=True))
        if self.room > 0:  # each thread may exceed the limit by the views that it is reading
            self._views.update({(shard, sample, key): view for key, view in read.items()})
            self.room -= sum(view.nbytes for view in read.values())
        return np.stack([read[key] if key in read else self._views[shard, sample, key] for key in keys])


def load_random_views(
    shards: ShardSet,
    seed: int,
    step: int,
    *,
    objects: int,
    views: int,
    damage: Damage | None = None,
    cache: ViewCache | None = None,
) -> ComponentViews:
    """Read randomly chosen views of the objects of one training step of a component.

    Args:
        shards: Set to read.
        seed: Seed of the order of the objects and of the choice of views.
        step: Number of the step, from 0. Seed and step determine the batch.
        objects: Number of objects in the batch.
        views: Number of different views per object, drawn from the fixed and the random views.
        damage: Record of corrupt objects, which are replaced by other objects. None: a corrupt object is an error.
        cache: Decoded views in memory. None: read all views from the set.
    """
    read = (cache or shards).views
    step_views = _choose_views(shards, seed, step, read, objects=objects, views=views, damage=damage)
    return ComponentViews(torch.from_numpy(step_views.read), step_views.angles_deg, step_views.objects)


class _StepViews(NamedTuple):
    read: NDArray[Any]  # [objects, views, ...]: what was read for each view
    angles_deg: Tensor  # as in `ComponentViews`
    objects: Tensor  # as in `ComponentViews`


def _choose_views(
    shards: ShardSet,
    seed: int,
    step: int,
    read_views: Callable[[int, int, Sequence[ViewKey]], NDArray[Any]],
    *,
    objects: int,
    views: int,
    damage: Damage | None,
) -> _StepViews:
    """Choose the views of one training step, and read them with `read_views(shard, sample, keys)`."""
    rng, order = generator(StepKey(seed, step), "parts"), Order(shards.samples_per_shard, seed)
    results, angles_deg, places = [], [], []
    for i in range(step * objects, (step + 1) * objects):
        indices = rng.choice(2 * VIEWS_PER_SET, size=views, replace=False)
        keys: list[ViewKey] = [
            ("fixed" if index < VIEWS_PER_SET else "random", int(index) % VIEWS_PER_SET) for index in indices
        ]

        def read(
            _: int, shard: int, sample: int, keys: list[ViewKey] = keys
        ) -> tuple[NDArray[Any], NDArray[np.float64], tuple[int, int]]:
            return read_views(shard, sample, keys), shards.angles_deg(shard, sample, keys), (shard, sample)

        result, angles, place = read_or_replace(order, i, damage, shards.uid, read)
        results.append(result)
        angles_deg.append(angles)
        places.append(place)
    first = np.cumsum([0, *shards.samples_per_shard])
    numbers = torch.tensor([int(first[shard]) + sample for shard, sample in places])
    return _StepViews(np.stack(results), torch.from_numpy(np.stack(angles_deg)), numbers)


def read_random_views(
    shards: ShardSet,
    seed: int,
    steps: int,
    *,
    objects: int,
    views: int,
    damage: Damage | None = None,
    device: torch.device | None = None,
) -> Iterator[ComponentViews]:
    """Yield the batches of `load_random_views` for the steps 0 to `steps` - 1.

    If `device` is a GPU with enough memory, all views are loaded into it first, and the pixels of the batches are on
    the GPU. (A damaged object is then replaced even if only other views of it are corrupt.) Otherwise, threads read
    ahead, decoded views are kept in the memory of the host, and the batches are on the CPU. The other arguments are
    those of `load_random_views`.
    """
    loaded = None if device is None else load_if_worthwhile(shards, device, steps * objects * views)
    if loaded is not None:
        yield from read_loaded_views(loaded, seed, steps, objects=objects, views=views, damage=damage)
        return
    cache = ViewCache(shards)
    load = partial(load_random_views, shards, seed, objects=objects, views=views, damage=damage, cache=cache)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="views") as pool:
        yield from map_ahead(pool, load, range(steps), _AHEAD)


def read_loaded_views(
    loaded: LoadedViews, seed: int, steps: int, *, objects: int, views: int, damage: Damage | None = None
) -> Iterator[ComponentViews]:
    """Yield the batches of `read_random_views` from views that are in memory; `rgba` is on the device of the views."""

    def choose(step: int) -> _StepViews:
        return _choose_views(loaded.shards, seed, step, loaded.rows, objects=objects, views=views, damage=damage)

    with ThreadPoolExecutor(_CHOOSERS, thread_name_prefix="views") as pool:  # more would slow the training down
        for chosen in map_ahead(pool, choose, range(steps), _AHEAD):
            rgba = loaded.pixels(torch.from_numpy(chosen.read))
            yield ComponentViews(rgba, chosen.angles_deg, chosen.objects)
