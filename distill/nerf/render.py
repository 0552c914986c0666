"""Volume rendering of a scene on a white background.

Rays are divided into equal steps inside the ball of the scene. Samples are the midpoints of steps. Only samples that
lie in occupied cells and are not occluded are kept. Rays are marched in chunks, and then rendered in chunks, so that
`MarchSettings.sample_budget` bounds the memory of both. The occupancy grid is that of nerfacc. The ray marching and
compositing of nerfacc need its CUDA extension, so `ray_sampling` and `compositing` replace them.

Axis letters: `f` frames (images), `h w` pixels, `n` rays, `m` samples kept (packed, sorted by ray).
"""

from functools import partial
from typing import Final, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distill.nerf.backend import has_kernels
from distill.nerf.compositing import composite, ray_weights
from distill.nerf.field import Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.ray_sampling import occupied_samples
from distill.nerf.rays import (
    PackedSamples,
    Rays,
    RaySegments,
    ball_bounds,
    camera_rays,
    join,
    ray_chunks,
    sample_chunks,
)
from distill.nerf.settings import MarchSettings
from distill.nerf.shading import Shade, albedo_only, facing_away

# Steps marched at once per sample of the budget: testing a step takes tens of bytes, not thousands, and the kernel
# stores only steps in occupied cells.
_STEPS_MARCHED: Final = 8
_STEPS_MARCHED_BY_KERNEL: Final = 10


class RenderOutput(NamedTuple):
    """Renders of a scene from f cameras: color, opacity, depth, normal and orientation loss term of each pixel."""

    rgb: Tensor  # [f, h, w, 3] in [0, 1], on white
    alpha: Tensor  # [f, h, w] in [0, 1]
    depth: Tensor  # [f, h, w] mean distance from the camera along the ray; 0 for empty pixels
    normal: Tensor  # [f, h, w, 3] world, weighted by opacity (shorter than 1 at soft edges, 0 outside)
    away: Tensor  # [f, h, w] sum of Eq. 8 along the ray, with detached weights


