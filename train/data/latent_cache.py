"""Keep a small latent set in memory, so that micro-batches are taken from arrays instead of files.

The set is read once. Reading each view from its file would take longer on the host than a step of a small UNet takes on
the GPU. The micro-batches are bit-identical to those read from the files (`train.data.latents`).
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.format.latents import FLOAT16, Float16
from dataset.format.schema import ALL_VIEWS, VIEW_SETS, VIEWS_PER_SET
from dataset.io.progress import ProgressBar
from dataset.reading.latent_set import LatentSet
from dataset.reading.shard_set import DamagedMember
from train.data.latents import LatentBatch
from train.data.memory import memory_bytes
from train.data.sampling import ViewChoice, ViewKey
from train.model.multiview import CameraConvention, camera_labels

# Largest set that is cached, at least and at most. 1 GiB: 230,000 views of the tiny preset. The paper's sets are larger
MAX_BYTES: Final = (1 << 30, 4 << 30)
_READERS: Final = 4

logger = logging.getLogger(__name__)


class CachedItem(NamedTuple):
    """Indices of a training item in the arrays of a `LatentCache`: one row (the object) and a column for each view."""

    row: int  # object
    reference: int  # column
    targets: list[int]  # columns


class LatentCache:
    """All latents and embeddings of a latent set, in memory.

    `latents` is [objects, 32, n]: n numbers for each of the 32 views of an object. The n numbers are the mean and, if
    the set stores log variances, then the log variance. `embeddings` is [objects, 16 or 32, d]: d numbers for each view
    that has an embedding. `angles_deg` is [objects, 32, 2]: elevation and azimuth of each view.
    """

    def __init__(self, source: LatentSet, convention: CameraConvention) -> None:
        """Read the whole set `source` into memory. Camera labels of the batches follow `convention`."""
        self.source, self.convention, form = source, convention, source.format
        self._first_row = np.cumsum([0, *source.samples_per_shard])  # of a shard
        objects, views = len(source), len(ALL_VIEWS)
        self.latents = np.empty((objects, views, form.latent_numbers * (2 if form.logvar else 1)), FLOAT16)
        with_embedding = [column for column, (view_set, _) in enumerate(ALL_VIEWS) if form.has_embedding(view_set)]
        self.embeddings = np.empty((objects, len(with_embedding), form.embedding), FLOAT16)
        self._embedding_column = np.full(views, -1)
        self._embedding_column[with_embedding] = np.arange(len(with_embedding))
        self.angles_deg = np.empty((objects, views, 2))
        self._corrupt: dict[tuple[int, int], str] = {}  # error messages by row and column
        places = [(shard, i) for shard, samples in enumerate(source.samples_per_shard) for i in range(samples)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="latents") as pool:
            loaded = pool.map(self._load, places)
            for _ in ProgressBar(loaded, "latents to memory", objects, unit="object", mininterval=1.0):
                pass

    def read(self, shard: int, sample: int, choice: ViewChoice) -> CachedItem:
        """Return the indices of one training item in the arrays of the cache.

        Args:
            shard: Index of the shard in the set.
            sample: Index of the object in the shard.
            choice: The views of the item.

        Raises:
            DamagedMember: One of these views was corrupt when the set was read.
        """
        reference, targets = choice
        row, columns = int(self._first_row[shard]) + sample, [_column(view) for view in (reference, *targets)]
        for column in columns:
            if (row, column) in self._corrupt:
                raise DamagedMember(self._corrupt[row, column])
        return CachedItem(row, columns[0], columns[1:])

    def collate(self, items: Sequence[CachedItem]) -> LatentBatch:
        """Return the micro-batch that consists of these items, in the given order."""
        rows = np.array([item.row for item in items])
        references, targets = np.array([item.reference for item in items]), np.array([item.targets for item in items])
        mean, logvar = self._split(self.latents[rows[:, None], targets])
        reference_mean, reference_logvar = self._split(self.latents[rows, references])
        columns = np.concatenate([references[:, None], targets], 1)
        elevation_deg, azimuth_deg = np.moveaxis(self.angles_deg[rows[:, None], columns], -1, 0)
        labels = camera_labels(self.convention, elevation_deg, azimuth_deg, elevation_deg[:, :1], azimuth_deg[:, :1])
        return LatentBatch(
            reference_mean=reference_mean,
            reference_logvar=reference_logvar,
            target_mean=mean,
            target_logvar=logvar,
            tokens=torch.from_numpy(self.embeddings[rows, self._embedding_column[references]][:, None]),
            cameras=labels[:, 1:],
            reference_camera=labels[:, :1],
        )

    def _load(self, place: tuple[int, int]) -> None:
        """Read one object into the arrays. `place` is the index of its shard and the object's index in that shard."""
        shard, sample = place
        row, form = int(self._first_row[shard]) + sample, self.source.format
        self.angles_deg[row] = self.source.angles_deg(shard, sample, ALL_VIEWS)
        for column, view in enumerate(ALL_VIEWS):
            try:
                stored = self.source.views(shard, sample, [view], embedding=form.has_embedding(view[0]))
            except DamagedMember as error:
                self._corrupt[row, column] = str(error)
                continue
            both = [stored.mean.reshape(-1)] + ([] if stored.logvar is None else [stored.logvar.reshape(-1)])
            np.concatenate(both, out=self.latents[row, column])
            if stored.embedding is not None:
                self.embeddings[row, self._embedding_column[column]] = stored.embedding[0]

    def _split(self, numbers: Float16) -> tuple[Tensor, Tensor | None]:
        """Split stored numbers of views [..., n] into means and log variances, [..., c, h, w] each."""
        form, n = self.source.format, self.source.format.latent_numbers
        shape = (*numbers.shape[:-1], form.channels, form.height, form.width)
        mean: NDArray[np.float16] = numbers[..., :n].reshape(shape)
        return torch.from_numpy(mean), torch.from_numpy(numbers[..., n:].reshape(shape)) if form.logvar else None


def _column(view: ViewKey) -> int:
    view_set, index = view
    return VIEWS_PER_SET * VIEW_SETS.index(view_set) + index


def cache_bytes(source: LatentSet) -> int:
    """Return the number of bytes of memory that a `LatentCache` of the latent set `source` takes."""
    per_view = sum(source.format.numbers(view_set) for view_set in VIEW_SETS)
    return FLOAT16.itemsize * len(source) * VIEWS_PER_SET * per_view


def cache_if_small(source: LatentSet, convention: CameraConvention, max_bytes: int | None = None) -> LatentCache | None:
    """Read a latent set into memory and return it as `LatentCache`. Return None if a cache would exceed `max_bytes`.

    Args:
        source: Latent set.
        convention: Convention of the camera labels in the batches that the cache returns.
        max_bytes: Size of the largest cache. None: a sixteenth of the memory of the machine or container, but at least
            1 GiB and at most 4 GiB.
    """
    if max_bytes is None:
        least, most = MAX_BYTES
        max_bytes = max(least, min(most, memory_bytes() // 16))
    if (size := cache_bytes(source)) > max_bytes:
        return None
    logger.info("%s: the latents of %d objects are kept in memory (%.0f MB)", source.url, len(source), size / 1e6)
    return LatentCache(source, convention)
