"""Find the bounding rectangle of an object in an image, to render and denoise only this region.

The rectangle of an object whose longest side is 1 covers about half of the image. Rendering the other pixels, which are
empty, would cost one ray per sample and a denoiser pass (docs/LOG.md).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataset.camera import convert_c2w, intrinsics

MARGIN: Final = 2  # pixels, for rounding errors
_NEAREST: Final = 1e-3  # depth; the projection of a closer vertex is not reliable


@dataclass(frozen=True)
class PixelBox:
    """The pixels left <= x < right, top <= y < bottom of an image, y down."""

    left: int
    top: int
    right: int
    bottom: int

    def is_empty(self) -> bool:
        """Whether the box contains no pixels."""
        return self.right <= self.left or self.bottom <= self.top


def object_box(points: ArrayLike, c2w: ArrayLike, resolution: int) -> PixelBox:
    """Return the bounding rectangle of projected points in a square image, enlarged by MARGIN pixels.

    If all vertices are in front of the camera, their faces lie inside the rectangle too. If a point is not in front of
    the camera, the rectangle is the whole image. Computes in float32: a million points take 20 ms.

    Args:
        points: Points [3, n] in world space.
        c2w: Camera-to-world matrix [4, 4].
        resolution: Width and height of the image in pixels.
    """
    positions = np.asarray(points, np.float32)
    local = _camera_axes(c2w) @ positions + _camera_shift(c2w)
    depth = local[2]
    if depth.min() <= _NEAREST:
        return PixelBox(0, 0, resolution, resolution)
    focal, center = intrinsics(resolution)[0, 0], resolution / 2
    x, y = local[0] / depth * focal + center, local[1] / depth * focal + center
    low = np.floor([x.min(), y.min()]).astype(int) - MARGIN
    high = np.ceil([x.max(), y.max()]).astype(int) + MARGIN
    left, top, right, bottom = np.clip([*low, *high], 0, resolution).tolist()
    return PixelBox(left, top, right, bottom)


def _camera_axes(c2w: ArrayLike) -> NDArray[np.float32]:
    return convert_c2w(c2w, "blender", "opencv")[:3, :3].T.astype(np.float32)


def _camera_shift(c2w: ArrayLike) -> NDArray[np.float32]:
    camera = convert_c2w(c2w, "blender", "opencv")
    return (-camera[:3, :3].T @ camera[:3, 3])[:, None].astype(np.float32)
