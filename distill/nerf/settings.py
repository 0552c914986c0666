"""Settings of the hash grid, the field and the renderer."""

from dataclasses import dataclass, field
from typing import Final

import torch

from distill.nerf.backend import has_kernels

_KERNEL_FACTOR: Final = 4  # kernels need less memory per sample


@dataclass(frozen=True)
class HashGridSettings:
    """Settings of the hash grid.

    The defaults are those of the released configuration. With them, the finest level has about 4096 cells per axis.
    """

    levels: int = 16
    features_per_level: int = 2
    log2_table_size: int = 19
    base_resolution: int = 16
    growth: float = 1.4473

    def resolutions(self) -> tuple[int, ...]:
        """Return the number of cells per axis of each level, coarsest level first."""
        return tuple(int(self.base_resolution * self.growth**level) for level in range(self.levels))

    def table_sizes(self) -> tuple[int, ...]:
        """Return the number of table entries of each level, coarsest level first.

        A level has one entry per vertex, but at most 2^log2_table_size entries. If it has more vertices than entries,
        several vertices share an entry by hashing.
        """
        return tuple(min((resolution + 1) ** 3, 2**self.log2_table_size) for resolution in self.resolutions())


@dataclass(frozen=True)
class FieldSettings:
    """Settings of the field. The defaults are those of the released configuration.

    The scene differs from the release in one way: in the release, the scene is the cube [-radius, radius]^3. Here it is
    the ball with radius `radius` inside this cube.
    """

    grid: HashGridSettings = field(default_factory=HashGridSettings)
    radius: float = 1.0
    hidden_width: int = 64
    blob_density: float = 10.0
    """Density bias before softplus: blob_density * (1 - r / blob_radius), "magic3d" in the released configuration."""
    blob_radius: float = 0.5


@dataclass(frozen=True)
class MarchSettings:
    """Settings of ray marching. The defaults are those of the released configuration."""

    samples_per_ray: int = 512
    """Number of steps along the diagonal of the cube around the scene's ball. A diameter of the ball has fewer
    steps."""
    sample_budget: int = 2**21
    """Number of samples evaluated at once, about 3.5 KB each with gradients in plain torch. The Triton kernels need a
    third of that memory and evaluate four times as many samples at once. More samples are rendered in chunks."""
    min_transmittance: float = 1e-4
    """Rays end where the transmittance falls below this value. 0: evaluate all samples. Otherwise a first pass computes
    the density of all samples and finds the hidden ones."""
    alpha_threshold: float = 0.01
    """Samples with less opacity than this are skipped. If the mean of the occupancy grid is lower, that mean is the
    limit."""
    occupancy_resolution: int = 32
    occupancy_threshold: float = 0.01
    """Optical depth of one step above which a cell is occupied. If the mean of the grid is lower, that mean is used."""
    occupancy_every: int = 16
    occupancy_decay: float = 0.95
    occupancy_warmup: int = 256
    """Until this step all cells are updated; afterwards a random quarter of all cells, and at most the same number of
    occupied cells."""

    def samples_at_once(self, device: torch.device) -> int:
        """Return the number of samples that may be evaluated at once on a device; it is larger with Triton kernels."""
        return self.sample_budget * (_KERNEL_FACTOR if has_kernels(device.type) else 1)

    def step_length(self, radius: float) -> float:
        """Return the length, in world units, of a ray marching step in a scene whose ball has the given radius."""
        return 2 * 3**0.5 * radius / self.samples_per_ray
