"""Shading of scene points: unlit albedo, diffuse or textureless, under one point light and ambient light.

As in the released code (the settings of MVDream), a step draws one kind of shading and one share of ambient light for
all its views. Eq. 8 makes visible normals face the camera.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Samples

ShadingKind = Literal["albedo", "diffuse", "textureless"]
Shade = Callable[[Tensor, Samples, Tensor], Tensor]
"""(world points [n, 3], samples of the scene there, frame of each point [n]) -> colors [n, 3]."""


@dataclass(frozen=True)
class PointLight:
    """One point light per frame."""

    position: Tensor  # [f, 3] world
    ambient: float  # ambient share in [0, 1]; the rest is the point light


def albedo_only(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
    """Return the unlit albedo [n, 3] at world points x [n, 3] of frames [n]."""
    return samples.albedo


def lit(kind: ShadingKind, light: PointLight) -> Shade:
    """Return a function for Lambertian shading by `light`, with the albedo ("diffuse") or white ("textureless")."""

    def shade(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
        to_light = F.normalize(light.position[frame] - x, dim=-1)
        facing = (samples.normal * to_light).sum(-1, keepdim=True).clamp(min=0)
        brightness = light.ambient + (1 - light.ambient) * facing
        return brightness * samples.albedo if kind == "diffuse" else brightness.expand(-1, 3)

    return albedo_only if kind == "albedo" else shade


def facing_away(normal: Tensor, direction: Tensor) -> Tensor:
    """Return max(0, normal . direction)^2 [n] of Eq. 8, for unit normals [n, 3] and ray directions [n, 3].

    The directions point into the scene.
    """
    return (normal * direction).sum(-1).clamp(min=0).square()


def orientation_loss(away: Tensor, alpha: Tensor) -> Tensor:
    """Return Eq. 8, a scalar.

    The paper takes the sum over samples. As in the released code, the sum is divided by the number of rays that hit
    something, so that the weight of the loss (Eq. 10) need not change with the resolution.

    Args:
        away: Sum of Eq. 8 along each ray, of any shape.
        alpha: Opacity of the rays, same shape.
    """
    return away.sum() / torch.count_nonzero(alpha).clamp(min=1)
