"""Remove a uniform or smoothly graded background of any color from an opaque image.

The background's color is a smooth function of the position: a polynomial in Lab, fitted robustly to the border of the
image and then to the background that is connected to the border. Soft shadows, which darken the background without
changing its hue, belong to it. So do holes that show the same background. At the edge of the object, alpha is the
share of the object's color in the color of the pixel, and the background's color is removed from the pixel.

An image whose border is not smooth is refused: no guess is made about a cluttered photograph.
"""

from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from dataset.images.background_color import (
    FloatImage,
    Mask,
    NotUniformError,
    color_distance,
    connected_to,
    fit_background,
)

WORKING_SIDE: Final = 1024  # pixels; larger images are reduced to this
_COARSE_SIDE: Final = (64, 160)  # pixels; the background's color is fitted at a third of the size, within these limits
_LEAST_LARGEST: Final = 0.25  # share of the object that its largest part must have
_LARGEST_CONTACT: Final = 0.04  # share of each of two opposite sides that an object may cover
_NOISY: Final = 2.0  # color difference that 10 % of the background exceed if the image must be smoothed more
_BLOCK: Final = 8  # pixels: size of the blocks of a JPEG, which blur the colors around an edge
_SHADOW: Final = (0.55, 1.04)  # cube root of the brightness of a shadow relative to the background
_SOFT: Final = (1.3, 4.0)  # color difference per pixel of 512 of the edge of a shadow, on gray and on other colors
_COLORED: Final = 15.0  # chroma of a background whose hue tells a shadow from an object
_LEAST_OBJECT: Final = 0.002  # share of the image
_LEAST_PART: Final = 0.005  # share of the largest part; smaller parts are dust


