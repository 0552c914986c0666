"""A loss that compares the color and mask of the reference view with the input image: an ablation, off by default.

Other methods use this loss; Isotropic3D does not (paper, Table 1 and Fig. 8).

The reference camera has the elevation and the azimuth of the camera that took the input image; the azimuth is 0 for
models with relative camera labels. The field of view is 49.13 degrees, as in the training renders. They show an object
whose longest side is 1, from distance 1.5. The model generates images in which the object fills the same fraction of
the image as in the training renders, and the reference view must show the object at the same size. If
`CameraSettings.half_frame` of a preset is larger than in the training renders, the distance of the reference camera is
therefore larger by the same factor.
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
class ReferenceView:
    """The input image with its mask, and the camera that took it."""

    image: Tensor  # [4, h, w] in [0, 1]: colors on white, and the mask
    c2w: NDArray[np.float64]  # [1, 4, 4]


def new_reference_view(
    rgba: NDArray[np.uint8],
    elevation_deg: float,
    half_frame: tuple[float, float],
    *,
    azimuth_deg: float = 0.0,
    device: torch.device | str = "cpu",
) -> ReferenceView:
    """Create the reference view from the input image.

    Args:
        rgba: The square image [h, w, 4] with straight (not premultiplied) alpha.
        elevation_deg: Elevation in degrees of the camera that took the image.
        half_frame: The setting `CameraSettings.half_frame` of the run.
        azimuth_deg: Azimuth in degrees of the camera that took the image. It is 0 for a model with relative camera
            labels, whose azimuths are relative to the image.
        device: Device of the image.

    Raises:
        UserError: the image is opaque at its edge, so its alpha does not outline an object.
    """
    mask = rgba[..., 3:].astype(np.float32) / 255
    if max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) > 0.5:
        raise UserError(
            "--reference-loss-weight needs the outline of the object, but the input image is opaque at its edge, so it "
            "has a background; give an RGBA cut-out of the object, or add --background rembg"
        )
    image = torch.from_numpy(np.concatenate([composite_white(rgba), mask], -1)).permute(2, 0, 1).to(device)
    distance = sum(half_frame) / 2 / np.tan(np.deg2rad(FOV_DEG) / 2)
    return ReferenceView(image, spherical_to_c2w([elevation_deg], [azimuth_deg], distance))


def reference_loss(
    scene: Scene,
    reference: ReferenceView,
    resolution: int,
    *,
    settings: MarchSettings,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean squared error of the colors plus the mean squared error of the mask, a scalar.

    The colors are unlit and on a white background.

    Args:
        scene: The scene, which is rendered from the reference camera.
        reference: The input image and its camera.
        resolution: Edge in pixels of the rendered image. The input image is resized to the same size by averaging over
            the area of each pixel.
        settings: Settings of ray marching.
        occupancy: The occupancy grid of the scene. None: all cells are occupied.
        generator: CPU generator for a random shift of the steps of each ray. None: render without randomness.
    """
    device = reference.image.device
    rendered = render_views(
        scene,
        reference.c2w,
        FOV_DEG,
        resolution,
        settings=settings,
        occupancy=occupancy,
        generator=generator,
        device=device,
    )
    image = F.interpolate(reference.image[None], (resolution, resolution), mode="area")[0]
    return F.mse_loss(rendered.rgb[0].permute(2, 0, 1), image[:3]) + F.mse_loss(rendered.alpha, image[3:])
