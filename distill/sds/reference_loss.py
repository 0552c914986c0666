"""Hard supervision, an ablation that is off by default: the picture itself as a target at the reference view.

The peers' losses (paper, Table 1 and Fig. 8) that Isotropic3D does without: squared errors of color and mask.

The reference camera is at azimuth 0 and the given elevation, framed as the renders that a model is trained on: a field
of view of 49.13 degrees from distance 1.5, with an object of side 1. Where a preset's half frame is not the renders'
(`CameraSettings.half_frame`), the distance grows by the same factor: the model draws the object as large a part of each
frame as in its training renders, and the reference view must not ask for another size.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dataset.camera import fov_deg as fov_deg_of
from dataset.camera import intrinsics, spherical_to_c2w
from dataset.errors import UserError
from dataset.images.prepare import composite_white
from distill.nerf.field import Scene
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.nerf.settings import MarchSettings

FOV_DEG: Final = fov_deg_of(intrinsics(256), 256)


@dataclass(frozen=True)
class Reference:
    """A picture and where it was taken from."""

    picture: Tensor  # [4, h, w] in [0, 1]: colors on white, and the mask
    c2w: NDArray[np.float64]  # [1, 4, 4]


def new_reference(
    rgba: NDArray[np.uint8], elevation_deg: float, half_frame: tuple[float, float], device: torch.device | str = "cpu"
) -> Reference:
    """The reference of a square picture [h, w, 4] with straight alpha; `half_frame` is `CameraSettings`'.

    Raises UserError if alpha is no object's outline: a background that reaches the frame would be taken for the object.
    """
    mask = rgba[..., 3:].astype(np.float32) / 255
    if max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) > 0.5:
        raise UserError(
            "--reference-weight needs the object's outline, and the picture has a background: give an RGBA cut-out, or "
            "pass --remove-background"
        )
    picture = torch.from_numpy(np.concatenate([composite_white(rgba), mask], -1)).permute(2, 0, 1).to(device)
    distance = sum(half_frame) / 2 / np.tan(np.deg2rad(FOV_DEG) / 2)
    return Reference(picture, spherical_to_c2w([elevation_deg], [0.0], distance))


def reference_loss(
    scene: Scene,
    reference: Reference,
    resolution: int,
    *,
    settings: MarchSettings,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean squared error of the unlit colors on white, plus that of the mask, a scalar.

    The picture is brought to `resolution` by the mean over each pixel's area.
    """
    device = reference.picture.device
    seen = render_views(
        scene,
        reference.c2w,
        FOV_DEG,
        resolution,
        settings=settings,
        occupancy=occupancy,
        generator=generator,
        device=device,
    )
    picture = F.interpolate(reference.picture[None], (resolution, resolution), mode="area")[0]
    return F.mse_loss(seen.rgb[0].permute(2, 0, 1), picture[:3]) + F.mse_loss(seen.alpha, picture[3:])
