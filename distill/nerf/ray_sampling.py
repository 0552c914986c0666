"""Ray marching: sample rays at the midpoints of equal steps inside the ball and inside occupied cells.

Plain torch tests all steps of a chunk of rays at once; on a GPU `kernels.ray_march` marches along each ray instead.

Axis letters: `n` rays, `s` steps on a ray, `m` samples kept (packed, sorted by ray, then by distance).
"""

import torch
from torch import Tensor

from distill.nerf.backend import has_kernels
from distill.nerf.occupancy import OccupancyCells, in_occupied_cell
from distill.nerf.rays import PackedSamples, RaySegments, ray_of_samples


def occupied_samples(
    segments: RaySegments, cells: OccupancyCells | None, step: float, longest: float, budget: int
) -> PackedSamples:
    """Return the samples of rays: all midpoints of steps that lie in the segment of the ray and in an occupied cell.

    Args:
        segments: For each of n rays, the segment of the ray to sample.
        cells: The occupied cells. None: all cells are occupied.
        step: Length of a step in world units.
        longest: Upper bound of the lengths of the segments, in world units.
        budget: Approximate number of steps, over all rays, that plain torch tests at once.
    """
    steps = int(longest / step) + 2  # the shift is less than one step
    if has_kernels(segments.near.device.type):
        from distill.nerf.kernels.ray_march import march_kernel

        return march_kernel(segments, cells, step, steps)
    return march_dense(segments, cells, step, steps, max(1, budget // steps))


def march_dense(
    segments: RaySegments, cells: OccupancyCells | None, step: float, steps: int, rays_at_once: int
) -> PackedSamples:
    """Compute `occupied_samples` in plain torch.

    Args:
        segments: For each of n rays, the segment of the ray to sample.
        cells: The occupied cells. None: all cells are occupied.
        step: Length of a step in world units.
        steps: Number of steps to test on each ray, enough for the longest segment.
        rays_at_once: Number of rays to process at once.
    """
    rays = len(segments.near)
    counts, distances = [], []
    for start in range(0, max(1, rays), rays_at_once):
        part = RaySegments(*(values[start : start + rays_at_once] for values in segments))
        t, count = _march_chunk(part, cells, step, steps)
        counts.append(count)
        distances.append(t)
    starts = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    t = torch.cat(distances)
    return PackedSamples(ray_of_samples(starts, len(t)), t, starts)


def _march_chunk(part: RaySegments, cells: OccupancyCells | None, step: float, steps: int) -> tuple[Tensor, Tensor]:
    """Return the distances [m] of the samples of a chunk of rays, and the number of samples per ray [n]."""
    indices = torch.arange(steps, device=part.near.device)
    # [n, s]; the first may be before the ball and is dropped below
    t = part.near[:, None] + (indices + part.shift[:, None] - 0.5) * step
    ray, column = torch.nonzero((t < part.far[:, None]) & (t > part.near[:, None]), as_tuple=True)
    t = t[ray, column]
    if cells is not None:
        keep = in_occupied_cell(part.origin[ray] + part.direction[ray] * t[:, None], cells)
        ray, t = ray[keep], t[keep]
    return t, torch.bincount(ray, minlength=len(part.near))
