"""Fit the texture of a field to images from known cameras, while its geometry stays fixed.

The samples of all rays and their weights are computed once. A render is then a weighted sum of colors.

Axis letters: `f` frames (images), `h w` pixels, `n` rays (pixels of all images), `m` samples.
"""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Field, albedo_logits, texture_logits
from distill.nerf.hash_grid import HashGrid
from distill.nerf.occupancy import Occupancy
from distill.nerf.rays import camera_rays
from distill.nerf.render import surface_samples
from distill.nerf.settings import MarchSettings
from train.device import to_device

_LEAST_WEIGHT = 1e-3
_LEAST_FACING = 0.1
_HUBER = 0.05  # differences in color above this count linearly, so that views that disagree are not averaged
_WHITE = 0.93  # smallest color value of pixels that may be background


@dataclass(frozen=True)
class FitOptions:
    """How a texture is fitted; see `TextureSettings`."""

    iterations: int
    jitter: float
    ignore_white: bool
    generator: torch.Generator  # on the CPU, so that all devices draw the same numbers


@dataclass(frozen=True)
class SurfaceViews:
    """The visible samples of f square images of a field."""

    frames: int
    resolution: int
    x: Tensor  # [m, 3]
    ray: Tensor  # [m]
    weight: Tensor  # [m, 1]
    logits: Tensor  # [m, 3] of the albedo without the texture
    alpha: Tensor  # [n, 1]
    facing: Tensor  # [n, 1] confidence of a pixel: opacity times the cosine between normal and view direction

    def render(self, texture: HashGrid) -> Tensor:
        """Return the images [f, 3, h, w] on white, differentiable with respect to the texture."""
        return self._images(self._pixels(texture))

    def _pixels(self, texture: HashGrid, offset: Tensor | None = None) -> Tensor:
        x = self.x if offset is None else self.x + offset
        color = torch.sigmoid(self.logits + texture_logits(texture, x))
        black = torch.zeros(len(self.alpha), 3, device=color.device)
        return black.index_add(0, self.ray, self.weight * color) + 1 - self.alpha

    def _images(self, pixels: Tensor) -> Tensor:
        return pixels.view(self.frames, self.resolution, self.resolution, -1).permute(0, 3, 1, 2)

    def loss(self, texture: HashGrid, targets: Tensor, confidence: Tensor, options: FitOptions) -> Tensor:
        """Return the mean Huber loss between renders and images [f, 3, h, w], weighted by `confidence` [n, 1]."""
        wanted = targets.permute(0, 2, 3, 1).reshape(-1, 3)
        offset = options.jitter * torch.randn(self.x.shape, generator=options.generator)
        pixels = self._pixels(texture, to_device(offset, self.x.device))
        errors = confidence * F.huber_loss(pixels, wanted, reduction="none", delta=_HUBER)
        return errors.sum() / (_HUBER * confidence.sum().clamp(min=1e-6))

    def confidence(self, targets: Tensor, ignore_white: bool) -> Tensor:
        """Return the weights [n, 1] of the pixels of images [f, 3, h, w]: `facing`, or 0 if white is ignored."""
        white = targets.permute(0, 2, 3, 1).reshape(-1, 3).amin(1, keepdim=True) >= _WHITE
        return self.facing * ~white if ignore_white else self.facing

    def with_mean_of(self, targets: Tensor, renders: Tensor, group: int) -> Tensor:
        """Shift the colors of each group of images so that its mean color on the object is that of the renders.

        Args:
            targets: Images [f, 3, h, w].
            renders: Renders [f, 3, h, w].
            group: Number of consecutive images per group.
        """
        weight = self._images(self.facing).view(-1, group, 1, self.resolution, self.resolution)
        difference = weight * (renders - targets).view(-1, group, 3, self.resolution, self.resolution)
        shift = difference.sum((1, 3, 4), keepdim=True) / weight.sum((1, 3, 4), keepdim=True).clamp(min=1e-6)
        shifted = targets.view(-1, group, 3, self.resolution, self.resolution) + shift
        return shifted.flatten(0, 1).clamp(0, 1)


@dataclass(frozen=True)
class InputView:
    """The input image as another target of the fit: the surface that it shows, its colors and their weights."""

    surface: SurfaceViews
    image: Tensor  # [1, 3, h, w]
    confidence: Tensor  # [n, 1]
    weight: float  # of the loss
    overlap: float  # IoU of the silhouettes of the image and of the render, after their bounding boxes were aligned


def fit_texture(
    texture: HashGrid,
    optimizer: torch.optim.Optimizer,
    surface: SurfaceViews,
    targets: Tensor,
    options: FitOptions,
    *,
    input_view: InputView | None = None,
) -> float:
    """Fit a texture to images [f, 3, h, w], in place, and return the last loss.

    Args:
        texture: The texture.
        optimizer: Its optimizer.
        surface: What the f cameras of the images see of the field.
        targets: The images [f, 3, h, w].
        options: Settings of the fit.
        input_view: The input image, to be fitted too.
    """
    confidence = surface.confidence(targets, options.ignore_white)
    for _ in range(options.iterations):
        loss = surface.loss(texture, targets, confidence, options)
        if input_view is not None:
            view = input_view
            loss = loss + view.weight * view.surface.loss(texture, view.image, view.confidence, options)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def surface_views(
    field: Field, c2w: ArrayLike, fov_deg: ArrayLike, resolution: int, *, march: MarchSettings, occupancy: Occupancy
) -> SurfaceViews:
    """Return the visible samples of a field without texture from f cameras.

    Args:
        field: The field.
        c2w: Camera-to-world matrices [f, 4, 4] in Blender axes.
        fov_deg: Full field of view in degrees: one number, or one per camera [f].
        resolution: Edge of the square images in pixels.
        march: Settings of ray marching.
        occupancy: The occupancy grid of the field.
    """
    device = field.grid.table.device
    rays = camera_rays(c2w, fov_deg, resolution, device)
    samples = surface_samples(field, rays, settings=march, occupancy=occupancy, least_weight=_LEAST_WEIGHT)
    weight = samples.weight[:, None]
    none = torch.zeros(len(rays.frame), 1, device=device)
    alpha = none.index_add(0, samples.ray, weight)
    facing = none.index_add(0, samples.ray, weight * samples.facing[:, None].clamp(min=_LEAST_FACING))
    return SurfaceViews(
        frames=len(alpha) // resolution**2,
        resolution=resolution,
        x=samples.x,
        ray=samples.ray,
        weight=weight,
        logits=albedo_logits(samples.albedo),
        alpha=alpha,
        facing=facing,
    )
