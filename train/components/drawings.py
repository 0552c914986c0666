"""Read labelled drawings, such as those of `python -m examples.emoji`, with which an image encoder learns kinds."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataset.images.prepare import prepare_image
from dataset.reading.labels import read_image_table


@dataclass(frozen=True)
class Drawings:
    """Drawings of single objects, and the kind of each object."""

    rgba: Tensor  # [n, s, s, 4], uint8
    kinds: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """A SHA-256 (hexadecimal) of the images and the kinds."""
        return hashlib.sha256(self.rgba.numpy().tobytes() + "\n".join(self.kinds).encode()).hexdigest()

    def of_kinds(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the images [m, s, s, 4] of the m drawings whose kind is in `names`, and the positions [m] there."""
        rows = [row for row, kind in enumerate(self.kinds) if kind in names]
        return self.rgba[rows], torch.tensor([names.index(self.kinds[row]) for row in rows], dtype=torch.long)


def read_drawings(folder: Path, image_size: int) -> Drawings:
    """Read a folder of images with a labels.csv (columns file and label). Images are prepared as for distillation.

    Args:
        folder: The folder.
        image_size: Height and width in pixels to which the images are prepared.

    Raises:
        UserError: labels.csv is missing, malformed or without rows, a file lies outside of the folder, or an image
            cannot be read.
    """
    remedy = "make the folder with python -m examples.emoji, or write a CSV file with the columns file and label"
    rows = read_image_table(folder, ("file", "label"), remedy)
    images = [torch.from_numpy(prepare_image(row.path, image_size).rgba) for row in rows]
    return Drawings(torch.stack(images), tuple(row.cells["label"] for row in rows))
