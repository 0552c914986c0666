"""PSNR against known values."""

import numpy as np
import pytest

from dataset.images.psnr import psnr_db, psnr_of_mse_db


def test_known_differences():
    black = np.zeros((4, 4, 3))
    assert psnr_db(black, black + 0.1) == pytest.approx(20.0)
    assert psnr_db(black, black + 1.0) == pytest.approx(0.0)
    assert psnr_db(black, black) == pytest.approx(100.0)


def test_symmetric_and_blind_to_the_order_of_pixels():
    first, second = np.random.default_rng(0).random((2, 24, 24, 3))
    assert psnr_db(first, second) == psnr_db(second, first)
    assert psnr_db(first, second) == pytest.approx(psnr_db(first[::-1], second[::-1]))
    assert psnr_db(first, second) == psnr_of_mse_db(float(((first - second) ** 2).mean()))
