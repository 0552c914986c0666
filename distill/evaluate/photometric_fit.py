"""Optimize a scene so that its renders match given images (L2 loss), without a diffusion model or shading.

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
    """Images of an object, with the camera of each image."""

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
    """Optimize a scene, in place, so that its renders match given images.

    Args:
        scene: The scene to optimize.
        occupancy: The occupancy grid of the scene, which is updated too.
        optimizer: The optimizer, which must hold the parameters of the scene.
        posed: The images and their cameras.
        settings: Settings of ray marching (`march`) and the random seed (`seed`). Other settings are not used.
        steps: Number of optimization steps.
        rays_per_step: Number of rays that each step draws at random from the pixels of all images.
    """
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
    """Yield an endless sequence of batches of rays through randomly chosen pixels of given images.

    Args:
        posed: The images and their cameras.
        seed: Seed of the random choice of pixels.
        count: Number n of rays in a batch.
        device: Device of the rays.

    Yields:
        The n rays, a random shift [n] of the ray marching steps of each ray (as a fraction of a step, in [0, 1)), and
        the colors [n, 3] of the pixels.
    """
    all_rays = camera_rays(posed.c2w, posed.fov_deg, posed.images.shape[1], device)
    colors = posed.images.reshape(-1, 3).to(device)
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(colors), (count,), generator=generator).to(device)
        shift = torch.rand(count, generator=generator).to(device)
        yield Rays(*(values[chosen] for values in all_rays)), shift, colors[chosen]
