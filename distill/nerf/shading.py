"""Shading of scene points: unlit albedo, or diffuse or textureless shading under one point light and ambient light.

As in the released code (with the settings of MVDream), each step draws one kind of shading and one share of ambient
light for all its views. This module also contains the orientation loss (Eq. 8), which makes visible normals face the
camera.
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
    """One point light per image, and the share of ambient light. The share is the same for all images."""

    position: Tensor  # [f, 3] world
    ambient: float  # ambient share in [0, 1]; the rest is the point light


def albedo_only(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
    """Return the unlit color of n points, which is their albedo [n, 3].

    Args:
        x: World points [n, 3]; not used.
        samples: Albedo and normal of the scene at these points.
        frame: Index of the image of each point [n]; not used.
    """
    return samples.albedo


def lit(kind: ShadingKind, light: PointLight) -> Shade:
    """Return a function that computes Lambertian shading.

    Args:
        kind: "diffuse": with the albedo of the scene. "textureless": with white albedo. "albedo": no shading.
        light: The point light of each image and the share of ambient light.
    """

    def shade(x: Tensor, samples: Samples, frame: Tensor) -> Tensor:
        to_light = F.normalize(light.position[frame] - x, dim=-1)
        facing = (samples.normal * to_light).sum(-1, keepdim=True).clamp(min=0)
        brightness = light.ambient + (1 - light.ambient) * facing
        return brightness * samples.albedo if kind == "diffuse" else brightness.expand(-1, 3)

    return albedo_only if kind == "albedo" else shade


def facing_away(normal: Tensor, direction: Tensor) -> Tensor:
    """Return max(0, normal . direction)^2 [n], the term of each sample in the orientation loss (Eq. 8).

    Args:
        normal: Outward unit normals [n, 3].
        direction: Unit directions [n, 3] of the rays, from the camera into the scene.
    """
    return (normal * direction).sum(-1).clamp(min=0).square()


def orientation_loss(away: Tensor, alpha: Tensor) -> Tensor:
    """Return the orientation loss (Eq. 8), a scalar.

    In the paper, the loss is a sum over samples. As in the released code, this sum is divided by the number of rays
    whose opacity is not zero, so that the weight of the loss (Eq. 10) does not depend on the resolution.

    Args:
        away: Sum of the terms `facing_away` along each ray, a tensor of any shape.
        alpha: Opacity of each ray, with the same shape.
    """
    return away.sum() / torch.count_nonzero(alpha).clamp(min=1)
