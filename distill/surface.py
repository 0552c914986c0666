"""Triangle surfaces: out of a density grid by marching cubes, without floaters, simplified, manifold. Numpy only.

Letters: `v` vertices, `m` faces, `r` nodes of the grid along an axis.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in world units, outward faces counter-clockwise."""

    vertices: Float  # [v, 3]
    faces: Int  # [m, 3]


def extract(grid: NDArray[np.float32], threshold: float, radius: float) -> Surface:
    """The surface where density [r, r, r] crosses `threshold`, closed where matter touches the cube's walls.

    Marching cubes interpolates linearly, and density may jump from 0 to 1,000 between two nodes, which would push the
    surface outwards by up to a cell. It runs on the opacity 1 - exp(-density * length) with the length that makes the
    threshold one half: the same surface, but bounded values on both sides.
    """
    opacity = 1.0 - np.exp2(-np.maximum(grid, 0.0) / threshold)
    spacing = 2 * radius / (len(grid) - 1)
    padded = np.pad(opacity, 1)
    vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        padded, 0.5, gradient_direction="ascent", allow_degenerate=False
    )
    return Surface((vertices - 1.0) * spacing - radius, faces.astype(np.int64))


def keep_components(surface: Surface, floater_fraction: float) -> tuple[Surface, int]:
    """Without floaters (components below that fraction of the largest volume) and walls of inner cavities.

    A cavity's wall is its own component with negative volume; nobody sees it. Returns the number removed too.
    """
    count, label = _components(surface.faces.ravel(), np.repeat(surface.faces[:, 0], 3), len(surface.vertices))
    face_label = label[surface.faces[:, 0]]
    corners = surface.vertices[surface.faces]
    six_volumes = np.einsum("mi,mi->m", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    volume = np.bincount(face_label, six_volumes, minlength=count)
    keep = volume >= floater_fraction * volume.max()
    kept = _compact(surface.vertices, surface.faces[keep[face_label]])
    return kept, int(count - keep.sum())


def simplify(surface: Surface, faces: int) -> Surface:
    """At most about `faces` faces, by quadric edge collapse."""
    if len(surface.faces) <= faces:
        return surface
    vertices, kept = fast_simplification.simplify(surface.vertices, surface.faces.astype(np.int32), target_count=faces)
    return Surface(np.asarray(vertices, np.float64), np.asarray(kept, np.int64))


def clean(surface: Surface) -> Surface:
    """A mesh whose edges have one or two faces each and some length: edge collapse leaves folds, and worse.

    Coincident neighbours become one vertex; faces without three corners and folded pairs go; surfaces that touch along
    an edge are cut apart there; what still shares an edge among more than two faces is dropped (that alone can open a
    hole).
    """
    faces = _weld(surface)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, group, size = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    faces = faces[size[group.reshape(-1)] == 1]
    vertices, faces = _cut(surface.vertices, faces)
    crowded = (_faces_on_edge(faces) > 2).any(1)
    return _compact(vertices, faces[~crowded])


def _weld(surface: Surface) -> Int:
    """The faces with the ends of every edge shorter than 0.1 % of the median edge made one vertex."""
    edges = np.stack([surface.faces, np.roll(surface.faces, -1, axis=1)], -1).reshape(-1, 2)
    lengths = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    short = edges[lengths < 1e-3 * np.median(lengths)]
    count, label = _components(short[:, 0], short[:, 1], len(surface.vertices))
    kept = np.empty(count, np.int64)
    kept[label] = np.arange(len(surface.vertices))
    welded: Int = kept[label][surface.faces]
    return welded


def _cut(vertices: Float, faces: Int) -> tuple[Float, Int]:
    """One vertex for each fan of faces that edges with exactly two faces connect."""
    edges, partner = _half_edges(faces)
    paired = partner >= 0
    # Half edge 3m+k runs from corner k to corner k+1 of face m; its partner runs back.
    corner = np.arange(len(edges))
    following = corner - corner % 3 + (corner + 1) % 3
    here = np.concatenate([corner[paired], following[paired]])
    there = np.concatenate([following[partner[paired]], partner[paired]])
    count, label = _components(here, there, len(edges))
    fans = np.empty(count, np.int64)
    fans[label] = faces.ravel()
    return vertices[fans], label.reshape(-1, 3).astype(np.int64)


def _half_edges(faces: Int) -> tuple[Int, Int]:
    """(directed edges [3m, 2]; the index of the opposite half edge where exactly the two share the edge, else -1)."""
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    order = np.lexsort(np.sort(edges, 1).T)
    ordered = np.sort(edges, 1)[order]
    first = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(1)])
    pairs = first[np.diff(np.r_[first, len(edges)]) == 2]
    left, right = order[pairs], order[pairs + 1]
    opposed = edges[left, 0] == edges[right, 1]
    partner = np.full(len(edges), -1, np.int64)
    partner[left[opposed]], partner[right[opposed]] = right[opposed], left[opposed]
    return edges, partner


def _faces_on_edge(faces: Int) -> Int:
    """How many faces share each of the three edges of every face, [m, 3]."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2), 1)
    _, edge, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    found: Int = counts[edge.reshape(-1)].reshape(-1, 3)
    return found


def is_watertight(surface: Surface) -> bool:
    """Whether every edge has exactly two faces, which run along it in opposite directions."""
    return len(surface.faces) > 0 and bool((_half_edges(surface.faces)[1] >= 0).all())


def _components(a: Int, b: Int, nodes: int) -> tuple[int, NDArray[np.int32]]:
    """(number of connected components, component of each node) of the graph whose edges are a[i] - b[i]."""
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(nodes, nodes))
    count, label = connected_components(graph, directed=False)
    return int(count), label


def _compact(vertices: Float, faces: Int) -> Surface:
    """Without vertices that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return Surface(vertices[used], index.reshape(-1, 3).astype(np.int64))


def vertex_normals(surface: Surface) -> Float:
    """Unit normals [v, 3]: the mean of the neighbouring faces' normals, weighted by area."""
    corners = surface.vertices[surface.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(surface.vertices)
    np.add.at(normals, surface.faces.ravel(), np.repeat(face_normals, 3, axis=0))
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])
