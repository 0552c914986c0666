"""Similarity of an asset to its object: pure functions of silhouettes, surfaces and voxels.

Lengths are in the object's world, where the longest side of the object is 1. Volumes are grids of 64^3 voxels over
[-1, 1]^3, as in SyncDreamer's evaluation (the grid of mesh2sdf), sampled at voxel centers.

Axis letters: `f` views, `n` points, `m` triangles, `h w` pixels; grids are indexed [x, y, z].
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.spatial import cKDTree

from dataset.camera import project

VOXELS: Final = 64  # along an edge of the cube [-EXTENT, EXTENT]
EXTENT: Final = 1.0
OPAQUE: Final = 0.5  # smallest alpha of a silhouette pixel
POINTS: Final = 100_000  # sampled on a surface; two samples of one object have a Chamfer distance of about 0.003
F_DISTANCE: Final = 0.02  # distance threshold of the F-score, in longest sides of the object
_EXTENT_PERCENTILES: Final = (1.0, 99.0)  # of the voxels: stray ones do not count
_CELLS_PER_VOXEL: Final = 4  # per axis, for the grid on which a surface is rasterized and flooded from outside
_RAY_OFFSET: Final = (3.1e-6, 1.7e-6)  # offset of rays from voxel centers, in voxels, so that no ray runs along an edge


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks [...] of the same shape; NaN if both masks are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else float("nan")


def silhouette_ious(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intersection over union of two masks for each of f views, [f].

    Args:
        first: Masks [f, h, w] of one object.
        second: Masks [f, h, w] of another object from the same cameras.
    """
    return np.array([iou(a, b) for a, b in zip(first, second, strict=True)])


def voxel_centers() -> NDArray[np.float64]:
    """Return the positions [64^3, 3] of the centers of all voxels over [-1, 1]^3; z varies fastest."""
    axis = (np.arange(VOXELS) + 0.5) / VOXELS * 2 * EXTENT - EXTENT
    centers: NDArray[np.float64] = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return centers


