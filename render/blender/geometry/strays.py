"""Find faces that must not affect an object's size: invisible faces, and a few faces far away from all others."""

from typing import Any, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from render.blender.geometry.coincident import SAME_PLACE, Booleans, Faces, Floats, Integers, area_vectors, places

MOST_AREA: Final = 0.001  # stray faces make up at most this share of the area
SHRINK: Final = 2.0  # without stray faces the longest side is shorter by at least this factor
MARGIN: Final = 0.5  # of the longest side; stray faces are outside the others' box after enlarging it by this


def stray_faces(faces: Faces) -> Booleans:
    """Return which of the object's f faces [f] are stray: on a connected surface far away from nearly all other faces.

    Faces are stray only if all of them together make up at most the share MOST_AREA of the object's area, and if the
    object's longest side without them is shorter by at least the factor SHRINK. Most objects have no stray faces. For
    them, this function only sorts the faces.
    """
    none = np.zeros(len(faces.starts), bool)
    areas = np.linalg.norm(area_vectors(faces), axis=1)
    points = faces.positions[faces.corners]
    if not len(areas) or not areas.sum() > 0:
        return none
    low, high = _box_of_most(points, faces.starts, areas)
    longest = float(np.ptp(points, axis=0).max())
    if longest < SHRINK * float((high - low).max()):
        return none
    grown = (high - low).max() * MARGIN
    low, high = low - grown, high + grown
    label = surfaces(faces)
    number = int(label.max()) + 1
    outside = np.ones(number, bool)
    inside_corner = ((points >= low) & (points <= high)).all(1)
    outside[label[np.repeat(np.arange(len(areas)), faces.counts)[inside_corner]]] = False
    stray: Booleans = outside[label]
    kept = np.repeat(~stray, faces.counts)
    small = areas[stray].sum() <= MOST_AREA * areas.sum()
    if not stray.any() or not small or np.ptp(points[kept], axis=0).max() * SHRINK > longest:
        return none
    return stray


def _box_of_most(points: Floats, starts: Integers, areas: Floats) -> tuple[Floats, Floats]:
    """Return the bounds [3], [3] of the faces, without the outermost MOST_AREA of the area at each end of each axis."""
    lows, highs = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    low, high = np.empty(3), np.empty(3)
    for axis in range(3):
        for values, ends, order in ((lows, low, 1), (highs, high, -1)):
            sorted_ = np.argsort(values[:, axis], kind="stable")[::order]
            share = np.cumsum(areas[sorted_]) / areas.sum()
            ends[axis] = values[sorted_[np.searchsorted(share, MOST_AREA, side="right")], axis]
    return low, high


def surfaces(faces: Faces) -> Integers:
    """Return the index of the connected surface of each face [f]. Faces with a common corner position are connected."""
    size = float(np.ptp(faces.positions[faces.corners], axis=0).max()) or 1.0
    _, vertex = np.unique(places(faces.positions, SAME_PLACE * size, 0.0), return_inverse=True)
    corners = vertex[faces.corners]
    first = np.repeat(corners[faces.starts], faces.counts)
    number = int(vertex.max()) + 1
    graph = coo_array((np.ones(len(corners), np.int8), (first, corners)), shape=(number, number))
    labels: Integers = connected_components(graph, directed=False)[1][corners[faces.starts]].astype(np.int64)
    return np.unique(labels, return_inverse=True)[1]


def invisible_slots(obj: Any) -> list[int]:
    """Return the indices of those material slots of a Blender object that contain an invisible material.

    A material is invisible if its alpha is the constant 0, or if its shader is a Transparent BSDF with constant white.
    """
    return [index for index, slot in enumerate(obj.material_slots) if slot.material and _is_invisible(slot.material)]


def _is_invisible(material: Any) -> bool:
    if not material.node_tree:
        return False
    output = material.node_tree.get_output_node("CYCLES") or material.node_tree.get_output_node("ALL")
    if output is None or not output.inputs["Surface"].links:
        return False
    shader = output.inputs["Surface"].links[0].from_node
    if shader.type == "BSDF_TRANSPARENT":
        return not shader.inputs["Color"].links and tuple(shader.inputs["Color"].default_value)[:3] == (1.0, 1.0, 1.0)
    if shader.type != "BSDF_PRINCIPLED":
        return False
    alpha = shader.inputs["Alpha"]
    return not alpha.links and float(alpha.default_value) <= 0.0
