"""Triton kernel for ray marching, with the same result as `distill.nerf.ray_sampling`.

Each lane marches along one ray and reads the occupancy grid. The kernel runs twice: once to count the samples of each
ray, then to write them. Both passes and plain torch must make the same decisions, so multiplications and additions are
not fused.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from distill.nerf.host_sync import read_count
from distill.nerf.occupancy import OccupancyCells
from distill.nerf.rays import PackedSamples, RaySegments

_BLOCK: Final = 128


def march_kernel(segments: RaySegments, cells: OccupancyCells | None, step: float, steps: int) -> PackedSamples:
    """Compute `distill.nerf.ray_sampling.occupied_samples` with a Triton kernel.

    Args:
        segments: For each of n rays, the segment of the ray to sample.
        cells: The occupied cells. None: all cells are occupied.
        step: Length of a step in world units.
        steps: Number of steps to test on each ray, enough for the longest segment.

    Returns:
        The samples of all rays.
    """
    rays = len(segments.near)
    counts = torch.zeros(rays + 1, dtype=torch.long, device=segments.near.device)
    _launch(segments, cells, step, steps, starts=counts, t=segments.near, ray=counts, write=False)
    starts = counts.cumsum(0)
    total = read_count(starts[-1])
    t, ray = segments.near.new_empty(total), starts.new_empty(total)
    _launch(segments, cells, step, steps, starts=starts, t=t, ray=ray, write=True)
    return PackedSamples(ray, t, starts)


def _launch(
    segments: RaySegments,
    cells: OccupancyCells | None,
    step: float,
    steps: int,
    *,
    starts: Tensor,
    t: Tensor,
    ray: Tensor,
    write: bool,
) -> None:
    rays = len(segments.near)
    if rays == 0:
        return
    inputs = [values.contiguous() for values in segments]
    occupied: Any = starts if cells is None else cells.occupied.contiguous().view(torch.uint8)  # unused without cells
    radius, side = (1.0, 1) if cells is None else (cells.radius, len(cells.occupied))
    with torch.cuda.device_of(starts):  # kernels are launched on the current device
        _march[(triton.cdiv(rays, _BLOCK),)](
            *inputs, occupied, starts, t, ray, rays, steps, step, radius, side / (2 * radius),
            side, cells is not None, write, _BLOCK, enable_fp_fusion=False,
        )  # fmt: skip


@triton.jit
def _march(
    origin, direction, near, far, shift, occupied, starts, t_out, ray_out, rays, steps, step, radius, scale,
    SIDE: tl.constexpr, HAS_CELLS: tl.constexpr, WRITE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Without WRITE, count the samples of ray r in starts[r + 1]. With WRITE, write them from position starts[r] on."""
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = ray < rays
    origin_x, origin_y, origin_z = _vector(origin, ray, valid)
    direction_x, direction_y, direction_z = _vector(direction, ray, valid)
    begin, end = tl.load(near + ray, mask=valid, other=0), tl.load(far + ray, mask=valid, other=0)
    offset = tl.load(shift + ray, mask=valid, other=0)
    count = tl.zeros((BLOCK,), tl.int64)
    if WRITE:
        count += tl.load(starts + ray, mask=valid, other=0)
    for place in range(steps):
        t = begin + (tl.cast(place, tl.float32) + offset - 0.5) * step
        keep = (t < end) & (t > begin)
        if HAS_CELLS:
            x = _cell(origin_x + direction_x * t, radius, scale, SIDE)
            y = _cell(origin_y + direction_y * t, radius, scale, SIDE)
            z = _cell(origin_z + direction_z * t, radius, scale, SIDE)
            keep = keep & (tl.load(occupied + (x * SIDE + y) * SIDE + z, mask=keep, other=0) != 0)
        if WRITE:
            tl.store(t_out + count, t, mask=keep)
            tl.store(ray_out + count, ray.to(tl.int64), mask=keep)
        count += keep.to(tl.int64)
    if not WRITE:
        tl.store(starts + 1 + ray, count, mask=valid)


@triton.jit
def _vector(vectors, ray, valid):
    at = vectors + ray * 3
    return tl.load(at, mask=valid, other=0), tl.load(at + 1, mask=valid, other=0), tl.load(at + 2, mask=valid, other=0)


@triton.jit
def _cell(coordinate, radius, scale, SIDE: tl.constexpr):
    """Return the cell index along an axis [BLOCK], clamped to the cube."""
    return tl.minimum(tl.maximum(((coordinate + radius) * scale).to(tl.int32), 0), SIDE - 1)
