"""The occupancy grid. It stores in which cells a scene has density, so that ray marching skips the other cells.

The grid and its update are `OccGridEstimator` of nerfacc.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from nerfacc.estimators.occ_grid import OccGridEstimator
from torch import Tensor, nn

from distill.nerf.settings import MarchSettings


class OccupancyCells(NamedTuple):
    """The occupied cells of a grid over the cube [-radius, radius]^3."""

    occupied: Tensor  # [side, side, side] bool, indexed by x, y, z
    radius: float


def in_occupied_cell(x: Tensor, cells: OccupancyCells) -> Tensor:
    """Return whether world points lie in occupied cells. Points outside the cube are clamped to it.

    Args:
        x: World points [..., 3].
        cells: The occupied cells.

    Returns:
        Booleans [...].
    """
    side = len(cells.occupied)
    cell = ((x + cells.radius) * (side / (2 * cells.radius))).long().clamp(0, side - 1)
    occupied: Tensor = cells.occupied.reshape(-1)[(cell[..., 0] * side + cell[..., 1]) * side + cell[..., 2]]
    return occupied


def in_occupied_cell_along(origin: Tensor, direction: Tensor, t: Tensor, cells: OccupancyCells) -> Tensor:
    """Return whether points on rays lie in occupied cells, as `in_occupied_cell` does for world points.

    Args:
        origin: Origins [3, n, 1] of n rays.
        direction: Directions [3, n, 1] of the rays.
        t: Distances [n, s] of s points on each ray.
        cells: The occupied cells.

    Returns:
        Booleans [n, s].
    """
    side = len(cells.occupied)
    index = torch.zeros_like(t, dtype=torch.int32)
    for axis in range(3):  # one axis at a time, because arrays of points [..., 3] are slow on a CPU
        x = origin[axis] + direction[axis] * t
        index *= side
        index += ((x + cells.radius) * (side / (2 * cells.radius))).int().clamp_(0, side - 1)
    return cells.occupied.flatten().index_select(0, index.flatten()).view(t.shape)


class Occupancy(nn.Module):
    """The occupancy grid of the cube around a scene. It is updated during the optimization and saved in checkpoints."""

    def __init__(self, radius: float, settings: MarchSettings) -> None:
        super().__init__()
        self.radius = radius
        self.settings = settings
        self.grid = OccGridEstimator([-radius] * 3 + [radius] * 3, settings.occupancy_resolution)

    def update(self, step: int, density: Callable[[Tensor], Tensor], seed: int) -> None:
        """Update the grid with the current density of the scene.

        Nothing happens if `step` is not a multiple of the setting `occupancy_every`. The density is evaluated at random
        points in cells of the grid. The random numbers depend only on `seed` and `step`.

        Args:
            step: Index of the current step, counted from 0.
            density: Function that returns the density [n] of the scene at world points [n, 3].
            seed: Seed of the random points.
        """
        settings = self.settings
        if step % settings.occupancy_every:
            return
        device = self.grid.occs.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed((seed * 1_000_003 + step) % 2**63)
            self.grid.update_every_n_steps(
                step,
                lambda x: density(x)[:, None] * settings.step_length(self.radius),
                occ_thre=settings.occupancy_threshold,
                ema_decay=settings.occupancy_decay,
                warmup_steps=settings.occupancy_warmup,
                n=settings.occupancy_every,
            )

    @property
    def cells(self) -> OccupancyCells:
        """The cells that are occupied now."""
        return OccupancyCells(self.grid.binaries[0], self.radius)

    @property
    def mean(self) -> Tensor:
        """Mean value of the grid, a scalar.

        The value of a cell is the optical depth of one ray marching step in this cell.
        """
        mean: Tensor = self.grid.occs.mean()
        return mean

    def forward(self, x: Tensor) -> Tensor:
        """Return whether world points `x` [..., 3] lie in occupied cells, as booleans [...]."""
        return in_occupied_cell(x, self.cells)
