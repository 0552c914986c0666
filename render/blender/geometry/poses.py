"""Decide whether the first frame of an animation shows the whole object.

At the beginning of an animation, a part of the object may be scaled to zero, or be far away from the others. Such an
object is rendered in its rest pose, without the animation.
"""

from typing import Final

import numpy as np

from render.blender.geometry.coincident import Faces, Floats, area_vectors
from render.blender.geometry.repair import Piece

SPREAD: Final = 20.0  # the longest side is at most this many times as long as the parts of it that faces cover
VANISHED: Final = 0.05  # share of the area at rest in faces without area in the first frame
_SMALLEST: Final = 1e-12
_NO_AREA: Final = 1e-10  # of the squared longest side
_FEW: Final = 1e-3  # share of the faces; the rest pose is not examined if fewer have no area


def is_scattered(boxes: list[Floats]) -> bool:
    """Return whether the object has zero size, or parts that are far away from each other.

    All faces are projected on the longest side of the object's bounding box. Parts are far away from each other if the
    projections cover less than 1 / SPREAD of this side.

    Args:
        boxes: For each instance of a mesh, the minimum and maximum corner [f, 2, 3] of the bounds of its f faces.
    """
    if not boxes:
        return True
    low, high = np.concatenate(boxes).transpose(1, 0, 2)  # [f, 3]; NaN is found by the normalization
    sides = high.max(0) - low.min(0)
    axis = int(np.argmax(sides))
    order = np.argsort(low[:, axis], kind="stable")
    begin, end = low[order, axis], np.maximum.accumulate(high[order, axis])
    gaps = np.maximum(begin[1:] - end[:-1], 0.0).sum()
    return bool(sides[axis] < _SMALLEST or sides[axis] > SPREAD * (sides[axis] - gaps))


def relative_areas(found: list[Piece]) -> Floats:
    """Return the relative areas [f] of all f faces of the mesh objects `found`.

    The areas are divided by the square of the longest side of the bounding box of all these objects.
    """
    if not found:
        return np.empty(0)
    points = np.concatenate([piece.positions[piece.corners] for piece in found])
    size = float(np.ptp(points, axis=0).max()) or 1.0
    areas = [
        np.linalg.norm(
            area_vectors(Faces(p.positions, p.corners, p.starts, p.slots, np.empty((len(p.corners), 0)))), axis=1
        )
        for p in found
    ]
    relative: Floats = np.concatenate(areas) / size**2
    return relative


def may_have_vanished(areas: Floats) -> bool:
    """Return whether the rest pose must be examined, because many faces have zero area in the first frame.

    `areas` are the areas [f] of the f faces in the first frame, as `relative_areas` returns them.
    """
    return bool(len(areas)) and float((areas <= _NO_AREA).mean()) >= _FEW


def vanished_share(areas: Floats, rest_areas: Floats) -> float:
    """Return how much of the rest pose's area (0 to 1) is in faces that have zero area in the first frame.

    Args:
        areas: Areas [f] of the f faces in the first frame, as `relative_areas` returns them.
        rest_areas: Areas [f] of the same faces in the rest pose.
    """
    if len(areas) != len(rest_areas) or not rest_areas.sum() > 0:
        return 0.0
    gone = (areas <= _NO_AREA) & (rest_areas > _NO_AREA)
    return float(rest_areas[gone].sum() / rest_areas.sum())
