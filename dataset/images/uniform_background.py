"""Remove a uniform or smoothly graded background of any color from an opaque image.

The background's color is a smooth function of the position: a polynomial in Lab, fitted robustly to the border of the
image and then to the background that is connected to the border. Soft shadows, which darken the background without
changing its hue, belong to it. So do holes that show the same background. At the edge of the object, alpha is the
share of the object's color in the color of the pixel, and the background's color is removed from the pixel.

An image whose border is not smooth is refused: no guess is made about a cluttered photograph.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from dataset.errors import UserError

FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORKING_SIDE: Final = 1024  # pixels; larger images are reduced to this
_COARSE_SIDE: Final = 160  # pixels; the background's color is fitted at this size
_RING: Final = 3  # pixels at the coarse size: width of the border to which the first model is fitted
_MOST_NOISE: Final = 3.5  # robust standard deviation of the border's color differences; a textured border has more
_LEAST_BORDER: Final = 0.6  # share of the border that must show the background
_LEAST_SIDE: Final = 0.1  # the same for each of the four sides
_MOST_PARTS: Final = 4  # objects that may be cut by the border
_NOISY: Final = 2.0  # color difference that 10 % of the background exceed if the image must be smoothed more
_TOLERANCE: Final = (2.5, 8.0)  # color difference (CIE76) below which a pixel may be background, without and with noise
_BLOCK: Final = 8  # pixels: size of the blocks of a JPEG, which blur the colors around an edge
_SHADOW: Final = (0.55, 1.1)  # cube root of the brightness of a shadow or a glow, relative to the background
_SOFT: Final = 2.5  # color difference per pixel of 512 below which an edge may be the edge of a shadow
_COLORED: Final = 15.0  # chroma of a background whose hue tells a shadow from an object
_LEAST_OBJECT: Final = 0.002  # share of the image
_LEAST_PART: Final = 0.005  # share of the largest part; smaller parts are dust


class NotUniformError(UserError):
    """The background is not uniform or smoothly graded, or no object differs from it."""


@dataclass(frozen=True)
class _Field:
    """The color of the background at every pixel of an image, [h, w, 3] in Lab, and where it was seen."""

    lab: FloatImage
    seen: Mask


def remove_uniform_background(image: Image.Image) -> Image.Image:
    """Return a cut-out (RGBA) of the object in an opaque image on a uniform or smoothly graded background.

    Images with a side of more than WORKING_SIDE pixels are reduced.

    Raises:
        NotUniformError: The background is not smooth, or no object differs from it. The message is a reason without
            the name of the image, such as "the colors at its border vary too much".
    """
    image = image.convert("RGB").reduce(max(1, -(-max(image.size) // WORKING_SIDE)))
    rgb = np.asarray(image, np.float32) / 255
    lab = rgb2lab(rgb).astype(np.float32)
    factor = max(rgb.shape[:2]) / _COARSE_SIDE
    coarse_size = (max(8, round(rgb.shape[1] / factor)), max(8, round(rgb.shape[0] / factor)))
    coarse = fit_background(_resize(lab, coarse_size, Image.Resampling.BOX))
    field = _resize(coarse.lab, image.size, Image.Resampling.BILINEAR)
    seen = _resize(coarse.seen[..., None].astype(np.float32), image.size, Image.Resampling.BILINEAR)[..., 0] > 0.99
    smooth = ndimage.gaussian_filter(lab, (0.8, 0.8, 0))
    if np.quantile(_norm(smooth - field)[seen], 0.9) > _NOISY:
        smooth = ndimage.gaussian_filter(lab, (1.6, 1.6, 0))
    inside = object_mask(smooth, field, seen)
    rgba = _matte(rgb, ndimage.gaussian_filter(rgb, (0.8, 0.8, 0)), inside)
    return Image.fromarray(np.rint(rgba * 255).astype(np.uint8))


def fit_background(lab: FloatImage) -> _Field:
    """Fit the color of the background to a small image [h, w, 3] in Lab.

    Raises:
        NotUniformError: The border of the image is not smooth.
    """
    height, width = lab.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    ring = np.ones((height, width), bool)
    ring[_RING:-_RING, _RING:-_RING] = False
    quadratic, quartic = _powers(x, y, 2), _powers(x, y, 4)
    fitted = quadratic @ _robust_fit(quadratic[ring], lab[ring])
    difference = _norm(lab - fitted)
    noise = float(np.median(difference[ring])) / 1.54  # the median norm of 3 normal variables is 1.54
    if noise > _MOST_NOISE:
        raise NotUniformError("the colors at its border vary too much")
    tolerance = float(np.clip(4 * noise, *_TOLERANCE))
    _check_border(difference < tolerance)
    seen = ring & (difference < tolerance)
    for _ in range(20):
        before = seen
        seen = _connected(difference < tolerance, seen & ring)
        basis = quartic if seen.mean() > 0.35 else quadratic
        ridge = 1e-3 * seen.sum() * np.eye(basis.shape[-1]) * (np.arange(basis.shape[-1]) >= 6)[:, None]
        rows = basis[seen]
        field = basis @ np.linalg.solve(rows.T @ rows + ridge, rows.T @ lab[seen])
        weight = ndimage.gaussian_filter(seen.astype(np.float32), 5)[..., None] + 1e-3
        field = field + ndimage.gaussian_filter(np.where(seen[..., None], lab - field, 0), (5, 5, 0)) / weight
        difference = _norm(lab - field)
        if (seen == before).all():
            break
    _check_sides(seen)
    return _Field(field.astype(np.float32), seen)


def _check_border(matches: Mask) -> None:
    """Check where the border of an image matches the first model: bool [h, w]."""
    around = np.concatenate([matches[0], matches[:, -1], matches[-1, ::-1], matches[::-1, 0]])
    around = ndimage.median_filter(around.astype(np.uint8), 9, mode="wrap") > 0
    parts = int((around & ~np.roll(around, 1)).sum())
    if around.mean() < _LEAST_BORDER or parts > _MOST_PARTS:
        raise NotUniformError("its border shows more than one smoothly graded color")


def _check_sides(seen: Mask) -> None:
    """Check that the background that was seen, bool [h, w], reaches from every side into the image."""
    inner = ndimage.binary_erosion(seen, iterations=_RING, border_value=1)
    inner[:_RING], inner[-_RING:], inner[:, :_RING], inner[:, -_RING:] = False, False, False, False
    deep = _connected(seen, inner)
    sides = [float(side.mean()) for side in (deep[0], deep[-1], deep[:, 0], deep[:, -1])]
    if min(sides) < _LEAST_SIDE or sum(sides) / 4 < _LEAST_BORDER:
        raise NotUniformError("its border shows more than one smoothly graded color")


def _powers(x: NDArray[np.float64], y: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Return all products of powers of x and y [h, w] up to a degree, by rising degree: [h, w, n]."""
    return np.stack([x ** (d - i) * y**i for d in range(degree + 1) for i in range(d + 1)], -1)


