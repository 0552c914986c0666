"""Density, albedo and normals of a field at many points on a CPU, with gradients written by hand.

`Field.query_features` defines the values, and autograd could differentiate it. On a CPU that takes several times as
long, because each of its operations reads and writes large tensors. Here the points are processed in chunks that stay
in the cache, and the gradients use that the MLPs have no biases: with m = (W f > 0), the slope of the density MLP is
s = (w2 W)^T m and its output is s . f, so that one product with m gives the gradients of both layers.

Axis letters: `n` points, `l` levels, `c` features of one level, `w` features of all levels, `h` hidden units, `t`
entries of the table.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.hash_grid import corner_indices, interpolate, interpolate_transposed
from distill.nerf.settings import FieldSettings, HashGridSettings

CHUNK: Final = 16_384  # points; the sums over chunks depend on it, so it is the same on all machines
_EPSILON: Final = 1e-12  # as in torch.nn.functional.normalize


class FieldWeights(NamedTuple):
    """The parameters of a field."""

    table: Tensor  # [c, t]
    density_hidden: Tensor  # [h, w]
    density_output: Tensor  # [1, h]
    albedo_hidden: Tensor  # [h, w]
    albedo_output: Tensor  # [3, h]


def query_points(x: Tensor, weights: FieldWeights, settings: FieldSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return density [n], albedo [n, 3] and outward unit normal [n, 3] of a field at world points `x` [n, 3].

    Gradients flow to the weights, not to the points.
    """
    density, albedo, normal = _Query.apply(x.detach(), settings, *weights)
    return density, albedo.T, normal.T


