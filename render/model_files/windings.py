"""Find faces of a mesh that occur in both windings on the same vertices."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def reversed_twins(corners: Integers, starts: Integers) -> NDArray[np.bool_]:
    """Return which of the f faces [f] have the same vertices as another face, in the opposite winding.

    Args:
        corners: Index of the vertex at each of the c face corners [c]. The corners of each face are consecutive.
        starts: Index of the first corner of each face [f].
    """
    if not len(starts):
        return np.zeros(0, bool)
    counts = np.diff(np.append(starts, len(corners)))
    following = np.arange(1, len(corners) + 1)
    following[starts + counts - 1] = starts
    begin, end = corners.astype(np.uint64), corners[following].astype(np.uint64)
    _, face = np.unique(np.add.reduceat(mix(begin), starts), return_inverse=True)
    along, against = (np.add.reduceat(mix(mix(a) ^ b), starts) for a, b in ((begin, end), (end, begin)))
    _, winding = np.unique(np.concatenate([along, against]), return_inverse=True)
    own, turned = winding[: len(starts)], winding[len(starts) :]
    return np.isin(turned, own) & (np.bincount(face)[face] > 1)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit unsigned integers [n] (splitmix64)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
