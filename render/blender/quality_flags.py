"""Detect unusual images of an object (empty, clipped, near-black, ...) and flag them in the outcome table."""

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Flag

NEAR_BLACK: Final = 0.05
NEAR_WHITE: Final = 0.95
LOW_COVERAGE: Final = 0.01
BLACK_PARTS: Final = 0.02  # share of the visible pixels; sound objects have at most 0.005 (docs/LOG.md)
_BLACK: Final = 2  # largest value, of 255, of a channel of a black pixel: even a black material reflects some light
_LUMA: Final = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, on the values as stored (sRGB-encoded)
_ORDER: Final[tuple[Flag, ...]] = get_args(Flag)


def image_flags(images: Sequence[NDArray[np.uint8]]) -> tuple[Flag, ...]:
    """Return the flags of one object's images, each [h, w, 4] uint8 with straight alpha, in the order of `Flag`.

    The luminance (0 to 1) is the mean over all images, with every pixel weighted by its alpha.
    """
    totals = [_luma_and_alpha(image) for image in images]
    luma, alpha = (sum(column) for column in zip(*totals, strict=True))
    mean = luma / alpha if alpha else 0.5  # an empty image is neither black nor white
    conditions: dict[Flag, bool] = {
        "empty": not alpha,
        "clipped": any(is_clipped(image) for image in images),
        "near-black": mean < NEAR_BLACK,
        "near-white": mean > NEAR_WHITE,
        "black-parts": _black_share(images) > BLACK_PARTS,
        "low-coverage": float(np.mean([alpha_coverage(image) for image in images])) < LOW_COVERAGE,
    }
    return in_order([flag for flag, holds in conditions.items() if holds])


def in_order(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """Return the flags in the order of `Flag`, without repetitions."""
    return tuple(flag for flag in _ORDER if flag in flags)


def alpha_coverage(image: NDArray[np.uint8]) -> float:
    """Return the mean alpha of an image [h, w, 4], 0 to 1."""
    return float(image[..., 3].mean(dtype=np.float64) / 255)


def is_clipped(image: NDArray[np.uint8]) -> bool:
    """Return whether the object touches the border of an image [h, w, 4]."""
    alpha = image[..., 3]
    return bool(alpha[[0, -1]].any() or alpha[:, [0, -1]].any())


def _black_share(images: Sequence[NDArray[np.uint8]]) -> float:
    """Return the share of the pixels with an alpha above one half that are black, 0 to 1, in images [h, w, 4]."""
    largest = np.concatenate([image[image[..., 3] > 127][:, :3].max(1, initial=0) for image in images])
    return float((largest <= _BLACK).mean()) if len(largest) else 0.0


def _luma_and_alpha(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the sums of luminance times alpha and of alpha over the pixels of an image [h, w, 4]; each is 0 to 1."""
    visible = image[image[..., 3] > 0].astype(np.float64) / 255
    alpha = visible[:, 3]
    return float(visible[:, :3] @ _LUMA @ alpha), float(alpha.sum())
