"""Metrics that compare sampled views with true views, and confidence intervals over objects.

Axis letters: `f` views, `g` other views, `n` objects, `d` numbers of an embedding, `h w` pixels; colors are the last
axis.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataset.images.psnr import psnr_db

Box = tuple[slice, slice]  # axes of rows and columns

MASK_LEVEL: Final = 12  # alpha (of 255) from which a pixel counts as object, as in `dataset.images.prepare`
SSIM_SIGMA: Final = 1.5  # deviation of the Gaussian window, 11 pixels wide (Wang et al. 2004, III.B)
FRONT_AND_BACK: Final = (14, 15, 0, 1, 2, 6, 7, 8, 9, 10)  # views of the ring within 45 degrees of azimuth 0 or 180
MAX_FRONT_BACK_PSNR_DB: Final = 25.0  # opposite sides more similar than this are not counted as confused
RESAMPLES: Final = 2000  # resamples of the bootstrap
CONFIDENCE: Final = 0.95
_NORMAL_QUANTILE: Final = 1.959964  # two-sided, for CONFIDENCE


def ssim_map(image: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the structural similarity [h, w, 3] of two images [h, w, 3] in [0, 1], per pixel and color.

    The settings are those of Wang et al. 2004: a Gaussian window of 11 pixels, K1 = 0.01 and K2 = 0.03, population
    covariance, and a data range of 1.
    """
    from skimage.metrics import structural_similarity

    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        np.asarray(image, np.float64),
        np.asarray(truth, np.float64),
        data_range=1.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(similarity, np.float64)


def ssim(similarity: NDArray[np.float64]) -> float:
    """Return the mean of an SSIM map [h, w, 3] without the 5 pixels at each border.

    At the border, the Gaussian window of 11 pixels would extend beyond the image. Wang et al. 2004 and scikit-image
    leave out the border too.
    """
    edge = int(3.5 * SSIM_SIGMA + 0.5)
    return float(similarity[edge:-edge, edge:-edge].mean())


def object_box(alpha: ArrayLike) -> Box:
    """Return the bounding box, in pixels, of the object in an alpha channel uint8 [h, w].

    Returns the whole image if no object is visible.
    """
    visible = np.asarray(alpha) >= MASK_LEVEL
    if not visible.any():
        return slice(0, visible.shape[0]), slice(0, visible.shape[1])
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def image_scores(images: ArrayLike, truth: ArrayLike, alpha: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Return PSNR in dB and SSIM of each image, over the whole image and in the bounding box of the true object.

    Args:
        images: Images [f, h, w, 3] in [0, 1].
        truth: True images [f, h, w, 3] in [0, 1].
        alpha: Alpha channels uint8 [f, h, w] of the true images, from which the bounding boxes are computed.

    Returns:
        `psnr`, `ssim`, `psnr_box` and `ssim_box`, [f] each.
    """
    scores: dict[str, list[float]] = {name: [] for name in ("psnr", "ssim", "psnr_box", "ssim_box")}
    for image, true_image, mask in zip(np.asarray(images), np.asarray(truth), np.asarray(alpha), strict=True):
        similarity, box = ssim_map(image, true_image), object_box(mask)
        scores["psnr"].append(psnr_db(image, true_image))
        scores["ssim"].append(ssim(similarity))
        scores["psnr_box"].append(psnr_db(image[box], true_image[box]))
        scores["ssim_box"].append(float(similarity[box].mean()))
    return {name: np.array(values) for name, values in scores.items()}


def squared_distances(images: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the mean squared difference [f, g] between each image of `images` and each image of `others`.

    `images` is [f, h, w, 3] with f images, and `others` is [g, h, w, 3] with g images.
    """
    first, second = (np.asarray(a, np.float64).reshape(len(np.asarray(a)), -1) for a in (images, others))
    return np.stack([np.square(second - row).mean(1) for row in first])


def cosines(embeddings: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the cosine similarity [..., f, g] between each embedding of `embeddings` and each one of `others`.

    `embeddings` is [..., f, d] and `others` is [..., g, d], with d numbers per embedding.
    """
    first, second = (_normalized(np.asarray(array, np.float64)) for array in (embeddings, others))
    product: NDArray[np.float64] = first @ np.swapaxes(second, -1, -2)
    return product


def _normalized(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled


def nearest_view_scores(distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the true view that is nearest to each sampled view, and compare the cameras of these two views.

    Args:
        distances: Distances [f, f] from each sampled view (rows) to each true view (columns) of a ring of f views.
            Sampled view i and true view i are both at azimuth 360 i / f degrees.

    Returns:
        Two arrays [f] over the sampled views. First: 1 where the two cameras are the same, otherwise 0. Second: the
        difference of azimuth between the two cameras, 0 to 180 degrees.
    """
    views = len(distances)
    nearest, expected = distances.argmin(1), np.arange(views)
    steps = np.abs(nearest - expected)
    turned_deg: NDArray[np.float64] = np.minimum(steps, views - steps) * (360.0 / views)
    return (nearest == expected).astype(np.float64), turned_deg


def front_back_confusion(distances: NDArray[np.float64], truth: ArrayLike) -> NDArray[np.float64]:
    """Return, for each sampled view of a ring, whether it is nearer to the true view from the opposite side.

    Args:
        distances: Distances [16, 16] from each sampled view (rows) to each true view (columns) of the ring.
        truth: The true views [16, h, w, 3] in [0, 1].

    Returns:
        [16]: 1 where the true view from the opposite side is nearer than the true view at the same camera, otherwise 0.
        NaN for views that are not near the front or the back (FRONT_AND_BACK), and where the two true views look alike
        (MAX_FRONT_BACK_PSNR_DB).
    """
    images = np.asarray(truth)
    half = len(distances) // 2
    confused = np.full(len(distances), np.nan)
    for i in FRONT_AND_BACK:
        opposite = (i + half) % len(distances)
        if psnr_db(images[i], images[opposite]) < MAX_FRONT_BACK_PSNR_DB:
            confused[i] = float(distances[i, opposite] < distances[i, i])
    return confused


def mean_of(values: ArrayLike) -> float:
    """Return the mean of the finite values of an array of any shape; NaN if no value is finite."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    return float(finite.mean()) if len(finite) else float("nan")


def bootstrap(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Return the ends of the 95% confidence interval of the mean of independent values [n].

    The interval is computed by the percentile bootstrap (Efron 1979), with resamples drawn from `seed`. Values that are
    not finite are left out. Returns (NaN, NaN) if fewer than two values are finite.
    """
    array: Any = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    if len(finite) < 2:
        return float("nan"), float("nan")
    chosen = np.random.default_rng(seed).integers(len(finite), size=(RESAMPLES, len(finite)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(finite[chosen].mean(1), (tail, 100 - tail))
    return float(low), float(high)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the ends of the 95% confidence interval of a proportion by Wilson's score method (Wilson 1927).

    Returns (NaN, NaN) if `trials`, the number of independent trials, is 0.
    """
    if not trials:
        return float("nan"), float("nan")
    z2 = _NORMAL_QUANTILE**2
    share = successes / trials
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = _NORMAL_QUANTILE / (1 + z2 / trials) * spread**0.5
    return max(0.0, center - half), min(1.0, center + half)
