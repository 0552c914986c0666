"""Fit the color of a uniform or smoothly graded background, a polynomial in Lab, to the border of an image.

The fit is robust: objects may cover a part of the border. It is then extended to the background that is connected to
the border. An image whose border shows more than one smooth color is refused.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dataset.errors import UserError

FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RING: Final = 3  # pixels at the coarse size: width of the border to which the first model is fitted
_MOST_NOISE: Final = 3.5  # robust standard deviation of the border's color differences; a textured border has more
_LEAST_BORDER: Final = 0.6  # share of the border that must show the background
_LEAST_SIDE: Final = 0.1  # the same for each of the four sides
_MOST_PARTS: Final = 4  # objects that may be cut by the border
_SHORTEST_PART: Final = 8  # pixels of the border at the coarse size; shorter parts are noise
_MOST_LOCAL: Final = 3.0  # by how much the field may differ from the polynomial: more would follow a smooth object
_TOLERANCE: Final = (2.5, 8.0)  # color difference (CIE76) below which a pixel may be background, without and with noise


class NotUniformError(UserError):
    """The background is not uniform or smoothly graded, or no object differs from it."""


@dataclass(frozen=True)
class BackgroundField:
    """The color of the background at every pixel of an image, [h, w, 3] in Lab, and where it was seen."""

    lab: FloatImage
    seen: Mask


def fit_background(lab: FloatImage) -> BackgroundField:
    """Fit the color of the background to a small image [h, w, 3] in Lab.

    Raises:
        NotUniformError: The border of the image is not smooth.
    """
    height, width = lab.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    ring = np.ones((height, width), bool)
    ring[_RING:-_RING, _RING:-_RING] = False
    vignette = (x**2 + y**2)[..., None] ** 2
    simple, quartic = np.concatenate([_powers(x, y, 2), vignette], -1), _powers(x, y, 4)
    fitted = simple @ _robust_fit(simple[ring], lab[ring])
    difference = color_distance(lab - fitted)
    noise = float(np.median(difference[ring])) / 1.54  # the median norm of 3 normal variables is 1.54
    if noise > _MOST_NOISE:
        raise NotUniformError("the colors at its border vary too much")
    tolerance = float(np.clip(4 * noise, *_TOLERANCE))
    _check_border(difference < tolerance)
    field = _grow(lab, ring & (difference < tolerance), simple, quartic, tolerance)
    _check_sides(field.seen)
    return field


def _grow(
    lab: FloatImage, ring: Mask, simple: NDArray[np.float64], quartic: NDArray[np.float64], tolerance: float
) -> BackgroundField:
    """Fit the background to what is connected to the border, again and again, until it no longer grows.

    Args:
        lab: The image [h, w, 3] in Lab.
        ring: Where the border shows the background, [h, w].
        simple: Basis [h, w, n] of the field while little of the background is seen.
        quartic: Basis [h, w, m] of the field afterwards. Local deviations from it are smoothed and added.
        tolerance: Color difference below which a pixel may be background.
    """
    seen, basis = ring, simple
    for _ in range(20):
        ridge = 1e-3 * seen.sum() * np.eye(basis.shape[-1]) * (np.arange(basis.shape[-1]) >= 6)[:, None]
        rows = basis[seen]
        field = basis @ np.linalg.solve(rows.T @ rows + ridge, rows.T @ lab[seen])
        weight = ndimage.gaussian_filter(seen.astype(np.float32), 5)[..., None] + 1e-3
        local = ndimage.gaussian_filter(np.where(seen[..., None], lab - field, 0), (5, 5, 0)) / weight
        field = field + np.clip(local, -_MOST_LOCAL, _MOST_LOCAL)
        near = connected_to(color_distance(lab - field) < tolerance, ring)
        if (near == seen).all():
            break
        seen, basis = near, quartic if near.mean() > 0.35 else simple
    return BackgroundField(field.astype(np.float32), seen)


def _check_border(matches: Mask) -> None:
    """Check where the border of an image matches the first model: bool [h, w]."""
    around = np.concatenate([matches[0], matches[:, -1], matches[-1, ::-1], matches[::-1, 0]])
    around = ndimage.median_filter(around.astype(np.uint8), 9, mode="wrap") > 0
    labels, count = ndimage.label(~around)
    parts = int((np.bincount(labels, minlength=count + 1)[1:] >= _SHORTEST_PART).sum())
    if around.mean() < _LEAST_BORDER or parts > _MOST_PARTS:
        raise NotUniformError("its border shows more than one smoothly graded color")


def _check_sides(seen: Mask) -> None:
    """Check that the background that was seen, bool [h, w], reaches from every side into the image."""
    inner = ndimage.binary_erosion(seen, iterations=_RING, border_value=1)
    inner[:_RING], inner[-_RING:], inner[:, :_RING], inner[:, -_RING:] = False, False, False, False
    deep = connected_to(seen, inner)
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
        difference = color_distance(values - basis @ coefficients)
        if step < 20:
            weights = 1 / np.maximum(difference, 0.5)
        else:
            scale = max(1.0, 4.7 * float(np.median(difference)) / 1.54)
            weights = np.clip(1 - (difference / scale) ** 2, 0, 1) ** 2 + 1e-6
    return coefficients


def connected_to(mask: Mask, seeds: Mask) -> Mask:
    """Return the parts of a mask that contain a pixel of `seeds`."""
    labels, count = ndimage.label(mask)
    keep = np.zeros(count + 1, bool)
    keep[np.unique(labels[seeds & mask])] = True
    keep[0] = False
    return np.asarray(keep[labels])


def color_distance(difference: NDArray[Any]) -> FloatImage:
    """Return the norm [h, w] of differences [h, w, 3] between colors."""
    norm: FloatImage = np.sqrt((difference**2).sum(-1)).astype(np.float32)
    return norm
