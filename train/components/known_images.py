"""Compute embeddings of the images of a table of known objects: views of rendered objects, and image files."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from dataset.format.schema import VIEWS_PER_SET
from dataset.images.prepare import prepare_image
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.reading.shard_set import ShardSet
from train.data.images import to_tensor

_READERS: Final = 4
_BATCH: Final = 16  # objects


@dataclass(frozen=True)
class Embedded:
    """Embeddings [n, c] of views, and the uid of the object of each view."""

    embeddings: Tensor
    uids: tuple[str, ...]


def embed_objects(shards: ShardSet, extract: Callable[[Tensor], Tensor], views: int, what: str) -> Embedded:
    """Embed views of every object of a set. Object number i of the set is seen from other azimuths than number i + 1.

    Args:
        shards: The objects.
        extract: Function that returns the embeddings [n, c] of images [n, 3, h, w] in [0, 1] on white.
        views: Number of random views per object, evenly spaced.
        what: Description of the progress bar.
    """
    places = [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]
    step = VIEWS_PER_SET / views

    def load(first: int) -> Tensor:
        images = []
        for number in range(first, min(first + _BATCH, len(places))):
            azimuths = [int(number + step * view) % VIEWS_PER_SET for view in range(views)]
            images.append(to_tensor(shards.views(*places[number], [("random", azimuth) for azimuth in azimuths])))
        return torch.cat(images)

    embeddings = []
    with (
        ProgressBar(total=len(places), unit="object", desc=what) as bar,
        ThreadPoolExecutor(_READERS, thread_name_prefix="views") as pool,
    ):
        for images in map_ahead(pool, load, range(0, len(places), _BATCH), 2 * _READERS):
            embeddings.append(extract(images))
            bar.update(len(images) // views)
    uids = tuple(shards.uid(*place) for place in places for _ in range(views))
    return Embedded(torch.cat(embeddings), uids)


def embed_files(files: Sequence[Path], extract: Callable[[Tensor], Tensor], image_size: int, what: str) -> Tensor:
    """Return the embeddings [n, c] of n image files, which are prepared as for distillation.

    Args:
        files: The image files.
        extract: Function that returns the embeddings of images [n, 3, h, w] in [0, 1] on white.
        image_size: Size to which the images are prepared, in pixels.
        what: Description of the progress bar.
    """
    embeddings = []
    for path in ProgressBar(files, unit="image", desc=what):
        rgb = torch.from_numpy(prepare_image(path, image_size).rgb).permute(2, 0, 1)[None]
        embeddings.append(extract(rgb))
    return torch.cat(embeddings)
