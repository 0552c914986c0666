"""A latent set in memory: small sets are read once, and a micro-batch is then two look-ups in an array.

Reading members one by one costs more host time than a small UNet's step costs the GPU. The batches are the same, to the
bit, as those read from the files (`train.data.latents`).
"""

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
from train.data.sampling import ViewChoice, ViewKey
from train.model.multiview import CameraConvention, camera_labels

MOST_BYTES: Final = 1 << 30  # of a set that is kept: 150,000 views of the tiny preset, none of the paper's sets
_READERS: Final = 4


class CachedItem(NamedTuple):
    """Where an item's numbers lie: the object's row, the reference's column, the targets' columns."""

    row: int
    reference: int
    targets: list[int]


class LatentCache:
    """All latents and embeddings of a set. Damaged members are left out and met when they are asked for, as in the set.

    `latents` [objects, 32, n] with n numbers a view (mean, then log variance where the set has it), `embeddings`
    [objects, 16 or 32, d] of the views that have one, `angles_deg` [objects, 32, 2].
    """

    def __init__(self, source: LatentSet) -> None:
        self.source, form = source, source.format
        self._first = np.cumsum([0, *source.samples_per_shard])
        objects, views = len(source), len(ALL_VIEWS)
        self.latents = np.empty((objects, views, form.latent_numbers * (2 if form.logvar else 1)), FLOAT16)
        with_embedding = [column for column, (view_set, _) in enumerate(ALL_VIEWS) if form.has_embedding(view_set)]
        self.embeddings = np.empty((objects, len(with_embedding), form.embedding), FLOAT16)
        self._place_of_embedding = np.full(views, -1)  # by column
        self._place_of_embedding[with_embedding] = np.arange(len(with_embedding))
        self.angles_deg = np.empty((objects, views, 2))
        self._damaged: dict[tuple[int, int], str] = {}  # what is wrong, by row and column
        places = [(shard, i) for shard, samples in enumerate(source.samples_per_shard) for i in range(samples)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="latents") as pool:
            loaded = pool.map(self._load, places)
            for _ in ProgressBar(loaded, "latents to memory", objects, unit="object", mininterval=1.0):
                pass

    def read(self, shard: int, sample: int, choice: ViewChoice) -> CachedItem:
        """An item's place. Raises DamagedMember when one of its views is damaged."""
        reference, targets = choice
        row, columns = int(self._first[shard]) + sample, [_column(view) for view in (reference, *targets)]
        for column in columns:
            if (row, column) in self._damaged:
                raise DamagedMember(self._damaged[row, column])
        return CachedItem(row, columns[0], columns[1:])

    def stack(self, items: Sequence[CachedItem], convention: CameraConvention) -> LatentBatch:
        """A micro-batch of items, as `train.data.latents.stack_latents` makes it."""
        rows = np.array([item.row for item in items])
        references, targets = np.array([item.reference for item in items]), np.array([item.targets for item in items])
        mean, logvar = self._split(self.latents[rows[:, None], targets])
        reference_mean, reference_logvar = self._split(self.latents[rows, references])
        columns = np.concatenate([references[:, None], targets], 1)
        elevation_deg, azimuth_deg = np.moveaxis(self.angles_deg[rows[:, None], columns], -1, 0)
        labels = camera_labels(convention, elevation_deg, azimuth_deg, elevation_deg[:, :1], azimuth_deg[:, :1])
        return LatentBatch(
            reference_mean=reference_mean,
            reference_logvar=reference_logvar,
            target_mean=mean,
            target_logvar=logvar,
            tokens=torch.from_numpy(self.embeddings[rows, self._place_of_embedding[references]][:, None]),
            cameras=labels[:, 1:],
            reference_camera=labels[:, :1],
        )

    def _load(self, place: tuple[int, int]) -> None:
        shard, sample = place
        row, form = int(self._first[shard]) + sample, self.source.format
        self.angles_deg[row] = self.source.angles_deg(shard, sample, ALL_VIEWS)
        for column, view in enumerate(ALL_VIEWS):
            try:
                found = self.source.views(shard, sample, [view], embedding=form.has_embedding(view[0]))
            except DamagedMember as error:
                self._damaged[row, column] = str(error)
                continue
            both = [found.mean.reshape(-1)] + ([] if found.logvar is None else [found.logvar.reshape(-1)])
            np.concatenate(both, out=self.latents[row, column])
            if found.embedding is not None:
                self.embeddings[row, self._place_of_embedding[column]] = found.embedding[0]

    def _split(self, numbers: Float16) -> tuple[Tensor, Tensor | None]:
        """[..., n] -> means and log variances [..., c, h, w]."""
        form, n = self.source.format, self.source.format.latent_numbers
        shape = (*numbers.shape[:-1], form.channels, form.height, form.width)
        mean: NDArray[np.float16] = numbers[..., :n].reshape(shape)
        return torch.from_numpy(mean), torch.from_numpy(numbers[..., n:].reshape(shape)) if form.logvar else None


def _column(view: ViewKey) -> int:
    view_set, index = view
    return VIEWS_PER_SET * VIEW_SETS.index(view_set) + index


def cache_bytes(source: LatentSet) -> int:
    """What `LatentCache` would take."""
    per_view = sum(source.format.numbers(view_set) for view_set in VIEW_SETS)
    return FLOAT16.itemsize * len(source) * VIEWS_PER_SET * per_view


def cache_if_small(source: LatentSet, most: int = MOST_BYTES) -> LatentCache | None:
    """Load the set into memory, with a notice, if it takes at most `most` bytes; else return None."""
    if (size := cache_bytes(source)) > most:
        return None
    print(f"{source.url}: {len(source)} objects' latents are kept in memory ({size / 1e6:.0f} MB)")
    return LatentCache(source)
