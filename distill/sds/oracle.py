"""Denoisers that know the true scene (oracles), to test score distillation independently of a trained model.

The true scene consists of simple solids. It is ray traced from the cameras of a step and shaded like the field in this
step. The images are encoded by the same encoder as the renders of the field. The predicted noise follows from the noisy
latents and the latents of the true images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Samples
from distill.nerf.rays import Rays, camera_rays
from distill.nerf.shading import PointLight, Shade, albedo_only, lit
from distill.sds.guidance import Denoise, EncodeImages, Guidance, Prediction
from distill.sds.schedule import VIEWS_PER_GROUP, CameraViews, StepPlan

Point = tuple[float, float, float]

_DARK_STRIPE = 0.45  # brightness relative to the color beside it


@dataclass(frozen=True)
class Ball:
    """A ball whose front half (towards -y) has the color `front` and whose back half has the color `back`."""

    center: Point
    radius: float
    front: Point
    back: Point
    stripe: float = 0.0
    """Height in world units of horizontal stripes, which are alternately lighter and darker; 0 for no stripes."""

    def hit(self, rays: Rays) -> Tensor:
        """Return the distance [n] at which each ray hits the ball, measured from the origin of the ray.

        The distance is inf for rays that miss the ball or start inside it.
        """
        to_center = rays.origin.new_tensor(self.center) - rays.origin
        middle = (to_center * rays.direction).sum(-1)
        half_squared = self.radius**2 - (to_center.square().sum(-1) - middle.square())
        near = middle - half_squared.clamp(min=0).sqrt()
        return torch.where((half_squared > 0) & (near > 0), near, torch.inf)

    def normal(self, x: Tensor) -> Tensor:
        """Return the outward unit normals [n, 3] at points `x` [n, 3] on the ball."""
        return F.normalize(x - x.new_tensor(self.center), dim=-1)


@dataclass(frozen=True)
class Cuboid:
    """A box with edges along the axes, from the corner `low` to the corner `high`.

    The front half (towards -y) has the color `front`, and the back half has the color `back`.
    """

    low: Point
    high: Point
    front: Point
    back: Point
    stripe: float = 0.0

    @property
    def center(self) -> Point:
        """The center of the box."""
        x, y, z = ((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))
        return x, y, z

    def hit(self, rays: Rays) -> Tensor:
        """Return the distance [n] at which each ray hits the box, measured from the origin of the ray.

        The distance is inf for rays that miss the box or start inside it.
        """
        slope = 1 / torch.where(rays.direction == 0, 1e-12, rays.direction)
        at_low, at_high = ((rays.origin.new_tensor(corner) - rays.origin) * slope for corner in (self.low, self.high))
        near = torch.minimum(at_low, at_high).amax(-1)
        far = torch.maximum(at_low, at_high).amin(-1)
        return torch.where((near < far) & (near > 0), near, torch.inf)

    def normal(self, x: Tensor) -> Tensor:
        """Return the outward unit normals [n, 3] at points `x` [n, 3] on the faces of the box."""
        size = x.new_tensor(self.high) - x.new_tensor(self.low)
        position = (x - x.new_tensor(self.center)) / size
        face = F.one_hot(position.abs().argmax(-1), 3)
        return face * position.sign()


AnalyticSolid = Ball | Cuboid
Solids = tuple[AnalyticSolid, ...]


class SurfaceHits(NamedTuple):
    """The first point at which each of n rays hits a solid, with the color and the normal of the solid there."""

    hit: Tensor  # [n] whether the ray hits a solid
    x: Tensor  # [n, 3] world point of the hit; the origin of the ray if there is none
    samples: Samples  # at that point


def trace(solids: Solids, rays: Rays) -> SurfaceHits:
    """Return the first point at which each ray hits a solid. Rays that hit no solid are white.

    Args:
        solids: The solids of the scene.
        rays: n rays.
    """
    distance, nearest = torch.stack([solid.hit(rays) for solid in solids], -1).min(-1)
    hit = distance.isfinite()
    x = rays.origin + rays.direction * torch.where(hit, distance, 0)[:, None]
    albedo, normal = torch.ones_like(x), -rays.direction
    for index, solid in enumerate(solids):
        here = ((nearest == index) & hit)[:, None]
        albedo = torch.where(here, _color(solid, x), albedo)
        normal = torch.where(here, solid.normal(x), normal)
    return SurfaceHits(hit, x, Samples(torch.where(hit, torch.inf, 0.0), albedo, normal))


def _color(solid: AnalyticSolid, x: Tensor) -> Tensor:
    """Return the colors [n, 3] of a solid at points [n, 3]."""
    is_front = (x[:, 1] < solid.center[1])[:, None]
    color = torch.where(is_front, x.new_tensor(solid.front), x.new_tensor(solid.back))
    if not solid.stripe:
        return color
    dark = ((x[:, 2] / solid.stripe).floor() % 2 == 1)[:, None]
    return torch.where(dark, _DARK_STRIPE * color, color)


def render_rgba(
    solids: Solids,
    c2w: NDArray[np.float64],
    fov_deg: NDArray[np.float64] | float,
    resolution: int,
    *,
    supersampling: int = 2,
    shade: Shade = albedo_only,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Render solids by ray tracing. Each pixel is the mean of supersampling^2 rays.

    Args:
        solids: The solids of the scene.
        c2w: Camera-to-world matrices [f, 4, 4] in Blender axes.
        fov_deg: Full field of view in degrees: one number, or one per camera [f].
        resolution: Edge of the square images in pixels.
        supersampling: Number of rays per pixel along each axis.
        shade: Function that computes the color of points from their albedo and normal.
        device: Device of the images.

    Returns:
        Images [f, 4, h, w] in [0, 1]: colors on white, and alpha.
    """
    fine = resolution * supersampling
    rays = camera_rays(c2w, fov_deg, fine, device)
    hits = trace(solids, rays)
    hit = hits.hit[:, None]
    colors = torch.where(hit, shade(hits.x, hits.samples, rays.frame), 1.0)
    rgba = torch.cat([colors, hit.to(colors.dtype)], -1)
    return F.avg_pool2d(rgba.view(-1, fine, fine, 4).permute(0, 3, 1, 2), supersampling)


