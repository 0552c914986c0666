"""Compute the peak signal-to-noise ratio (PSNR) of images with colors in [0, 1]."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

MIN_MSE: Final = 1e-10  # equal images have 100 dB, not infinity


def psnr_db(image: ArrayLike, truth: ArrayLike) -> float:
    """Return the peak signal-to-noise ratio of `image` compared with `truth`, in decibels and at most 100.

    Both are arrays of the same shape [...] with values in [0, 1].
    """
    difference = np.asarray(image, np.float64) - np.asarray(truth, np.float64)
    return psnr_of_mse_db(float(np.square(difference).mean()))


def psnr_of_mse_db(mse: float) -> float:
    """Convert a mean squared error to a peak signal-to-noise ratio in decibels, at most 100.

    `mse` is the mean squared error of values in [0, 1].
    """
    return float(-10 * np.log10(max(mse, MIN_MSE)))
