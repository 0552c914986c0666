"""Group normalization of channels-last images as Triton kernels; see `train.layers.group_norm` for the formula.

The pixels of an image are divided into parts. A program of the first kernel processes one part of one image and
`_WIDTH` channels. These channels are adjacent in memory, whatever the group size. The program computes the mean and the
sum of squared deviations of each channel over the part. A second kernel merges these numbers into the statistics of the
groups (Chan, Golub and LeVeque 1979).
"""

from typing import Any, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDTH: Final = 64  # channels per program: 128 bytes in bf16
_ROWS: Final = 32  # pixels that a program reads at once
_PIXELS: Final = 256  # minimum pixels per part
_FEW_IMAGES: Final = 32  # up to this number, half as many pixels: otherwise there are too few programs for a GPU
_MOST_PARTS: Final = 64


class _Sizes(NamedTuple):
    images: int
    pixels: int
    channels: int
    groups: int

    @property
    def chunk(self) -> int:
        """Return the number of pixels per part, a multiple of `_ROWS`."""
        least = triton.cdiv(self.pixels, _MOST_PARTS)
        pixels = _PIXELS // 2 if self.images <= _FEW_IMAGES else _PIXELS
        return int(triton.cdiv(max(least, pixels), _ROWS)) * _ROWS

    @property
    def parts(self) -> int:
        return int(triton.cdiv(self.pixels, self.chunk))

    @property
    def blocks(self) -> tuple[int, int]:
        """Return the tile size of a program that merges parts: number of parts, and channels per group.

        Each of the two numbers is rounded up to a power of two.
        """
        return triton.next_power_of_2(self.parts), triton.next_power_of_2(self.channels // self.groups)


def _sizes(x: Tensor, groups: int) -> _Sizes:
    images, channels, height, width = x.shape
    return _Sizes(images, height * width, channels, groups)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    """Normalize `x` [n, c, h, w], channels last, on a GPU.

    The arguments are those of `train.layers.group_norm.group_norm`.

    Returns:
        First, the output [n, c, h, w], channels last. Second, the mean (index 0) and 1 / standard deviation (index 1)
        of each group, float32 [2, n, groups].
    """
    sizes = _sizes(x, groups)
    out = torch.empty_like(x)
    statistics = x.new_empty(2, sizes.images, groups, dtype=torch.float32)
    parts = x.new_empty(2, sizes.images, sizes.parts, sizes.channels, dtype=torch.float32)
    _run(_moments, sizes, x, _or(shift, x), parts, HAS_SHIFT=shift is not None)
    _merge_run(_merge, sizes, parts, statistics, eps)
    _run(
        *(_normalize, sizes, x, _or(shift, x), weight, bias, statistics, out),
        HAS_SHIFT=shift is not None,
        SILU=silu,
    )
    return out, statistics


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, statistics: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the loss with respect to the inputs of `forward`, computed on a GPU.

    The arguments are those of `train.layers.group_norm.group_norm_backward`; `grad` and `x` are channels last.

    Returns:
        First, the gradient with respect to `x`, [n, c, h, w]. Second, the gradient with respect to `shift`, float32
        [n, c]; an empty tensor if `shift` is None. Third, partial sums, float32 [2, n, parts, c], over the pixels of
        each part of each of the n images. The gradients with respect to `bias` (index 0) and `weight` (index 1) are
        the sums of these partial sums over n and parts.
    """
    sizes = _sizes(x, statistics.shape[-1])
    has_shift = shift is not None
    by_x = torch.empty_like(x)
    by_shift = x.new_empty((sizes.images, sizes.channels) if has_shift else (0, 0), dtype=torch.float32)
    parts = x.new_empty(3 if has_shift else 2, sizes.images, sizes.parts, sizes.channels, dtype=torch.float32)
    means = x.new_empty(2, sizes.images, sizes.groups, dtype=torch.float32)
    inputs = (x, _or(shift, x), weight, bias, statistics, grad)
    _run(_gradient_sums, sizes, *inputs, parts, HAS_SHIFT=has_shift, SILU=silu)
    _merge_run(_merge_gradients, sizes, parts, weight, statistics, means, by_shift, HAS_SHIFT=has_shift)
    _run(_gradient, sizes, *inputs, means, by_x, HAS_SHIFT=has_shift, SILU=silu)
    return by_x, by_shift, parts[:2]


def _or(shift: Tensor | None, other: Tensor) -> Tensor:
    """Return `shift`, or `other` if it is None. Kernels need a pointer even if they do not read it."""
    return other if shift is None else shift


def _run(kernel: Any, sizes: _Sizes, *tensors: Tensor, **choices: bool) -> None:
    grid = (sizes.images, sizes.parts, triton.cdiv(sizes.channels, _WIDTH))
    if sizes.images:
        with torch.cuda.device_of(
            tensors[0]
        ):  # a kernel is launched on the current device, even if its tensors are on another one
            kernel[grid](*tensors, *sizes, sizes.parts, sizes.chunk, **choices, ROWS=_ROWS, WIDTH=_WIDTH, num_warps=4)


def _merge_run(kernel: Any, sizes: _Sizes, *arguments: Any, **choices: bool) -> None:
    parts, width = sizes.blocks
    if sizes.images:
        with torch.cuda.device_of(arguments[0]):
            kernel[(sizes.images, sizes.groups)](
                *arguments, *sizes, sizes.parts, sizes.chunk, **choices, PARTS=parts, WIDTH=width, num_warps=1
            )


@triton.jit
def _far(rows, width):
    """Return rows * width in int64, because the product may exceed 2^31.

    Triton treats a size of 1 as an untyped constant.
    """
    return (tl.zeros((), tl.int64) + rows) * width


@triton.jit
def _program(pixels, channels, chunk, WIDTH: tl.constexpr):
    """Return the image and part of this program, its channels with their mask, and its first and last pixel."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    return image, part, channel, channel < channels, part * chunk, tl.minimum((part + 1) * chunk, pixels)


@triton.jit
def _tile(image, start, end, channel, inside, pixels, channels, ROWS: tl.constexpr):
    """Return the offsets [rows, channels] of the pixels from `start` on, and their mask."""
    row = start + tl.arange(0, ROWS)
    place = (image * pixels + row)[:, None] * channels + channel[None, :]
    return place, (row < end)[:, None] & inside[None, :]


@triton.jit
def _of_channels(values, inside, place):
    """Load one value per channel, as a row [1, channels]."""
    return tl.load(values + place, inside, 0.0).to(tl.float32)[None, :]


@triton.jit
def _of_groups(pair, inside, image, channel, images, channels, groups):
    """Load both values of `pair` [2, n, g] for each channel's group, each as a row [1, channels]."""
    place = image * groups + channel // (channels // groups)
    return _of_channels(pair, inside, place), _of_channels(pair, inside, place + images * groups)


@triton.jit
def _middle(shift, statistics, inside, image, channel, images, channels, groups, HAS_SHIFT: tl.constexpr):
    """Return the rows `middle` and `scale`. The normalized value is (x - middle) * scale."""
    middle, scale = _of_groups(statistics, inside, image, channel, images, channels, groups)
    if HAS_SHIFT:
        middle -= _of_channels(shift, inside, image * channels + channel)
    return middle, scale


@triton.jit
def _moments(
    x, shift, parts,
    images, pixels, channels, groups, count, chunk,
    HAS_SHIFT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the mean and the sum of squared deviations per channel, over a part of the pixels.

    Each lane updates its own numbers (Welford 1962). They are merged once, after the loop, because a sum over the lanes
    makes the warps of a program wait for each other.
    """
    image, part, channel, inside, first, end = _program(pixels, channels, chunk, WIDTH)
    means, squares = tl.zeros((ROWS, WIDTH), tl.float32), tl.zeros((ROWS, WIDTH), tl.float32)
    seen = 0.0
    for start in range(first, end, ROWS):
        place, mask = _tile(image, start, end, channel, inside, pixels, channels, ROWS)
        value = tl.load(x + place, mask, 0.0).to(tl.float32)
        seen += 1.0
        away = tl.where(mask, value - means, 0.0)
        means += away / seen
        squares += away * (away - away / seen)
    row = tl.arange(0, ROWS)
    numbers = ((end - first - row + ROWS - 1) // ROWS).to(tl.float32)[:, None]  # pixels that each lane has seen
    mean = tl.sum(means * numbers, 0) / (end - first)
    away = means - mean[None, :]
    square = tl.sum(squares + numbers * away * away, 0)
    if HAS_SHIFT:
        mean += tl.load(shift + image * channels + channel, inside, 0.0).to(tl.float32)
    to = parts + (image * count + part) * channels + channel
    tl.store(to, mean, inside)
    tl.store(to + _far(images * count, channels), square, inside)


@triton.jit
def _merge(
    parts, statistics, eps,
    images, pixels, channels, groups, count, chunk,
    PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write mean and 1 / deviation of a group, merged from the parts of its channels."""
    image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width = channels // groups
    part, channel = tl.arange(0, PARTS), tl.arange(0, WIDTH)
    mask = (part < count)[:, None] & (channel < width)[None, :]
    place = (image * count + part)[:, None] * channels + group * width + channel[None, :]
    means = tl.load(parts + place, mask, 0.0)
    squares = tl.load(parts + _far(images * count, channels) + place, mask, 0.0)
    seen = tl.where(mask, (tl.minimum(pixels - part * chunk, chunk) * 1.0)[:, None], 0.0)
    total = pixels * width * 1.0
    mean = tl.sum(seen * means) / total
    away = means - mean
    variance = (tl.sum(squares) + tl.sum(seen * away * away)) / total
    tl.store(statistics + image * groups + group, mean)
    tl.store(statistics + (images + image) * groups + group, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _program_and_rows(
    shift, weight, bias, statistics, images, pixels, channels, groups, chunk,
    HAS_SHIFT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return `_program`, then weight, bias and the rows of `_middle` for its channels. Triton inlines this function."""
    image, part, channel, inside, first, end = _program(pixels, channels, chunk, WIDTH)
    factor, offset = _of_channels(weight, inside, channel), _of_channels(bias, inside, channel)
    middle, scale = _middle(shift, statistics, inside, image, channel, images, channels, groups, HAS_SHIFT)
    return image, part, channel, inside, first, end, factor, offset, middle, scale


@triton.jit
def _normalize(
    x, shift, weight, bias, statistics, out,
    images, pixels, channels, groups, count, chunk,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the normalized, scaled and activated values of a part of the pixels."""
    image, _, channel, inside, first, end, factor, offset, middle, scale = _program_and_rows(
        shift, weight, bias, statistics, images, pixels, channels, groups, chunk, HAS_SHIFT, WIDTH
    )
    for start in range(first, end, ROWS):
        place, mask = _tile(image, start, end, channel, inside, pixels, channels, ROWS)
        value = (tl.load(x + place, mask, 0.0).to(tl.float32) - middle) * scale * factor + offset
        if SILU:
            value = value * tl.sigmoid(value)
        tl.store(out + place, value.to(out.dtype.element_ty), mask)


@triton.jit
def _slope(grad, place, mask, normal, factor, offset, SILU: tl.constexpr):
    """Return the gradient of SiLU's input."""
    slope = tl.load(grad + place, mask, 0.0).to(tl.float32)
    if SILU:
        value = normal * factor + offset
        share = tl.sigmoid(value)
        slope *= share * (1.0 + value * (1.0 - share))
    return slope


@triton.jit
def _gradient_sums(
    x, shift, weight, bias, statistics, grad, parts,
    images, pixels, channels, groups, count, chunk,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write sums over a part's pixels: of gradient, gradient * normalized value and, with a shift, normalized value.

    Each lane has its own sums until the end of the loop, as in `_moments`.
    """
    image, part, channel, inside, first, end, factor, offset, middle, scale = _program_and_rows(
        shift, weight, bias, statistics, images, pixels, channels, groups, chunk, HAS_SHIFT, WIDTH
    )
    slopes, products = tl.zeros((ROWS, WIDTH), tl.float32), tl.zeros((ROWS, WIDTH), tl.float32)
    values = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(first, end, ROWS):
        place, mask = _tile(image, start, end, channel, inside, pixels, channels, ROWS)
        normal = (tl.load(x + place, mask, 0.0).to(tl.float32) - middle) * scale
        slope = _slope(grad, place, mask, normal, factor, offset, SILU)
        slopes += slope
        products += slope * normal
        if HAS_SHIFT:
            values += tl.where(mask, normal, 0.0)
    to = parts + (image * count + part) * channels + channel
    further = _far(images * count, channels)
    tl.store(to, tl.sum(slopes, 0), inside)
    tl.store(to + further, tl.sum(products, 0), inside)
    if HAS_SHIFT:
        tl.store(to + 2 * further, tl.sum(values, 0), inside)


@triton.jit
def _merge_gradients(
    parts, weight, statistics, means, by_shift,
    images, pixels, channels, groups, count, chunk,
    HAS_SHIFT: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write two mean gradients of a group, and the gradient of the shift: the sum over the pixels of that of x."""
    image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    width = channels // groups
    part, channel = tl.arange(0, PARTS), tl.arange(0, WIDTH)
    inside = channel < width
    mask = (part < count)[:, None] & inside[None, :]
    place = (image * count + part)[:, None] * channels + group * width + channel[None, :]
    further = _far(images * count, channels)
    factor = tl.load(weight + group * width + channel, inside, 0.0).to(tl.float32)
    slopes = tl.sum(tl.load(parts + place, mask, 0.0), 0) * factor
    products = tl.sum(tl.load(parts + further + place, mask, 0.0), 0) * factor
    total = pixels * width * 1.0
    slope, product = tl.sum(slopes) / total, tl.sum(products) / total
    tl.store(means + image * groups + group, slope)
    tl.store(means + (images + image) * groups + group, product)
    if HAS_SHIFT:
        values = tl.sum(tl.load(parts + 2 * further + place, mask, 0.0), 0)
        scale = tl.load(statistics + (images + image) * groups + group)
        to = by_shift + image * channels + group * width + channel
        tl.store(to, scale * (slopes - pixels * slope - values * product), inside)


@triton.jit
def _gradient(
    x, shift, weight, bias, statistics, grad, means, by_x,
    images, pixels, channels, groups, count, chunk,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradient of x for a part of the pixels."""
    image, _, channel, inside, first, end, factor, offset, middle, scale = _program_and_rows(
        shift, weight, bias, statistics, images, pixels, channels, groups, chunk, HAS_SHIFT, WIDTH
    )
    mean, product = _of_groups(means, inside, image, channel, images, channels, groups)
    for start in range(first, end, ROWS):
        place, mask = _tile(image, start, end, channel, inside, pixels, channels, ROWS)
        normal = (tl.load(x + place, mask, 0.0).to(tl.float32) - middle) * scale
        slope = _slope(grad, place, mask, normal, factor, offset, SILU)
        value = scale * (slope * factor - mean - normal * product)
        tl.store(by_x + place, value.to(by_x.dtype.element_ty), mask)
