"""Image quality against a reference, in numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset.images.prepare import composite_white

Pictures = NDArray[np.uint8]  # [v, h, w, 4], straight alpha


@dataclass(frozen=True)
class Quality:
    """PSNR in dB of each view: of the whole picture over white, and inside of the true alpha's bounding box."""

    white_db: tuple[float, ...]
    box_db: tuple[float, ...]


def compare(pictures: Pictures, truth: Pictures) -> Quality:
    """Raises ValueError when the shapes differ."""
    if pictures.shape != truth.shape:
        raise ValueError(f"pictures are {pictures.shape}, their references {truth.shape}")
    white, box = [], []
    for picture, reference in zip(pictures, truth, strict=True):
        seen, real = composite_white(picture), composite_white(reference)
        inside = alpha_box(reference)
        white.append(psnr_db(seen, real))
        box.append(psnr_db(seen[inside], real[inside]))
    return Quality(tuple(white), tuple(box))


def psnr_db(seen: NDArray[np.float32], real: NDArray[np.float32]) -> float:
    """Of colors in [0, 1]; infinite when they are equal."""
    error = float(np.mean((seen.astype(np.float64) - real) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def alpha_box(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle with all pixels whose alpha is not zero. ValueError: there is none."""
    rows, columns = np.nonzero(picture[..., 3])
    if not len(rows):
        raise ValueError("the reference is empty: nothing is opaque in it")
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