def _robust_fit(basis: NDArray[np.float64], values: FloatImage) -> NDArray[np.float64]:
    """Return the coefficients [n, 3] of values [m, 3] in a basis [m, n], hardly moved by outliers.

    Iteratively reweighted least squares: first of absolute deviations, then with Tukey's weights.
    """
    weights = np.ones(len(values))
    for step in range(30):
        weighted = basis * weights[:, None]
        coefficients = np.linalg.solve(basis.T @ weighted + 1e-6 * np.eye(basis.shape[1]), weighted.T @ values)
        difference = _norm(values - basis @ coefficients)
        if step < 20:
            weights = 1 / np.maximum(difference, 0.5)
        else:
            scale = max(1.0, 4.7 * float(np.median(difference)) / 1.54)
            weights = np.clip(1 - (difference / scale) ** 2, 0, 1) ** 2 + 1e-6
    return coefficients


def object_mask(lab: FloatImage, field: FloatImage, seen: Mask) -> Mask:
    """Return where the object is: bool [h, w].

    Args:
        lab: The image [h, w, 3] in Lab, slightly smoothed.
        field: The background's color [h, w, 3] in Lab.
        seen: Where the background was seen at the coarse size, [h, w].

    Raises:
        NotUniformError: No object differs from the background, or almost nothing of the background is seen.
    """
    difference, slope = _norm(lab - field), _slope(lab)
    tolerance = float(np.clip(1.5 * np.quantile(difference[seen], 0.9), 2.0, 7.0))
    ratio = (lab[..., 0] + 16) / (field[..., 0] + 16)
    hue = np.hypot(*np.moveaxis(lab[..., 1:] - ratio[..., None] * field[..., 1:], -1, 0))
    soft = _SOFT * 512 / max(lab.shape[:2]) + 2 * float(np.median(slope[seen]))
    shadow = (ratio > _SHADOW[0]) & (ratio < _SHADOW[1]) & (hue < max(4.0, 1.5 * tolerance)) & (slope < soft)
    shadow = ndimage.binary_opening(shadow, iterations=2)
    same = difference < tolerance
    inside = _without_dust(~_connected(same | shadow, seen))
    flat = slope < 2 * float(np.median(slope[seen])) + 0.3
    inside &= ~_holes(inside & same, flat & (difference < 0.5 * tolerance))
    colored = np.hypot(field[..., 1], field[..., 2]) > _COLORED
    inside &= ~_holes(inside & shadow & colored, hue < 0.5 * tolerance)
    inside = _without_fringe(inside, difference)
    if inside.mean() < _LEAST_OBJECT:
        raise NotUniformError("no object differs from its background")
    return inside


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
    return _without_dust(inside & ~_connected((weak & near) | ~inside, ~inside))


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


def _connected(mask: Mask, seeds: Mask) -> Mask:
    """Return the parts of a mask that contain a pixel of `seeds`."""
    labels, count = ndimage.label(mask)
    keep = np.zeros(count + 1, bool)
    keep[np.unique(labels[seeds & mask])] = True
    keep[0] = False
    return np.asarray(keep[labels])


def _slope(lab: FloatImage) -> FloatImage:
    """Return the color difference per pixel, [h, w]."""
    rows, columns = np.gradient(lab, axis=(0, 1))
    slope: FloatImage = np.sqrt((rows**2 + columns**2).sum(-1))
    return slope


def _norm(difference: NDArray[Any]) -> FloatImage:
    norm: FloatImage = np.sqrt((difference**2).sum(-1)).astype(np.float32)
    return norm


def _resize(image: FloatImage, size: tuple[int, int], method: Image.Resampling) -> FloatImage:
    """Resize an image [h, w, c] to a size (width, height)."""
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(size, method) for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel, np.float32) for channel in channels], -1)
