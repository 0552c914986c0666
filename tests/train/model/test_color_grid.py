"""The colors of an object in a grid: means over pixels that are not white, and cells without such pixels."""

import pytest
import torch
from torch import Tensor

from train.model.color_grid import COLOR_SCALE, color_grid


def colors(rgb: Tensor, side: int) -> Tensor:
    """Return the colors [3, side, side] of one image [3, s, s], in [0, 1]."""
    return color_grid(rgb[None], side).view(3, side, side) / COLOR_SCALE + 0.5


def test_colors_are_means_over_the_pixels_of_the_object() -> None:
    """A red and blue object on white: three cells have its colors, the fourth, which is empty, their mean."""
    rgb = torch.ones(3, 40, 40)
    red, blue = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.7])
    rgb[:, 10:20, 10:20] = red[:, None, None]
    rgb[:, 10:20, 20:30] = rgb[:, 20:30, 10:20] = blue[:, None, None]
    found, overall = colors(rgb, 2), (red + 2 * blue) / 3
    torch.testing.assert_close(found[:, 0, 0], (0.25 * red + 0.05 * overall) / 0.3)
    torch.testing.assert_close(found[:, 0, 1], (0.25 * blue + 0.05 * overall) / 0.3)
    torch.testing.assert_close(found[:, 1, 0], (0.25 * blue + 0.05 * overall) / 0.3)
    torch.testing.assert_close(found[:, 1, 1], overall)


@pytest.mark.parametrize(
    ("color", "visible"),
    [((0.94, 0.94, 0.94), True), ((0.97, 0.97, 0.97), False), ((1.0, 1.0, 0.1), True), ((1.0, 1.0, 1.0), False)],
)
def test_pixels_that_are_nearly_white_do_not_count(color: tuple[float, float, float], *, visible: bool) -> None:
    """The upper half is black. The lower half counts unless all its channels are nearly white."""
    rgb = torch.zeros(3, 16, 16)
    rgb[:, 8:] = torch.tensor(color)[:, None, None]
    mean = torch.tensor(color) / 2 if visible else torch.zeros(3)
    torch.testing.assert_close(colors(rgb, 1)[:, 0, 0], mean)


def test_a_white_image_is_white() -> None:
    torch.testing.assert_close(colors(torch.ones(3, 8, 8), 2), torch.ones(3, 2, 2))


def test_colors_are_float32_means_whatever_the_type_of_the_image() -> None:
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.9
    found = color_grid(rgb.bfloat16(), 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, color_grid(rgb.bfloat16().float(), 4))
