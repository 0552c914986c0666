"""How near an asset is to its object: pure functions of silhouettes, surfaces and voxels. Units: the object's world,
where its longest side is 1.

Volumes are grids of 64^3 voxels over [-1, 1]^3, as in SyncDreamer's evaluation (mesh2sdf's grid), sampled at centres.

Letters: `f` views, `n` points, `h w` pixels; grids are indexed [x, y, z].
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.spatial import cKDTree

from dataset.camera import project

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

VOXELS: Final = 64  # along an edge of the cube [-EXTENT, EXTENT]
EXTENT: Final = 1.0
OPAQUE: Final = 0.5  # alpha from which a pixel belongs to the silhouette
POINTS: Final = 100_000  # drawn on a surface: two drawings of one object are about 0.003 apart
F_DISTANCE: Final = 0.02  # of the F-score, in longest sides of the object
_FINER: Final = 4  # the grid on which a surface is drawn and flooded has so many cells along a voxel
_ASIDE: Final = (3.1e-6, 1.7e-6)  # voxels that rays pass beside their centres: none runs along an edge


def iou(first: Bool, second: Bool) -> float:
    """Intersection over union of two sets; NaN where both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else float("nan")


def silhouette_ious(first: Bool, second: Bool) -> Float:
    """`iou` [f] of silhouettes [f, h, w]."""
    return np.array([iou(a, b) for a, b in zip(first, second, strict=True)])


def voxel_centres() -> Float:
    """[VOXELS^3, 3]."""
    axis = (np.arange(VOXELS) + 0.5) / VOXELS * 2 * EXTENT - EXTENT
    centres: Float = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return centres