def remove_uniform_background(image: Image.Image, threshold: float | None = None) -> Image.Image:
    """Return a cut-out (RGBA) of the object in an opaque image on a uniform or smoothly graded background.

    Images with a side of more than WORKING_SIDE pixels are reduced.

    Args:
        image: The image.
        threshold: Color difference (CIE76) from the fitted background up to which a pixel belongs to it; None: from
            the noise of the background.

    Raises:
        NotUniformError: The background is not smooth, or no object differs from it. The message is a reason without
            the name of the image, such as "the colors at its border vary too much".
    """
    image = image.convert("RGB").reduce(max(1, -(-max(image.size) // WORKING_SIDE)))
    rgb = np.asarray(image, np.float32) / 255
    lab = rgb2lab(rgb).astype(np.float32)
    factor = max(image.size) / np.clip(max(image.size) // 3, *_COARSE_SIDE)
    coarse_size = (max(8, round(image.width / factor)), max(8, round(image.height / factor)))
    coarse = fit_background(_resize(lab, coarse_size, Image.Resampling.BOX))
    field = _resize(coarse.lab, image.size, Image.Resampling.BILINEAR)
    seen = _resize(coarse.seen[..., None].astype(np.float32), image.size, Image.Resampling.BILINEAR)[..., 0] > 0.99
    smooth = ndimage.gaussian_filter(lab, (0.8, 0.8, 0))
    if np.quantile(color_distance(smooth - field)[seen], 0.9) > _NOISY:
        smooth = ndimage.gaussian_filter(lab, (1.6, 1.6, 0))
    inside = object_mask(smooth, field, seen, threshold)
    rgba = _matte(rgb, ndimage.gaussian_filter(rgb, (0.8, 0.8, 0)), inside)
    return Image.fromarray(np.rint(rgba * 255).astype(np.uint8))


def object_mask(lab: FloatImage, field: FloatImage, seen: Mask, threshold: float | None = None) -> Mask:
    """Return where the object is: bool [h, w].

    Args:
        lab: The image [h, w, 3] in Lab, slightly smoothed.
        field: The background's color [h, w, 3] in Lab.
        seen: Where the background was seen at the coarse size, [h, w].
        threshold: Color difference (CIE76) up to which a pixel belongs to the background; None: 2 to 7, from the noise
            of the background.

    Raises:
        NotUniformError: No object differs from the background, or almost nothing of the background is seen.
    """
    difference, slope = color_distance(lab - field), _slope(lab)
    tolerance = threshold or float(np.clip(1.5 * np.quantile(difference[seen], 0.9), 2.0, 7.0))
    ratio = (lab[..., 0] + 16) / (field[..., 0] + 16)
    hue = np.hypot(*np.moveaxis(lab[..., 1:] - ratio[..., None] * field[..., 1:], -1, 0))
    chroma = np.hypot(field[..., 1], field[..., 2])
    colored = chroma > _COLORED
    soft = np.where(colored, _SOFT[1], _SOFT[0]) * 512 / max(lab.shape[:2]) + 2 * float(np.median(slope[seen]))
    hue_tolerance = max(4.0, 1.5 * tolerance) + 0.15 * chroma * np.clip(1 - ratio, 0, 1)
    shadow = (ratio > _SHADOW[0]) & (ratio < _SHADOW[1]) & (hue < hue_tolerance) & (slope < soft)
    shadow = ndimage.binary_opening(shadow, iterations=2)
    same = difference < tolerance
    shadow &= ~_sharp_parts(connected_to(same | shadow, seen) & ~same, same, shadow)
    inside = _without_dust(~connected_to(same | shadow, seen))
    flat = slope < 2 * float(np.median(slope[seen])) + 0.3
    inside &= ~_holes(inside & same, flat)
    inside &= ~_holes(inside & shadow & colored, hue < 0.5 * tolerance)
    inside = _without_fringe(inside, difference)
    if inside.mean() < _LEAST_OBJECT:
        raise NotUniformError("no object differs from its background")
    _check_parts(inside)
    return inside


def _sharp_parts(dark: Mask, same: Mask, shadow: Mask) -> Mask:
    """Return the parts of `dark` [h, w] that have sharp edges to the background, and so are no soft shadows.

    At the edge of a soft shadow, `same` follows `shadow` directly. At a sharp edge, pixels of neither lie between.
    """
    labels, count = ndimage.label(dark, np.ones((3, 3)))
    if not count:
        return dark
    distance, nearest = ndimage.distance_transform_edt(~dark, return_indices=True)
    shell = same & (distance > 3) & (distance <= 6)
    part = labels[tuple(nearest[:, shell])]
    between = ndimage.distance_transform_edt(same | shadow)[shell] < distance[shell]
    total = np.bincount(part, minlength=count + 1)
    sharp = np.bincount(part[between], minlength=count + 1) > 0.5 * np.maximum(total, 1)
    sharp[0] = False
    return np.asarray(sharp[labels])


def _check_parts(inside: Mask) -> None:
    """Check that one part of the mask [h, w] is large, and that none covers two opposite sides, as a floor does."""
    labels, _ = ndimage.label(inside, np.ones((3, 3)))
    if np.bincount(labels[inside]).max() < _LEAST_LARGEST * inside.sum():
        raise NotUniformError("it shows many separate things")
    for one, other in ((labels[0], labels[-1]), (labels[:, 0], labels[:, -1])):
        for part in np.intersect1d(one[one > 0], other):
            if min((one == part).mean(), (other == part).mean()) > _LARGEST_CONTACT:
                raise NotUniformError("its border shows more than one smoothly graded color")


def _holes(enclosed: Mask, matches: Mask) -> Mask:
    """Return the parts of `enclosed` [h, w] that match the background in most of their pixels."""
    labels, count = ndimage.label(enclosed)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    matching = np.bincount(labels[matches], minlength=count + 1)
    keep = (matching > 0.5 * area) & (area >= max(16, 1e-4 * enclosed.size))
    keep[0] = False
    return np.asarray(keep[labels])


def _without_fringe(inside: Mask, difference: FloatImage) -> Mask:
    """Return a mask without the outermost pixels that differ much less from the background than pixels beside them.

    Blurred edges and the artifacts of JPEG around them are such pixels.
    """
    reach = int(np.clip(max(inside.shape) // 128, 3, 8))
    weak = inside & (difference < 0.3 * ndimage.maximum_filter(difference, 2 * max(reach, _BLOCK) + 1))
    near = ndimage.distance_transform_edt(inside) <= reach
    return _without_dust(inside & ~connected_to((weak & near) | ~inside, ~inside))


def _without_dust(inside: Mask) -> Mask:
    """Return a mask without parts that are much smaller than the largest."""
    labels, count = ndimage.label(inside, np.ones((3, 3)))
    area = np.bincount(labels.ravel(), minlength=count + 1)
    area[0] = 0
    return np.asarray((area >= max(4.0, _LEAST_PART * area.max()))[labels] & inside)


def _matte(rgb: FloatImage, smooth: FloatImage, inside: Mask) -> FloatImage:
    """Return the cut-out [h, w, 4] in [0, 1] of an image [h, w, 3] whose object is roughly `inside` [h, w].

    In a band along the edge, the color of a pixel is a mixture of the nearest colors of the object and the background.
    """
    depth = ndimage.distance_transform_edt(inside)
    core = (depth > 3) | (inside & (depth >= ndimage.maximum_filter(depth, 7)))
    behind = _nearest(smooth, ~ndimage.binary_dilation(inside, iterations=2))
    front = _nearest(smooth, core)
    axis = front - behind
    contrast = (axis**2).sum(-1)
    share = ((rgb - behind) * axis).sum(-1) / np.maximum(contrast, 1e-6)
    band = ndimage.binary_dilation(inside) & ~core & (contrast > 0.03**2)
    alpha = np.where(band, np.clip(share * 1.1 - 0.05, 0, 1), inside).astype(np.float32)[..., None]
    pure = np.clip((rgb - (1 - alpha) * behind) / np.maximum(alpha, 0.3), 0, 1)
    color = np.where(alpha < 1, alpha * pure + (1 - alpha) * front, rgb)
    return np.concatenate([color * (alpha > 0), alpha], -1)


def _nearest(image: FloatImage, where: Mask) -> FloatImage:
    """Return, for each pixel, the color [h, w, 3] of the nearest pixel in `where` [h, w]."""
    if not where.any():
        return image
    rows, columns = ndimage.distance_transform_edt(~where, return_distances=False, return_indices=True)
    return np.asarray(image[rows, columns])


def _slope(lab: FloatImage) -> FloatImage:
    """Return the color difference per pixel, [h, w]."""
    rows, columns = np.gradient(lab, axis=(0, 1))
    slope: FloatImage = np.sqrt((rows**2 + columns**2).sum(-1))
    return slope


def _resize(image: FloatImage, size: tuple[int, int], method: Image.Resampling) -> FloatImage:
    """Resize an image [h, w, c] to a size (width, height)."""
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(size, method) for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel, np.float32) for channel in channels], -1)
