"""Unlit color of a field at points near its surface.

A simplified mesh does not coincide with the surface of the field, and rendered pixels mix the colors of all samples
along a ray. The color of a point on the mesh is therefore the mean albedo along the normal of the mesh at this point,
from outside to inside, weighted as in volume rendering.

Axis letters: `n` points, `k` samples along a normal.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

PointFunction = Callable[[Tensor], Tensor]  # points [n, 3] -> density [n] or albedo [n, 3]
SurfaceColor = Callable[[Tensor, Tensor], Tensor]  # points [n, 3], unit outward normals [n, 3] -> colors [n, 3]

_SAMPLES: Final = 16
_LEAST_OPACITY: Final = 0.01  # if the opacity along the normal is less, the albedo of the point itself is used
_LEAST_WEIGHT: Final = 1e-3  # the albedo is not evaluated for samples with less weight


def color_along_normals(density: PointFunction, albedo: PointFunction, reach: float) -> SurfaceColor:
    """Return the color function of a mesh that approximates the surface of a field.

    Args:
        density: Function that returns the density [n] of the field at points [n, 3].
        albedo: Function that returns the albedo [n, 3] of the field at points [n, 3].
        reach: Largest distance, in world units, between the mesh and the surface of the field.

    Returns:
        A function from points [n, 3] on the mesh and unit outward normals [n, 3] to colors [n, 3].
    """

    def color(points: Tensor, normals: Tensor) -> Tensor:
        step = 2 * reach / _SAMPLES
        height = reach - step * (torch.arange(_SAMPLES, device=points.device) + 0.5)  # from outside to inside
        x = points[:, None] + normals[:, None] * height[:, None]  # [n, k, 3]
        depth = density(x.view(-1, 3)).view(x.shape[:2]) * step
        weight = torch.exp(depth - depth.cumsum(1)) * (1 - torch.exp(-depth))
        opacity = weight.sum(1)
        relevant = (weight > _LEAST_WEIGHT) & (opacity > _LEAST_OPACITY)[:, None]
        colors = torch.zeros_like(x)
        colors[relevant] = albedo(x[relevant]).to(colors.dtype)
        weight = weight * relevant
        hit = relevant.any(1)
        mean = (weight[..., None] * colors).sum(1) / weight.sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT)
        mean[~hit] = albedo(points[~hit]).to(mean.dtype)
        return mean

    return color
