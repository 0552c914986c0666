"""A multi-resolution hash grid: features at points and their Jacobian, both linear in the table.

The functions are plain torch: the reference, and the CPU implementation. `kernels.hash_grid` does the same on a GPU.

After Mueller et al., "Instant Neural Graphics Primitives" (2022), section 3. A level whose vertices all fit its table
is indexed densely; finer ones are hashed. A level of resolution N has N cells, so N + 1 vertices, along each axis.

Inside, points are the last axis (a CPU's vector units want that); the public methods transpose.
Axis letters: `n` points, `k` the 8 corners of a cell, `c` features of one level, `w` features of all levels.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from distill.nerf.backend import has_kernels
from distill.nerf.settings import HashGridSettings

_PRIMES: Final = (1, 2_654_435_761, 805_459_861)  # Instant-NGP, Eq. 4
_INIT_RANGE: Final = 1e-4  # Instant-NGP, section 4


def corner_indices(cell: Tensor, resolution: int, table_size: int) -> Tensor:
    """Table rows [2, 2, 2, n] of the corners (x, y, z; 0 low, 1 high) of integer cells [3, n].

    Hashed unless every vertex fits; a hashed level's table size is a power of two.
    """
    dense = (resolution + 1) ** 3 <= table_size
    factors = ((resolution + 1) ** 2, resolution + 1, 1) if dense else _PRIMES
    low_high = torch.stack([cell, cell + 1])  # [2, 3, n]
    x, y, z = (low_high[:, axis] * factor for axis, factor in enumerate(factors))
    if dense:
        return x[:, None, None] + y[:, None] + z
    return (x[:, None, None] ^ y[:, None] ^ z) & (table_size - 1)


def interpolate(corners: Tensor, fraction: Tensor, slope: Tensor | None) -> Tensor:
    """Trilinear interpolation of corners [c, 2, 2, 2, n] at places `fraction` [3, n] in their cells -> [c, 1 or 4, n].

    With `slope` [3, n] the value is followed by the derivatives by x, y, z, each times that axis's slope.
    """
    x, y, z = fraction
    along_z = corners[:, :, :, 0].lerp(corners[:, :, :, 1], z)  # [c, 2, 2, n]
    along_yz = along_z[:, :, 0].lerp(along_z[:, :, 1], y)  # [c, 2, n]
    value = along_yz[:, 0].lerp(along_yz[:, 1], x)  # [c, n]
    if slope is None:
        return value[:, None]
    by_x = along_yz[:, 1] - along_yz[:, 0]
    by_y = along_z[:, :, 1] - along_z[:, :, 0]
    by_z = corners[:, :, :, 1] - corners[:, :, :, 0]
    by_z = by_z[:, :, 0].lerp(by_z[:, :, 1], y)
    by_y, by_z = (rows[:, 0].lerp(rows[:, 1], x) for rows in (by_y, by_z))
    return torch.stack([value, by_x * slope[0], by_y * slope[1], by_z * slope[2]], 1)


def interpolate_transposed(grads: Tensor, fraction: Tensor, slope: Tensor | None) -> Tensor:
    """The transpose of `interpolate`: gradients [c, 1 or 4, n] -> gradients of the corners [c, 2, 2, 2, n]."""
    x, y, z = fraction
    if slope is None:
        return _spread(_spread(_spread(grads[:, 0], x), y), z)
    by_x, by_y, by_z = (grads[:, 1:] * slope).unbind(1)
    along_yz = _spread(grads[:, 0], x, by_x)
    along_z = _spread(along_yz, y, _spread(by_y, x))
    return _spread(along_z, z, _spread(_spread(by_z, x), y))


def _spread(grad: Tensor, place: Tensor, grad_difference: Tensor | None = None) -> Tensor:
    """Transpose of low + place * (high - low), and of high - low if its gradient is given: [..., n] -> [..., 2, n]."""
    high = grad * place if grad_difference is None else torch.addcmul(grad_difference, grad, place)
    return torch.stack([grad - high, high], -2)


class _LookUp(torch.autograd.Function):
    """One level's look-up. Saves the points alone and works the corners out again: little memory a point."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, unit: Tensor, resolution: int, jacobian: bool) -> Tensor:
        """Rows `table` [c, t] at points `unit` [3, n] in unit coordinates -> [c, 1 or 4, n]."""
        ctx.save_for_backward(unit)
        ctx.plan = (table.shape, resolution, jacobian)
        index, fraction, slope = _place(unit, resolution, table.shape[1], jacobian)
        corners = torch.stack([row.index_select(0, index.flatten()) for row in table])
        return interpolate(corners.view(len(table), *index.shape), fraction, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (unit,) = ctx.saved_tensors
        shape, resolution, jacobian = ctx.plan
        index, fraction, slope = _place(unit, resolution, shape[1], jacobian)
        corners = interpolate_transposed(grads[0], fraction, slope).flatten(1)
        table = grads[0].new_zeros(shape)
        for row, values in zip(table, corners, strict=True):
            row.index_add_(0, index.flatten(), values)
        return table, None, None, None


def _place(unit: Tensor, resolution: int, table_size: int, jacobian: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Table rows [2, 2, 2, n], places in the cells [3, n] and slopes [3, n] of points in unit coordinates [3, n].

    A coordinate outside the box is clamped to it, so the slope along that axis is 0 there.
    """
    position = unit.clamp(0, 1) * resolution
    cell = position.floor().clamp(max=resolution - 1)
    slope = ((unit >= 0) & (unit <= 1)).to(unit.dtype) * resolution if jacobian else None
    return corner_indices(cell.long(), resolution, table_size), position - cell, slope


def look_up(table: Tensor, unit: Tensor, settings: HashGridSettings, jacobian: bool) -> Tensor:
    """All levels of a table [c, t] at points [3, n] in unit coordinates -> [w, 1 or 4, n], in plain torch."""
    tables = torch.split(table, list(settings.table_sizes()), dim=1)
    levels = zip(tables, settings.resolutions(), strict=True)
    return torch.cat([_LookUp.apply(part, unit, resolution, jacobian) for part, resolution in levels])


class HashGrid(nn.Module):
    """Features of points in the cube [-radius, radius]^3; outside it, those of the nearest point on its surface."""

    def __init__(
        self, settings: HashGridSettings, radius: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.radius = radius
        shape = (settings.features_per_level, sum(settings.table_sizes()))
        self.table = nn.Parameter(torch.empty(shape).uniform_(-_INIT_RANGE, _INIT_RANGE, generator=generator))

    @property
    def width(self) -> int:
        """Number of features of a point."""
        return self.settings.levels * self.settings.features_per_level

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, w] at world points [n, 3]. Gradients flow to the table alone."""
        return self.look_up(x, jacobian=False)[:, 0].T

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, w] and their derivatives by the world coordinates [n, w, 3], from one gather a level.

        Both are linear in the table and carry its gradient, so a normal needs no second derivative of the grid.
        """
        found = self.look_up(x, jacobian=True)
        return found[:, 0].T, found[:, 1:].permute(2, 0, 1) / (2 * self.radius)

    def look_up(self, x: Tensor, jacobian: bool) -> Tensor:
        """Features [w, 1 or 4, n] at world points [n, 3], levels coarsest first; with their derivatives by the unit
        coordinates, which span the cube, if wanted."""
        unit = ((x.detach() + self.radius) / (2 * self.radius)).T.contiguous()
        if has_kernels(unit.device.type):
            from distill.nerf.kernels.hash_grid import LookUp

            looked_up: Tensor = LookUp.apply(self.table, unit, self.settings, jacobian)
            return looked_up
        return look_up(self.table, unit, self.settings, jacobian)