def visual_hull(silhouettes: Bool, c2w: Float, K: Float) -> Bool:
    """Voxels whose centres lie in every silhouette [f, h, w] of cameras `c2w` [f, 4, 4] with `K` [f, 3, 3].

    It holds the object and whatever no camera can tell from it: hollows are filled. What is outside a frame is empty.
    """
    centres = voxel_centres()
    left = np.arange(len(centres))
    height, width = silhouettes.shape[1:]
    for silhouette, camera, intrinsics in zip(silhouettes, c2w, K, strict=True):
        pixels, depth = project(centres[left], camera, intrinsics)
        inside = (depth > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
        left, pixels = left[inside], pixels[inside]
        column, row = pixels.astype(np.int64).T
        left = left[silhouette[row, column]]
    hull = np.zeros(VOXELS**3, bool)
    hull[left] = True
    return hull.reshape(VOXELS, VOXELS, VOXELS)


@dataclass(frozen=True)
class Solid:
    """A surface as it is compared."""

    points: Float  # [n, 3], even over the parts of the surface that can be reached from outside
    voxels: Bool  # what the surface encloses


def solid_of(mesh: trimesh.Trimesh) -> Solid:
    """A mesh, closed or not, as it is compared. The same mesh gives the same points.

    Meshes that people make overlap and have parts inside of parts: of points drawn evenly over the area those are kept
    that can be reached from outside past the rest of the surface, which is drawn on a finer grid and flooded.
    """
    cells = VOXELS * _FINER
    regions, _ = label(np.pad(~_drawn(mesh, cells), 1, constant_values=True))  # neighbours share a face
    outside = (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
    reached = binary_dilation(outside, np.ones((3, 3, 3), bool), border_value=1)
    drawn, _ = trimesh.sample.sample_surface(mesh, POINTS, seed=0)
    points = np.asarray(drawn, np.float64)
    index, within = _cells_of(points, cells)
    kept = ~within
    kept[within] = reached[tuple(index[within].T)]
    return Solid(points[kept], enclosed_voxels(np.array(mesh.triangles, np.float64)))


def enclosed_voxels(corners: Float) -> Bool:
    """The voxels [x, y, z] whose centres triangles [m, 3, 3] wind around by at least one half, in either direction.

    The winding number (Jacobson et al. 2013) is the mean over all directions of the signed crossings of a ray: a whole
    number for closed surfaces, overlapping ones too, and a sensible one with holes. Here the mean is over the six
    directions of the axes.
    """
    winding = np.zeros((VOXELS, VOXELS, VOXELS))
    for axis in range(3):
        turned = np.roll(corners, -axis - 1, axis=-1)  # `axis` comes last, the others keep their order: a rotation
        winding += np.moveaxis(_crossings(turned), (0, 1, 2), np.roll((0, 1, 2), -axis - 1))
    enclosed: Bool = np.abs(winding / 6) >= 0.5
    return enclosed


def _crossings(corners: Float) -> NDArray[np.int64]:
    """Signed crossings [x, y, z] of the two rays up and down (z) from each voxel's centre with triangles [m, 3, 3]."""
    cells = (corners + EXTENT) / (2 * EXTENT) * VOXELS - 0.5  # a voxel's centre is its index
    cells[..., :2] -= _ASIDE
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
    crossed = np.zeros((VOXELS, VOXELS, VOXELS + 1), np.int64)  # [..., k]: between centres k - 1 and k
    above = np.ceil(height).astype(np.int64).clip(0, VOXELS)
    np.add.at(crossed, (*column[hit].T, above), np.sign(area[hit]).astype(np.int64))
    below = crossed.cumsum(-1)
    up, down = below[..., -1:] - below[..., :-1], -below[..., :-1]
    signed: NDArray[np.int64] = up + down
    return signed


def _doubled_area(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Float:
    """Twice the signed areas [n] of flat triangles with corners [n, 2]."""
    first, second = b - a, c - a
    doubled: Float = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return doubled


def _drawn(mesh: trimesh.Trimesh, cells: int) -> Bool:
    """The cells that the surface passes, closely enough that no path over faces of cells leads through it.

    Such a path crosses the surface on the way between the middles of two cells, half a cell from every other one. No
    edge is longer than half a cell, so a vertex lies within 0.3 of a cell of that place, in one of these two cells.
    """
    edge = EXTENT / cells
    vertices, _ = trimesh.remesh.subdivide_to_size(  # type: ignore[no-untyped-call]
        mesh.vertices, mesh.faces, edge, max_iter=24
    )
    index, within = _cells_of(np.asarray(vertices, np.float64), cells)
    walls = np.zeros((cells, cells, cells), bool)
    walls[tuple(index[within].T)] = True
    return walls


def _cells_of(points: Float, cells: int) -> tuple[NDArray[np.int64], Bool]:
    """(the cells [n, 3] of points, whether they are in the cube [n])."""
    index = np.floor((points + EXTENT) / (2 * EXTENT) * cells).astype(np.int64)
    return index, ((index >= 0) & (index < cells)).all(1)


def surface_scores(asset: Solid, truth: Solid) -> dict[str, float]:
    """`chamfer`, `f_score` and `volume_iou` of two solids.

    Chamfer distance: the mean distance of a point to the other's nearest, the mean of both directions (as in
    SyncDreamer's evaluation). F-score: harmonic mean of the shares of the asset's points within F_DISTANCE of the
    truth and of the truth's within it of the asset (Knapitsch et al. 2017).
    """
    from_asset, from_truth = _distances(asset.points, truth.points), _distances(truth.points, asset.points)
    precision, recall = (float((distances <= F_DISTANCE).mean()) for distances in (from_asset, from_truth))
    both = precision + recall
    return {
        "chamfer": float(from_asset.mean() + from_truth.mean()) / 2,
        "f_score": 2 * precision * recall / both if both else 0.0,
        "volume_iou": iou(asset.voxels, truth.voxels),
    }


def _distances(points: Float, others: Float) -> Float:
    tree: Any = cKDTree(others)
    distances, _ = tree.query(points)
    return np.asarray(distances, np.float64)
