"""Triton kernels of the hash grid: features of all levels with their Jacobian, and the gradient of the table.

`distill.nerf.hash_grid` documents the formulas. In the kernels, each row of the table holds the features of one vertex,
so that one memory sector is read per corner. The table is therefore transposed before a kernel runs, and its gradient
afterwards. The two transpositions take little time compared with the look-ups of a step.

One program processes one level for `_BLOCK` points. The level is the slow axis of the launch grid, so that the table
rows of a level stay in the L2 cache while this level is processed. The kernels compute in the data type of their input
tensors, including float64.
"""

from functools import lru_cache
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from distill.nerf.settings import HashGridSettings

_BLOCK: Final = 128
_PRIME_Y = tl.constexpr(2_654_435_761)  # Instant-NGP, Eq. 4; the first is 1
_PRIME_Z = tl.constexpr(805_459_861)


class LookUp(torch.autograd.Function):
    """Autograd function that looks up the features of points in all levels of a hash grid.

    The forward pass stores only the points. The backward pass computes the corners of their cells again.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, unit: Tensor, settings: HashGridSettings, jacobian: bool) -> Tensor:
        """Return the features of points in all levels.

        Args:
            ctx: Context of the autograd function.
            table: Table [c, t]: c features for each of the t entries. The entries of the first level come first, then
                those of the second level, and so on.
            unit: The coordinates [3, n] of n points, scaled so that the cube of the grid is [0, 1]^3.
            settings: Settings of the hash grid.
            jacobian: Whether to return the derivatives of the features along x, y and z too.

        Returns:
            Features [levels * c, 1, n]. With `jacobian`: features and their derivatives along x, y and z,
            [levels * c, 4, n].
        """
        ctx.save_for_backward(unit)
        ctx.plan = (table.shape, settings, jacobian)
        channels = len(table)
        found = table.new_empty(settings.levels * channels, 4 if jacobian else 1, unit.shape[1])
        levels = _level_rows(settings, unit.device)
        _launch(_look_up_kernel, unit, table.T.contiguous(), levels, found, channels=channels, jacobian=jacobian)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient [c, t] of the loss with respect to the table, and None for the other inputs of `forward`.

        The table has c features for each of its t entries.

        Repeated calls differ in the last digits, because the GPU adds the numbers in a varying order.

        Args:
            ctx: Context of the autograd function.
            grads: One tensor: the gradient of the loss with respect to the features that `forward` returned.
        """
        (unit,) = ctx.saved_tensors
        (channels, entries), settings, jacobian = ctx.plan
        table = grads[0].new_zeros(entries, channels)
        levels = _level_rows(settings, unit.device)
        _launch(_scatter_kernel, unit, table, levels, grads[0].contiguous(), channels=channels, jacobian=jacobian)
        return table.T.contiguous(), None, None, None


def _launch(
    kernel: Any, unit: Tensor, table: Tensor, levels: Tensor, values: Tensor, *, channels: int, jacobian: bool
) -> None:
    points = unit.shape[1]
    if points:
        padded = triton.next_power_of_2(channels)
        grid = (triton.cdiv(points, _BLOCK), len(levels))
        with torch.cuda.device_of(unit):  # a kernel is launched on the current device, wherever its tensors are
            kernel[grid](unit, table, levels, values, points, channels, padded, jacobian, _BLOCK)


@lru_cache(maxsize=8)
def _level_rows(settings: HashGridSettings, device: torch.device) -> Tensor:
    """Return [levels, 4] for the kernels: cells per axis, number of entries, first entry, and whether it is hashed."""
    rows, first = [], 0
    for resolution, size in zip(settings.resolutions(), settings.table_sizes(), strict=True):
        rows.append((resolution, size, first, int((resolution + 1) ** 3 > size)))
        first += size
    return torch.tensor(rows, dtype=torch.int32, device=device)


