"""Triangle surfaces: out of a density grid by marching cubes, without floaters, simplified, manifold. Numpy only.

Letters: `v` vertices, `m` faces, `r` nodes of the grid along an axis.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from distill.mesh.manifold import Float, Int, components, half_edges, is_closed, make_manifold


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
    count, label = components(surface.faces.ravel(), np.repeat(surface.faces[:, 0], 3), len(surface.vertices))
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
    """A manifold, closed if the surface was: edge collapse leaves folds, coincident vertices, parts that touch.

    Coincident neighbors become one vertex; the rest is `manifold.make_manifold`'s.
    """
    return _compact(*make_manifold(surface.vertices, _weld(surface)))


def _weld(surface: Surface) -> Int:
    """The faces with the ends of every edge shorter than 0.1 % of the median edge made one vertex."""
    edges = half_edges(surface.faces)
    lengths = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    short = edges[lengths < 1e-3 * np.median(lengths)]
    count, label = components(short[:, 0], short[:, 1], len(surface.vertices))
    kept = np.empty(count, np.int64)
    kept[label] = np.arange(len(surface.vertices))
    welded: Int = kept[label][surface.faces]
    return welded


def is_watertight(surface: Surface) -> bool:
    """Whether every edge has exactly two faces, which run along it in opposite directions."""
    return is_closed(surface.faces)


def _compact(vertices: Float, faces: Int) -> Surface:
    """Without vertices that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return Surface(vertices[used], index.reshape(-1, 3).astype(np.int64))


def vertex_normals(surface: Surface) -> Float:
    """Unit normals [v, 3]: the mean of the neighboring faces' normals, weighted by area."""
    corners = surface.vertices[surface.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(surface.vertices)
    np.add.at(normals, surface.faces.ravel(), np.repeat(face_normals, 3, axis=0))
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])


def random_points(surface: Surface, count: int, seed: int) -> tuple[Float, Float]:
    """`count` points [n, 3] spread evenly over the area, and their smooth unit normals [n, 3]."""
    rng = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = np.searchsorted(np.cumsum(area), rng.uniform(0, area.sum(), count)).clip(0, len(area) - 1)
    weight = rng.dirichlet(np.ones(3), count)[:, :, None]
    normals = (weight * vertex_normals(surface)[surface.faces[face]]).sum(1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    flat = np.cross(
        corners[face, 1] - corners[face, 0], corners[face, 2] - corners[face, 0]
    )  # where smooth ones cancel
    normals = np.where(lengths > 1e-6, normals, flat)
    return (weight * corners[face]).sum(1), normals / np.linalg.norm(normals, axis=1, keepdims=True)