class _Query(torch.autograd.Function):
    """Autograd function of `query_points`; it returns albedo and normal as [3, n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: FieldSettings, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights = _sorted(FieldWeights(*parameters), _by_channel)
        density, albedo, normal = x.new_empty(len(x)), x.new_empty(3, len(x)), x.new_empty(3, len(x))
        saved: list[Tensor] = []
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            density[part], chunk = _forward(x[part].T.contiguous(), weights, settings)
            albedo[:, part], normal[:, part] = chunk.albedo, chunk.normal
            if any(ctx.needs_input_grad):
                saved.extend(chunk)
        ctx.settings = settings
        ctx.save_for_backward(*parameters, *saved)
        return density, albedo, normal

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parameters, saved = len(FieldWeights._fields), len(_Chunk._fields)
        tensors = ctx.saved_tensors
        weights = _sorted(FieldWeights(*tensors[:parameters]), _by_channel)
        sums = FieldWeights(*(torch.zeros_like(weight) for weight in weights))
        for number, first in enumerate(range(parameters, len(tensors), saved)):
            part = slice(number * CHUNK, (number + 1) * CHUNK)
            chunk = _Chunk(*tensors[first : first + saved])
            _backward(chunk, weights, ctx.settings, tuple(grad[..., part] for grad in grads), sums)
        return None, None, *_sorted(sums, _by_level)


def _sorted(weights: FieldWeights, order: Callable[[Tensor, int], Tensor]) -> FieldWeights:
    """Sort the features of the hidden layers with `_by_channel` or `_by_level`."""
    channels = len(weights.table)
    return weights._replace(
        density_hidden=order(weights.density_hidden, channels), albedo_hidden=order(weights.albedo_hidden, channels)
    )


class _Chunk(NamedTuple):
    """The values of n points that the backward pass needs."""

    rows: Tensor  # the fields of `_Location`
    fraction: Tensor
    slope: Tensor
    albedo: Tensor  # [3, n]
    normal: Tensor  # [3, n]
    density_by_raw: Tensor  # [n] derivative of the density with respect to the output of the density MLP
    inverse_norm: Tensor  # [n] 1 / the length of the gradient of the output
    features: Tensor  # [w, n]
    jacobian: Tensor  # [w, 3, n] derivatives of the features with respect to unit coordinates
    active: Tensor  # [h, n] whether a hidden unit of the density MLP is active, as 0 or 1
    raw_slope: Tensor  # [w, n] derivative of the output of the density MLP with respect to the features
    albedo_hidden: Tensor  # [h, n] hidden units of the albedo MLP after ReLU


def _forward(x: Tensor, weights: FieldWeights, settings: FieldSettings) -> tuple[Tensor, _Chunk]:
    """Query points `x` [3, n]. Return their density [n] and the other values."""
    unit = (x + settings.radius) / (2 * settings.radius)
    location = _locate(unit, settings.grid)
    encoded = _encode(location, weights.table).flatten(0, 1)  # [w, 4, n]
    features, jacobian = encoded[:, 0].contiguous(), encoded[:, 1:]
    active = (weights.density_hidden @ features).gt_(0)
    raw_slope = (weights.density_hidden * weights.density_output.T).T @ active
    raw = (raw_slope * features).sum(0)
    distance = _length(x)
    biased = raw + settings.blob_density * (1 - distance / settings.blob_radius)
    in_ball = distance <= settings.radius
    gradient = (raw_slope[:, None] * jacobian).sum(0) / (2 * settings.radius)
    gradient -= x * (settings.blob_density / settings.blob_radius / distance.clamp(min=_EPSILON))
    inverse_norm = 1 / _length(gradient).clamp(min=_EPSILON)
    albedo_hidden = (weights.albedo_hidden @ features).relu_()
    return F.softplus(biased) * in_ball, _Chunk(
        *location,
        torch.sigmoid(weights.albedo_output @ albedo_hidden),
        -gradient * inverse_norm,
        torch.sigmoid(biased) * in_ball,
        inverse_norm,
        features,
        jacobian,
        active,
        raw_slope,
        albedo_hidden,
    )


def _length(vectors: Tensor) -> Tensor:
    """Return the length [n] of vectors [3, n]; `torch.linalg.vector_norm` is ten times slower along this axis."""
    return vectors.square().sum(0).sqrt()


class _Location(NamedTuple):
    """The place of n points in the cells of all levels."""

    rows: Tensor  # [l, 2, 2, 2, n] rows of the table at the corners of the cells, int32
    fraction: Tensor  # [l, 3, n] position in the cell in [0, 1]
    slope: Tensor  # [l, 3, n] derivative of `fraction` with respect to the coordinates


def _locate(unit: Tensor, settings: HashGridSettings) -> _Location:
    """Return the cells of points in the unit cube [3, n]; see `hash_grid`."""
    cells_per_axis, sizes = settings.resolutions(), settings.table_sizes()
    resolution = unit.new_tensor(cells_per_axis)[:, None, None]
    inside = unit.clamp(0, 1)
    position = inside * resolution
    cell = torch.minimum(position.floor(), resolution - 1)
    rows = [
        corner_indices(corner, cells_per_axis[level], sizes[level], sum(sizes[:level]))
        for level, corner in enumerate(cell.int())
    ]
    return _Location(torch.stack(rows), position.sub_(cell), (inside == unit).to(unit.dtype) * resolution)


def _encode(location: _Location, table: Tensor) -> Tensor:
    """Return the features and their derivatives with respect to unit coordinates, [c, l, 4, n]."""
    flat = location.rows.flatten()
    corners = torch.stack([row.index_select(0, flat) for row in table])
    return interpolate(corners.view(len(table), *location.rows.shape), location.fraction, location.slope)


def _backward(
    chunk: _Chunk, weights: FieldWeights, settings: FieldSettings, grads: tuple[Tensor, ...], sums: FieldWeights
) -> None:
    """Add the gradients of a chunk to `sums`, given those of its density [n], albedo [3, n] and normal [3, n]."""
    by_density, by_albedo, by_normal = grads
    by_raw = by_density * chunk.density_by_raw
    along = (by_normal * chunk.normal).sum(0)
    by_gradient = (chunk.normal * along - by_normal) * (chunk.inverse_norm / (2 * settings.radius))
    by_slope = by_raw * chunk.features  # [w, n]
    for axis in range(3):
        by_slope.addcmul_(chunk.jacobian[:, axis], by_gradient[axis])
    product = chunk.active @ by_slope.T  # [h, w]
    sums.density_hidden.add_(weights.density_output.T * product)
    sums.density_output.add_((weights.density_hidden * product).sum(1))
    by_logits = by_albedo * chunk.albedo * (1 - chunk.albedo)
    sums.albedo_output.add_(by_logits @ chunk.albedo_hidden.T)
    by_hidden = (weights.albedo_output.T @ by_logits).mul_(chunk.albedo_hidden > 0)
    sums.albedo_hidden.add_(by_hidden @ chunk.features.T)
    by_encoded = by_raw.new_empty(len(chunk.raw_slope), 4, len(by_raw))
    by_encoded[:, 0] = weights.albedo_hidden.T @ by_hidden
    by_encoded[:, 0].addcmul_(chunk.raw_slope, by_raw)
    torch.mul(chunk.raw_slope[:, None], by_gradient, out=by_encoded[:, 1:])
    by_encoded = by_encoded.view(len(sums.table), settings.grid.levels, 4, -1)
    corners = interpolate_transposed(by_encoded, chunk.fraction, chunk.slope)
    for row, values in zip(sums.table, corners.flatten(1), strict=True):
        row.index_add_(0, chunk.rows.flatten(), values)


def _by_channel(weights: Tensor, channels: int) -> Tensor:
    """Sort the columns [h, w] of weights by channel and then by level; in a field they are sorted by level first."""
    return weights.view(len(weights), -1, channels).transpose(1, 2).flatten(1)


def _by_level(weights: Tensor, channels: int) -> Tensor:
    """Invert `_by_channel`."""
    return weights.view(len(weights), channels, -1).transpose(1, 2).flatten(1)
