"""A scene fitted to pictures with plain L2: no diffusion model, no shading. What one 3D object can show of them.

Axis letters: `f` frames, `h w` pixels, `n` rays.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.rays import Rays, camera_rays
from distill.nerf.render import render_rays
from distill.nerf.shading import albedo_only
from distill.sds.schedule import DistillSettings


class Shown(NamedTuple):
    """Pictures of an object and their cameras."""

    c2w: NDArray[np.float64]  # [f, 4, 4]
    fov_deg: float
    pictures: Tensor  # [f, h, w, 3] on white, on the CPU


def fit_pictures(
    scene: Scene,
    occupancy: Occupancy,
    optimizer: torch.optim.Optimizer,
    shown: Shown,
    settings: DistillSettings,
    *,
    steps: int,
    rays_a_step: int,
) -> None:
    """Fit the scene, whose parameters the optimiser holds, to all of the pictures, in place."""
    batches = ray_batches(shown, settings.seed, rays_a_step, occupancy.grid.occs.device)
    for step in range(steps):
        occupancy.update(step, scene.density, settings.seed)
        rays, shift, colours = next(batches)
        pixels = render_rays(scene, rays, shift, settings=settings.march, occupancy=occupancy, shade=albedo_only)
        loss = F.mse_loss(pixels[:, :3] + 1 - pixels[:, 3:4], colours)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()


def ray_batches(
    shown: Shown, seed: int, count: int, device: torch.device | str
) -> Iterator[tuple[Rays, Tensor, Tensor]]:
    """Random rays of the pictures with their shifts [n] and true colours [n, 3], without end."""
    everything = camera_rays(shown.c2w, shown.fov_deg, shown.pictures.shape[1], device)
    colours = shown.pictures.reshape(-1, 3).to(device)
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(colours), (count,), generator=generator).to(device)
        shift = torch.rand(count, generator=generator).to(device)
        yield Rays(*(values[chosen] for values in everything)), shift, colours[chosen]
