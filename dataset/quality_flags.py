"""Compute the quality flags of an object (empty, clipped, near-black, ...) from its images.

The outcome table stores the flags.
"""

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Flag

NEAR_BLACK: Final = 0.05
NEAR_WHITE: Final = 0.95
LOW_COVERAGE: Final = 0.01
WHITE_PARTS: Final = 0.6  # share of the visible pixels; white objects in bright light have at most 0.45
BLACK_PARTS: Final = 0.02  # share of the visible pixels; sound objects have at most 0.005 (docs/LOG.md)
_WHITE: Final = 254  # smallest value, of 255, of a channel of a white pixel
_BLACK: Final = 2  # largest value, of 255, of a channel of a black pixel: even a black material reflects some light
SPECKLE: Final = 6.0  # of 255; images below this are not examined: their noise is below about 9
NOISY: Final = 12.0  # of 255, which is 27 dB; the noisiest images of sound objects at the default settings have 8
_SECOND_DIFFERENCES: Final = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))
_LUMA: Final = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, on the values as stored (sRGB-encoded)
_ORDER: Final[tuple[Flag, ...]] = get_args(Flag)


def image_flags(images: Sequence[NDArray[np.uint8]]) -> tuple[Flag, ...]:
    """Return the quality flags of one object, in the order of `Flag`.

    The flags near-black and near-white depend on the mean luminance (0 to 1) of the pixels of all images. In this mean,
    the weight of each pixel is its alpha.

    Args:
        images: All images of the object, uint8 [height, width, 4] with straight alpha.
    """
    totals = [_luma_and_alpha(image) for image in images]
    luma, alpha = (sum(column) for column in zip(*totals, strict=True))
    mean = luma / alpha if alpha else 0.5  # an empty image is neither black nor white
    black, white = _black_and_white(images)
    conditions: dict[Flag, bool] = {
        "empty": not alpha,
        "empty-views": bool(alpha) and not all(image[..., 3].any() for image in images),
        "clipped": any(is_clipped(image) for image in images),
        "near-black": mean < NEAR_BLACK,
        "near-white": mean > NEAR_WHITE,
        "white-parts": white > WHITE_PARTS,
        "black-parts": black > BLACK_PARTS,
        "low-coverage": float(np.mean([alpha_coverage(image) for image in images])) < LOW_COVERAGE,
    }
    return in_order([flag for flag, holds in conditions.items() if holds])


def speckle(image: NDArray[np.uint8]) -> float:
    """Return an upper estimate of the luminance noise in an image [height, width, 4], on a scale of 0 to 255.

    The standard deviation of the noise is estimated from second differences of neighboring pixels (Immerkaer, 1996).
    Details of single pixels, such as fine patterns, count as noise too. A pixel is used only if it and its eight
    neighbors are opaque.
    """
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return 0.0
    luma, opaque = image[..., :3] @ _LUMA, image[..., 3] == 255
    inside, second = np.ones((height - 2, width - 2), bool), np.zeros((height - 2, width - 2))
    for i, row in enumerate(_SECOND_DIFFERENCES):
        for j, weight in enumerate(row):
            part = slice(i, height - 2 + i), slice(j, width - 2 + j)
            inside &= opaque[part]
            second += weight * luma[part]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(second[inside]).mean()) if inside.any() else 0.0


def noise_level(image: NDArray[np.uint8], again: NDArray[np.uint8]) -> float:
    """Return the noise of an image, measured by comparison with a second rendering of the same view.

    The noise is the root mean square error of the colors, on a scale of 0 to 255, over the pixels that are visible in
    both renderings. The errors of the two renderings are assumed to be independent.

    Args:
        image: The image, uint8 [height, width, 4].
        again: The same view [height, width, 4], rendered with another noise seed.
    """
    visible = (image[..., 3] > 127) & (again[..., 3] > 127)
    difference = image[visible][:, :3].astype(np.float64) - again[visible][:, :3]
    return float(np.sqrt((difference**2).mean() / 2)) if visible.any() else 0.0


def in_order(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """Return the flags in the order of `Flag`, without repetitions."""
    return tuple(flag for flag in _ORDER if flag in flags)


def alpha_coverage(image: NDArray[np.uint8]) -> float:
    """Return the mean alpha of an image [height, width, 4], from 0 to 1."""
    return float(image[..., 3].mean(dtype=np.float64) / 255)


def is_clipped(image: NDArray[np.uint8]) -> bool:
    """Return whether the object touches the border of an image [height, width, 4]."""
    alpha = image[..., 3]
    return bool(alpha[[0, -1]].any() or alpha[:, [0, -1]].any())


def _black_and_white(images: Sequence[NDArray[np.uint8]]) -> tuple[float, float]:
    """Return the shares of black and of white pixels among the pixels of images [h, w, 4] with alpha above 0.5."""
    colors = np.concatenate([image[image[..., 3] > 127][:, :3] for image in images])
    if not len(colors):
        return 0.0, 0.0
    return float((colors.max(1) <= _BLACK).mean()), float((colors.min(1) >= _WHITE).mean())


def _luma_and_alpha(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the sum of luminance times alpha and the sum of alpha over the pixels of an image [h, w, 4]."""
    visible = image[image[..., 3] > 0].astype(np.float64) / 255
    alpha = visible[:, 3]
    return float(visible[:, :3] @ _LUMA @ alpha), float(alpha.sum())
