"""Find near-duplicates in a whole set, without comparing every object with every other.

Two objects are near-duplicates if at most MAX_BITS of the 1,024 bits of their hashes differ, the areas of their
silhouettes differ by at most 5 %, and their mean colors by at most MAX_COLOR. The bits of a hash are divided into 32
bands. As at most 30 bits differ, two near-duplicates agree in at least two bands, so only objects with an equal band
are compared (locality-sensitive hashing). If more than _WINDOW objects have an equal band, each is compared with the
_WINDOW next ones only, in the order of their areas.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dataset.curate.hashes import HASH_BYTES, hamming

MAX_BITS: Final = 30  # of 1024
MAX_AREA: Final = 0.05  # difference of the logarithms of the areas
MAX_COLOR: Final = 0.06
_BANDS: Final = 32  # more than MAX_BITS
_WINDOW: Final = 64
_BLOCK: Final = 1 << 18  # pairs that are compared at once

Int64 = NDArray[np.int64]


def find_clusters(hashes: NDArray[np.uint64], appearances: NDArray[np.float64]) -> Int64:
    """Return, for each of `n` objects, the number of the first object of its cluster, int64 [n].

    The objects are taken in order. An object joins the first cluster whose first object is a near-duplicate of it;
    otherwise it begins a cluster. So every object of a cluster is a near-duplicate of the first one. The result depends
    on the arguments only.

    Args:
        hashes: Perceptual hash of each object, uint64 [n, 16].
        appearances: Area and colors of each object, as returned by `hashes.appearance`: float64 [n, 5].
    """
    count = len(hashes)
    first: Int64 = np.arange(count)
    labels = _components(hashes, appearances)
    linked = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)
    linked = linked[np.argsort(labels[linked], kind="stable")]
    for members in np.split(linked, np.flatnonzero(np.diff(labels[linked])) + 1):
        if len(members) == 2:
            first[members[1]] = members[0]
        else:
            _divide(members, hashes, appearances, first)
    return first


def _components(hashes: NDArray[np.uint64], appearances: NDArray[np.float64]) -> Int64:
    """Return a number for each object, int64 [n]. Objects that a chain of near-duplicates connects share a number."""
    count = len(hashes)
    labels: Int64 = np.arange(count)
    for band in range(_BANDS):
        found = [np.empty((0, 2), np.int64)]
        for pairs in _candidates(hashes, appearances[:, 0], band):
            new = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
            found.append(_near(hashes, appearances, new))
        edges = labels[np.concatenate(found)]
        graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (count, count))
        labels = connected_components(graph, directed=False)[1][labels].astype(np.int64)
    return labels


def _divide(members: Int64, hashes: NDArray[np.uint64], appearances: NDArray[np.float64], first: Int64) -> None:
    """Divide a connected component into clusters. `members` [m] are its objects, ascending; write to `first` [n]."""
    while len(members):
        leader, others = members[0], members[1:]
        near = _are_near(hashes[leader], hashes[others], appearances[leader], appearances[others])
        first[others[near]] = leader
        members = others[~near]


def _candidates(hashes: NDArray[np.uint64], areas: NDArray[np.float64], band: int) -> Iterator[Int64]:
    """Yield blocks of pairs of objects that agree in the band with the number `band`, int64 [m, 2]."""
    by_area = np.argsort(areas, kind="stable")
    words = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), HASH_BYTES)
    # Bytes that are 32 apart belong to different views, and thus are least correlated.
    keys = np.ascontiguousarray(words[by_area, band::_BANDS]).view(np.uint32)[:, 0]
    order = np.argsort(keys, kind="stable")
    objects, keys = by_area[order], keys[order]
    places = np.arange(len(keys))
    for distance in range(1, _WINDOW + 1):
        places = places[places + distance < len(keys)]
        places = places[keys[places] == keys[places + distance]]
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            yield np.stack([objects[block], objects[block + distance]], axis=1)


def _near(hashes: NDArray[np.uint64], appearances: NDArray[np.float64], pairs: Int64) -> Int64:
    """Return those of the pairs [m, 2] that are near-duplicates, int64 [k, 2]."""
    a, b = pairs.T
    pairs = pairs[_look_alike(appearances[a], appearances[b])]
    a, b = pairs.T
    return pairs[hamming(hashes[a], hashes[b]) <= MAX_BITS]


def _are_near(
    hash_: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    appearance: NDArray[np.float64],
    appearances: NDArray[np.float64],
) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = (hamming(hash_, hashes) <= MAX_BITS) & _look_alike(appearance, appearances)
    return near


def _look_alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether areas and colors, float64 [m, 5] or [5], are alike: bool [m]."""
    difference = np.abs(first - second)
    alike: NDArray[np.bool_] = (difference[:, 0] <= MAX_AREA) & (difference[:, 1:].max(1) <= MAX_COLOR)
    return alike
