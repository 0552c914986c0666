"""Apply all repairs of faces and normals to the open scene, in order. Runs inside Blender."""

from dataset.format.outcomes import Flag
from render.blender.geometry.repair import (
    CONTRADICTING,
    DOUBLED,
    Piece,
    is_too_large,
    pieces,
    remove_uncounted_faces,
    repair_coincident_faces,
    repair_normals,
)


def repair_all(found: list[Piece]) -> tuple[Flag, ...]:
    """Remove faces that must not be rendered, and repair stored normals and coincident faces. Return quality flags.

    Args:
        found: The mesh objects, as `pieces` returns them. This list is out of date afterwards; call `pieces` again.
    """
    too_large = is_too_large()
    left_out = remove_uncounted_faces(found)
    found = pieces() if left_out else found
    contradicting = repair_normals(found)
    found = pieces() if contradicting else found
    flags: dict[Flag, bool] = {
        "not-repaired": too_large,
        "faces-left-out": left_out,
        "contradicting-normals": contradicting > CONTRADICTING,
        "doubled-faces": repair_coincident_faces(found) > DOUBLED,
    }
    return tuple(flag for flag, holds in flags.items() if holds)
