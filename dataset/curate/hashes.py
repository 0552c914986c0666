"""Compute the perceptual hash and the mean colors of an object, by which near-duplicates are found."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from dataset.curate.shape import coarsen
from dataset.curate.views import Float32

HASH_BYTES: Final = 128
APPEARANCE_SIZE: Final = 5
_VIEW_STEP: Final = 2  # every second fixed view is hashed, 45 degrees apart
_COARSE: Final = 32  # pixels per side of a hashed silhouette
_LOW: Final = 8  # lowest frequencies of the cosine transform in each direction
_DEAD: Final = 0.02  # of the lowest coefficient: smaller ones have no sign, because noise would decide it


def perceptual_hash(views: Float32) -> bytes:
    """Return the perceptual hash of an object's silhouettes: HASH_BYTES bytes, 16 for each of 8 views.

    The hash is that of the discrete cosine transform (pHash), with two bits per coefficient: for each of the 8 x 8
    lowest frequencies of the alpha of a view, whether the coefficient is clearly positive, and whether it is clearly
    negative (more than 2 % of the coefficient of frequency zero). The hash contains no color, because the light differs
    between objects. A model that was rotated before rendering has another hash.

    Args:
        views: The 16 fixed views, float32 [16, s, s, 4], with premultiplied alpha.
    """
    alpha = coarsen(views[::_VIEW_STEP, ..., 3:], _COARSE)[..., 0]
    low = np.zeros((len(alpha), _LOW, _LOW))
    spectrum = dctn(alpha.astype(np.float64), axes=(1, 2), norm="ortho")[:, :_LOW, :_LOW]
    low[:, : spectrum.shape[1], : spectrum.shape[2]] = spectrum
    limit = _DEAD * np.maximum(low[:, :1, :1], 1e-9)
    bits = np.concatenate([(low > limit).reshape(len(low), -1), (low < -limit).reshape(len(low), -1)], axis=1)
    return np.packbits(bits, axis=1).tobytes()


def appearance(views: Float32) -> tuple[float, ...]:
    """Return the natural logarithm of the mean area of the silhouettes, and four mean colors, as 5 numbers.

    The area is the mean alpha. The colors are red against green, (R - G) / (R + G + B), and blue against yellow,
    (B - (R + G) / 2) / (R + G + B), of the sums over the upper and over the lower half of all views. They do not change
    with the brightness of the light, and little with its color. An object that is invisible has -9 and zeros.

    Args:
        views: The 16 fixed views, float32 [16, s, s, 4] in [0, 1], with premultiplied alpha.
    """
    middle = views.shape[1] // 2
    numbers = [float(np.log(max(float(views[..., 3].mean(dtype=np.float64)), np.exp(-9.0))))]
    for half in (views[:, :middle, :, :3], views[:, middle:, :, :3]):
        red, green, blue = half.reshape(-1, 3).sum(0, dtype=np.float64).tolist()
        total = max(red + green + blue, 1e-9)
        numbers += [(red - green) / total, (blue - (red + green) / 2) / total]
    return tuple(numbers)


def unpack_hashes(hashes: bytes | bytearray) -> NDArray[np.uint64]:
    """Return the bits of `n` hashes, which follow each other in `hashes`, as uint64 [n, 16]."""
    return np.frombuffer(hashes, "<u8").reshape(-1, HASH_BYTES // 8)


def hamming(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of different bits of each two hashes, int64 [n], of hashes uint64 [n, 16] or [16]."""
    bits = first ^ second
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.int64] = ((bits * np.uint64(0x0101010101010101)) >> np.uint64(56)).sum(-1, dtype=np.int64)
    return counts
