"""Read the images of an object, pad them to squares and reduce them to the resolution of the set."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.copy.downscale import average_blocks
from dataset.errors import UserError
from dataset.images.decode import WORKING_SIDE, image_size, read_image
from dataset.images.prepare import WHITE_LEVEL
from dataset.importing.errors import ViewImageError
from dataset.quality_flags import is_clipped

Size = tuple[int, int]  # width and height in pixels


class ViewImage(NamedTuple):
    """An image as it is stored."""

    rgba: NDArray[np.uint8]  # [resolution, resolution, 4], straight alpha
    clipped: bool  # the object touches the border of the original image
    has_alpha: bool  # some pixels are transparent
    white_border: bool  # the image is transparent at its corners, or white


def stored_size(path: Path, place: str) -> Size:
    """Return width and height of an image file. Only its header is read.

    Raises:
        ViewImageError: The file is missing, is not an image, or is too large. `place` is the camera file and frame.
    """
    try:
        size = image_size(path, str(path))
    except UserError as error:
        raise ViewImageError(f"{place}: {error}") from error
    if max(size) > WORKING_SIDE:
        raise ViewImageError(
            f"{place}: {path} has {size[0]}x{size[1]} pixels, but at most {WORKING_SIDE} per side can be imported; "
            "scale the images down, and their focal lengths with them"
        )
    return size


def read_view_image(path: Path, place: str, size: Size, resolution: int, *, opaque: bool) -> ViewImage:
    """Read an image, pad it to a square with transparent pixels on both sides, and reduce it to `resolution` pixels.

    Args:
        path: Path of the image.
        place: The camera file and frame, for messages.
        size: Width and height that the image must have.
        resolution: Pixels per side of the returned image.
        opaque: Accept an image without transparent pixels.

    Raises:
        ViewImageError: The image cannot be read, has another size or no transparent pixels, or is smaller than
            `resolution`.
    """
    if (found := stored_size(path, place)) != size:
        raise ViewImageError(
            f"{place}: {path} has {found[0]}x{found[1]} pixels, but {size[0]}x{size[1]} are expected, as in the "
            "camera file and the other images of the object; all images of an object must have the same size"
        )
    if max(size) < resolution:
        raise ViewImageError(
            f"{place}: {path} has {size[0]}x{size[1]} pixels, less than the {resolution} per side of the set, and "
            f"images are not enlarged; give --resolution {max(size)} or less"
        )
    try:
        image, _ = read_image(path, str(path))
    except UserError as error:
        raise ViewImageError(f"{place}: {error}") from error
    if image.size != size:
        raise ViewImageError(f"{place}: {path} is stored rotated (EXIF orientation); save it upright")
    rgba = np.asarray(image)
    has_alpha = bool(rgba[..., 3].min() < 255)
    if not has_alpha and not opaque:
        raise ViewImageError(
            f"{place}: {path} has no transparent pixels, so the object cannot be told from the background; render "
            "with a transparent background, or give --opaque to import images on a white background as they are"
        )
    dark = rgba[..., :3].min(-1) < 255 - WHITE_LEVEL
    clipped = is_clipped(rgba) if has_alpha else bool(dark[[0, -1]].any() or dark[:, [0, -1]].any())
    white_border = has_alpha or not dark[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    return ViewImage(area_average(padded(rgba), resolution), clipped, has_alpha, white_border)


def padding(size: Size) -> Size:
    """Return how many transparent pixels `padded` adds at the left and at the top of an image of `size` pixels."""
    side = max(size)
    return (side - size[0]) // 2, (side - size[1]) // 2


def padded(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad an image [h, w, 4] with transparent pixels to a square [max(h, w), max(h, w), 4], about its center."""
    height, width = rgba.shape[:2]
    left, top = padding((width, height))
    square = np.zeros((max(height, width), max(height, width), 4), np.uint8)
    square[top : top + height, left : left + width] = rgba
    return square


def area_average(rgba: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """Reduce a square image [h, h, 4] with straight alpha to [resolution, resolution, 4] by averaging areas.

    Pixels are averaged as stored (sRGB), premultiplied by alpha. If `resolution` divides h, the result is that of
    `dataset.copy.downscale.average_blocks`; if it equals h, the image is returned unchanged.
    """
    side = len(rgba)
    if side == resolution:
        return rgba
    if side % resolution == 0:
        return average_blocks(rgba, side // resolution)
    planes = rgba.astype(np.float32) / 255
    planes[..., :3] *= planes[..., 3:]
    box = Image.Resampling.BOX
    small = np.stack(
        [np.asarray(Image.fromarray(planes[..., i].copy()).resize((resolution, resolution), box)) for i in range(4)], -1
    )
    alpha = small[..., 3:]
    color = np.divide(small[..., :3], alpha, out=np.zeros_like(small[..., :3]), where=alpha > 0.5 / 255)
    straight: NDArray[np.uint8] = np.rint(np.clip(np.concatenate([color, alpha], -1), 0, 1) * 255).astype(np.uint8)
    return straight
