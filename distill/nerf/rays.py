"""Camera rays, and samples along rays, which are stored as packed tensors.

Samples are sorted by ray: the samples of ray r have the indices `starts[r]` to `starts[r + 1] - 1`.

Axis letters: `f` frames (images), `n` rays, `m` samples of all rays.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from distill.nerf.host_sync import read_count, read_counts
from train.device import to_device

# Samples of this optical depth are opaque in float32. Larger depths would make cumulative sums inexact.
MAX_OPTICAL_DEPTH: Final = 104.0


class Rays(NamedTuple):
    """n rays through the pixels of several images. `frame` is the index of the image of each ray."""

    origin: Tensor  # [n, 3]
    direction: Tensor  # [n, 3] unit length
    frame: Tensor  # [n]


class RaySegments(NamedTuple):
    """The part of each of n rays that is sampled, from the distance `near` to the distance `far`."""

    origin: Tensor  # [n, 3]
    direction: Tensor  # [n, 3] unit length
    near: Tensor  # [n] distance of its start
    far: Tensor  # [n] distance of its end
    shift: Tensor  # [n] shift of the steps in [0, 1): sample i is (i + shift - 0.5) steps after `near`


class PackedSamples(NamedTuple):
    """The samples on n rays, that is, the points at which a scene is evaluated; sorted by ray, then by distance."""

    ray: Tensor  # [m] ray of each sample
    t: Tensor  # [m] distance from the origin of the ray
    starts: Tensor  # [n + 1] first sample of each ray; the last entry is m

    def keep(self, wanted: Tensor) -> "PackedSamples":
        """Return the samples for which the mask `wanted` [m] is true.

        The mask has one entry for each of the m samples. The number of rays stays the same.
        """
        kept = torch.cat([wanted.new_zeros(1, dtype=torch.long), wanted.cumsum(0)])
        total = read_count(kept[-1])
        # Indexing by `wanted` would make the host wait for the GPU once per array. Other samples are scattered to one
        # past the end.
        places = torch.where(wanted, kept[1:] - 1, total)
        chosen = places.new_empty(total + 1).scatter_(0, places, torch.arange(len(wanted), device=places.device))
        chosen = chosen[:total]
        return PackedSamples(self.ray[chosen], self.t[chosen], kept[self.starts])

    def of_rays(self, chunk: "RayChunk") -> "PackedSamples":
        """Return the samples of a range of rays. In the result, the first ray of the range has the index 0."""
        first, last, begin, end = chunk
        return PackedSamples(self.ray[begin:end] - first, self.t[begin:end], self.starts[first : last + 1] - begin)


class RayChunk(NamedTuple):
    """A range of rays and the range of the samples of these rays. The ends are exclusive."""

    first_ray: int
    last_ray: int  # one past the last
    begin: int
    end: int  # one past the last


def camera_rays(c2w: ArrayLike, fov_deg: ArrayLike, resolution: int, device: torch.device | str = "cpu") -> Rays:
    """Return the rays through the pixel centers of square images: image by image, row by row from the top left.

    Args:
        c2w: Camera-to-world matrices [f, 4, 4] in Blender axes.
        fov_deg: Full field of view in degrees: one number, or one per camera [f].
        resolution: Edge of the images in pixels.
        device: Device of the rays.
    """
    matrix = np.asarray(c2w, np.float64)
    half = np.broadcast_to(np.tan(np.deg2rad(np.asarray(fov_deg, np.float64)) / 2), (len(matrix),))
    # Computed in float64 on the device, so that only one row of numbers per camera is copied there.
    camera = to_device(torch.from_numpy(np.c_[matrix[:, :3].reshape(-1, 12), half]), torch.device(device))
    axes, half_frame = camera[:, :12].view(-1, 1, 1, 3, 4), camera[:, 12:]
    offset = (torch.arange(resolution, dtype=torch.float64, device=device) + 0.5) / resolution * 2 - 1
    right = (offset * half_frame)[:, None, :, None]
    down = (offset * half_frame)[:, :, None, None]
    world = right * axes[..., 0] - down * axes[..., 1] - axes[..., 2]  # [f, h, w, 3]
    world = (world / world.square().sum(-1, keepdim=True).sqrt()).float().view(-1, 3)
    frame = torch.arange(len(matrix), device=device)[:, None].expand(-1, resolution**2).reshape(-1)
    return Rays(axes[:, 0, 0, :, 3].float()[frame], world, frame)


def ball_bounds(rays: Rays, radius: float) -> tuple[Tensor, Tensor]:
    """Return the distance at which each ray enters a ball around the world origin, [n], and leaves the ball, [n].

    Distances are measured from the origin of the ray. The two distances are equal for rays that miss the ball. Rays
    that start inside the ball enter at distance 0.

    Args:
        rays: n rays.
        radius: Radius of the ball in world units.
    """
    middle = -(rays.origin * rays.direction).sum(-1)
    closest = rays.origin + rays.direction * middle[:, None]
    half = (radius**2 - closest.square().sum(-1)).clamp(min=0).sqrt()
    near = (middle - half).clamp(min=0)
    return near, torch.maximum(near, middle + half)


def ray_of_samples(starts: Tensor, samples: int) -> Tensor:
    """Return the index of the ray of each sample, [m].

    Args:
        starts: Index [n + 1] of the first sample of each ray; the last entry is m.
        samples: Number m of samples.
    """
    counts = starts.diff()
    return torch.repeat_interleave(torch.arange(len(counts), device=starts.device), counts, output_size=samples)


def join(parts: Sequence[PackedSamples]) -> PackedSamples:
    """Concatenate the samples of several groups of rays. The rays are numbered in the order of the groups."""
    if len(parts) == 1:
        return parts[0]
    rays, starts = [parts[0].ray], [parts[0].starts]
    for part in parts[1:]:
        first_ray = sum(len(before) for before in starts) - 1
        rays.append(part.ray + first_ray)
        starts.append(part.starts[1:] + starts[-1][-1])
    return PackedSamples(torch.cat(rays), torch.cat([part.t for part in parts]), torch.cat(starts))


def ray_chunks(packed: PackedSamples, budget: int) -> list[RayChunk]:
    """Split rays into chunks of consecutive rays.

    Args:
        packed: The samples of the rays.
        budget: Approximate number of samples in a chunk. A ray is never split between two chunks, so a chunk may exceed
            the budget, but by less than the number of samples of one ray.
    """
    rays, samples = len(packed.starts) - 1, len(packed.t)
    if samples <= budget:
        return [RayChunk(0, rays, 0, samples)]
    marks = torch.arange(budget, samples, budget, device=packed.starts.device)
    ends = (torch.searchsorted(packed.starts, marks, right=True) - 1).clamp(0, rays)
    numbers = read_counts(torch.cat([ends, packed.starts[ends]]))
    inner = [(end, sample) for end, sample in zip(numbers[: len(marks)], numbers[len(marks) :], strict=True) if end]
    bounds = sorted({(0, 0), *inner, (rays, samples)})
    return [RayChunk(first, last, begin, end) for (first, begin), (last, end) in pairwise(bounds)]


def sample_chunks(samples: int, budget: int) -> Iterator[slice]:
    """Yield slices that divide samples into chunks; one empty slice if there are no samples.

    Args:
        samples: Number of samples.
        budget: Maximum number of samples in a chunk.
    """
    for start in range(0, max(1, samples), budget):
        yield slice(start, start + budget)
