"""A field with known shape and colors: the oracle's solids with a soft surface and several colors."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Samples
from distill.sds.oracle import AnalyticSolid, Ball

RED, BLUE, YELLOW, BROWN, GREEN = (0.85, 0.15, 0.1), (0.1, 0.2, 0.8), (0.95, 0.8, 0.2), (0.3, 0.2, 0.1), (0.1, 0.7, 0.2)


@dataclass(frozen=True)
class SolidField:
    """A `distill.nerf.field.Scene`. Density is `surface_density` at the walls and grows by e every `softness`
    inwards.
    """

    solids: tuple[AnalyticSolid, ...]
    softness: float = 0.01
    surface_density: float = 10.0
    radius: float = 1.0

    def distances(self, x: Tensor) -> Tensor:
        """Signed distance [n, solids] of points [n, 3], negative inside; of boxes the largest of their sides'."""
        return torch.stack([_distance(solid, x) for solid in self.solids], -1)

    def density(self, x: Tensor) -> Tensor:
        """Density [n] at points [n, 3]."""
        depth = -self.distances(x).amin(-1) / self.softness
        return self.surface_density * torch.exp(depth.clamp(-20.0, 4.6))

    def albedo(self, x: Tensor) -> Tensor:
        """Albedo [n, 3]: the nearest solid's color in front or behind, paler towards the top."""
        nearest = self.distances(x).argmin(-1)
        center_y = x.new_tensor([solid.center[1] for solid in self.solids])
        front, back = (x.new_tensor([getattr(s, side) for s in self.solids]) for side in ("front", "back"))
        color = torch.where((x[:, 1] < center_y[nearest])[:, None], front[nearest], back[nearest])
        return torch.lerp(color, torch.ones(3), (x[:, 2:] * 0.5 + 0.25).clamp(0, 0.5))

    def query(self, x: Tensor) -> Samples:
        """Everything; the normal by autograd."""
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.distances(place).amin(-1).sum(), place)
        return Samples(self.density(x), self.albedo(x), F.normalize(gradient, dim=-1))


def _distance(solid: AnalyticSolid, x: Tensor) -> Tensor:
    if isinstance(solid, Ball):
        return (x - x.new_tensor(solid.center)).norm(dim=-1) - solid.radius
    low, high = x.new_tensor(solid.low), x.new_tensor(solid.high)
    return torch.maximum(low - x, x - high).amax(-1)
