"""Decide whether the first frame of an animation shows the whole object; if not, its rest pose is rendered.

An animation may begin with a part that is scaled to zero, or placed far away until it is needed.
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
    """Return whether an object has zero size or a part that is far away from the others.

    The object is scattered if its faces, projected on its longest side, cover less than 1 / SPREAD of this side.

    Args:
        boxes: For each instance, the minimum and maximum corner [f, 2, 3] of each of its faces.
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
    """Return the areas [f] of all faces of the mesh objects `found`, divided by the square of their longest side."""
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
    """Return whether so many faces have no area in the first frame that the rest pose must be examined.

    `areas` are the areas [f] of the faces in the first frame.
    """
    return bool(len(areas)) and float((areas <= _NO_AREA).mean()) >= _FEW


def vanished_share(areas: Floats, rest_areas: Floats) -> float:
    """Return the share (0 to 1) of the area at rest that belongs to faces without area in the first frame.

    `areas` and `rest_areas` are the areas [f] of the faces in the first frame and at rest.
    """
    if len(areas) != len(rest_areas) or not rest_areas.sum() > 0:
        return 0.0
    gone = (areas <= _NO_AREA) & (rest_areas > _NO_AREA)
    return float(rest_areas[gone].sum() / rest_areas.sum())
