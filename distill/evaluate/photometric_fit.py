"""Fit a scene to images with an L2 loss, without a diffusion model or shading.

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


class PosedImages(NamedTuple):
    """Images of an object and their cameras."""

    c2w: NDArray[np.float64]  # [f, 4, 4]
    fov_deg: float
    images: Tensor  # [f, h, w, 3] on white, on the CPU


def fit_images(
    scene: Scene,
    occupancy: Occupancy,
    optimizer: torch.optim.Optimizer,
    posed: PosedImages,
    settings: DistillSettings,
    *,
    steps: int,
    rays_per_step: int,
) -> None:
    """Fit `scene`, in place, to all images. `optimizer` must hold the parameters of the scene."""
    batches = ray_batches(posed, settings.seed, rays_per_step, occupancy.grid.occs.device)
    for step in range(steps):
        occupancy.update(step, scene.density, settings.seed)
        rays, shift, colors = next(batches)
        pixels = render_rays(scene, rays, shift, settings=settings.march, occupancy=occupancy, shade=albedo_only)
        loss = F.mse_loss(pixels[:, :3] + 1 - pixels[:, 3:4], colors)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()


def ray_batches(
    posed: PosedImages, seed: int, count: int, device: torch.device | str
) -> Iterator[tuple[Rays, Tensor, Tensor]]:
    """Yield batches of `count` random rays through pixels, with step shifts [n] and true colors [n, 3], without end."""
    all_rays = camera_rays(posed.c2w, posed.fov_deg, posed.images.shape[1], device)
    colors = posed.images.reshape(-1, 3).to(device)
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(colors), (count,), generator=generator).to(device)
        shift = torch.rand(count, generator=generator).to(device)
        yield Rays(*(values[chosen] for values in all_rays)), shift, colors[chosen]
