"""Settings of the hash grid, the field and the renderer."""

from dataclasses import dataclass, field
from typing import Final

import torch

from distill.nerf.backend import has_kernels

_BY_KERNELS: Final = 4


@dataclass(frozen=True)
class HashGridSettings:
    """Defaults are the released configuration's (finest level 4096)."""

    levels: int = 16
    features_per_level: int = 2
    log2_table_size: int = 19
    base_resolution: int = 16
    growth: float = 1.4473

    def resolutions(self) -> tuple[int, ...]:
        """Cells along an axis of each level, coarsest first."""
        return tuple(int(self.base_resolution * self.growth**level) for level in range(self.levels))

    def table_sizes(self) -> tuple[int, ...]:
        """Entries of each level: every vertex of a level that fits, else the whole hash table."""
        return tuple(min((resolution + 1) ** 3, 2**self.log2_table_size) for resolution in self.resolutions())


@dataclass(frozen=True)
class FieldSettings:
    """Defaults are the released configuration's."""

    grid: HashGridSettings = field(default_factory=HashGridSettings)
    radius: float = 1.0
    hidden_width: int = 64
    blob_density: float = 10.0
    """Density bias before softplus: blob_density * (1 - r / blob_radius), the "magic3d" blob of the release."""
    blob_radius: float = 0.5


@dataclass(frozen=True)
class MarchSettings:
    """Defaults are the released configuration's."""

    samples_per_ray: int = 512
    """Steps over the diagonal of the cube around the scene's ball; the longest way through the ball has fewer."""
    sample_budget: int = 2**21
    """Samples at which the scene is evaluated at once, about 3.5 KB each with gradients in plain torch. Kernels need a
    third of that and take four times as many. More are rendered in chunks."""
    min_transmittance: float = 1e-4
    """A ray ends where less light than this would come through."""
    occupancy_resolution: int = 32
    occupancy_threshold: float = 0.01
    """Optical depth of one step from which a cell counts as occupied (or the grid's mean, if that is less)."""
    occupancy_every: int = 16
    occupancy_decay: float = 0.95
    occupancy_warmup: int = 256
    """Until this step every cell is looked at; later a quarter of them and of the occupied ones."""

    def samples_at_once(self, device: torch.device) -> int:
        """`sample_budget` on a device."""
        return self.sample_budget * (_BY_KERNELS if has_kernels(device.type) else 1)

    def step_length(self, radius: float) -> float:
        """World length of a step in a scene of this radius."""
        return 2 * 3**0.5 * radius / self.samples_per_ray
