"""Find the azimuth from which the input image shows a distilled object, and project the image onto the object.

To find the azimuth, the silhouettes and colors of renders from several azimuths are compared with the image, after both
are cropped to the object.

Axis letters: `f` frames, `h w` pixels.
"""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import spherical_to_c2w
from distill.nerf.render import render_views
from distill.sds.checkpoint import Distillation
from distill.sds.schedule import DistillSettings
from distill.texture.fit import InputView, surface_views

logger = logging.getLogger(__name__)

AZIMUTHS_DEG: Final = tuple(range(-60, 61, 5))  # images show objects from their front or slightly from the side
_SIZE: Final = 32  # edge in pixels of the crops that are compared
_OPAQUE: Final = 0.5
LEAST_OVERLAP: Final = 0.8
"""Smallest IoU of the silhouettes of image and render with which the image is projected."""
_INSIDE: Final = 0.9  # smallest opacity of the pixels of the image that are projected
_AT_ONCE: Final = 4


def find_input_view(
    state: Distillation,
    settings: DistillSettings,
    rgba: NDArray[np.uint8],
    elevation_deg: float,
    *,
    azimuth_deg: float | None = None,
) -> InputView | None:
    """Return the input image as a target of the texture, or None if it is not used, and log how it is used.

    The image is not used if its weight is 0, or if its silhouette differs from that of the object.

    Args:
        state: The state of a finished distillation. A texture of its field is removed.
        settings: Settings of the distillation; `settings.texture` must not be None.
        rgba: The input image [h, w, 4].
        elevation_deg: Elevation of the camera of the image.
        azimuth_deg: Azimuth of the camera of the image; None: estimate it.
    """
    if settings.texture is None or not settings.texture.input_weight:
        return None
    state.field.texture = None
    if azimuth_deg is None:
        azimuth_deg = estimate_azimuth_deg(state, settings, rgba, elevation_deg)
    view = project_image(state, settings, rgba, elevation_deg=elevation_deg, azimuth_deg=azimuth_deg)
    if view is None or view.overlap < LEAST_OVERLAP:
        logger.info(
            "the input image is not projected onto the texture: its silhouette and that of the object at azimuth %g "
            "have an IoU of %.2f",
            azimuth_deg,
            0.0 if view is None else view.overlap,
        )
        return None
    logger.info(
        "the input image shows the object from azimuth %g (IoU of the silhouettes %.2f)", azimuth_deg, view.overlap
    )
    return view


@torch.no_grad()
def estimate_azimuth_deg(
    state: Distillation, settings: DistillSettings, rgba: NDArray[np.uint8], elevation_deg: float
) -> float:
    """Return the azimuth in `AZIMUTHS_DEG` whose render is most similar to an image; 0 for an image or field without
    visible object.

    Args:
        state: The state of a finished distillation.
        settings: Settings of the distillation.
        rgba: The input image [h, w, 4].
        elevation_deg: Elevation of the camera of the image.
    """
    image = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1).float() / 255
    wanted = _crop(image)
    if wanted is None:
        return 0.0
    best, least = 0.0, float("inf")
    for start in range(0, len(AZIMUTHS_DEG), _AT_ONCE):
        azimuths = AZIMUTHS_DEG[start : start + _AT_ONCE]
        c2w, fov_deg = _camera(settings, elevation_deg, azimuths)
        rendered = render_views(
            state.field,
            c2w,
            fov_deg,
            image.shape[-1],
            settings=settings.march,
            occupancy=state.occupancy,
            device=state.field.grid.table.device,
        )
        alpha = rendered.alpha[..., None]
        color = (rendered.rgb - 1 + alpha) / alpha.clamp(min=1e-3)
        for azimuth_deg, view in zip(azimuths, torch.cat([color, alpha], -1).permute(0, 3, 1, 2).cpu(), strict=True):
            crop = _crop(view)
            difference = float("inf") if crop is None else float((crop - wanted).square().mean())
            if difference < least:
                best, least = float(azimuth_deg), difference
    return best