@triton.jit
def _look_up_kernel(
    unit, table, levels, found, points,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, JACOBIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write to `found` [levels * c, 1 or 4, n] the features of points `unit` [3, n] in `table` [t, c]."""
    point, inside, level = _program(points, BLOCK)
    resolution, size, first, hashed = _level(levels, level)
    cell_x, x, slope_x, cell_y, y, slope_y, cell_z, z, slope_z = _cell(unit, points, point, inside, resolution)
    channel, wanted = _channels(inside, CHANNELS, PADDED)

    value = tl.zeros((BLOCK, PADDED), table.dtype.element_ty)
    by_x = tl.zeros((BLOCK, PADDED), table.dtype.element_ty)
    by_y = tl.zeros((BLOCK, PADDED), table.dtype.element_ty)
    by_z = tl.zeros((BLOCK, PADDED), table.dtype.element_ty)
    for corner in tl.static_range(8):
        row = first + _row(cell_x, cell_y, cell_z, corner, resolution, size, hashed)
        here = tl.load(table + row[:, None] * CHANNELS + channel[None, :], mask=wanted, other=0)
        weight_x, weight_y, weight_z = _weights(x, y, z, corner)
        value += (weight_x * weight_y * weight_z)[:, None] * here
        if JACOBIAN:
            by_x += _signed(weight_y * weight_z, corner // 4)[:, None] * here
            by_y += _signed(weight_x * weight_z, corner // 2 % 2)[:, None] * here
            by_z += _signed(weight_x * weight_y, corner % 2)[:, None] * here

    rows: tl.constexpr = 4 if JACOBIAN else 1
    out = found + ((level * CHANNELS + channel).to(tl.int64) * rows * points)[None, :] + point[:, None]
    tl.store(out, value, mask=wanted)
    if JACOBIAN:
        step = tl.cast(points, tl.int64)
        tl.store(out + step, by_x * slope_x[:, None], mask=wanted)
        tl.store(out + 2 * step, by_y * slope_y[:, None], mask=wanted)
        tl.store(out + 3 * step, by_z * slope_z[:, None], mask=wanted)


@triton.jit
def _scatter_kernel(
    unit, table, levels, grads, points,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, JACOBIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Apply the transpose of `_look_up_kernel`: add `grads` [levels * c, 1 or 4, n] to `table` [t, c]."""
    point, inside, level = _program(points, BLOCK)
    resolution, size, first, hashed = _level(levels, level)
    cell_x, x, slope_x, cell_y, y, slope_y, cell_z, z, slope_z = _cell(unit, points, point, inside, resolution)
    channel, wanted = _channels(inside, CHANNELS, PADDED)

    rows: tl.constexpr = 4 if JACOBIAN else 1
    at = grads + ((level * CHANNELS + channel).to(tl.int64) * rows * points)[None, :] + point[:, None]
    grad = tl.load(at, mask=wanted, other=0)
    if JACOBIAN:
        step = tl.cast(points, tl.int64)
        grad_x = tl.load(at + step, mask=wanted, other=0) * slope_x[:, None]
        grad_y = tl.load(at + 2 * step, mask=wanted, other=0) * slope_y[:, None]
        grad_z = tl.load(at + 3 * step, mask=wanted, other=0) * slope_z[:, None]
    for corner in tl.static_range(8):
        row = first + _row(cell_x, cell_y, cell_z, corner, resolution, size, hashed)
        weight_x, weight_y, weight_z = _weights(x, y, z, corner)
        share = (weight_x * weight_y * weight_z)[:, None] * grad
        if JACOBIAN:
            share += _signed(weight_y * weight_z, corner // 4)[:, None] * grad_x
            share += _signed(weight_x * weight_z, corner // 2 % 2)[:, None] * grad_y
            share += _signed(weight_x * weight_y, corner % 2)[:, None] * grad_z
        tl.atomic_add(table + row[:, None] * CHANNELS + channel[None, :], share, mask=wanted, sem="relaxed")


@triton.jit
def _program(points, BLOCK: tl.constexpr):
    """Return the points [BLOCK] of this program with their mask, and the level of this program."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return point, point < points, tl.program_id(1)


@triton.jit
def _channels(inside, CHANNELS: tl.constexpr, PADDED: tl.constexpr):
    """Return the channels [PADDED] of a row, and the mask [BLOCK, PADDED] of points and channels."""
    channel = tl.arange(0, PADDED)
    return channel, inside[:, None] & (channel < CHANNELS)[None, :]


@triton.jit
def _cell(unit, points, point, inside, resolution):
    """Return `_axis` for each of the three axes."""
    cell_x, x, slope_x = _axis(unit, 0, points, point, inside, resolution)
    cell_y, y, slope_y = _axis(unit, 1, points, point, inside, resolution)
    cell_z, z, slope_z = _axis(unit, 2, points, point, inside, resolution)
    return cell_x, x, slope_x, cell_y, y, slope_y, cell_z, z, slope_z


@triton.jit
def _level(levels, level):
    """Return, for a level, cells per axis, number of entries, first entry, and whether the level is hashed."""
    row = levels + level * 4
    return tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)


@triton.jit
def _axis(unit, AXIS: tl.constexpr, points, point, inside, resolution):
    """Return cell, position in the cell and slope [BLOCK] along an axis.

    The cell is valid for any coordinate, even NaN.
    """
    coordinate = tl.load(unit + tl.cast(points, tl.int64) * AXIS + point, mask=inside, other=0)
    cells = resolution.to(unit.dtype.element_ty)
    position = tl.minimum(tl.maximum(coordinate, 0.0), 1.0) * cells
    cell = tl.minimum(tl.maximum(position.to(tl.int32), 0), resolution - 1)
    slope = tl.where((coordinate >= 0) & (coordinate <= 1), cells, 0.0)
    return cell, position - cell.to(unit.dtype.element_ty), slope


@triton.jit
def _row(cell_x, cell_y, cell_z, CORNER: tl.constexpr, resolution, size, hashed):
    """Return the row [BLOCK] of a corner of the cells; see `hash_grid.corner_indices`. CORNER is 4x + 2y + z."""
    x = cell_x + CORNER // 4
    y = cell_y + CORNER // 2 % 2
    z = cell_z + CORNER % 2
    mixed = x.to(tl.uint32) ^ (y.to(tl.uint32) * _PRIME_Y) ^ (z.to(tl.uint32) * _PRIME_Z)
    row = (mixed & (size - 1).to(tl.uint32)).to(tl.int32)
    return tl.where(hashed != 0, row, (x * (resolution + 1) + y) * (resolution + 1) + z)


@triton.jit
def _weights(x, y, z, CORNER: tl.constexpr):
    """Return the weights [BLOCK] of a corner along each axis, at positions [BLOCK] in the cells."""
    return _weight(x, CORNER // 4), _weight(y, CORNER // 2 % 2), _weight(z, CORNER % 2)


@triton.jit
def _weight(place, HIGH: tl.constexpr):
    return place if HIGH else 1 - place


@triton.jit
def _signed(weight, HIGH: tl.constexpr):
    """Return `weight` with the sign of the derivative of `_weight`."""
    return weight if HIGH else -weight
