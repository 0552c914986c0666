"""Reduce the views of an object to one size, and compute the scores of its colors: contrast and texture."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float32 = NDArray[np.float32]

SIDE: Final = 64  # pixels; larger views are reduced to this, so that scores depend little on the resolution of the set
LUMA: Final = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709
_VISIBLE: Final = 0.001  # mean alpha of a view that shows the object: 4 of 64 x 64 pixels
_OPAQUE: Final = 0.95  # alpha of pixels that the background does not affect


def reduce_views(images: NDArray[np.uint8]) -> Float32:
    """Reduce square views to SIDE x SIDE pixels by averaging, weighted by alpha. Smaller views keep their size.

    Args:
        images: RGBA images of `f` views, uint8 [f, h, h, 4], with straight alpha.

    Returns:
        float32 [f, s, s, 4] in [0, 1] with premultiplied alpha; s is the smaller of h and SIDE.
    """
    side = min(SIDE, images.shape[1])
    small = (Image.fromarray(image).convert("RGBa").resize((side, side), Image.Resampling.BOX) for image in images)
    reduced: Float32 = np.stack([np.asarray(image) for image in small]).astype(np.float32) / 255
    return reduced


def is_visible(views: Float32) -> NDArray[np.bool_]:
    """Return, for each of `f` views [f, s, s, 4], whether it shows the object (mean alpha of at least 0.001): [f]."""
    visible: NDArray[np.bool_] = views[..., 3].mean((1, 2)) >= _VISIBLE
    return visible


def contrast(views: Float32) -> float:
    """Return the standard deviation of the luma of the object's pixels, 0 to 0.5.

    Luma is that of Rec. 709, computed from sRGB values in [0, 1]. Pixels are weighted by alpha. The score is the mean
    over the views that show the object; without such views it is 0. An object of one color has a contrast of 0, and an
    object that is half black and half white has 0.5.

    Args:
        views: float32 [f, s, s, 4] in [0, 1] with premultiplied alpha.
    """
    views = views[is_visible(views)]
    if not len(views):
        return 0.0
    alpha = views[..., 3].astype(np.float64)
    luma = np.divide(views[..., :3] @ LUMA, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    weight = alpha / alpha.sum((1, 2), keepdims=True)
    mean = (weight * luma).sum((1, 2), keepdims=True)
    deviations = np.sqrt((weight * (luma - mean) ** 2).sum((1, 2)))
    return float(deviations.mean())


def texture(views: Float32) -> float:
    """Return the root of the mean edge energy inside the object, 0 to 1.

    The edge energy of two neighboring pixels is the squared difference of their colors, averaged over red, green and
    blue. The mean is over all horizontal and all vertical neighbors, in all views, that are both opaque. Thus the
    outline of the object does not count. Without such neighbors, the texture is 0. An object of one color has a texture
    of 0, and a checkerboard of black and white squares of k x k pixels has about 1 / sqrt(k).

    Args:
        views: float32 [f, s, s, 4] in [0, 1] with premultiplied alpha.
    """
    opaque, colors = views[..., 3] >= _OPAQUE, views[..., :3]
    energy, neighbors = 0.0, 0
    for both, step in (
        (opaque[:, 1:] & opaque[:, :-1], colors[:, 1:] - colors[:, :-1]),
        (opaque[:, :, 1:] & opaque[:, :, :-1], colors[:, :, 1:] - colors[:, :, :-1]),
    ):
        energy += float((np.einsum("fyxc,fyxc->fyx", step, step) * both).sum(dtype=np.float64)) / 3
        neighbors += int(np.count_nonzero(both))
    return float(np.sqrt(energy / neighbors)) if neighbors else 0.0