def visual_hull(silhouettes: NDArray[np.bool_], c2w: NDArray[np.float64], K: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask [64, 64, 64] of the voxels whose centers lie inside every silhouette, indexed by x, y and z.

    These voxels form the visual hull. The hull contains the object. It also fills concavities, which silhouettes do not
    show. Voxels that project outside an image are not in the hull.

    Args:
        silhouettes: For each of f views, a mask of the pixels that show the object, [f, h, w].
        c2w: Camera-to-world matrices [f, 4, 4].
        K: Camera intrinsics [f, 3, 3] in pixels.
    """
    centers = voxel_centers()
    left = np.arange(len(centers))
    height, width = silhouettes.shape[1:]
    for silhouette, camera, intrinsics in zip(silhouettes, c2w, K, strict=True):
        pixels, depth = project(centers[left], camera, intrinsics)
        inside = (depth > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
        left, pixels = left[inside], pixels[inside]
        column, row = pixels.astype(np.int64).T
        left = left[silhouette[row, column]]
    hull = np.zeros(VOXELS**3, bool)
    hull[left] = True
    return hull.reshape(VOXELS, VOXELS, VOXELS)


def depth_ratio(asset: NDArray[np.bool_], truth: NDArray[np.bool_], axis: NDArray[np.float64]) -> float:
    """Return the extent of an asset along an axis as a fraction of the extent of the object along the same axis.

    The ratio measures flatness: 1 is right, and a flattened asset has less. An extent is the distance between the 1st
    and the 99th percentile of the voxel centers. The ratio is NaN if either mask is empty.

    Args:
        asset: Mask [64, 64, 64] of the voxels inside the asset, indexed by x, y and z.
        truth: Mask [64, 64, 64] of the voxels inside the object.
        axis: Direction [3] in the world of the object, of any length, such as the viewing direction of a camera.
    """
    depths = (voxel_centers() @ axis).reshape(asset.shape)
    if not asset.any() or not truth.any():
        return float("nan")
    extents = [float(np.ptp(np.percentile(depths[mask], _EXTENT_PERCENTILES))) for mask in (asset, truth)]
    return extents[0] / extents[1] if extents[1] else float("nan")


@dataclass(frozen=True)
class Solid:
    """Points on the surface of a mesh and the voxels inside the mesh, for the comparison with another mesh."""

    points: NDArray[np.float64]  # [n, 3], uniform over the parts of the surface that can be reached from outside
    voxels: NDArray[np.bool_]  # voxels enclosed by the surface


def solid_of(mesh: trimesh.Trimesh) -> Solid:
    """Return points on the surface of a mesh and the voxels inside it. The mesh need not be closed.

    Meshes made by artists have overlapping and hidden parts. Points are sampled uniformly over the whole surface, and
    points that cannot be reached from outside are removed: the surface is rasterized on a grid finer than the voxels,
    and this grid is flooded from outside. The same mesh always gives the same points.
    """
    cells = VOXELS * _CELLS_PER_VOXEL
    regions, _ = label(np.pad(~_rasterized(mesh, cells), 1, constant_values=True))  # neighbors share a face
    outside = (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
    reached = binary_dilation(outside, np.ones((3, 3, 3), bool), border_value=1)
    sampled, _ = trimesh.sample.sample_surface(mesh, POINTS, seed=0)
    points = np.asarray(sampled, np.float64)
    index, within = _cells_of(points, cells)
    kept = ~within
    kept[within] = reached[tuple(index[within].T)]
    return Solid(points[kept], enclosed_voxels(np.array(mesh.triangles, np.float64)))


def enclosed_voxels(corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask [64, 64, 64] of the voxels inside a surface, indexed by x, y and z.

    A voxel is inside if the winding number (Jacobson et al. 2013) of its center is at least one half. To compute it,
    follow a ray from the center, and add 1 or subtract 1 for each crossing with the surface, depending on the side from
    which the ray crosses. The winding number is the mean of this sum over all directions of the ray. For closed
    surfaces it is an integer, even if they overlap. For surfaces with holes it may be a fraction. Here the mean is over
    six rays along the axes (+x, -x, +y, -y, +z, -z), and its sign is ignored.

    Args:
        corners: The x, y and z of the three corners of each of the m triangles of the surface, [m, 3, 3].
    """
    winding = np.zeros((VOXELS, VOXELS, VOXELS))
    for axis in range(3):
        turned = np.roll(corners, -axis - 1, axis=-1)  # a rotation of the axes that puts `axis` last
        winding += np.moveaxis(_crossings(turned), (0, 1, 2), np.roll((0, 1, 2), -axis - 1))
    enclosed: NDArray[np.bool_] = np.abs(winding / 6) >= 0.5
    return enclosed


def _crossings(corners: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the signed crossings [x, y, z] of triangles [m, 3, 3] with rays up and down from each voxel's center."""
    cells = (corners + EXTENT) / (2 * EXTENT) * VOXELS - 0.5  # a voxel's center is its index
    cells[..., :2] -= _RAY_OFFSET
    flat = cells[..., :2]
    low = np.ceil(flat.min(1)).astype(np.int64).clip(0, VOXELS)
    spans = (np.floor(flat.max(1)).astype(np.int64).clip(-1, VOXELS - 1) + 1 - low).clip(0)  # columns of each [m, 2]
    counts = spans.prod(1)
    triangle = np.repeat(np.arange(len(cells)), counts)
    place = np.arange(len(triangle)) - np.repeat(counts.cumsum() - counts, counts)
    column = low[triangle] + np.stack([place // spans[triangle, 1], place % spans[triangle, 1]], -1)
    area = _doubled_area(*(flat[triangle, i] for i in range(3)))
    weights = np.stack(
        [_doubled_area(column, flat[triangle, (i + 1) % 3], flat[triangle, (i + 2) % 3]) for i in range(3)], -1
    )
    hit = (area != 0) & (weights * np.sign(area)[:, None] > 0).all(1)
    height = (weights[hit] * cells[triangle[hit], :, 2]).sum(1) / area[hit]
    crossed = np.zeros((VOXELS, VOXELS, VOXELS + 1), np.int64)  # [..., k]: between centers k - 1 and k
    above = np.ceil(height).astype(np.int64).clip(0, VOXELS)
    np.add.at(crossed, (*column[hit].T, above), np.sign(area[hit]).astype(np.int64))
    below = crossed.cumsum(-1)
    up, down = below[..., -1:] - below[..., :-1], -below[..., :-1]
    signed: NDArray[np.int64] = up + down
    return signed


def _doubled_area(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float64]:
    """Return twice the signed areas [n] of planar triangles with corners [n, 2]."""
    first, second = b - a, c - a
    doubled: NDArray[np.float64] = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return doubled


def _rasterized(mesh: trimesh.Trimesh, cells: int) -> NDArray[np.bool_]:
    """Return the cells [x, y, z] that the surface occupies, without gaps: a path through other cells cannot cross it.

    A path leads from a cell to one that shares a face with it. If it crosses the surface between the centers of two
    such cells, the crossing is half a cell away from all other cells. No edge is longer than half a cell, so a vertex
    lies within 0.3 cells of the crossing and occupies one of the two cells.
    """
    edge = EXTENT / cells
    vertices, _ = trimesh.remesh.subdivide_to_size(  # type: ignore[no-untyped-call]
        mesh.vertices, mesh.faces, edge, max_iter=24
    )
    index, within = _cells_of(np.asarray(vertices, np.float64), cells)
    walls = np.zeros((cells, cells, cells), bool)
    walls[tuple(index[within].T)] = True
    return walls


def _cells_of(points: NDArray[np.float64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the cells [n, 3] of points [n, 3], and whether they are in the cube [n]."""
    index = np.floor((points + EXTENT) / (2 * EXTENT) * cells).astype(np.int64)
    return index, ((index >= 0) & (index < cells)).all(1)


def surface_scores(asset: Solid, truth: Solid) -> dict[str, float]:
    """Compare the mesh of an asset with the true mesh, and return three scores by name.

    Args:
        asset: Surface points and voxels of the asset's mesh.
        truth: Surface points and voxels of the true mesh.

    Returns:
        `chamfer`: Chamfer distance, as in SyncDreamer's evaluation: the mean distance from the points of one mesh to
            the nearest points of the other mesh, averaged over both directions.
        `f_score`: the harmonic mean of precision and recall (Knapitsch et al. 2017). Precision is the fraction of asset
            points within 0.02 of a true point, where the longest side of the object is 1. Recall is the fraction of
            true points within 0.02 of an asset point.
        `volume_iou`: intersection over union of the voxels inside the two meshes.
    """
    from_asset, from_truth = _distances(asset.points, truth.points), _distances(truth.points, asset.points)
    precision, recall = (float((distances <= F_DISTANCE).mean()) for distances in (from_asset, from_truth))
    both = precision + recall
    return {
        "chamfer": float(from_asset.mean() + from_truth.mean()) / 2,
        "f_score": 2 * precision * recall / both if both else 0.0,
        "volume_iou": iou(asset.voxels, truth.voxels),
    }


def _distances(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    tree: Any = cKDTree(others)
    distances, _ = tree.query(points)
    return np.asarray(distances, np.float64)
