"""Triton kernels for the two MLPs of the field. They compute `Field.query` and `Field.density` from hash grid features.

The formulas are the same as in the plain torch code of `distill.nerf.field`. One program computes `_BLOCK` points, and
hidden layers stay in registers. The backward kernels recompute the layers. Each program of a backward kernel iterates
over many blocks and writes the sum of their weight gradients; torch adds up the sums of all programs.

Names in the kernels, for one point: f are the features, J is their Jacobian, and W1 and w2 are the weights of the
density MLP. h = W1 f is the hidden layer before ReLU, and a is the hidden layer after ReLU. raw = w2 . a is the output,
q is the derivative of raw with respect to f, and G = J^T q + bias. The prefix d_ stands for the gradient of the loss.
With s = w2 where h > 0 (otherwise 0) and r = d_raw f + J d_G, the backward pass is:

    d_W1 = s r^T        d_w2 = (W1 r) where h > 0        d_f = d_raw q + ...        d_J = q d_G^T
"""

from functools import partial
from typing import Any, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK: Final = 64
_BLOCK_BACKWARD: Final = 32
_WARPS: Final = 4
_WARPS_BACKWARD: Final = 4
_PROGRAMS: Final = 528  # maximum number of programs of a backward kernel: four per multiprocessor of an H100
_LEAST: Final = 16  # smallest side of the operands of a matrix product
_EPSILON: Final = 1e-12  # as in F.normalize of torch


class FieldShape(NamedTuple):
    """The constants of a field: the radius of the scene and the parameters of the initial density."""

    radius: float  # of the ball that contains the scene
    blob_density: float
    blob_radius: float


class MlpWeights(NamedTuple):
    """The weight matrices of the two MLPs of a field, which have w input features and h hidden units."""

    density_hidden: Tensor  # [h, w]
    density_output: Tensor  # [1, h]
    albedo_hidden: Tensor  # [h, w]
    albedo_output: Tensor  # [3, h]


def decode_density(
    encoded: Tensor, x: Tensor, weights: MlpWeights, shape: FieldShape, *, exact: bool = False
) -> Tensor:
    """Return the density [n] of a field at points, without gradient.

    Args:
        encoded: The w hash grid features of n points, [w, 1, n], as returned by `HashGrid.look_up`.
        x: World points [n, 3].
        weights: The weight matrices of the MLPs.
        shape: The constants of the field.
        exact: Use float32 instead of TensorFloat32 in matrix products.
    """
    density = x.new_empty(len(x))
    _launch(len(x), encoded, x, weights, shape, exact, _decode, density, density, density, everything=False)
    return density


