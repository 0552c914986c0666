"""Ray marching: sample rays at the midpoints of equal steps inside the ball and inside occupied cells.

Plain torch tests all steps of a chunk of rays at once; on a GPU `kernels.ray_march` marches along each ray instead.

Axis letters: `n` rays, `s` steps on a ray, `m` samples kept (packed, sorted by ray, then by distance).
"""

import torch
from torch import Tensor

from distill.nerf.backend import has_kernels
from distill.nerf.occupancy import OccupancyCells, in_occupied_cell_along
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
    box = None if cells is None else _occupied_box(cells)
    counts, distances = [], []
    for start in range(0, max(1, rays), rays_at_once):
        part = RaySegments(*(values[start : start + rays_at_once] for values in segments))
        t, count = _march_chunk(part, cells, box, step, steps)
        counts.append(count)
        distances.append(t)
    starts = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    t = torch.cat(distances)
    return PackedSamples(ray_of_samples(starts, len(t)), t, starts)


def _march_chunk(
    part: RaySegments, cells: OccupancyCells | None, box: Tensor | None, step: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the distances [m] of the samples of a chunk of rays, and the number of samples per ray [n].

    Only steps inside the box around the occupied cells are tested.
    """
    count = torch.zeros_like(part.near, dtype=torch.long)
    hit, first = torch.arange(len(count), device=count.device), torch.zeros_like(part.near)
    if box is not None:
        hit, first, steps = _steps_in_box(part, box, step, steps)
    near, far, shift = (values.index_select(0, hit)[:, None] for values in (part.near, part.far, part.shift))
    indices = first[:, None] + torch.arange(steps, device=near.device)
    # [n, s]; the first may be before the ball and is dropped below
    t = near + (indices + shift - 0.5) * step
    keep = (t < far) & (t > near)
    if cells is not None:
        origin, direction = (values.index_select(0, hit).T[..., None] for values in (part.origin, part.direction))
        keep &= in_occupied_cell_along(origin, direction, t, cells)
    count.index_copy_(0, hit, keep.sum(1))
    return t.flatten().index_select(0, torch.nonzero(keep.flatten())[:, 0]), count


def _occupied_box(cells: OccupancyCells) -> Tensor:
    """Return the corners [2, 3] of the box around the occupied cells, slightly enlarged; empty (inf, -inf) without any.

    A box that reaches the border of the grid is unbounded there, because points outside the grid belong to its border
    cells.
    """
    side = len(cells.occupied)
    edges = (torch.arange(side + 1, device=cells.occupied.device) / side * 2 - 1) * cells.radius
    edges = torch.stack([edges[:-1], edges[1:]]) + edges.new_tensor([[-1e-3], [1e-3]]) * cells.radius  # [2, side]
    edges[0, 0], edges[1, -1] = -torch.inf, torch.inf
    bounds = []
    for others in ((1, 2), (0, 2), (0, 1)):
        occupied = cells.occupied.any(others[1]).any(others[0])
        low = torch.where(occupied, edges[0], torch.inf).min()
        bounds.append(torch.stack([low, torch.where(occupied, edges[1], -torch.inf).max()]))
    return torch.stack(bounds, 1)


def _steps_in_box(part: RaySegments, box: Tensor, step: float, steps: int) -> tuple[Tensor, Tensor, int]:
    """Return the rays that hit a box [2, 3], the index of their first step in it, and the largest number of steps.

    The range of steps of a ray is slightly too large rather than too small.
    """
    direction = torch.where(part.direction == 0, 1e-12, part.direction)
    low, high = ((corner - part.origin) / direction for corner in box)
    entry = torch.maximum(torch.minimum(low, high).amax(1), part.near)
    leave = torch.minimum(torch.maximum(low, high).amin(1), part.far)
    hit = torch.nonzero(entry < leave)[:, 0]
    if not len(hit):
        return hit, part.near[:0], 0
    entry, leave, near, shift = (values.index_select(0, hit) for values in (entry, leave, part.near, part.shift))
    first, last = (((bound - near) / step - shift + 0.5).floor() for bound in (entry, leave))
    first = (first - 1).clamp(min=0)
    last = (last + 2).clamp(max=steps - 1)
    return hit, first, int((last - first).max()) + 1
