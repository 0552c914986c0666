"""Oracle denoisers that know the true scene, to test score distillation independently of a trained model.

The truth is an analytic scene, traced exactly at the step's own cameras, shaded as the step shades the field (the scene
has normals), and encoded by the encoder the field's pictures go through; the noise that the oracle "predicts" follows
from the noisy latents and that truth.
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

_DARK_STRIPE = 0.45  # of the color beside it


@dataclass(frozen=True)
class Ball:
    """A ball whose front half (towards -y) has one color and whose back half another."""

    center: Point
    radius: float
    front: Point
    back: Point
    stripe: float = 0.0
    """Height of horizontal stripes, alternately darker, in world units; 0 is none."""

    def hit(self, rays: Rays) -> Tensor:
        """Distance [n] at which rays enter; inf where they miss or start inside."""
        to_center = rays.origin.new_tensor(self.center) - rays.origin
        middle = (to_center * rays.direction).sum(-1)
        half_squared = self.radius**2 - (to_center.square().sum(-1) - middle.square())
        near = middle - half_squared.clamp(min=0).sqrt()
        return torch.where((half_squared > 0) & (near > 0), near, torch.inf)

    def normal(self, x: Tensor) -> Tensor:
        """Outward unit normals [n, 3] at points [n, 3] of the surface."""
        return F.normalize(x - x.new_tensor(self.center), dim=-1)


@dataclass(frozen=True)
class Cuboid:
    """An upright box from corner `low` to corner `high`, colored like `Ball`."""

    low: Point
    high: Point
    front: Point
    back: Point
    stripe: float = 0.0

    @property
    def center(self) -> Point:
        """Its middle."""
        x, y, z = ((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))
        return x, y, z

    def hit(self, rays: Rays) -> Tensor:
        """Distance [n] at which rays enter; inf where they miss or start inside."""
        slope = 1 / torch.where(rays.direction == 0, 1e-12, rays.direction)
        at_low, at_high = ((rays.origin.new_tensor(corner) - rays.origin) * slope for corner in (self.low, self.high))
        near = torch.minimum(at_low, at_high).amax(-1)
        far = torch.maximum(at_low, at_high).amin(-1)
        return torch.where((near < far) & (near > 0), near, torch.inf)

    def normal(self, x: Tensor) -> Tensor:
        """Outward unit normals [n, 3] at points [n, 3] of the surface: of the face they lie on."""
        size = x.new_tensor(self.high) - x.new_tensor(self.low)
        place = (x - x.new_tensor(self.center)) / size
        face = F.one_hot(place.abs().argmax(-1), 3)
        return face * place.sign()


AnalyticSolid = Ball | Cuboid
Solids = tuple[AnalyticSolid, ...]


class Traced(NamedTuple):
    """What rays meet first."""

    met: Tensor  # [n] whether there is anything
    x: Tensor  # [n, 3] world point; the ray's origin where there is nothing
    samples: Samples  # of that point


def trace(solids: Solids, rays: Rays) -> Traced:
    """The nearest solids along the rays; white where there is none."""
    distance, nearest = torch.stack([solid.hit(rays) for solid in solids], -1).min(-1)
    met = distance.isfinite()
    x = rays.origin + rays.direction * torch.where(met, distance, 0)[:, None]
    albedo, normal = torch.ones_like(x), -rays.direction
    for index, solid in enumerate(solids):
        here = ((nearest == index) & met)[:, None]
        albedo = torch.where(here, _color(solid, x), albedo)
        normal = torch.where(here, solid.normal(x), normal)
    return Traced(met, x, Samples(torch.where(met, torch.inf, 0.0), albedo, normal))


def _color(solid: AnalyticSolid, x: Tensor) -> Tensor:
    """The solid's colors [n, 3] at points [n, 3]."""
    in_front = (x[:, 1] < solid.center[1])[:, None]
    color = torch.where(in_front, x.new_tensor(solid.front), x.new_tensor(solid.back))
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
    """Pictures [f, 4, h, w] of the scene: colors on white, and alpha; a pixel is the mean of supersampling^2 rays."""
    fine = resolution * supersampling
    rays = camera_rays(c2w, fov_deg, fine, device)
    found = trace(solids, rays)
    met = found.met[:, None]
    colors = torch.where(met, shade(found.x, found.samples, rays.frame), 1.0)
    rgba = torch.cat([colors, met.to(colors.dtype)], -1)
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
    """The colors [f, 3, h, w] of `render_rgba`."""
    rgba = render_rgba(solids, c2w, fov_deg, resolution, supersampling=supersampling, shade=shade, device=device)
    return rgba[:, :3]


def oracle_denoiser(truth: Callable[[CameraViews], Tensor], encode: EncodeImages, alphas_cumprod: Tensor) -> Denoise:
    """A `Denoise` whose clean latents are those of `truth`: views -> pictures [f, 3, h, w]. It needs no guidance."""

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - alpha_bar.sqrt() * encode(truth(views))) / (1 - alpha_bar).sqrt()
        return Prediction(noise, noise)

    return denoise


def oracle_guidance(
    solids: Solids,
    plan: StepPlan,
    encode: EncodeImages,
    alphas_cumprod: Tensor,
    device: torch.device | str = "cpu",
) -> Guidance:
    """The oracle's guidance for the step of this plan, with the noise schedule `alphas_cumprod` [t].

    A denoiser does not receive the light, so each step needs its own.
    """
    light = PointLight(torch.as_tensor(plan.light_position, dtype=torch.float32, device=device), plan.ambient)

    def truth(views: CameraViews) -> Tensor:
        shade = lit(plan.shading, light)
        return render_truth(solids, views.c2w, views.fov_deg, plan.resolution, shade=shade, device=device)

    return Guidance(encode, oracle_denoiser(truth, encode, alphas_cumprod), alphas_cumprod)


def mixture_denoiser(
    truths: Callable[[CameraViews], Sequence[Tensor]], encode: EncodeImages, alphas_cumprod: Tensor, *, jointly: bool
) -> Denoise:
    """The ideal denoiser for several equally likely scenes: `truths` gives the images [f, 3, h, w] of each.

    Its clean latents are the posterior mean given the noisy ones: of all views of a group together (what attention
    between views allows) or, not `jointly`, of each view by itself (a model of single views that is not told which).
    """

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: CameraViews) -> Prediction:
        clean = torch.stack([encode(pictures) for pictures in truths(views)])  # [k, f, c, h, w]
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        misfit = (noisy - alpha_bar.sqrt() * clean).square().flatten(2).sum(-1)
        likelihood = -misfit / (2 * (1 - alpha_bar.flatten()))
        if jointly:
            together = likelihood.view(len(clean), -1, VIEWS_PER_GROUP).sum(-1)
            likelihood = together.repeat_interleave(VIEWS_PER_GROUP, 1)
        mean = (likelihood.softmax(0)[..., None, None, None] * clean).sum(0)
        noise = (noisy - alpha_bar.sqrt() * mean) / (1 - alpha_bar).sqrt()
        return Prediction(noise, noise)

    return denoise
