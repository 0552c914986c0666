"""The baseline of `field_fit`: density and albedo interpolated from the nodes of a dense grid."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.nerf.field import Samples
from distill.nerf.settings import FieldSettings

CHANNELS = 4  # raw density and raw albedo


def nodes_of(parameters: int) -> int:
    """Return the nodes per axis of the largest grid with at most this number of parameters."""
    return max(2, int((parameters / CHANNELS) ** (1 / 3) + 1e-6))


class DenseGrid(nn.Module):
    """A `Scene` like `Field`, with the same activations and blob. Normals are 0: fitting colors does not use them."""

    def __init__(self, settings: FieldSettings, nodes: int) -> None:
        super().__init__()
        self.settings = settings
        self.table = nn.Parameter(torch.zeros(1, CHANNELS, nodes, nodes, nodes))

    @property
    def radius(self) -> float:
        return self.settings.radius

    def density(self, x: Tensor) -> Tensor:
        """Return the density [n] at world points [n, 3]."""
        return self._density(x, self._raw(x)[0])

    def query(self, x: Tensor) -> Samples:
        """Return density, albedo and normals at world points [n, 3]."""
        raw = self._raw(x)
        return Samples(self._density(x, raw[0]), torch.sigmoid(raw[1:].T), torch.zeros_like(x))

    def _raw(self, x: Tensor) -> Tensor:
        """Return the values [c, n], interpolated from the nodes, at world points [n, 3]."""
        place = (x / self.radius).flip(-1)[None, None, None]  # the table's axes are x, y, z; grid_sample wants z, y, x
        return F.grid_sample(self.table, place, padding_mode="border", align_corners=True)[0, :, 0, 0]

    def _density(self, x: Tensor, raw: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(x, dim=-1)
        blob = self.settings.blob_density * (1 - distance / self.settings.blob_radius)
        density: Tensor = F.softplus(raw + blob) * (distance <= self.radius)
        return density
