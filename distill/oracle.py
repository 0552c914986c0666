"""A denoiser that knows the answer: score distillation must rebuild its scene, whatever a trained model would do.

The truth is an analytic scene, traced exactly at the step's own cameras and encoded by the encoder the field's pictures
go through; the noise that the oracle "predicts" follows from the noisy latents and that truth.
Only unlit steps have such an answer: the scene has colours and no light.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distill.guidance import Denoise, Encode, Prediction
from distill.march import Rays, camera_rays
from distill.schedule import Views

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Ball:
    """A ball whose front half (towards -y) has one colour and whose back half another."""

    centre: Point
    radius: float
    front: Point
    back: Point

    def hit(self, rays: Rays) -> Tensor:
        """Distance [n] at which rays enter; inf where they miss or start inside."""
        to_centre = rays.origin.new_tensor(self.centre) - rays.origin
        middle = (to_centre * rays.direction).sum(-1)
        half_squared = self.radius**2 - (to_centre.square().sum(-1) - middle.square())
        near = middle - half_squared.clamp(min=0).sqrt()
        return torch.where((half_squared > 0) & (near > 0), near, torch.inf)


@dataclass(frozen=True)
class Box:
    """An upright box from corner `low` to corner `high`, coloured like `Ball`."""

    low: Point
    high: Point
    front: Point
    back: Point

    @property
    def centre(self) -> Point:
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


Solid = Ball | Box


def trace(solids: tuple[Solid, ...], rays: Rays) -> Tensor:
    """Colours [n, 3] of the nearest solids along the rays, white where there is none."""
    distances = torch.stack([solid.hit(rays) for solid in solids], -1)
    distance, nearest = distances.min(-1)
    y = (rays.origin + rays.direction * torch.where(distance.isinf(), 0, distance)[:, None])[:, 1]
    centre_y = rays.origin.new_tensor([solid.centre[1] for solid in solids])
    fronts, backs = (
        rays.origin.new_tensor(colours) for colours in zip(*((s.front, s.back) for s in solids), strict=True)
    )
    colour = torch.where((y < centre_y[nearest])[:, None], fronts[nearest], backs[nearest])
    return torch.where(distance.isinf()[:, None], 1.0, colour)


def render_truth(
    solids: tuple[Solid, ...],
    c2w: NDArray[np.float64],
    fov_deg: NDArray[np.float64] | float,
    resolution: int,
    *,
    supersampling: int = 2,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Pictures [f, 3, h, w] of the scene on white; a pixel is the mean of supersampling^2 rays."""
    fine = resolution * supersampling
    colours = trace(solids, camera_rays(c2w, fov_deg, fine, device))
    return F.avg_pool2d(colours.view(-1, fine, fine, 3).permute(0, 3, 1, 2), supersampling)


def oracle_denoiser(truth: Callable[[Views], Tensor], encode: Encode, alphas_cumprod: Tensor) -> Denoise:
    """A `Denoise` whose clean latents are those of `truth`: views -> pictures [f, 3, h, w]. It needs no guidance."""

    @torch.no_grad()
    def denoise(noisy: Tensor, timesteps: Tensor, views: Views) -> Prediction:
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - alpha_bar.sqrt() * encode(truth(views))) / (1 - alpha_bar).sqrt()
        return Prediction(noise, noise)

    return denoise
