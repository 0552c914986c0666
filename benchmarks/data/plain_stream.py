"""What `stream_bench` compares with: shards read by a `webdataset` pipeline as people write it today.

Shards shuffled, a shuffle buffer of samples, one training item a sample, pictures opened by Pillow, laid on white and
turned into tensors by torchvision. It has no exact order, no resume, no checksums and no filters.

    needed: a `map` picks the item's members and decodes only these (what someone writes who has measured)
    all: `.decode("pilrgba")` decodes every picture of the sample, and a `map` picks afterwards (what the manual shows)
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

BUFFER: Final = 1000  # samples, the number in webdataset's own examples


def plain_batches(urls: list[str], batch: int, num_views: int, *, decode_all: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: pictures [b, f + 1, 3, h, w] in [0, 1], the reference first; camera labels [b, f, 16]."""
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(BUFFER)
    if decode_all:
        dataset = dataset.decode("pilrgba")
    dataset = dataset.map(lambda sample: _item(sample, num_views)).batched(batch, partial=False)
    while True:
        yield from ((pictures, labels) for pictures, labels in dataset)


def _item(sample: dict[str, Any], num_views: int) -> tuple[Tensor, Tensor]:
    """A random reference of the random set and evenly spaced targets of the fixed one: the multi-view branch."""
    meta = sample["meta.json"]
    views = (json.loads(meta) if isinstance(meta, bytes) else meta)["views"]
    spacing = VIEWS_PER_SET // num_views
    reference, first = random.randrange(VIEWS_PER_SET), random.randrange(spacing)
    chosen = [f"fixed_{first + spacing * i:02d}.webp" for i in range(num_views)]
    pictures = torch.stack([_picture(sample[name]) for name in (f"random_{reference:02d}.webp", *chosen)])
    ref = views["random"][reference]
    targets = [views["fixed"][first + spacing * i] for i in range(num_views)]
    labels = relative_camera(
        [view["elevation_deg"] for view in targets],
        [view["azimuth_deg"] for view in targets],
        ref["elevation_deg"],
        ref["azimuth_deg"],
    )
    return pictures, torch.from_numpy(labels)


def _picture(data: bytes | Image.Image) -> Tensor:
    """[3, h, w] on white."""
    image = Image.open(io.BytesIO(data)).convert("RGBA") if isinstance(data, bytes) else data
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    tensor: Tensor = to_tensor(white.convert("RGB"))
    return tensor
