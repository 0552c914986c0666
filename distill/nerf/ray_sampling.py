"""Where rays are sampled: the middles of their equal steps that lie in the ball and in an occupied cell, packed.

Plain torch looks at every step of a chunk of rays at once; on a GPU `sampler_triton` walks along each ray instead.
Axis letters: `n` rays, `s` steps on a ray, `m` samples kept (packed, sorted by ray, then by distance).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from distill.nerf.backend import has_kernels
from distill.nerf.compositing import ray_of_samples
from distill.nerf.host_sync import read_count, read_counts


class Segments(NamedTuple):
    """The part of each ray that is sampled."""

    origin: Tensor  # [n, 3]
    direction: Tensor  # [n, 3] unit length
    near: Tensor  # [n] distance at which it begins
    far: Tensor  # [n] distance at which it ends
    shift: Tensor  # [n] of the steps, in [0, 1): sample i lies (i + shift - 0.5) steps after `near`


class Packed(NamedTuple):
    """Samples of n rays."""

    ray: Tensor  # [m] the ray of each
    t: Tensor  # [m] distance from the ray's origin
    starts: Tensor  # [n + 1] the first sample of each ray; the last entry is m

    def keep(self, wanted: Tensor) -> "Packed":
        """The samples for which `wanted` [m] holds."""
        kept = torch.cat([wanted.new_zeros(1, dtype=torch.long), wanted.cumsum(0)])
        total = read_count(kept[-1])
        # Indexing by `wanted` itself would make the host wait for a GPU once an array. What is not wanted goes one past
        # the end.
        places = torch.where(wanted, kept[1:] - 1, total)
        chosen = places.new_empty(total + 1).scatter_(0, places, torch.arange(len(wanted), device=places.device))
        chosen = chosen[:total]
        return Packed(self.ray[chosen], self.t[chosen], kept[self.starts])

    def of_rays(self, chunk: "Chunk") -> "Packed":
        """The samples of a chunk's rays, which are then counted from 0."""
        first, last, begin, end = chunk
        return Packed(self.ray[begin:end] - first, self.t[begin:end], self.starts[first : last + 1] - begin)


class Chunk(NamedTuple):
    """Some neighbouring rays, and where their samples are."""

    first_ray: int
    last_ray: int  # one past the last
    begin: int
    end: int


def join(parts: Sequence[Packed]) -> Packed:
    """The rays of one part after those of another."""
    if len(parts) == 1:
        return parts[0]
    rays, starts = [parts[0].ray], [parts[0].starts]
    for part in parts[1:]:
        first_ray = sum(len(before) for before in starts) - 1
        rays.append(part.ray + first_ray)
        starts.append(part.starts[1:] + starts[-1][-1])
    return Packed(torch.cat(rays), torch.cat([part.t for part in parts]), torch.cat(starts))


class Cells(NamedTuple):
    """Which cells of the cube [-radius, radius]^3 hold anything."""

    occupied: Tensor  # [side, side, side] bool, indexed by x, y, z
    radius: float


def occupied_samples(segments: Segments, cells: Cells | None, step: float, longest: float, budget: int) -> Packed:
    """The samples of all rays at steps of world length `step`; without `cells` everything counts as occupied.

    `longest` bounds far - near. Plain torch looks at about `budget` steps at a time.
    """
    steps = int(longest / step) + 2  # shifted by less than one
    if has_kernels(segments.near.device.type):
        from distill.nerf.kernels.ray_march import march_kernel

        return march_kernel(segments, cells, step, steps)
    return march_dense(segments, cells, step, steps, max(1, budget // steps))


def march_dense(segments: Segments, cells: Cells | None, step: float, steps: int, rays_at_once: int) -> Packed:
    """`occupied_samples` in plain torch, some rays at a time."""
    rays = len(segments.near)
    counts, places = [], []
    for start in range(0, max(1, rays), rays_at_once):
        part = Segments(*(values[start : start + rays_at_once] for values in segments))
        t, count = _march_chunk(part, cells, step, steps)
        counts.append(count)
        places.append(t)
    starts = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    t = torch.cat(places)
    return Packed(ray_of_samples(starts, len(t)), t, starts)


def _march_chunk(part: Segments, cells: Cells | None, step: float, steps: int) -> tuple[Tensor, Tensor]:
    """Distances [m] of the samples of a few rays, and how many each has [n]."""
    places = torch.arange(steps, device=part.near.device)
    # [n, s]; the first may lie before the ball: empty there
    t = part.near[:, None] + (places + part.shift[:, None] - 0.5) * step
    ray, column = torch.nonzero((t < part.far[:, None]) & (t > part.near[:, None]), as_tuple=True)
    t = t[ray, column]
    if cells is not None:
        keep = in_occupied_cell(part.origin[ray] + part.direction[ray] * t[:, None], cells)
        ray, t = ray[keep], t[keep]
    return t, torch.bincount(ray, minlength=len(part.near))


def in_occupied_cell(x: Tensor, cells: Cells) -> Tensor:
    """Whether the cells of world points [..., 3] are occupied, [...]."""
    side = len(cells.occupied)
    cell = ((x + cells.radius) * (side / (2 * cells.radius))).long().clamp(0, side - 1)
    found: Tensor = cells.occupied.reshape(-1)[(cell[..., 0] * side + cell[..., 1]) * side + cell[..., 2]]
    return found


def ray_chunks(packed: Packed, budget: int) -> list[Chunk]:
    """Neighbouring rays in chunks of at most `budget` samples and those of one ray more."""
    rays, samples = len(packed.starts) - 1, len(packed.t)
    if samples <= budget:
        return [Chunk(0, rays, 0, samples)]
    marks = torch.arange(budget, samples, budget, device=packed.starts.device)
    ends = (torch.searchsorted(packed.starts, marks, right=True) - 1).clamp(0, rays)
    numbers = read_counts(torch.cat([ends, packed.starts[ends]]))
    inner = [(end, sample) for end, sample in zip(numbers[: len(marks)], numbers[len(marks) :], strict=True) if end]
    bounds = sorted({(0, 0), *inner, (rays, samples)})
    return [Chunk(first, last, begin, end) for (first, begin), (last, end) in pairwise(bounds)]


def sample_chunks(samples: int, budget: int) -> Iterator[slice]:
    """Slices of at most `budget` samples; an empty one if there are none."""
    for start in range(0, max(1, samples), budget):
        yield slice(start, start + budget)
