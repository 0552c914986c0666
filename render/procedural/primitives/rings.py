"""Construct surfaces with a hole by sweeping an outline once around the z axis."""

import numpy as np

from render.procedural.primitives.surface import Points, SurfaceGrid, circle, loft


def ring(outline: Points, sides: int = 40) -> SurfaceGrid:
    """Sweep a counter-clockwise outline [n, 2] of (radius, height) once around the z axis, in `sides` steps.

    All radii must be positive.
    """
    radius, height = outline.T
    sections = [
        np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        for angle in -np.arange(sides) * (2 * np.pi / sides)
    ]
    return loft([*sections, sections[0]])


def torus(radius: float, thickness: float, sides: int = 40, section: int = 12) -> SurfaceGrid:
    """Return a torus around the z axis.

    Args:
        radius: Radius of the torus's center line.
        thickness: Radius of its circular cross-section.
        sides: Number of faces around the z axis.
        section: Number of faces around the cross-section.
    """
    return ring(circle(section) * thickness + (radius, 0.0), sides)
