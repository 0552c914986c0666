"""Cameras and images of previews and results."""

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
# The textureless pictures' lamp stands over the camera's left shoulder (in camera distances) and turns with it: with
# the lamp at the camera itself a round body looks flat. The body is a little darker than the white behind it.
_LAMP_UP: Final = 0.8
_LAMP_LEFT: Final = 0.6
_AMBIENT: Final = 0.3
_WHITENESS: Final = 0.92

Float32 = NDArray[np.float32]


class PreviewImages(NamedTuple):
    """What is seen from cameras [f]; pictures [f, h, w, 3] in [0, 1], on white."""

    colors: Float32
    normals: Float32  # world axes, -1..1 mapped to 0..1
    textureless: Float32  # a white body under one lamp
    alpha: Float32  # [f, h, w]

    @property
    def pictures(self) -> tuple[Float32, Float32, Float32]:
        """The rows of a sheet, the panels of a video."""
        return self.colors, self.normals, self.textureless


ViewRenderer = Callable[[NDArray[np.float64]], PreviewImages]
"""Camera-to-world [f, 4, 4] (Blender axes) -> what is seen."""


def write_preview(field: Field, occupancy: Occupancy, settings: DistillSettings, path: Path) -> None:
    """A sheet of four views: colors and, below, normals and the textureless body."""
    path.parent.mkdir(parents=True, exist_ok=True)
    look = view_renderer(field, occupancy, settings, settings.coarse_resolution)
    write_views(
        lambda c2w: look(c2w).pictures,
        path,
        distance=view_distance(settings),
        elevation_deg=PREVIEW_ELEVATION_DEG,
        views=4,
    )


def view_fov_deg(settings: DistillSettings) -> float:
    """The field of view for looking at a result: the middle of what it was distilled with."""
    return sum(settings.cameras.fov_deg) / 2


def view_distance(settings: DistillSettings) -> float:
    """The camera distance for looking at a result, with `view_fov_deg`."""
    return sum(settings.cameras.half_frame) / 2 / math.tan(math.radians(view_fov_deg(settings)) / 2)


def view_renderer(field: Field, occupancy: Occupancy, settings: DistillSettings, resolution: int) -> ViewRenderer:
    """A function that looks at the field as it is when called, in square pictures of `resolution`."""

    @torch.no_grad()
    def look(c2w: NDArray[np.float64]) -> PreviewImages:
        fov_deg, device = view_fov_deg(settings), field.grid.table.device
        seen = render_views(
            field, c2w, fov_deg, resolution, settings=settings.march, occupancy=occupancy, device=device
        )
        behind = 1 - seen.alpha[..., None]
        normals = 0.5 * (seen.normal + seen.alpha[..., None]) + behind
        body = white_body(seen, camera_rays(c2w, fov_deg, resolution, device), lamp(c2w, device))
        return PreviewImages(*(part.cpu().numpy() for part in (seen.rgb, normals, body + behind, seen.alpha)))

    return look


def white_body(seen: RenderOutput, rays: Rays, light: PointLight) -> Tensor:
    """What was seen along `rays` as a white body under `light`: [f, h, w, 3] on black.

    Shaded once a pixel, at its mean depth and normal, and not at every sample: the rendering that gave them is enough.
    """
    normal = F.normalize(seen.normal.flatten(0, 2), dim=-1)
    x = rays.origin + rays.direction * seen.depth.reshape(-1, 1)
    white = Samples(torch.ones_like(x[:, 0]), torch.full_like(x, _WHITENESS), normal)
    return lit("diffuse", light)(x, white, rays.frame).view_as(seen.rgb) * seen.alpha[..., None]


def lamp(c2w: NDArray[np.float64], device: torch.device | str) -> PointLight:
    """The textureless pictures' light for cameras [f, 4, 4] that look at the origin."""
    right, up, position = c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 3]
    distance = np.linalg.norm(position, axis=-1, keepdims=True)
    place = position + distance * (_LAMP_UP * up - _LAMP_LEFT * right)
    return PointLight(torch.as_tensor(place, dtype=torch.float32, device=device), _AMBIENT)