def decode(
    encoded: Tensor, x: Tensor, weights: MlpWeights, shape: FieldShape, *, exact: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return density [n], albedo [n, 3] and normal [n, 3] of a field at points.

    Gradients flow to `encoded` and `weights`.

    Args:
        encoded: The w hash grid features of n points and the derivatives of the features along x, y and z, [w, 4, n],
            as returned by `HashGrid.look_up`.
        x: World points [n, 3].
        weights: The weight matrices of the MLPs.
        shape: The constants of the field.
        exact: Use float32 instead of TensorFloat32 in matrix products.
    """
    samples: tuple[Tensor, Tensor, Tensor] = _Decode.apply(encoded, x, shape, exact, *weights)
    return samples


class _Decode(torch.autograd.Function):
    """Autograd function of `decode`. Saves features and points, and recomputes the layers in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, encoded: Tensor, x: Tensor, shape: FieldShape, exact: bool, *matrices: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = MlpWeights(*matrices)
        ctx.save_for_backward(encoded, x, *matrices)
        ctx.plan = (shape, exact)
        density, albedo, normal = x.new_empty(len(x)), torch.empty_like(x), torch.empty_like(x)
        _launch(len(x), encoded, x, weights, shape, exact, _decode, density, albedo, normal, everything=True)
        return density, albedo, normal

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        encoded, x, *matrices = ctx.saved_tensors
        shape, exact = ctx.plan
        weights = MlpWeights(*matrices)
        by_density, by_albedo, by_normal = (grad.contiguous() for grad in grads)
        by_encoded = torch.empty_like(encoded)
        programs = max(1, min(triton.cdiv(len(x), _BLOCK_BACKWARD), _PROGRAMS))
        parts = MlpWeights(*(matrix.new_zeros(programs, *matrix.shape) for matrix in weights))
        launch = partial(_launch, len(x), encoded, x, weights, shape, exact, programs=programs)
        launch(_density_backward, by_density, by_normal, by_encoded, parts.density_hidden, parts.density_output)
        launch(_albedo_backward, by_albedo, by_encoded, parts.albedo_hidden, parts.albedo_output)
        return by_encoded, None, None, None, *(part.sum(0) for part in parts)


def _launch(
    points: int,
    encoded: Tensor,
    x: Tensor,
    weights: MlpWeights,
    shape: FieldShape,
    exact: bool,
    kernel: Any,
    *tensors: Tensor,
    programs: int | None = None,
    everything: bool | None = None,
) -> None:
    """Run a kernel on all points: one program per block, or `programs` programs that iterate over many blocks each."""
    if points == 0:
        return
    hidden, width = weights.density_hidden.shape
    sizes = (width, _padded(width), hidden, _padded(hidden), _padded(len(weights.albedo_output)))
    options = () if everything is None else (everything,)
    block, warps = (_BLOCK, _WARPS) if programs is None else (_BLOCK_BACKWARD, _WARPS_BACKWARD)
    matrices = (matrix.contiguous() for matrix in weights)
    with torch.cuda.device_of(x):  # kernels are launched on the current device
        kernel[(programs or triton.cdiv(points, block),)](
            encoded.contiguous(), x.contiguous(), *matrices, *tensors, points, *shape,
            *sizes, *options, "ieee" if exact else "tf32", _EPSILON, block, num_warps=warps,
        )  # fmt: skip


def _padded(size: int) -> int:
    power: int = triton.next_power_of_2(size)
    return max(power, _LEAST)


@triton.jit
def _decode(
    encoded, x, density_hidden, density_output, albedo_hidden, albedo_output,
    density_out, albedo_out, normal_out, points, radius, blob_density, blob_radius,
    WIDTH: tl.constexpr, W: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, COLORS: tl.constexpr,
    EVERYTHING: tl.constexpr, PRECISION: tl.constexpr, EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute samples from features [w, 4, n] or, without EVERYTHING, only the density from features [w, 1, n]."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = point < points
    ROWS: tl.constexpr = 4 if EVERYTHING else 1
    f = _features(encoded, point, inside, points, 0, ROWS, WIDTH, W)
    hidden = _matrix(density_hidden, HIDDEN, H, WIDTH, W)
    output = _row(density_output, HIDDEN, H)
    h = tl.dot(hidden, f, input_precision=PRECISION)
    raw = tl.sum(output[:, None] * tl.maximum(h, 0.0), 0)
    place_x, place_y, place_z = _vector(x, point, inside)
    distance = tl.sqrt(place_x * place_x + place_y * place_y + place_z * place_z)
    raw += blob_density * (1 - distance / blob_radius)
    tl.store(density_out + point, tl.where(distance <= radius, _softplus(raw), raw * 0.0), mask=inside)
    if EVERYTHING:
        s = tl.where(h > 0, output[:, None], 0.0)
        q = tl.dot(tl.trans(hidden), s.to(f.dtype), input_precision=PRECISION)
        outwards = -blob_density / blob_radius / tl.maximum(distance, EPSILON)
        scale = 0.5 / radius
        g_x = tl.sum(q * _features(encoded, point, inside, points, 1, 4, WIDTH, W), 0) * scale + outwards * place_x
        g_y = tl.sum(q * _features(encoded, point, inside, points, 2, 4, WIDTH, W), 0) * scale + outwards * place_y
        g_z = tl.sum(q * _features(encoded, point, inside, points, 3, 4, WIDTH, W), 0) * scale + outwards * place_z
        length = tl.maximum(tl.sqrt(g_x * g_x + g_y * g_y + g_z * g_z), EPSILON)
        _store_vector(normal_out, point, inside, -g_x / length, -g_y / length, -g_z / length)
        a = tl.dot(_matrix(albedo_hidden, HIDDEN, H, WIDTH, W), f, input_precision=PRECISION)
        a = tl.maximum(a, 0.0).to(f.dtype)
        color = tl.dot(_matrix(albedo_output, 3, COLORS, HIDDEN, H), a, input_precision=PRECISION)
        at, there = _colors(point, inside, COLORS)
        tl.store(albedo_out + at, _sigmoid(color), mask=there)


@triton.jit
def _density_backward(
    encoded, x, density_hidden, density_output, albedo_hidden, albedo_output,
    by_density, by_normal, by_encoded, by_hidden, by_output, points, radius, blob_density, blob_radius,
    WIDTH: tl.constexpr, W: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, COLORS: tl.constexpr,
    PRECISION: tl.constexpr, EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients from density and normal: by_encoded [w, 4, n] and a row of the parts [programs, ...]."""
    hidden = _matrix(density_hidden, HIDDEN, H, WIDTH, W)
    output = _row(density_output, HIDDEN, H)
    kind = encoded.dtype.element_ty
    sum_hidden = tl.zeros((H, W), kind)
    sum_output = tl.zeros((H,), kind)
    scale = 0.5 / radius
    for block in range(tl.program_id(0), tl.cdiv(points, BLOCK), tl.num_programs(0)):
        point = tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = point < points
        f = _features(encoded, point, inside, points, 0, 4, WIDTH, W)
        h = tl.dot(hidden, f, input_precision=PRECISION)
        raw = tl.sum(output[:, None] * tl.maximum(h, 0.0), 0)
        place_x, place_y, place_z = _vector(x, point, inside)
        distance = tl.sqrt(place_x * place_x + place_y * place_y + place_z * place_z)
        raw += blob_density * (1 - distance / blob_radius)
        d_density = tl.load(by_density + point, mask=inside, other=0.0)
        d_raw = tl.where(distance <= radius, d_density * _sigmoid(raw), 0.0)

        s = tl.where(h > 0, output[:, None], 0.0).to(kind)
        q = tl.dot(tl.trans(hidden), s, input_precision=PRECISION)
        outwards = -blob_density / blob_radius / tl.maximum(distance, EPSILON)
        j_x = _features(encoded, point, inside, points, 1, 4, WIDTH, W)
        j_y = _features(encoded, point, inside, points, 2, 4, WIDTH, W)
        j_z = _features(encoded, point, inside, points, 3, 4, WIDTH, W)
        g_x = tl.sum(q * j_x, 0) * scale + outwards * place_x
        g_y = tl.sum(q * j_y, 0) * scale + outwards * place_y
        g_z = tl.sum(q * j_z, 0) * scale + outwards * place_z
        length = tl.sqrt(g_x * g_x + g_y * g_y + g_z * g_z)
        n_x, n_y, n_z = _vector(by_normal, point, inside)
        # The gradient of -G / |G|; F.normalize of torch divides by a constant if |G| is 0.
        safe = tl.maximum(length, EPSILON)
        along = tl.where(length > EPSILON, (n_x * g_x + n_y * g_y + n_z * g_z) / (safe * safe), 0.0)
        share = -scale / safe
        d_x = (n_x - along * g_x) * share
        d_y = (n_y - along * g_y) * share
        d_z = (n_z - along * g_z) * share
        _store_features(by_encoded, point, inside, points, 0, WIDTH, W, q * d_raw[None, :])
        _store_features(by_encoded, point, inside, points, 1, WIDTH, W, q * d_x[None, :])
        _store_features(by_encoded, point, inside, points, 2, WIDTH, W, q * d_y[None, :])
        _store_features(by_encoded, point, inside, points, 3, WIDTH, W, q * d_z[None, :])
        r = f * d_raw[None, :] + j_x * d_x[None, :] + j_y * d_y[None, :] + j_z * d_z[None, :]
        r = r.to(kind)
        sum_hidden += tl.dot(s, tl.trans(r), input_precision=PRECISION)
        sum_output += tl.sum(tl.where(h > 0, tl.dot(hidden, r, input_precision=PRECISION), 0.0), 1)

    part, column = tl.program_id(0), tl.arange(0, H)
    _store_matrix(by_hidden + part * HIDDEN * WIDTH, HIDDEN, H, WIDTH, W, sum_hidden)
    tl.store(by_output + part * HIDDEN + column, sum_output, mask=column < HIDDEN)


@triton.jit
def _albedo_backward(
    encoded, x, density_hidden, density_output, albedo_hidden, albedo_output,
    by_albedo, by_encoded, by_hidden, by_output, points, radius, blob_density, blob_radius,
    WIDTH: tl.constexpr, W: tl.constexpr, HIDDEN: tl.constexpr, H: tl.constexpr, COLORS: tl.constexpr,
    PRECISION: tl.constexpr, EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the gradient from the albedo to by_encoded [w, 4, n], and write a row of the matrix parts [programs, ...]."""
    hidden = _matrix(albedo_hidden, HIDDEN, H, WIDTH, W)
    output = _matrix(albedo_output, 3, COLORS, HIDDEN, H)
    kind = encoded.dtype.element_ty
    sum_hidden = tl.zeros((H, W), kind)
    sum_output = tl.zeros((COLORS, H), kind)
    for block in range(tl.program_id(0), tl.cdiv(points, BLOCK), tl.num_programs(0)):
        point = tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = point < points
        f = _features(encoded, point, inside, points, 0, 4, WIDTH, W)
        a = tl.maximum(tl.dot(hidden, f, input_precision=PRECISION), 0.0).to(kind)
        albedo = _sigmoid(tl.dot(output, a, input_precision=PRECISION))
        at, there = _colors(point, inside, COLORS)
        d_color = (tl.load(by_albedo + at, mask=there, other=0.0) * albedo * (1 - albedo)).to(kind)
        sum_output += tl.dot(d_color, tl.trans(a), input_precision=PRECISION)
        d_a = tl.dot(tl.trans(output), d_color, input_precision=PRECISION)
        d_a = tl.where(a > 0, d_a, 0.0).to(kind)
        sum_hidden += tl.dot(d_a, tl.trans(f), input_precision=PRECISION)
        d_f = tl.dot(tl.trans(hidden), d_a, input_precision=PRECISION)
        d_f += _features(by_encoded, point, inside, points, 0, 4, WIDTH, W)
        _store_features(by_encoded, point, inside, points, 0, WIDTH, W, d_f)

    part = tl.program_id(0)
    _store_matrix(by_hidden + part * HIDDEN * WIDTH, HIDDEN, H, WIDTH, W, sum_hidden)
    _store_matrix(by_output + part * 3 * HIDDEN, 3, COLORS, HIDDEN, H, sum_output)


@triton.jit
def _features(
    encoded, point, inside, points, ROW: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, W: tl.constexpr
):
    """Load [W, BLOCK] of encoded [w, ROWS, n]: the features (ROW 0) or one of their derivatives."""
    channel = tl.arange(0, W)
    at = encoded + ((channel * ROWS + ROW).to(tl.int64) * points)[:, None] + point[None, :]
    return tl.load(at, mask=(channel < WIDTH)[:, None] & inside[None, :], other=0.0)


@triton.jit
def _store_features(encoded, point, inside, points, ROW: tl.constexpr, WIDTH: tl.constexpr, W: tl.constexpr, values):
    channel = tl.arange(0, W)
    at = encoded + ((channel * 4 + ROW).to(tl.int64) * points)[:, None] + point[None, :]
    tl.store(at, values, mask=(channel < WIDTH)[:, None] & inside[None, :])


@triton.jit
def _matrix(matrix, HEIGHT: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr, W: tl.constexpr):
    """Load a matrix [HEIGHT, WIDTH], padded with zeros to [H, W]."""
    row, column = tl.arange(0, H), tl.arange(0, W)
    there = (row < HEIGHT)[:, None] & (column < WIDTH)[None, :]
    return tl.load(matrix + row[:, None] * WIDTH + column[None, :], mask=there, other=0.0)


@triton.jit
def _store_matrix(matrix, HEIGHT: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr, W: tl.constexpr, values):
    row, column = tl.arange(0, H), tl.arange(0, W)
    there = (row < HEIGHT)[:, None] & (column < WIDTH)[None, :]
    tl.store(matrix + row[:, None] * WIDTH + column[None, :], values, mask=there)


@triton.jit
def _row(row, LENGTH: tl.constexpr, L: tl.constexpr):
    column = tl.arange(0, L)
    return tl.load(row + column, mask=column < LENGTH, other=0.0)


@triton.jit
def _colors(point, inside, COLORS: tl.constexpr):
    """Return the offsets of a tensor [n, 3] and whether they are valid, [COLORS, BLOCK] with one channel per row."""
    row = tl.arange(0, COLORS)
    return point[None, :] * 3 + row[:, None], (row < 3)[:, None] & inside[None, :]


@triton.jit
def _vector(vectors, point, inside):
    at = vectors + point * 3
    return (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + 1, mask=inside, other=0.0),
        tl.load(at + 2, mask=inside, other=0.0),
    )


@triton.jit
def _store_vector(vectors, point, inside, x, y, z):
    at = vectors + point * 3
    tl.store(at, x, mask=inside)
    tl.store(at + 1, y, mask=inside)
    tl.store(at + 2, z, mask=inside)


@triton.jit
def _sigmoid(value):
    return 1 / (1 + tl.exp(-value))


@triton.jit
def _softplus(value):
    return tl.maximum(value, 0.0) + tl.log(1 + tl.exp(-tl.abs(value)))
