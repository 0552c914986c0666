"""How near sampled views are to the truth: pure functions on arrays, and confidence intervals over objects.

Axis letters: `f` views, `g` other views, `n` objects, `h w` pixels; colours are the last axis.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Box = tuple[slice, slice]  # rows and columns

MIN_MSE: Final = 1e-10  # equal pictures have 100 dB, not infinity
MASK_LEVEL: Final = 12  # alpha (of 255) from which a pixel counts as object, as in `dataset.images.prepare`
SSIM_SIGMA: Final = 1.5  # of its Gaussian window, 11 pixels wide (Wang et al. 2004, III.B)
FRONT_AND_BACK: Final = (14, 15, 0, 1, 2, 6, 7, 8, 9, 10)  # views of the ring of 16 within 45 degrees of azimuth 0, 180
SAME_DB: Final = 25.0  # two sides of an object nearer to each other than this have no front and back to confuse
RESAMPLES: Final = 2000  # of the bootstrap
CONFIDENCE: Final = 0.95


def psnr_db(picture: ArrayLike, truth: ArrayLike) -> float:
    """Decibels between two arrays of colours in [0, 1]; 100 at most."""
    difference = np.asarray(picture, np.float64) - np.asarray(truth, np.float64)
    return float(-10 * np.log10(max(float(np.square(difference).mean()), MIN_MSE)))


def ssim_map(picture: ArrayLike, truth: ArrayLike) -> Float:
    """Structural similarity [h, w, 3] of two pictures [h, w, 3] in [0, 1], at each pixel and colour.

    Wang et al. 2004: Gaussian window of 11 pixels, K1 = 0.01, K2 = 0.03, population covariance, data range 1.
    """
    from skimage.metrics import structural_similarity

    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        np.asarray(picture, np.float64),
        np.asarray(truth, np.float64),
        data_range=1.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(similarity, np.float64)


def ssim(similarity: Float) -> float:
    """Mean of a map where the whole window lies in the picture, as its authors and scikit-image take it."""
    edge = int(3.5 * SSIM_SIGMA + 0.5)
    return float(similarity[edge:-edge, edge:-edge].mean())


def object_box(alpha: ArrayLike) -> Box:
    """Bounding box of an object from its alpha uint8 [h, w]; the whole picture where nothing is seen."""
    seen = np.asarray(alpha) >= MASK_LEVEL
    if not seen.any():
        return slice(0, seen.shape[0]), slice(0, seen.shape[1])
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def picture_scores(pictures: ArrayLike, truth: ArrayLike, alpha: ArrayLike) -> dict[str, Float]:
    """PSNR and SSIM [f] of pictures [f, h, w, 3] on white, whole and in the box of the true alpha [f, h, w]."""
    rows: dict[str, list[float]] = {name: [] for name in ("psnr", "ssim", "psnr_box", "ssim_box")}
    for picture, real, mask in zip(np.asarray(pictures), np.asarray(truth), np.asarray(alpha), strict=True):
        similarity, box = ssim_map(picture, real), object_box(mask)
        rows["psnr"].append(psnr_db(picture, real))
        rows["ssim"].append(ssim(similarity))
        rows["psnr_box"].append(psnr_db(picture[box], real[box]))
        rows["ssim_box"].append(float(similarity[box].mean()))
    return {name: np.array(values) for name, values in rows.items()}


def squared_distances(pictures: ArrayLike, others: ArrayLike) -> Float:
    """Mean squared differences [f, g] of all pairs of pictures [f, h, w, 3] and [g, h, w, 3]."""
    first, second = (np.asarray(a, np.float64).reshape(len(np.asarray(a)), -1) for a in (pictures, others))
    return np.stack([np.square(second - row).mean(1) for row in first])


def cosines(embeddings: ArrayLike, others: ArrayLike) -> Float:
    """Cosines [..., f, g] of embeddings [..., f, d] and [..., g, d]."""
    first, second = (_normalised(np.asarray(array, np.float64)) for array in (embeddings, others))
    product: Float = first @ np.swapaxes(second, -1, -2)
    return product


def _normalised(vectors: Float) -> Float:
    scaled: Float = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled


def nearest_view_scores(distances: Float) -> tuple[Float, Float]:
    """(1 where the nearest true view is the asked one, else 0; degrees between the two), [f] each.

    `distances` [f, f] from sampled to true views of a ring: view i stands at azimuth 360 i / f.
    """
    views = len(distances)
    nearest, asked = distances.argmin(1), np.arange(views)
    steps = np.abs(nearest - asked)
    turned_deg: Float = np.minimum(steps, views - steps) * (360.0 / views)
    return (nearest == asked).astype(np.float64), turned_deg


def front_back_confusion(distances: Float, truth: ArrayLike) -> Float:
    """For each view [16] of the ring: 1 where the true view from the other side is nearer than the asked one, else 0.

    NaN for views that look at neither front nor back (FRONT_AND_BACK), and where the truth [16, h, w, 3] shows the same
    on both sides (SAME_DB): there is nothing to confuse.
    """
    pictures = np.asarray(truth)
    half = len(distances) // 2
    confused = np.full(len(distances), np.nan)
    for i in FRONT_AND_BACK:
        opposite = (i + half) % len(distances)
        if psnr_db(pictures[i], pictures[opposite]) < SAME_DB:
            confused[i] = float(distances[i, opposite] < distances[i, i])
    return confused


def mean_of(values: ArrayLike) -> float:
    """Mean of what is a number; NaN where nothing is."""
    array = np.asarray(values, np.float64)
    found = array[np.isfinite(array)]
    return float(found.mean()) if len(found) else float("nan")


def bootstrap(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean of independent values [n], by the percentile bootstrap (Efron 1979).

    NaN are left out; NaN, NaN for fewer than two values.
    """
    array: Any = np.asarray(values, np.float64)
    found = array[np.isfinite(array)]
    if len(found) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(found[drawn].mean(1), (tail, 100 - tail))
    return float(low), float(high)
