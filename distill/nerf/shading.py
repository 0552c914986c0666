"""Shading of scene points: unlit albedo, diffuse or textureless, under one point light and ambient light.

As released (MVDream's settings): a step draws one kind of shading for all its views and the share of ambient light;
Eq. 8 keeps visible normals towards the camera.
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
"""(world points [n, 3], what the scene is there, the frame each belongs to [n]) -> colors [n, 3]."""


@dataclass(frozen=True)
class PointLight:
    """One point light a frame."""

    position: Tensor  # [f, 3] world
    ambient: float  # share in [0, 1]; the point light has the rest


def albedo_only(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
    """The albedo [n, 3] at world points x [n, 3] of frames [n], without lighting."""
    return samples.albedo


def lit(kind: ShadingKind, light: PointLight) -> Shade:
    """Lambertian shading by `light`: of the albedo ("diffuse") or of a white body ("textureless")."""

    def shade(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
        to_light = F.normalize(light.position[frame] - x, dim=-1)
        facing = (samples.normal * to_light).sum(-1, keepdim=True).clamp(min=0)
        brightness = light.ambient + (1 - light.ambient) * facing
        return brightness * samples.albedo if kind == "diffuse" else brightness.expand(-1, 3)

    return albedo_only if kind == "albedo" else shade


def facing_away(normal: Tensor, direction: Tensor) -> Tensor:
    """max(0, n . v)^2 [n] of Eq. 8 for unit normals and ray directions v [n, 3] (from the camera into the scene)."""
    return (normal * direction).sum(-1).clamp(min=0).square()


def orientation_loss(away: Tensor, alpha: Tensor) -> Tensor:
    """Eq. 8 from its sum along each ray and the rays' opacity, a scalar.

    The paper writes the sum over samples; as in the release it is divided by the number of rays that meet anything, so
    that its weight (Eq. 10) does not depend on the resolution.
    """
    return away.sum() / torch.count_nonzero(alpha).clamp(min=1)
