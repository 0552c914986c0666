"""The baseline of `stream_bench`: shards read by a typical `webdataset` pipeline.

Shards are shuffled, and samples go through a shuffle buffer and give one training item each. Pillow decodes the images
and composites them on white; torchvision converts them to tensors. This pipeline lacks an exact order, resume,
checksums and filters.

    needed: a `map` selects the members of the item and decodes only those
    all: `.decode("pilrgba")` decodes every image of the sample, then a `map` selects, as in webdataset's manual
"""

import io
import json
import random
from collections.abc import Iterator
from typing import Any, Final

import torch
import webdataset
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from dataset.camera import relative_camera
from dataset.format.schema import VIEWS_PER_SET

BUFFER: Final = 1000  # samples, as in webdataset's examples


def plain_batches(urls: list[str], batch: int, num_views: int, *, decode_all: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches endlessly: images [b, f + 1, 3, h, w] in [0, 1], reference first; camera labels [b, f, 16]."""
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(BUFFER)
    if decode_all:
        dataset = dataset.decode("pilrgba")
    dataset = dataset.map(lambda sample: _item(sample, num_views)).batched(batch, partial=False)
    while True:
        yield from ((images, labels) for images, labels in dataset)


def _item(sample: dict[str, Any], num_views: int) -> tuple[Tensor, Tensor]:
    """Return an item of multi-view training: a random reference of the random views, evenly spaced fixed targets."""
    meta = sample["meta.json"]
    views = (json.loads(meta) if isinstance(meta, bytes) else meta)["views"]
    spacing = VIEWS_PER_SET // num_views
    reference, first = random.randrange(VIEWS_PER_SET), random.randrange(spacing)
    chosen = [f"fixed_{first + spacing * i:02d}.webp" for i in range(num_views)]
    images = torch.stack([_to_tensor(sample[name]) for name in (f"random_{reference:02d}.webp", *chosen)])
    ref = views["random"][reference]
    targets = [views["fixed"][first + spacing * i] for i in range(num_views)]
    labels = relative_camera(
        [view["elevation_deg"] for view in targets],
        [view["azimuth_deg"] for view in targets],
        ref["elevation_deg"],
        ref["azimuth_deg"],
    )
    return images, torch.from_numpy(labels)


def _to_tensor(data: bytes | Image.Image) -> Tensor:
    """Return an image [3, h, w] on white."""
    image = Image.open(io.BytesIO(data)).convert("RGBA") if isinstance(data, bytes) else data
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    tensor: Tensor = to_tensor(white.convert("RGB"))
    return tensor
