"""Extract a surface from a density grid by marching cubes, remove floaters, simplify and repair it. Numpy only.

Axis letters: `v` vertices, `m` faces, `r` nodes of the grid along an axis.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from distill.mesh.arrays import FloatArray, IntArray
from distill.mesh.manifold import components, half_edges, is_closed, make_manifold


@dataclass(frozen=True)
class TriangleMesh:
    """A triangle mesh in world units; faces are counter-clockwise when seen from outside."""

    vertices: FloatArray  # [v, 3]
    faces: IntArray  # [m, 3]


def extract(grid: NDArray[np.float32], threshold: float, radius: float) -> TriangleMesh:
    """Extract the surface at which a density grid crosses a threshold.

    The density outside the grid is taken as 0. Where the density at the border of the grid is above the threshold, the
    border becomes part of the surface, so the surface is always closed.

    Marching cubes interpolates linearly. Density may jump from 0 to 1,000 between two nodes, which would push the
    surface outwards by up to a cell. So marching cubes runs on the opacity 1 - exp(-density * length) instead, with
    length = ln(2) / threshold. The opacity is 0.5 where the density equals the threshold, and it never exceeds 1.

    Args:
        grid: Density at the r^3 nodes of the grid, [r, r, r].
        threshold: Density at the surface.
        radius: Half the edge of the grid (a cube around the origin) in world units.
    """
    opacity = 1.0 - np.exp2(-np.maximum(grid, 0.0) / threshold)
    spacing = 2 * radius / (len(grid) - 1)
    padded = np.pad(opacity, 1)
    vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        padded, 0.5, gradient_direction="ascent", allow_degenerate=False
    )
    return TriangleMesh((vertices - 1.0) * spacing - radius, faces.astype(np.int64))


def keep_components(surface: TriangleMesh, floater_fraction: float) -> tuple[TriangleMesh, int]:
    """Remove floaters and the walls of inner cavities from a mesh.

    A floater is a connected component with a small volume. The wall of an inner cavity is invisible; it is a connected
    component with negative volume.

    Args:
        surface: The mesh.
        floater_fraction: Components with less volume than this fraction of the largest component's volume are removed.

    Returns:
        The remaining mesh and the number of removed components.
    """
    count, label = components(surface.faces.ravel(), np.repeat(surface.faces[:, 0], 3), len(surface.vertices))
    face_label = label[surface.faces[:, 0]]
    corners = surface.vertices[surface.faces]
    six_volumes = np.einsum("mi,mi->m", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    volume = np.bincount(face_label, six_volumes, minlength=count)
    keep = volume >= floater_fraction * volume.max()
    kept = _compact(surface.vertices, surface.faces[keep[face_label]])
    return kept, int(count - keep.sum())


def simplify(surface: TriangleMesh, faces: int) -> TriangleMesh:
    """Simplify a mesh by quadric edge collapse.

    Args:
        surface: The mesh.
        faces: Target number of faces. The simplified mesh has approximately this number. A mesh with at most this
            number of faces is returned unchanged.
    """
    if len(surface.faces) <= faces:
        return surface
    vertices, kept = fast_simplification.simplify(surface.vertices, surface.faces.astype(np.int32), target_count=faces)
    return TriangleMesh(np.asarray(vertices, np.float64), np.asarray(kept, np.int64))


def clean(surface: TriangleMesh) -> TriangleMesh:
    """Repair a mesh after edge collapse, which can leave folds, coincident vertices, and parts of the mesh that touch.

    Returns:
        A manifold mesh (see `make_manifold`), in which vertices at almost the same position are merged. The mesh is
        closed if `surface` is closed.
    """
    return _compact(*make_manifold(surface.vertices, _weld(surface)))


def _weld(surface: TriangleMesh) -> IntArray:
    """Return the faces after merging the ends of all edges shorter than 0.1 % of the median edge."""
    edges = half_edges(surface.faces)
    lengths = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    short = edges[lengths < 1e-3 * np.median(lengths)]
    count, label = components(short[:, 0], short[:, 1], len(surface.vertices))
    kept = np.empty(count, np.int64)
    kept[label] = np.arange(len(surface.vertices))
    welded: IntArray = kept[label][surface.faces]
    return welded


def is_watertight(surface: TriangleMesh) -> bool:
    """Return whether every edge of a mesh has exactly two faces, which run along the edge in opposite directions."""
    return is_closed(surface.faces)


def _compact(vertices: FloatArray, faces: IntArray) -> TriangleMesh:
    """Remove the vertices that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return TriangleMesh(vertices[used], index.reshape(-1, 3).astype(np.int64))


def vertex_normals(surface: TriangleMesh) -> FloatArray:
    """Return the unit normal [v, 3] of each vertex: the mean normal of the adjacent faces, weighted by their area."""
    corners = surface.vertices[surface.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(surface.vertices)
    np.add.at(normals, surface.faces.ravel(), np.repeat(face_normals, 3, axis=0))
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])


def random_points(surface: TriangleMesh, count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Sample points on a mesh, uniformly by area.

    Args:
        surface: The mesh.
        count: Number n of points.
        seed: Seed of the random numbers.

    Returns:
        The positions [n, 3] of the points and their interpolated unit normals [n, 3].
    """
    rng = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = np.searchsorted(np.cumsum(area), rng.uniform(0, area.sum(), count)).clip(0, len(area) - 1)
    weight = rng.dirichlet(np.ones(3), count)[:, :, None]
    normals = (weight * vertex_normals(surface)[surface.faces[face]]).sum(1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    flat = np.cross(
        corners[face, 1] - corners[face, 0], corners[face, 2] - corners[face, 0]
    )  # used where interpolated normals cancel
    normals = np.where(lengths > 1e-6, normals, flat)
    return (weight * corners[face]).sum(1), normals / np.linalg.norm(normals, axis=1, keepdims=True)
