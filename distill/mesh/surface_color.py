"""The color a field shows at its surface: what light coming straight in would see, without any lighting.

A mesh is not exactly where the field's surface is (it was simplified), and a field's surface has a depth: its pictures
mix the colors of all that a ray goes through. So a point takes the mean albedo along its normal, from outside to
inside, weighted as in a picture. Letters: `n` points, `k` samples along a normal.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

PointFunction = Callable[[Tensor], Tensor]  # points [n, 3] -> density [n] or albedo [n, 3]
SurfaceColor = Callable[[Tensor, Tensor], Tensor]  # points [n, 3], unit outward normals [n, 3] -> colors [n, 3]

_SAMPLES: Final = 16
_NOTHING_MET: Final = 0.01  # opacity along the whole way below which the point's own albedo is the answer
_WEIGHTLESS: Final = 1e-3  # samples that weigh less are not asked for their color


def color_along_normals(density: PointFunction, albedo: PointFunction, reach: float) -> SurfaceColor:
    """The color function of a surface that lies within `reach` (world units) of the field's."""

    def color(points: Tensor, normals: Tensor) -> Tensor:
        step = 2 * reach / _SAMPLES
        height = reach - step * (torch.arange(_SAMPLES, device=points.device) + 0.5)  # from outside to inside
        x = points[:, None] + normals[:, None] * height[:, None]  # [n, k, 3]
        depth = density(x.view(-1, 3)).view(x.shape[:2]) * step
        weight = torch.exp(depth - depth.cumsum(1)) * (1 - torch.exp(-depth))
        opacity = weight.sum(1)
        relevant = (weight > _WEIGHTLESS) & (opacity > _NOTHING_MET)[:, None]
        colors = torch.zeros_like(x)
        colors[relevant] = albedo(x[relevant]).to(colors.dtype)
        weight = weight * relevant
        met = relevant.any(1)
        found = (weight[..., None] * colors).sum(1) / weight.sum(1, keepdim=True).clamp(min=_WEIGHTLESS)
        found[~met] = albedo(points[~met]).to(found.dtype)
        return found

    return color
