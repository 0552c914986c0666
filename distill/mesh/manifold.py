"""Triangles as a closed manifold again, after edges were collapsed: fewer faces, the same boundary. Numpy only.

Collapsing an edge maps vertices onto vertices, so the oriented faces of a closed surface still cancel along every edge
afterwards. They need not be a manifold any more: faces lie on their own reverse, parts touch along edges and at points.
Each step here keeps that cancellation, so what was closed stays closed, whatever the collapse did to it.

A half edge 3m + k runs from corner k of face m to corner k + 1. Letters: `v` vertices, `m` faces, `e` half edges.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def make_manifold(vertices: Float, faces: Int) -> tuple[Float, Int]:
    """A manifold of the same faces, less those that cancel: ([v, 3], [m, 3]). Closed if `faces` [m, 3] cancel so.

    Vertices where parts touch are doubled, so every vertex has one fan of faces around it. Vertices may be left over.
    """
    faces = cancel(faces)
    vertices, faces = _cut(vertices, faces, partners(vertices, faces))
    while len(doubled := _doubled_edges(faces)):
        vertices, faces = _split(vertices, faces, doubled)
    return vertices, faces


def half_edges(faces: Int) -> Int:
    """The directed edges [e, 2] of faces [m, 3]."""
    edges: Int = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    return edges


def cancel(faces: Int) -> Int:
    """Without faces of fewer than three corners, and without pairs of a face and its reverse."""
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    low = faces.argmin(1)
    turned = np.take_along_axis(faces, (low[:, None] + np.arange(3)) % 3, 1)
    sign = np.where(turned[:, 1] < turned[:, 2], 1, -1)
    _, group = np.unique(np.sort(faces, 1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    total = np.bincount(group, sign, minlength=group.max(initial=-1) + 1).astype(np.int64)
    order = np.lexsort((np.arange(len(faces)), sign, group))  # by group and sign, each in the faces' order
    starts = np.flatnonzero(np.r_[True, (np.diff(group[order]) != 0) | (np.diff(sign[order]) != 0)][: len(order)])
    rank = np.empty(len(faces), np.int64)
    rank[order] = np.arange(len(faces)) - np.repeat(starts, np.diff(np.r_[starts, len(faces)]))
    left: Int = faces[(total[group] * sign > 0) & (rank < np.abs(total[group]))]
    return left


def partners(vertices: Float, faces: Int) -> Int:
    """For each half edge [e] the one that runs back and bounds the same matter; -1 where there is none.

    Where more than two faces share an edge, a face belongs with the next one around the edge on its inner side.
    """
    edges = half_edges(faces)
    partner = np.full(len(edges), -1, np.int64)
    order, first, size = _by_edge(edges)
    pairs = first[size == 2]
    left, right = order[pairs], order[pairs + 1]
    opposed = edges[left, 0] == edges[right, 1]
    partner[left[opposed]], partner[right[opposed]] = right[opposed], left[opposed]
    for start, count in zip(first[size > 2], size[size > 2], strict=True):
        for one, other in _around(vertices, faces, edges, order[start : start + count]):
            partner[one], partner[other] = other, one
    return partner


def _by_edge(edges: Int) -> tuple[Int, Int, Int]:
    """(half edges [e] sorted so that those of one undirected edge follow each other; where each begins; how many)."""
    undirected = np.sort(edges, 1)
    order = np.lexsort(undirected.T)
    first = np.flatnonzero(np.r_[True, (np.diff(undirected[order], axis=0) != 0).any(1)][: len(order)])
    return order, first, np.diff(np.r_[first, len(edges)])


def _around(vertices: Float, faces: Int, edges: Int, shared: Int) -> list[tuple[int, int]]:
    """Pairs of the half edges `shared` of one edge, matched like brackets in the order of their angle about it."""
    low, high = np.sort(edges[shared[0]])
    axis = vertices[high] - vertices[low]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    across = vertices[faces[shared // 3, (shared % 3 + 2) % 3]] - vertices[low]
    across = across - (across @ axis)[:, None] * axis
    angle = np.arctan2(across @ np.cross(axis, across[0]), across @ across[0])
    # Matter lies on the side of smaller angles of a face that runs along the axis: it closes what a reverse one opens.
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    closing: list[int] = []
    for half in shared[np.argsort(angle, kind="stable")]:
        if edges[half, 0] != low:
            opened.append(int(half))
        elif opened:
            found.append((opened.pop(), int(half)))
        else:
            closing.append(int(half))
    return found + list(zip(opened[::-1], closing, strict=False))  # the angle is cyclic: these meet at its end


def _cut(vertices: Float, faces: Int, partner: Int) -> tuple[Float, Int]:
    """One vertex for each fan of faces that paired half edges connect."""
    paired = partner >= 0
    corner = np.arange(len(partner))
    following = corner - corner % 3 + (corner + 1) % 3
    here = np.concatenate([corner[paired], following[paired]])
    there = np.concatenate([following[partner[paired]], partner[paired]])
    count, label = components(here, there, len(partner))
    fans = np.empty(count, np.int64)
    fans[label] = faces.ravel()
    return vertices[fans], label.reshape(-1, 3).astype(np.int64)


def _doubled_edges(faces: Int) -> Int:
    """One opposed pair [n, 2] of half edges of each edge with more than two, no face in two pairs."""
    edges = half_edges(faces)
    order, first, size = _by_edge(edges)
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for start, count in zip(first[size > 2], size[size > 2], strict=True):
        shared = order[start : start + count]
        forward, backward = (shared[(edges[shared, 0] < edges[shared, 1]) == way] for way in (True, False))
        if len(forward) and len(backward):
            pair = (int(forward[0]), int(backward[0]))
            if not used & {half // 3 for half in pair}:
                used |= {half // 3 for half in pair}
                pairs.append(pair)
    return np.array(pairs, np.int64).reshape(-1, 2)


def _split(vertices: Float, faces: Int, pairs: Int) -> tuple[Float, Int]:
    """A vertex of its own in the middle of the edge of each pair of half edges [n, 2]: two faces become four."""
    edges = half_edges(faces)
    middle = len(vertices) + np.arange(len(pairs))
    vertices = np.concatenate([vertices, vertices[edges[pairs[:, 0]]].mean(1)])
    faces, extra = faces.copy(), []
    for halves in pairs.T:
        face, corner = halves // 3, halves % 3
        second = faces[face].copy()
        faces[face, (corner + 1) % 3] = middle
        second[np.arange(len(face)), corner] = middle
        extra.append(second)
    return vertices, np.concatenate([faces, *extra])


def is_closed(faces: Int) -> bool:
    """Whether every edge has exactly two faces, which run along it in opposite directions."""
    edges = half_edges(faces)
    order, first, size = _by_edge(edges)
    if not len(faces) or (size != 2).any():
        return False
    return bool((edges[order[first], 0] == edges[order[first + 1], 1]).all())


def components(a: Int, b: Int, nodes: int) -> tuple[int, NDArray[np.int32]]:
    """(number of connected components, component of each node) of the graph whose edges are a[i] - b[i]."""
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(nodes, nodes))
    count, label = connected_components(graph, directed=False)
    return int(count), label
