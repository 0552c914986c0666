"""Compute the colors of an object in a coarse grid, which can be appended to its embedding.

The features of a network that was trained to classify photographs contain little about colors. The mean color of an
object is read from them with an error of 18 of 255 for renders and 26 for photographs, and with the colors of a grid of
4 x 4 cells appended with an error of 4 and 5 (docs/LOG.md, 2026-11-30).
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from dataset.images.prepare import WHITE_LEVEL

COLOR_SCALE: Final = 6.0  # the standard deviation of the colors over renders is then about that of the other channels
_CELL_PRIOR: Final = 0.05  # weight of the object's mean color in the color of a cell, as a fraction of the cell


def color_grid(rgb: Tensor, side: int) -> Tensor:
    """Return the colors [n, 3 * side**2] of objects in a grid of `side` x `side` cells, float32.

    The color of a cell is the mean over its pixels that are not white, minus 0.5, times COLOR_SCALE. It includes the
    mean color of the whole object with the weight of 5 % of the cell, so that it is defined for a cell without such
    pixels.

    Args:
        rgb: Images [n, 3, s, s] in [0, 1] on white.
        side: Number of rows and of columns of the grid.
    """
    rgb = rgb.float()
    visible = ((1 - rgb).amax(1, keepdim=True) > WHITE_LEVEL / 255).float()
    area = visible.mean((2, 3), keepdim=True)
    overall = torch.where(area > 0, (rgb * visible).mean((2, 3), keepdim=True) / area, 1.0)  # white without an object
    sums, areas = (functional.adaptive_avg_pool2d(each, side) for each in (rgb * visible, visible))
    cells = (sums + _CELL_PRIOR * overall) / (areas + _CELL_PRIOR)
    return ((cells - 0.5) * COLOR_SCALE).flatten(1)
