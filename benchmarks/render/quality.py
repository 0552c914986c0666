"""Image quality against a reference, in numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset.images.prepare import composite_white
from dataset.images.psnr import psnr_db

RgbaImages = NDArray[np.uint8]  # [v, h, w, 4], straight alpha


@dataclass(frozen=True)
class ImageQuality:
    """PSNR in dB per view: of the whole image on white, and inside the bounding box of the true alpha."""

    white_db: tuple[float, ...]
    box_db: tuple[float, ...]


def compare(images: RgbaImages, truth: RgbaImages) -> ImageQuality:
    """Compare images uint8 [v, h, w, 4] with their references. Raises ValueError if the shapes differ."""
    if images.shape != truth.shape:
        raise ValueError(f"the images have shape {images.shape}, but their references have shape {truth.shape}")
    white, box = [], []
    for image, reference in zip(images, truth, strict=True):
        seen, real = composite_white(image), composite_white(reference)
        inside = alpha_box(reference)
        white.append(psnr_db(seen, real))
        box.append(psnr_db(seen[inside], real[inside]))
    return ImageQuality(tuple(white), tuple(box))


def alpha_box(image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of an image's [h, w, 4] nonzero alpha.

    Raises ValueError if the image is empty.
    """
    rows, columns = np.nonzero(image[..., 3])
    if not len(rows):
        raise ValueError("the reference image is empty")
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