def render_views(
    scene: Scene,
    c2w: ArrayLike,
    fov_deg: ArrayLike,
    resolution: int,
    *,
    settings: MarchSettings,
    occupancy: Occupancy | None = None,
    shade: Shade = albedo_only,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> RenderOutput:
    """Render a scene from several cameras, with gradients if torch has them enabled.

    If the rays are rendered in several chunks, the backward pass recomputes each chunk.

    Args:
        scene: The scene.
        c2w: Camera-to-world matrices [f, 4, 4] in Blender axes.
        fov_deg: Full field of view in degrees: one number, or one per camera [f].
        resolution: Edge of the square images in pixels.
        settings: Settings of ray marching.
        occupancy: The occupancy grid of the scene. None: all cells are occupied.
        shade: Function that computes the color of samples from their albedo and normal.
        generator: CPU generator that draws a random shift of the steps of each ray, for training. A GPU draws other
            numbers, with the seed of this generator. None: render without randomness.
        device: Device of the scene.
    """
    marched = march_views(
        scene, c2w, fov_deg, resolution, settings=settings, occupancy=occupancy, generator=generator, device=device
    )
    return render_marched(scene, marched, resolution, settings=settings, shade=shade)


class MarchedRays(NamedTuple):
    """The rays of several images, and their samples that are not empty, transparent or occluded."""

    rays: Rays
    samples: PackedSamples

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the rays and samples."""
        return (*self.rays, *self.samples)


def march_views(
    scene: Scene,
    c2w: ArrayLike,
    fov_deg: ArrayLike,
    resolution: int,
    *,
    settings: MarchSettings,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> MarchedRays:
    """March the rays of several cameras, the first half of `render_views`, whose arguments these are."""
    rays = camera_rays(c2w, fov_deg, resolution, device)
    shift = _random_shifts(rays, generator) if generator else torch.full_like(rays.direction[:, 0], 0.5)
    return MarchedRays(rays, _visible_samples(scene, rays, shift, settings, occupancy))


def _random_shifts(rays: Rays, generator: torch.Generator) -> Tensor:
    """Draw a shift in [0, 1) for each of n rays, [n].

    A GPU draws the numbers itself, with the seed of the CPU generator: a quarter of a million numbers take 4 ms on a
    CPU, with the copy.
    """
    device = rays.direction.device
    if device.type == "cuda":
        generator = torch.Generator(device).manual_seed(generator.initial_seed())
    return torch.rand(len(rays.frame), generator=generator, device=generator.device).to(device)


def render_marched(
    scene: Scene, marched: MarchedRays, resolution: int, *, settings: MarchSettings, shade: Shade
) -> RenderOutput:
    """Render rays that have been marched, the second half of `render_views`, whose arguments these are."""
    pixels = _render_samples(scene, *marched, settings=settings, shade=shade)
    rgb, alpha, depth, normal, away = torch.split(pixels.view(-1, resolution, resolution, 9), [3, 1, 1, 3, 1], -1)
    depth = depth / alpha.clamp(min=1e-8)
    return RenderOutput(rgb + 1 - alpha, alpha[..., 0], depth[..., 0], normal, away[..., 0])


class SurfaceSamples(NamedTuple):
    """The samples that rays see in a scene of fixed geometry, with their weights in volume rendering."""

    x: Tensor  # [m, 3] world
    ray: Tensor  # [m] ray of each sample
    weight: Tensor  # [m]
    albedo: Tensor  # [m, 3]
    facing: Tensor  # [m] cosine between the normal and the direction to the camera


@torch.no_grad()
def surface_samples(
    scene: Scene, rays: Rays, *, settings: MarchSettings, occupancy: Occupancy | None, least_weight: float
) -> SurfaceSamples:
    """Return the samples that rays see, so that colors can be fitted without marching the rays again.

    Args:
        scene: The scene.
        rays: n rays.
        settings: Settings of ray marching.
        occupancy: The occupancy grid of the scene. None: all cells are occupied.
        least_weight: Samples with less weight are left out.
    """
    step = settings.step_length(scene.radius)
    samples = _visible_samples(scene, rays, torch.full_like(rays.direction[:, 0], 0.5), settings, occupancy)
    x = _points(rays, samples.ray, samples.t)
    chunks = sample_chunks(len(x), settings.samples_at_once(x.device))
    found = [scene.query(x[chunk]) for chunk in chunks]
    density, albedo, normal = (torch.cat(parts) for parts in zip(*found, strict=True))
    weight, _ = ray_weights(density, samples.starts, step)
    kept = weight >= least_weight
    facing = -(normal * rays.direction[samples.ray]).sum(-1)
    return SurfaceSamples(*(values[kept] for values in (x, samples.ray, weight, albedo, facing)))


def render_rays(
    scene: Scene, rays: Rays, shift: Tensor, *, settings: MarchSettings, occupancy: Occupancy | None, shade: Shade
) -> Tensor:
    """Render rays through a scene.

    Args:
        scene: The scene.
        rays: n rays.
        shift: Shift [n] of the steps of each ray, as a fraction of a step in [0, 1).
        settings: Settings of ray marching.
        occupancy: The occupancy grid of the scene. None: all cells are occupied.
        shade: Function that computes the color of samples from their albedo and normal.

    Returns:
        Values [n, 9] of each ray: color on black (3), alpha (1), mean distance times alpha (1), normal times alpha (3)
        and the sum of the terms of the orientation loss (Eq. 8) along the ray (1).
    """
    samples = _visible_samples(scene, rays, shift, settings, occupancy)
    return _render_samples(scene, rays, samples, settings=settings, shade=shade)


def _render_samples(
    scene: Scene, rays: Rays, samples: PackedSamples, *, settings: MarchSettings, shade: Shade
) -> Tensor:
    """Compute `render_rays` from the samples of the rays."""
    step = settings.step_length(scene.radius)
    chunks = ray_chunks(samples, settings.samples_at_once(samples.t.device))
    if len(chunks) == 1:
        return _composite(scene, rays, samples, step=step, shade=shade)
    rendered: list[Tensor] = []
    for chunk in chunks:
        chunk_rays = Rays(*(values[chunk.first_ray : chunk.last_ray] for values in rays))
        compose = partial(_composite, scene, chunk_rays, step=step, shade=shade)
        part = samples.of_rays(chunk)
        # `compose` uses no random numbers. Without gradients this is a plain call.
        rendered.append(checkpoint(compose, part, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(rendered)


@torch.no_grad()
def _visible_samples(
    scene: Scene, rays: Rays, shift: Tensor, settings: MarchSettings, occupancy: Occupancy | None
) -> PackedSamples:
    """Return the samples that are in the ball, occupied, not transparent (`alpha_threshold`) and not occluded."""
    steps = 2 * scene.radius / settings.step_length(scene.radius)
    marched = _STEPS_MARCHED_BY_KERNEL if has_kernels(shift.device.type) else _STEPS_MARCHED
    rays_at_once = max(1, int(marched * settings.samples_at_once(shift.device) / steps))
    parts = []
    for start in range(0, max(1, len(shift)), rays_at_once):
        group = slice(start, start + rays_at_once)
        part = Rays(*(values[group] for values in rays))
        parts.append(_visible_samples_of_group(scene, part, shift[group], settings, occupancy))
    return join(parts)


def _visible_samples_of_group(
    scene: Scene, rays: Rays, shift: Tensor, settings: MarchSettings, occupancy: Occupancy | None
) -> PackedSamples:
    """Compute `_visible_samples` for a group of rays that can be marched at once."""
    step, budget = settings.step_length(scene.radius), settings.samples_at_once(shift.device)
    segments = RaySegments(rays.origin, rays.direction, *ball_bounds(rays, scene.radius), shift)
    cells = None if occupancy is None else occupancy.cells
    samples = occupied_samples(segments, cells, step, 2 * scene.radius, budget)
    skips_transparent = occupancy is not None and settings.alpha_threshold > 0
    if not skips_transparent and settings.min_transmittance == 0:
        return samples
    chunks = sample_chunks(len(samples.t), budget)
    density = torch.cat([scene.density(_points(rays, samples.ray[chunk], samples.t[chunk])) for chunk in chunks])
    _, transmittance = ray_weights(density, samples.starts, step)
    # Not "> limit": NaN samples are kept, so that the loss becomes NaN too.
    dropped = transmittance <= settings.min_transmittance
    if occupancy is not None and skips_transparent:
        dropped |= -torch.expm1(-density * step) < occupancy.mean.clamp(max=settings.alpha_threshold)
    return samples.keep(~dropped)


def _points(rays: Rays, ray: Tensor, t: Tensor) -> Tensor:
    """Return world points [m, 3] at distances t [m] along the rays with indices `ray` [m]."""
    return rays.origin.index_select(0, ray) + rays.direction.index_select(0, ray) * t[:, None]


def _composite(scene: Scene, rays: Rays, samples: PackedSamples, *, step: float, shade: Shade) -> Tensor:
    """Return color, alpha, distance, normal and the sum of Eq. 8 of rays [n, 9]."""
    x = _points(rays, samples.ray, samples.t)
    point_samples = scene.query(x)
    color = shade(x, point_samples, rays.frame.index_select(0, samples.ray))
    t = samples.t[:, None]
    away = facing_away(point_samples.normal, rays.direction.index_select(0, samples.ray))[:, None]
    values = torch.cat([color, torch.ones_like(t), t, point_samples.normal, away], -1)
    return composite(point_samples.density, values, samples.starts, step, detached=1)
