"""Find the bounding rectangle of an object in an image, to render and denoise only this region.

The rectangle of an object whose longest side is 1 covers about half of the image. The other pixels are empty. For each
of them, Cycles would trace one ray per sample, and the denoiser would process it too (docs/LOG.md).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataset.camera import convert_c2w
from render.rigs.cameras import Pose

MARGIN: Final = 2  # pixels, for rounding errors
_NEAREST: Final = 1e-3  # depth; the projection of a closer vertex is not reliable


@dataclass(frozen=True)
class PixelBox:
    """A rectangle of pixels in an image: left <= x < right and top <= y < bottom, where y = 0 is the top row."""

    left: int
    top: int
    right: int
    bottom: int

    def is_empty(self) -> bool:
        """Whether the box contains no pixels."""
        return self.right <= self.left or self.bottom <= self.top


def object_box(points: ArrayLike, pose: Pose, resolution: int) -> PixelBox:
    """Project points into a square image. Return their bounding rectangle, enlarged by MARGIN pixels on each side.

    If all points are in front of the camera, faces between them lie inside the rectangle too. If any point is not in
    front of the camera, the rectangle is the whole image. Uses float32: a million points take 20 ms.

    Args:
        points: World positions of n points [3, n].
        pose: The camera.
        resolution: Width and height of the image in pixels.
    """
    positions, c2w = np.asarray(points, np.float32), pose.c2w()
    local = _camera_axes(c2w) @ positions + _camera_shift(c2w)
    depth = local[2]
    if depth.min() <= _NEAREST:
        return PixelBox(0, 0, resolution, resolution)
    focal, center = pose.K(resolution)[0, 0], resolution / 2
    scale = focal if pose.width is not None else focal / depth
    x, y = local[0] * scale + center, local[1] * scale + center
    low = np.floor([x.min(), y.min()]).astype(int) - MARGIN
    high = np.ceil([x.max(), y.max()]).astype(int) + MARGIN
    left, top, right, bottom = np.clip([*low, *high], 0, resolution).tolist()
    return PixelBox(left, top, right, bottom)


def _camera_axes(c2w: ArrayLike) -> NDArray[np.float32]:
    return convert_c2w(c2w, "blender", "opencv")[:3, :3].T.astype(np.float32)


def _camera_shift(c2w: ArrayLike) -> NDArray[np.float32]:
    camera = convert_c2w(c2w, "blender", "opencv")
    return (-camera[:3, :3].T @ camera[:3, 3])[:, None].astype(np.float32)
