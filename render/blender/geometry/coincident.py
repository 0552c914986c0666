"""Find faces that lie in the same place. Uses only numpy.

Cycles renders coincident faces black: a ray that leaves one of them hits the other at distance zero. CAD, SketchUp and
ShapeNet files contain many of them: the same triangle twice, with equal or opposite windings, or the same square twice,
split along one diagonal and along the other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from render.model_files.windings import mix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

SAME_PLACE: Final = 2e-5  # fraction of the longest side; corners this close are in the same place
SAME_PLANE: Final = 1e-5  # fraction of the longest side; triangles this close are in the same plane
SAME_COLOR: Final = 1e-3  # tolerance of texture coordinates and colors
SHRINK: Final = 0.02  # triangles are shrunk by this fraction first, so that neighbors do not overlap
MOST_PAIRS: Final = 20_000_000  # most pairs of triangles per object that are tested for overlap
_PARALLEL: Final = 1e-3  # cell size of unit normals
_SHIFTS: Final = (0.0, 0.5)  # of two grids, in cells; close points that one grid separates share a cell of the other


@dataclass(frozen=True)
class Faces:
    """The polygons of an object in world space: v vertices, f faces and c face corners.

    Attributes:
        positions: World positions of the vertices [v, 3].
        corners: Index of the vertex at every corner [c]. The corners of each face are consecutive.
        starts: Index of the first corner of every face [f].
        look: Material index of every face [f]. Faces with equal `look` and equal `colors` have the same appearance.
        colors: Texture coordinates and vertex colors: k numbers per corner [c, k].
    """

    positions: Floats
    corners: Integers
    starts: Integers
    look: Integers
    colors: Floats

    @property
    def counts(self) -> Integers:
        """Number of corners of every face [f]."""
        return np.diff(np.append(self.starts, len(self.corners)))


@dataclass(frozen=True)
class Repair:
    """What to do with every face of an object. Each attribute is an array [f] with one value per face.

    Attributes:
        drop: Whether the face is deleted. Another face at the same position remains.
        both_sides: Whether the face is drawn from both sides, because it also replaces a face of opposite winding.
        layer: Number of steps by which the face is moved along its own normal; 0 for most faces. The caller chooses
            the length of a step.
        doubled: Whether the face coincides with another face.
    """

    drop: Booleans
    both_sides: Booleans
    layer: Integers
    doubled: Booleans


def plan_repair(faces: Faces, size: float, twins: Booleans) -> Repair:
    """Decide which coincident faces remain, and which of them are moved.

    - Faces with the same corners and the same winding: the first remains.
    - Faces with the same corners, opposite windings and the same appearance: the first remains and is drawn from both
      sides.
    - Faces with the same corners, opposite windings and different appearance: one of each winding remains. The later
      one is moved along its normal, so that each is visible from its own side.
    - Faces that overlap in one plane but have different corners: all remain. The later ones are moved along their
      normals, each in front of the earlier ones.

    Args:
        faces: The object's f faces.
        size: Longest side of the object's bounds, in the units of the positions.
        twins: For each face [f]: whether a face with the same corners and the opposite winding was deleted earlier.

    Returns:
        The repair of every face.
    """
    vectors = area_vectors(faces)
    areas = np.linalg.norm(vectors, axis=1)
    plan = Repair(np.zeros(len(areas), bool), twins.copy(), np.zeros(len(areas), np.int64), twins.copy())
    usable = areas > (SAME_PLANE * size) ** 2
    for shift in _SHIFTS:
        _same_corners(faces, vectors, np.flatnonzero(usable & ~plan.drop), (SAME_PLACE * size, shift), plan)
    first, second = _overlaps(faces, np.flatnonzero(usable & ~plan.drop), size)
    plan.doubled[first] = plan.doubled[second] = True
    same = np.einsum("ij,ij->i", vectors[first], vectors[second]) > 0
    for a, b, along in sorted(zip(first.tolist(), second.tolist(), same.tolist(), strict=True), key=lambda p: p[1]):
        plan.layer[b] = max(plan.layer[b], plan.layer[a] + 1 if along else int(plan.layer[a] == 0))
    return plan


def doubled_share(faces: Faces, plan: Repair) -> float:
    """Return the area of the faces with `plan.doubled`, divided by the area of all faces (0 to 1)."""
    areas = np.linalg.norm(area_vectors(faces), axis=1)
    return float(areas[plan.doubled].sum() / areas.sum()) if areas.sum() > 0 else 0.0


def area_vectors(faces: Faces) -> Floats:
    """Return the normal of each face [f, 3]. Its length is the area of the face (Newell's method)."""
    starts, counts = faces.starts, faces.counts
    points = faces.positions[faces.corners] - np.repeat(faces.positions[faces.corners[starts]], counts, 0)
    following = np.arange(1, len(points) + 1)
    following[starts + counts - 1] = starts
    crossed = np.cross(points, points[following])
    vectors: Floats = np.add.reduceat(crossed, starts, 0) / 2 if len(starts) else np.empty((0, 3))
    return vectors


def _same_corners(
    faces: Faces, vectors: Floats, chosen: Integers, cell_and_shift: tuple[float, float], plan: Repair
) -> None:
    """Decide what to do with those of the `chosen` faces [n] that have the same corners."""
    at = places(faces.positions, *cell_and_shift)[faces.corners]
    hashes = mix(at)
    keys = np.add.reduceat(hashes, faces.starts) ^ mix(faces.counts.astype(np.uint64))
    chosen = chosen[_distinct_corners(at, faces)[chosen] == faces.counts[chosen]]
    if not len(chosen):
        return
    _, first, group = np.unique(keys[chosen], return_index=True, return_inverse=True)
    with_others = np.bincount(group)[group] > 1
    chosen, first = chosen[with_others], chosen[first][group][with_others]
    if not len(chosen):
        return
    plan.doubled[chosen] = True
    same_winding = np.einsum("ij,ij->i", vectors[chosen], vectors[first]) > 0
    looks = _looks(faces, hashes)
    plan.drop[chosen[same_winding & (chosen != first)]] = True
    reversed_, its_first = chosen[~same_winding], first[~same_winding]
    alike = looks[reversed_] == looks[its_first]
    plan.drop[reversed_[alike]] = True
    plan.both_sides[its_first[alike]] = True
    # Of the reversed faces that look different, the first one in each place remains, behind the other winding.
    other, its_first = reversed_[~alike], its_first[~alike]
    _, kept = np.unique(its_first, return_index=True)
    plan.drop[other] = True
    plan.drop[other[kept]] = False
    plan.layer[other[kept]] = 1


def places(points: Floats, cell: float, shift: float) -> NDArray[np.uint64]:
    """Divide space into a grid. Return, for each of n points [n], a hash of the cell that contains the point.

    Points in the same cell have the same hash.

    Args:
        points: The points [n, k], in k dimensions.
        cell: Edge length of a cell, in the units of the points.
        shift: Shift of the grid along each axis, as a fraction of a cell.
    """
    cells = np.floor(points / cell + shift).astype(np.int64).astype(np.uint64)
    mixed = np.zeros(len(cells), np.uint64)
    for column in cells.T:
        mixed = mix(mixed ^ column)
    return mixed


def _distinct_corners(places: NDArray[np.uint64], faces: Faces) -> Integers:
    """Return the number of distinct corner positions of each face [f]."""
    owner = np.repeat(np.arange(len(faces.starts)), faces.counts)
    order = np.lexsort((places, owner))
    new = np.ones(len(order), bool)
    new[1:] = (places[order][1:] != places[order][:-1]) | (owner[order][1:] != owner[order][:-1])
    return np.bincount(owner[order][new], minlength=len(faces.starts))


def _looks(faces: Faces, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash per face [f], equal where the corners have the same positions, texture coordinates and colors."""
    seen = hashes.copy()
    for column in faces.colors.T:
        seen = mix(seen ^ np.rint(column / SAME_COLOR).astype(np.int64).astype(np.uint64))
    return np.add.reduceat(seen, faces.starts) ^ mix(faces.look.astype(np.uint64))


def _overlaps(faces: Faces, left: Integers, size: float) -> tuple[Integers, Integers]:
    """Return the pairs of faces among `left` that overlap in one plane: arrays [p] of earlier and of later faces."""
    triangles, owner = _triangulate(faces, left)
    if len(triangles) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    kept = lengths > (SAME_PLACE * size) ** 2
    triangles, owner, normals = triangles[kept], owner[kept], normals[kept] / lengths[kept, None]
    normals *= _canonical_sign(normals)[:, None]
    middles = triangles.mean(1)
    offsets = np.einsum("ij,ij->i", normals, middles)
    shrunk = triangles + SHRINK * (middles[:, None] - triangles)
    pairs = set[tuple[int, int]]()
    for shift in _SHIFTS:
        cells = places(np.column_stack([normals, offsets * _PARALLEL / (4 * SAME_PLANE * size)]), _PARALLEL, shift)
        _, plane = np.unique(cells, return_inverse=True)
        a, b = _candidates(triangles, normals, plane)
        different = owner[a] != owner[b]
        a, b = a[different], b[different]
        distances = np.abs(np.einsum("ij,ikj->ik", normals[a], triangles[b] - triangles[a, :1]))
        close = _largest(distances) < SAME_PLANE * size
        a, b = a[close], b[close]
        hit = _triangles_overlap(shrunk[a], shrunk[b], normals[a])
        first, second = np.minimum(owner[a[hit]], owner[b[hit]]), np.maximum(owner[a[hit]], owner[b[hit]])
        pairs |= set(zip(first.tolist(), second.tolist(), strict=True))
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _triangulate(faces: Faces, left: Integers) -> tuple[Floats, Integers]:
    """Return triangles [t, 3, 3] that divide the faces `left` into fans, and the face of each triangle [t]."""
    counts = faces.counts[left]
    owner = np.repeat(left, counts - 2)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts - 2) - (counts - 2), counts - 2)
    first = faces.starts[owner]
    corners = faces.corners[np.stack([first, first + number + 1, first + number + 2], 1)]
    return faces.positions[corners], owner


def _canonical_sign(normals: Floats) -> Floats:
    """Return 1 or -1 per normal [n, 3], so that the first large component becomes positive for both windings."""
    large = np.abs(normals) > 0.3
    chosen = np.argmax(large, 1)
    sign: Floats = np.sign(normals[np.arange(len(normals)), chosen])
    return sign


def _candidates(triangles: Floats, normals: Floats, plane: Integers) -> tuple[Integers, Integers]:
    """Return pairs of coplanar triangles whose bounding rectangles in their plane share a cell of a grid."""
    crowded = np.flatnonzero(np.bincount(plane)[plane] > 1)
    none = np.empty(0, np.int64)
    if not len(crowded):
        return none, none
    points, plane = triangles[crowded], plane[crowded]
    axis = np.argmax(np.abs(normals[crowded]), 1)  # the points are projected along the largest component of the normal
    u = np.take_along_axis(points, ((axis + 1) % 3)[:, None, None], 2)[..., 0]
    v = np.take_along_axis(points, ((axis + 2) % 3)[:, None, None], 2)[..., 0]
    low, high = np.stack([_smallest(u), _smallest(v)], 1), np.stack([_largest(u), _largest(v)], 1)
    sides = np.maximum(high[:, 0] - low[:, 0], high[:, 1] - low[:, 1])
    members = np.bincount(plane)
    cell = (np.bincount(plane, sides) / np.maximum(members, 1))[plane]  # the mean side of the rectangles in the plane
    while True:
        begin, end = np.floor(low / cell[:, None]).astype(np.int64), np.floor(high / cell[:, None]).astype(np.int64)
        covered = (end[:, 0] - begin[:, 0] + 1) * (end[:, 1] - begin[:, 1] + 1)
        if covered.sum() <= 8 * len(crowded):
            break
        cell = cell * 2
    entry = np.repeat(np.arange(len(crowded)), covered)
    number = np.arange(len(entry)) - np.repeat(np.cumsum(covered) - covered, covered)
    wide = (end[:, 0] - begin[:, 0] + 1)[entry]
    x, y = begin[entry, 0] + number % wide, begin[entry, 1] + number // wide
    keys = mix(mix(mix(plane[entry].astype(np.uint64)) ^ x.astype(np.uint64)) ^ y.astype(np.uint64))
    order = np.argsort(keys, kind="stable")
    keys, entry = keys[order], entry[order]
    pairs: list[tuple[Integers, Integers]] = []
    tested = 0
    for distance in range(1, len(keys)):
        together = np.flatnonzero(keys[distance:] == keys[:-distance])
        tested += len(together)
        if not len(together) or tested > MOST_PAIRS:
            break
        a, b = entry[together], entry[together + distance]
        for side in (0, 1):
            near = (low[a, side] < high[b, side]) & (low[b, side] < high[a, side])
            a, b = a[near], b[near]
        pairs.append((a, b))
    if not pairs:
        return none, none
    first, second = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return crowded[first], crowded[second]


def _triangles_overlap(first: Floats, second: Floats, normals: Floats) -> Booleans:
    """Return whether each pair of coplanar triangles overlaps, as an array [p], by the separating axis theorem.

    Args:
        first: The first triangle of each pair [p, 3, 3].
        second: The second triangle of each pair [p, 3, 3].
        normals: Normals of the first triangles [p, 3].
    """
    left = np.arange(len(first))  # pairs that no axis has separated yet
    for side in (0, 1):
        for edge in range(3):
            a, b = first[left], second[left]
            points = (a, b)[side]
            axis = np.cross(normals[left], points[:, (edge + 1) % 3] - points[:, edge])
            along_a, along_b = (np.einsum("pij,pj->pi", each, axis) for each in (a, b))
            apart = (_largest(along_a) <= _smallest(along_b)) | (_largest(along_b) <= _smallest(along_a))
            left = left[~apart]
    overlap = np.zeros(len(first), bool)
    overlap[left] = True
    return overlap


def _largest(values: Floats) -> Floats:
    """Return the maximum of each row of values [n, 3]. It is ten times as fast as `values.max(1)`."""
    return np.maximum(np.maximum(values[:, 0], values[:, 1]), values[:, 2])


def _smallest(values: Floats) -> Floats:
    """Return the minimum of each row of values [n, 3]."""
    return np.minimum(np.minimum(values[:, 0], values[:, 1]), values[:, 2])
