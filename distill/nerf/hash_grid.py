"""A multi-resolution hash grid: features of points and the Jacobian of the features. Both are linear in the table.

The functions here are plain torch. `kernels.hash_grid` computes the same on a GPU and is tested against them.

See Mueller et al., "Instant Neural Graphics Primitives" (2022), section 3. A level whose vertices all fit into its part
of the table is indexed densely; finer levels are hashed. A level of resolution N has N cells, and so N + 1 vertices,
per axis.

Internally points are the last axis, which is faster on a CPU; the methods `forward` and `with_jacobian` have points
first.

Axis letters: `n` points, `k` the 8 corners of a cell, `c` features of one level, `w` features of all levels, `t`
entries of the table.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from distill.nerf.backend import has_kernels
from distill.nerf.settings import HashGridSettings

_PRIMES: Final = (1, 2_654_435_761, 805_459_861)  # Instant-NGP, Eq. 4
_INIT_RANGE: Final = 1e-4  # Instant-NGP, section 4


def corner_indices(cell: Tensor, resolution: int, table_size: int, first_row: int = 0) -> Tensor:
    """Return the index of each corner of given cells in the table of a level.

    A level whose table has an entry for every vertex is indexed densely; otherwise the index is a hash of the vertex.

    Args:
        cell: Integer coordinates [3, n] of the cells, int32 or int64.
        resolution: Number of cells of the level along each axis.
        table_size: Number of entries in the table of the level; a power of two if the level is hashed.
        first_row: Index of the first entry of the level, which is added to the indices.

    Returns:
        Indices [2, 2, 2, n] of the same type. The first three axes are x, y and z of the corner: 0 for the low side, 1
        for the high side.
    """
    dense = (resolution + 1) ** 3 <= table_size
    factors = ((resolution + 1) ** 2, resolution + 1, 1) if dense else _PRIMES
    if dense:
        first = cell[0] * factors[0] + cell[1] * factors[1] + (cell[2] + first_row)
        corner = [x * factors[0] + y * factors[1] + z for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        return (first + cell.new_tensor(corner)[:, None]).view(2, 2, 2, -1)
    low_high = torch.stack([cell, cell + 1]).long()  # [2, 3, n]; the products need 64 bits
    x, y, z = ((low_high[:, axis] * factor & (table_size - 1)).to(cell.dtype) for axis, factor in enumerate(factors))
    return (x[:, None, None] ^ y[:, None] ^ z).add_(first_row)


def interpolate(corners: Tensor, fraction: Tensor, slope: Tensor | None) -> Tensor:
    """Interpolate values at the corners of cells trilinearly.

    Args:
        corners: For each of n points, the c values at each of the 8 corners of its cell, [c, ..., 2, 2, 2, n]. The axes
            of length 2 are x, y and z of the corner; "..." may be an axis of levels.
        fraction: Position of each point in its cell, [..., 3, n] in [0, 1].
        slope: Derivative [..., 3, n] of `fraction` with respect to the coordinates of the points (chain rule). None:
            compute no derivatives.

    Returns:
        The interpolated values [c, ..., 1, n]. With `slope`: these values and their derivatives along x, y and z,
        [c, ..., 4, n].
    """
    x, y, z = fraction.unbind(-2)
    y, z = y[..., None, :], z[..., None, None, :]
    low, high = corners.unbind(-2)  # [c, ..., 2, 2, n]
    if slope is None:
        low, high = low.lerp(high, z).unbind(-2)  # [c, ..., 2, n]
        low, high = low.lerp(high, y).unbind(-2)  # [c, ..., n]
        return low.lerp(high, x)[..., None, :]
    by_z = high - low
    low, high = torch.addcmul(low, by_z, z).unbind(-2)
    by_y = high - low
    low, high = torch.addcmul(low, by_y, y).unbind(-2)
    by_x = high - low
    by_z = _linear(by_z, y)
    result = corners.new_empty(*by_x.shape[:-1], 4, by_x.shape[-1])
    torch.addcmul(low, by_x, x, out=result[..., 0, :])
    derivatives = (by_x, _linear(by_y, x), _linear(by_z, x))
    for axis, derivative in enumerate(derivatives):
        torch.mul(derivative, slope[..., axis, :], out=result[..., axis + 1, :])
    return result


def _linear(ends: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate between the low and the high end, [..., 2, n]; like `lerp`, which is slower on a CPU."""
    low, high = ends.unbind(-2)
    return torch.addcmul(low, high - low, fraction)


def interpolate_transposed(grads: Tensor, fraction: Tensor, slope: Tensor | None) -> Tensor:
    """Compute the backward pass of `interpolate`.

    Args:
        grads: Gradients of the loss with respect to the tensor that `interpolate` returned for c values at n points:
            [c, ..., 1, n], or [c, ..., 4, n] with `slope`.
        fraction: Position of each point in its cell, [..., 3, n] in [0, 1].
        slope: Derivative [..., 3, n] of `fraction` with respect to the coordinates of the points; None if `interpolate`
            computed no derivatives.

    Returns:
        Gradients [c, ..., 2, 2, 2, n] of the loss with respect to the values at the corners of the cells.
    """
    x, y, z = fraction.unbind(-2)
    y, z = y[..., None, :], z[..., None, None, :]
    if slope is None:
        return _spread(_spread(_spread(grads[..., 0, :], x), y), z)
    by_x, by_y, by_z = (grads[..., 1:, :] * slope).unbind(-2)
    along_yz = _spread(grads[..., 0, :], x, by_x)
    along_z = _spread(along_yz, y, _spread(by_y, x))
    return _spread(along_z, z, _spread(_spread(by_z, x), y))


