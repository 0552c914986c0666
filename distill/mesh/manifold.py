"""Make a triangle mesh manifold again after edge collapse; a closed mesh stays closed. Numpy only.

A face runs along each of its edges in the order of its vertices. In a closed mesh these directions cancel: along every
edge, as many faces run one way as the other. Edge collapse only merges vertices, so the directions still cancel
afterwards. But the mesh may not be manifold: there may be two faces with the same vertices in reverse order, and parts
of the mesh may touch along edges and at vertices. In every step of this module the directions still cancel, so a closed
mesh stays closed.

Half edge 3m + k runs from corner k of face m to corner k + 1. Axis letters: `v` vertices, `m` faces, `e` half edges.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from distill.mesh.arrays import FloatArray, IntArray


def make_manifold(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Make a mesh manifold. Faces that `cancel` removes are left out.

    Vertices where parts of the mesh touch are duplicated, so that the faces around every vertex form one fan. The new
    mesh is closed if, along every edge of the input, as many faces run one way as the other.

    Args:
        vertices: Positions [v, 3] of v vertices.
        faces: Vertex indices [m, 3] of m faces.

    Returns:
        Positions [v', 3] of the v' vertices and vertex indices [m', 3] of the m' faces of the new mesh. Some vertices
        may be unused.
    """
    faces = cancel(faces)
    vertices, faces = _split_vertices(vertices, faces, partners(vertices, faces))
    while len(pairs := _opposed_pairs(faces)):
        vertices, faces = _split_edges(vertices, faces, pairs)
    return vertices, faces


def half_edges(faces: IntArray) -> IntArray:
    """Return the half edges [e, 2] of faces [m, 3], each as its first and last vertex; e = 3m."""
    edges: IntArray = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    return edges


def cancel(faces: IntArray) -> IntArray:
    """Remove degenerate faces, and pairs of faces that have the same vertices in reverse order.

    Args:
        faces: Vertex indices [m, 3] of m faces. A face with a repeated vertex is degenerate.

    Returns:
        The remaining faces.
    """
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
    left: IntArray = faces[(total[group] * sign > 0) & (rank < np.abs(total[group]))]
    return left


def partners(vertices: FloatArray, faces: IntArray) -> IntArray:
    """Match each half edge with the opposite half edge of the neighboring face.

    If more than two faces share an edge, they are sorted by their angle around the edge. Each face is then matched with
    the next unmatched face on its inner side, as brackets are matched.

    Args:
        vertices: Positions [v, 3] of v vertices.
        faces: Vertex indices [m, 3] of m faces.

    Returns:
        For each of the e = 3m half edges, the index of the opposite half edge, [e]; -1 if there is none.
    """
    edges = half_edges(faces)
    partner = np.full(len(edges), -1, np.int64)
    order, first, size = _by_edge(edges)
    pairs = first[size == 2]
    left, right = order[pairs], order[pairs + 1]
    opposed = edges[left, 0] == edges[right, 1]
    partner[left[opposed]], partner[right[opposed]] = right[opposed], left[opposed]
    for start, count in zip(first[size > 2], size[size > 2], strict=True):
        for one, other in _match_around_edge(vertices, faces, edges, order[start : start + count]):
            partner[one], partner[other] = other, one
    return partner


def _by_edge(edges: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Group half edges by undirected edge: (their order [e], the start of each group, the size of each group)."""
    undirected = np.sort(edges, 1)
    order = np.lexsort(undirected.T)
    first = np.flatnonzero(np.r_[True, (np.diff(undirected[order], axis=0) != 0).any(1)][: len(order)])
    return order, first, np.diff(np.r_[first, len(edges)])


def _match_around_edge(
    vertices: FloatArray, faces: IntArray, edges: IntArray, shared: IntArray
) -> list[tuple[int, int]]:
    """Match the half edges `shared` of one edge like brackets, in the order of their angle around the edge."""
    low, high = np.sort(edges[shared[0]])
    axis = vertices[high] - vertices[low]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    across = vertices[faces[shared // 3, (shared % 3 + 2) % 3]] - vertices[low]
    across = across - (across @ axis)[:, None] * axis
    angle = np.arctan2(across @ np.cross(axis, across[0]), across @ across[0])
    # The inside of a face along the axis is at smaller angles, so it closes a bracket; a reverse face opens one.
    matched: list[tuple[int, int]] = []
    opened: list[int] = []
    closing: list[int] = []
    for half in shared[np.argsort(angle, kind="stable")]:
        if edges[half, 0] != low:
            opened.append(int(half))
        elif opened:
            matched.append((opened.pop(), int(half)))
        else:
            closing.append(int(half))
    return matched + list(zip(opened[::-1], closing, strict=False))  # angles are cyclic: match the rest across zero


def _split_vertices(vertices: FloatArray, faces: IntArray, partner: IntArray) -> tuple[FloatArray, IntArray]:
    """Duplicate vertices, so that each fan (faces connected by matched half edges) has its own vertex."""
    paired = partner >= 0
    corner = np.arange(len(partner))
    following = corner - corner % 3 + (corner + 1) % 3
    here = np.concatenate([corner[paired], following[paired]])
    there = np.concatenate([following[partner[paired]], partner[paired]])
    count, label = components(here, there, len(partner))
    fans = np.empty(count, np.int64)
    fans[label] = faces.ravel()
    return vertices[fans], label.reshape(-1, 3).astype(np.int64)


def _opposed_pairs(faces: IntArray) -> IntArray:
    """Return a pair of opposed half edges for each edge with more than two, [n, 2]. A face is in one pair at most."""
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


def _split_edges(vertices: FloatArray, faces: IntArray, pairs: IntArray) -> tuple[FloatArray, IntArray]:
    """Split the edge of each pair of half edges [n, 2] at a new vertex, so that two faces become four."""
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


def is_closed(faces: IntArray) -> bool:
    """Return whether every edge of the faces [m, 3] has exactly two faces, which run along it in opposite ways."""
    edges = half_edges(faces)
    order, first, size = _by_edge(edges)
    if not len(faces) or (size != 2).any():
        return False
    return bool((edges[order[first], 0] == edges[order[first + 1], 1]).all())


def components(a: IntArray, b: IntArray, nodes: int) -> tuple[int, NDArray[np.int32]]:
    """Find the connected components of an undirected graph with k nodes and n edges.

    Args:
        a: One node of each edge, [n].
        b: The other node of each edge, [n].
        nodes: Number k of nodes.

    Returns:
        The number of components, and the index of each node's component [k].
    """
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(nodes, nodes))
    count, label = connected_components(graph, directed=False)
    return int(count), label
