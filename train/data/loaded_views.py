"""Keep all views of a set in the memory of a GPU, to train the autoencoder and the image encoder."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.format.schema import ALL_VIEWS
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.reading.shard_set import DamagedMember, ShardSet
from train.data.sampling import ViewKey

_READERS: Final = 8  # threads, which decode the views
_AHEAD: Final = 2 * _READERS  # objects
_GPU_SHARE: Final = 0.4  # of the free memory of a GPU: the largest share that the views may take
_COLUMN: Final = {key: column for column, key in enumerate(ALL_VIEWS)}


class LoadedViews:
    """All views of a set in the memory of one device, for training that reads each view several times."""

    def __init__(self, shards: ShardSet, device: torch.device, view_shape: Sequence[int]) -> None:
        """Read all views of `shards` with several threads.

        Args:
            shards: Set to read. An object with a corrupt view is left out; asking for its views raises DamagedMember.
            device: Device that receives the views.
            view_shape: Shape (h, w, 4) of every view.
        """
        self.shards = shards
        places = [(shard, sample) for shard, count in enumerate(shards.samples_per_shard) for sample in range(count)]
        self._number = {place: number for number, place in enumerate(places)}
        self._damaged: set[tuple[int, int]] = set()
        self._pixels = torch.zeros((len(places), len(ALL_VIEWS), *view_shape), dtype=torch.uint8, device=device)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="views") as pool:
            objects = map_ahead(pool, self._read, places, _AHEAD)
            bar = ProgressBar(objects, "views to the training device", len(places), unit="object")
            for place, views in zip(places, bar, strict=True):
                if views is None:
                    self._damaged.add(place)
                else:
                    self._pixels[self._number[place]] = torch.from_numpy(views).to(device)

    def _read(self, place: tuple[int, int]) -> NDArray[np.uint8] | None:
        try:
            return self.shards.views(*place, ALL_VIEWS)
        except DamagedMember:
            return None

    def rows(self, shard: int, sample: int, keys: Sequence[ViewKey]) -> NDArray[np.int64]:
        """Return the positions, int64 [f], of `f` views of one object, for `pixels`.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            keys: The views.

        Raises:
            DamagedMember: A view of the object is corrupt.
        """
        if (shard, sample) in self._damaged:
            self.shards.views(shard, sample, ALL_VIEWS)  # raises the error, which names the corrupt view
        return self._number[shard, sample] * len(ALL_VIEWS) + np.array([_COLUMN[key] for key in keys])

    def pixels(self, rows: Tensor) -> Tensor:
        """Return the views at the positions `rows`, int64 [...], as RGBA uint8 [..., h, w, 4] on the device."""
        return self._pixels.flatten(0, 1)[rows.to(self._pixels.device)]


def load_if_worthwhile(shards: ShardSet, device: torch.device, views_read: int) -> LoadedViews | None:
    """Load all views of a set to a GPU, if training reads each view more than once and the GPU has the memory.

    Args:
        shards: Set to read.
        device: Device to train on. None is returned unless it is a CUDA GPU.
        views_read: Number of views that the training reads, counting repetitions.
    """
    objects = sum(shards.samples_per_shard)
    if device.type != "cuda" or views_read < objects * len(ALL_VIEWS):
        return None
    shape = _view_shape(shards)
    room = _GPU_SHARE * torch.cuda.mem_get_info(device)[0]
    if shape is None or objects * len(ALL_VIEWS) * int(np.prod(shape)) > room:
        return None
    return LoadedViews(shards, device, shape)


def _view_shape(shards: ShardSet) -> tuple[int, ...] | None:
    """Return the shape (h, w, 4) of the first view that is not corrupt, or None if the first shard has none."""
    for sample in range(shards.samples_per_shard[0]):
        try:
            return shards.views(0, sample, ALL_VIEWS[:1]).shape[1:]
        except DamagedMember:
            continue
    return None
