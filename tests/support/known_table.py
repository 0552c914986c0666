"""A table of known objects for a micro model: only a white image is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from train.model.fingerprint import image_encoder_sha256
from train.model.multiview import read_image_encoder
from train.model.recognition.int8 import round_rows
from train.model.recognition.table import KnownObjects, remove_known, write_known


@contextmanager
def table_of_white(folder: Path) -> Iterator[KnownObjects]:
    """Write a table into a model folder, and remove it at the end: a white image has the kind paper."""
    image_encoder = read_image_encoder(folder)
    assert image_encoder is not None
    with torch.no_grad():
        white = image_encoder(torch.ones(1, 3, 32, 32))
        black = image_encoder(torch.zeros(1, 3, 32, 32))
    known = KnownObjects(
        mean=(white + black)[0] / 2,
        projection=torch.eye(white.shape[1]),
        embeddings=round_rows((white - black) / 2),
        kind_numbers=torch.tensor([0]),
        num_renders=1,
        kinds=("paper",),
        threshold=1e-3,
        image_encoder_sha256=image_encoder_sha256(image_encoder),
    )
    write_known(known, folder)
    try:
        yield known
    finally:
        remove_known(folder)
