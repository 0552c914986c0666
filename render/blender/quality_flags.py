"""Detect unusual images of an object (empty, clipped, near-black, ...) and flag them in the outcome table."""

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.format.outcomes import Flag

NEAR_BLACK: Final = 0.05
NEAR_WHITE: Final = 0.95
LOW_COVERAGE: Final = 0.01
_LUMA: Final = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, on the values as stored (sRGB-encoded)
_ORDER: Final[tuple[Flag, ...]] = get_args(Flag)


def image_flags(pictures: Sequence[NDArray[np.uint8]]) -> tuple[Flag, ...]:
    """Flags of one object's pictures, each [h, w, 4] uint8 with straight alpha; in the order of `Flag`.

    Luminance is that of all pictures together, every pixel weighted by its alpha, on a scale from 0 to 1.
    """
    totals = [_luma_and_alpha(picture) for picture in pictures]
    luma, alpha = (sum(column) for column in zip(*totals, strict=True))
    mean = luma / alpha if alpha else 0.5  # of nothing, neither black nor white
    found: dict[Flag, bool] = {
        "empty": not alpha,
        "clipped": any(is_clipped(picture) for picture in pictures),
        "near-black": mean < NEAR_BLACK,
        "near-white": mean > NEAR_WHITE,
        "low-coverage": float(np.mean([alpha_coverage(picture) for picture in pictures])) < LOW_COVERAGE,
    }
    return in_order([flag for flag, true in found.items() if true])


def in_order(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """The same flags in the order in which `Flag` lists them, each once."""
    return tuple(flag for flag in _ORDER if flag in flags)


def alpha_coverage(picture: NDArray[np.uint8]) -> float:
    """Mean alpha of a picture [h, w, 4], 0 to 1."""
    return float(picture[..., 3].mean(dtype=np.float64) / 255)


def is_clipped(picture: NDArray[np.uint8]) -> bool:
    """Whether the object touches the border of a picture [h, w, 4]."""
    alpha = picture[..., 3]
    return bool(alpha[[0, -1]].any() or alpha[:, [0, -1]].any())


def _luma_and_alpha(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """(sum of luminance times alpha, sum of alpha), both of values from 0 to 1."""
    visible = picture[picture[..., 3] > 0].astype(np.float64) / 255
    alpha = visible[:, 3]
    return float(visible[:, :3] @ _LUMA @ alpha), float(alpha.sum())