def project_image(
    state: Distillation,
    settings: DistillSettings,
    rgba: NDArray[np.uint8],
    *,
    elevation_deg: float,
    azimuth_deg: float,
) -> InputView | None:
    """Return the input image as a target of the texture, or None if the image or the field has no visible object.

    The image is scaled and moved so that the bounding boxes of the objects in the image and in the render agree.

    Args:
        state: The state of a finished distillation. Its field must have no texture.
        settings: Settings of the distillation; `settings.texture` must not be None.
        rgba: The input image [h, w, 4].
        elevation_deg: Elevation of the camera of the image.
        azimuth_deg: Azimuth of the camera of the image.

    Raises:
        ValueError: The settings have no texture phase (`DistillSettings.texture` is None).
    """
    options = settings.texture
    if options is None:
        raise ValueError("the projection of the input image needs DistillSettings.texture")
    resolution, device = options.resolution, state.field.grid.table.device
    c2w, fov_deg = _camera(settings, elevation_deg, [azimuth_deg])
    surface = surface_views(state.field, c2w, fov_deg, resolution, march=settings.march, occupancy=state.occupancy)
    image = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1).float() / 255
    shown, source = _box(surface.alpha.view(resolution, resolution).cpu()), _box(image[3])
    if shown is None or source is None:
        return None
    part = image[:, source[0], source[1]]
    part = torch.cat([part[:3] * part[3:], part[3:]])
    size = (shown[0].stop - shown[0].start, shown[1].stop - shown[1].start)
    canvas = torch.zeros(4, resolution, resolution)
    canvas[:, shown[0], shown[1]] = F.interpolate(
        part[None], size, mode="bilinear", align_corners=False, antialias=True
    )[0].clamp(0, 1)
    color = canvas[:3] / canvas[3:].clamp(min=1e-3)
    inside = (canvas[3] > _INSIDE).to(device).view(-1, 1)
    opaque, visible = canvas[3] >= _OPAQUE, surface.alpha.view(resolution, resolution).cpu() >= _OPAQUE
    return InputView(
        surface=surface,
        image=color[None].to(device),
        confidence=surface.facing * inside,
        weight=options.input_weight,
        overlap=float((opaque & visible).sum() / (opaque | visible).sum()),
    )


def _camera(
    settings: DistillSettings, elevation_deg: float, azimuth_deg: Sequence[float]
) -> tuple[NDArray[np.float64], float]:
    """Return camera-to-world matrices [f, 4, 4] and the field of view, both in the middle of their ranges."""
    fov_deg = sum(settings.cameras.fov_deg) / 2
    distance = sum(settings.cameras.half_frame) / 2 / np.tan(np.deg2rad(fov_deg) / 2)
    return spherical_to_c2w(elevation_deg, np.array(azimuth_deg, np.float64), distance), fov_deg


def _box(alpha: Tensor) -> tuple[slice, slice] | None:
    """Return the rows and columns of the bounding box of the opaque pixels of `alpha` [h, w], or None."""
    rows, columns = torch.nonzero(alpha >= _OPAQUE, as_tuple=True)
    if not len(rows):
        return None
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)


def _crop(rgba: Tensor) -> Tensor | None:
    """Return an image [4, h, w] with its colors multiplied by alpha, cropped to a square around the object.

    The crop has `_SIZE` pixels per edge. Returns None if no pixel is opaque.
    """
    box = _box(rgba[3])
    if box is None:
        return None
    part = rgba[:, box[0], box[1]]
    height, width = part.shape[1:]
    side = max(height, width)
    canvas = torch.zeros(4, side, side)
    row, column = (side - height) // 2, (side - width) // 2
    canvas[:, row : row + height, column : column + width] = torch.cat([part[:3] * part[3:], part[3:]])
    return F.interpolate(canvas[None], (_SIZE, _SIZE), mode="bilinear", align_corners=False, antialias=True)[0]
