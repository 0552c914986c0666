"""How a field is looked at: the cameras of previews and results, and what is rendered from them."""

import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from distill.field import Field
from distill.march import Occupancy, render_views
from distill.schedule import DistillSettings
from distill.turntable import Render, write_views

PREVIEW_ELEVATION_DEG: Final = 15.0


def write_preview(field: Field, occupancy: Occupancy, settings: DistillSettings, path: Path) -> None:
    """A sheet of four views: colours and, below, normals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours, normals = renderers(field, occupancy, settings, settings.coarse_resolution)
    write_views(
        colours,
        path,
        distance=view_distance(settings),
        elevation_deg=PREVIEW_ELEVATION_DEG,
        views=4,
        extra_rows=(normals,),
    )


def view_fov_deg(settings: DistillSettings) -> float:
    """The field of view for looking at a result: the middle of what it was distilled with."""
    return sum(settings.cameras.fov_deg) / 2


def view_distance(settings: DistillSettings) -> float:
    """The camera distance for looking at a result, with `view_fov_deg`."""
    return sum(settings.cameras.half_frame) / 2 / math.tan(math.radians(view_fov_deg(settings)) / 2)


def renderers(field: Field, occupancy: Occupancy, settings: DistillSettings, resolution: int) -> tuple[Render, Render]:
    """Functions of camera-to-world [f, 4, 4]: colours, and normals mapped to [0, 1] on white; [f, h, w, 3]."""

    @torch.no_grad()
    def both(c2w: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rendered = render_views(
            field,
            c2w,
            view_fov_deg(settings),
            resolution,
            settings=settings.march,
            occupancy=occupancy,
            device=field.grid.table.device,
        )
        normals = 0.5 * (rendered.normal + rendered.alpha[..., None]) + 1 - rendered.alpha[..., None]
        return rendered.rgb.cpu().numpy(), normals.cpu().numpy()

    return lambda c2w: both(c2w)[0], lambda c2w: both(c2w)[1]