def render_truth(
    solids: Solids,
    c2w: NDArray[np.float64],
    fov_deg: NDArray[np.float64] | float,
    resolution: int,
    *,
    supersampling: int = 2,
    shade: Shade = albedo_only,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the color channels [f, 3, h, w] of `render_rgba`, which has the same arguments."""
    rgba = render_rgba(solids, c2w, fov_deg, resolution, supersampling=supersampling, shade=shade, device=device)
    return rgba[:, :3]


def oracle_denoiser(truth: Callable[[CameraViews], Tensor], encode: EncodeImages, alphas_cumprod: Tensor) -> Denoise:
    """Return a denoiser that knows the true images. Its predictions with and without guidance are equal.

    Args:
        truth: Function that returns the true images [f, 3, h, w] from given cameras.
        encode: The image encoder.
        alphas_cumprod: Cumulative product of the noise schedule, one value per timestep [t].
    """

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return _prediction(noisy, encode(truth(views)), alpha_bar)

    return denoise


def oracle_guidance(
    solids: Solids,
    plan: StepPlan,
    encode: EncodeImages,
    alphas_cumprod: Tensor,
    device: torch.device | str = "cpu",
) -> Guidance:
    """Return a guidance for one distillation step, whose denoiser is an oracle instead of a trained UNet.

    The oracle knows the true scene and predicts the noise from exact renderings of it. It must be built anew for each
    step, because the light changes from step to step and is not an argument of a denoiser.

    Args:
        solids: The solids of the true scene.
        plan: The cameras and the light of the step.
        encode: The image encoder.
        alphas_cumprod: Cumulative product of the noise schedule, one value per timestep [t].
        device: Device of the images.
    """
    light = PointLight(torch.as_tensor(plan.light_position, dtype=torch.float32, device=device), plan.ambient)

    def truth(views: CameraViews) -> Tensor:
        shade = lit(plan.shading, light)
        return render_truth(solids, views.c2w, views.fov_deg, plan.resolution, shade=shade, device=device)

    return Guidance(encode, oracle_denoiser(truth, encode, alphas_cumprod), alphas_cumprod)


def mixture_denoiser(
    truths: Callable[[CameraViews], Sequence[Tensor]], encode: EncodeImages, alphas_cumprod: Tensor, *, jointly: bool
) -> Denoise:
    """Return the ideal denoiser if the true scene is one of several scenes, each with the same probability.

    It predicts the posterior mean of the clean latents, given the noisy latents.

    Args:
        truths: Function that returns the images [f, 3, h, w] of each scene from given cameras.
        encode: The image encoder.
        alphas_cumprod: Cumulative product of the noise schedule, one value per timestep [t].
        jointly: True: the posterior of each view is conditioned on all noisy views of the group of this view, as in a
            model with attention between views. False: it is conditioned on this noisy view only, as in a model of
            single views without camera labels.
    """

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        clean = torch.stack([encode(images) for images in truths(views)])  # [k, f, c, h, w]
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        misfit = (noisy - alpha_bar.sqrt() * clean).square().flatten(2).sum(-1)
        likelihood = -misfit / (2 * (1 - alpha_bar.flatten()))
        if jointly:
            together = likelihood.view(len(clean), -1, VIEWS_PER_GROUP).sum(-1)
            likelihood = together.repeat_interleave(VIEWS_PER_GROUP, 1)
        mean = (likelihood.softmax(0)[..., None, None, None] * clean).sum(0)
        return _prediction(noisy, mean, alpha_bar)

    return denoise


def _prediction(noisy: Tensor, clean: Tensor, alpha_bar: Tensor) -> Prediction:
    """Return the noise in noisy latents, given the clean latents (all [f, c, h, w]), with guidance and without."""
    noise = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
    return Prediction(noise, noise)
