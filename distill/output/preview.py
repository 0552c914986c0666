"""Cameras and renders of a field for the previews during a run and the result images at its end."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from distill.nerf.field import Field, Samples
from distill.nerf.occupancy import Occupancy
from distill.nerf.rays import Rays, camera_rays
from distill.nerf.render import RenderOutput, render_views
from distill.nerf.shading import PointLight, lit
from distill.output.turntable import write_views
from distill.sds.schedule import DistillSettings

PREVIEW_ELEVATION_DEG: Final = 15.0
# The light of textureless images is above and to the left of the camera (in camera distances) and moves with it: a
# light at the camera makes round shapes look flat. The albedo is a little darker than the white background.
_LIGHT_UP: Final = 0.8
_LIGHT_LEFT: Final = 0.6
_AMBIENT: Final = 0.3
_TEXTURELESS_ALBEDO: Final = 0.92


class PreviewImages(NamedTuple):
    """Renders of a field from f cameras on a white background.

    `colors`, `normals` and `textureless` are images [f, h, w, 3] in [0, 1]; `alpha` is the opacity [f, h, w].
    """

    colors: NDArray[np.float32]
    normals: NDArray[np.float32]  # world axes, -1..1 mapped to 0..1
    textureless: NDArray[np.float32]  # white albedo under one light
    alpha: NDArray[np.float32]  # [f, h, w]

    @property
    def panels(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The images `colors`, `normals` and `textureless`: the rows of a sheet of views, or the parts of a frame."""
        return self.colors, self.normals, self.textureless


ViewRenderer = Callable[[NDArray[np.float64]], PreviewImages]
"""Camera-to-world [f, 4, 4] (Blender axes) -> images."""


def write_preview(field: Field, occupancy: Occupancy, settings: DistillSettings, path: Path) -> None:
    """Write a PNG sheet of four views of a field: a row of colors, a row of normals and a row of textureless renders.

    Args:
        field: The field.
        occupancy: The occupancy grid of the field.
        settings: Settings of the distillation, which determine the camera, the resolution and the ray marching.
        path: The PNG file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    render = view_renderer(field, occupancy, settings, settings.coarse_resolution)
    write_views(
        lambda c2w: render(c2w).panels,
        path,
        distance=view_distance(settings),
        elevation_deg=PREVIEW_ELEVATION_DEG,
        views=4,
    )


def view_fov_deg(settings: DistillSettings) -> float:
    """Return the field of view, in degrees, of previews and result images.

    It is the middle of the range from which the distillation draws fields of view.
    """
    return sum(settings.cameras.fov_deg) / 2


def view_distance(settings: DistillSettings) -> float:
    """Return the distance between camera and origin, in world units, for previews and result images.

    At this distance, with the field of view `view_fov_deg`, the image shows a certain width of the plane through the
    origin. Half this width is the middle of the range `settings.cameras.half_frame`.
    """
    return sum(settings.cameras.half_frame) / 2 / math.tan(math.radians(view_fov_deg(settings)) / 2)


def view_renderer(field: Field, occupancy: Occupancy, settings: DistillSettings, resolution: int) -> ViewRenderer:
    """Return a function that renders the current state of a field from given cameras.

    Args:
        field: The field.
        occupancy: The occupancy grid of the field.
        settings: Settings of the distillation, which determine the field of view and the ray marching.
        resolution: Edge of the square images in pixels.
    """

    @torch.no_grad()
    def render(c2w: NDArray[np.float64]) -> PreviewImages:
        fov_deg, device = view_fov_deg(settings), field.grid.table.device
        rendered = render_views(
            field, c2w, fov_deg, resolution, settings=settings.march, occupancy=occupancy, device=device
        )
        background = 1 - rendered.alpha[..., None]
        normals = 0.5 * (rendered.normal + rendered.alpha[..., None]) + background
        rays = camera_rays(c2w, fov_deg, resolution, device)
        shape = textureless(rendered, rays, preview_light(c2w, device)) + background
        return PreviewImages(*(part.cpu().numpy() for part in (rendered.rgb, normals, shape, rendered.alpha)))

    return render


def textureless(rendered: RenderOutput, rays: Rays, light: PointLight) -> Tensor:
    """Return images of a scene as if its surface were white, under given lights.

    Each pixel is shaded once, at its mean depth and normal, not at every sample of its ray.

    Args:
        rendered: Renders of the scene from f cameras.
        rays: The ray of each pixel of these renders.
        light: One light for each camera.

    Returns:
        Images [f, h, w, 3] on black.
    """
    normal = F.normalize(rendered.normal.flatten(0, 2), dim=-1)
    x = rays.origin + rays.direction * rendered.depth.reshape(-1, 1)
    white = Samples(torch.ones_like(x[:, 0]), torch.full_like(x, _TEXTURELESS_ALBEDO), normal)
    return lit("diffuse", light)(x, white, rays.frame).view_as(rendered.rgb) * rendered.alpha[..., None]


def preview_light(c2w: NDArray[np.float64], device: torch.device | str) -> PointLight:
    """Return the lights for textureless images: one light for each camera, above and to the left of it.

    Args:
        c2w: Camera-to-world matrices [f, 4, 4] of cameras that look at the origin.
        device: Device of the lights.
    """
    right, up, position = c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 3]
    distance = np.linalg.norm(position, axis=-1, keepdims=True)
    light_position = position + distance * (_LIGHT_UP * up - _LIGHT_LEFT * right)
    return PointLight(torch.as_tensor(light_position, dtype=torch.float32, device=device), _AMBIENT)