def _spread(grad: Tensor, fraction: Tensor, grad_difference: Tensor | None = None) -> Tensor:
    """Return the gradient [..., 2, n] of (low, high), given `grad` [..., n], that of lerp(low, high, fraction).

    `grad_difference` is the gradient of high - low, or None.
    """
    spread = grad.new_empty(*grad.shape[:-1], 2, grad.shape[-1])
    low, high = spread.unbind(-2)
    if grad_difference is None:
        torch.mul(grad, fraction, out=high)
    else:
        torch.addcmul(grad_difference, grad, fraction, out=high)
    torch.sub(grad, high, out=low)
    return spread


class _LookUp(torch.autograd.Function):
    """Autograd function that looks up one level. It stores only the points, and recomputes the corners when needed."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, unit: Tensor, resolution: int, jacobian: bool) -> Tensor:
        """Return the features of points in one level.

        Args:
            ctx: Context of the autograd function.
            table: Table [c, t] of this level: c features for each of t entries.
            unit: The coordinates [3, n] of n points, scaled so that the cube of the grid is [0, 1]^3.
            resolution: Number of cells of the level along each axis.
            jacobian: Whether to return the derivatives of the features along x, y and z too.

        Returns:
            Features [c, 1, n]. With `jacobian`: features and their derivatives along x, y and z, [c, 4, n].
        """
        ctx.save_for_backward(unit)
        ctx.plan = (table.shape, resolution, jacobian)
        index, fraction, slope = _locate(unit, resolution, table.shape[1], jacobian)
        corners = torch.stack([row.index_select(0, index.flatten()) for row in table])
        return interpolate(corners.view(len(table), *index.shape), fraction, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (unit,) = ctx.saved_tensors
        shape, resolution, jacobian = ctx.plan
        index, fraction, slope = _locate(unit, resolution, shape[1], jacobian)
        corners = interpolate_transposed(grads[0], fraction, slope).flatten(1)
        table = grads[0].new_zeros(shape)
        for row, values in zip(table, corners, strict=True):
            row.index_add_(0, index.flatten(), values)
        return table, None, None, None


def _locate(unit: Tensor, resolution: int, table_size: int, jacobian: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return table rows [2, 2, 2, n], positions in the cells [3, n] and slopes [3, n] of points `unit` [3, n].

    Coordinates outside the box are clamped to it, so the slope along that axis is 0.
    """
    position = unit.clamp(0, 1) * resolution
    cell = position.floor().clamp(max=resolution - 1)
    slope = ((unit >= 0) & (unit <= 1)).to(unit.dtype) * resolution if jacobian else None
    return corner_indices(cell.int(), resolution, table_size), position - cell, slope


def look_up(table: Tensor, unit: Tensor, settings: HashGridSettings, jacobian: bool) -> Tensor:
    """Return the features of all levels at points, computed in plain torch.

    Args:
        table: Table [c, t]: c features for each of the t entries. The entries of the first level come first, then those
            of the second level, and so on.
        unit: The coordinates [3, n] of n points, scaled so that the cube of the grid is [0, 1]^3.
        settings: Settings of the hash grid.
        jacobian: Whether to return the derivatives of the features along x, y and z too.

    Returns:
        Features [w, 1, n], where w is c times the number of levels. With `jacobian`: features and their derivatives
        along x, y and z, [w, 4, n].
    """
    tables = torch.split(table, list(settings.table_sizes()), dim=1)
    levels = zip(tables, settings.resolutions(), strict=True)
    return torch.cat([_LookUp.apply(part, unit, resolution, jacobian) for part, resolution in levels])


class HashGrid(nn.Module):
    """A trainable table from which features of points in the cube [-radius, radius]^3 are interpolated.

    Points outside the cube are clamped to it.
    """

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
        """Number w of features per point."""
        return self.settings.levels * self.settings.features_per_level

    def forward(self, x: Tensor) -> Tensor:
        """Return the features [n, w] of world points `x` [n, 3], where w is `width`.

        Gradients flow to the table, not to the points.
        """
        return self.look_up(x, jacobian=False)[:, 0].T

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [n, w] at world points `x` [n, 3], and their derivatives [n, w, 3] with respect to `x`.

        This takes one gather per level. Both results are linear in the table and differentiable with respect to it, so
        normals need no second derivative of the grid.
        """
        encoded = self.look_up(x, jacobian=True)
        return encoded[:, 0].T, encoded[:, 1:].permute(2, 0, 1) / (2 * self.radius)

    def look_up(self, x: Tensor, jacobian: bool) -> Tensor:
        """Return the features of all levels at world points, coarsest level first.

        Args:
            x: World points [n, 3].
            jacobian: Whether to return the derivatives of the features along x, y and z too.

        Returns:
            Features [w, 1, n], where w is `width`. With `jacobian`: features and their derivatives along x, y and z,
            [w, 4, n]. The derivatives are with respect to unit coordinates, in which the cube of the grid is [0, 1]^3.
        """
        unit = ((x.detach() + self.radius) / (2 * self.radius)).T.contiguous()
        if has_kernels(unit.device.type):
            from distill.nerf.kernels.hash_grid import LookUp

            looked_up: Tensor = LookUp.apply(self.table, unit, self.settings, jacobian)
            return looked_up
        return look_up(self.table, unit, self.settings, jacobian)
