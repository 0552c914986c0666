"""Define the parts of an object, each a surface with its paint. An object is a list of parts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from render.procedural.primitives.color import Rgb
from render.procedural.primitives.pattern import Pattern
from render.procedural.primitives.surface import Points, SurfaceGrid, Vector, mirrored, turned


@dataclass(frozen=True)
class Paint:
    """A plain color or a pattern, with glTF's roughness and metallic factors. A pattern is exported as a texture."""

    base: Rgb | Pattern
    roughness: float = 0.6
    metallic: float = 0.0


@dataclass(frozen=True)
class ObjectPart:
    """A named surface with its paint.

    The pattern of the paint is evaluated at the points `rest`, so that it moves with the surface. In most cases, `rest`
    is the surface before it was moved or rotated.
    """

    name: str
    surface: SurfaceGrid
    paint: Paint
    rest: SurfaceGrid
    flat: bool = False  # flat shading: one normal per triangle


def part(name: str, surface: SurfaceGrid, paint: Paint | Rgb | Pattern) -> ObjectPart:
    """Return a part whose pattern is evaluated at the current position of the surface.

    A `paint` that is only a color or a pattern gets the default roughness and metallic factor of `Paint`.
    """
    return ObjectPart(name, surface, paint if isinstance(paint, Paint) else Paint(paint), surface)


def pair(original: ObjectPart) -> list[ObjectPart]:
    """Return the part and its mirror image at the plane x = 0. The pattern is reflected too."""
    reflection = ObjectPart(
        f"{original.name}_right", mirrored(original.surface), original.paint, original.rest[:, ::-1]
    )
    return [replace(original, name=f"{original.name}_left"), reflection]


def turn(parts: Iterable[ObjectPart], axis: str, angle_deg: float, about: Vector = (0, 0, 0)) -> list[ObjectPart]:
    """Rotate parts and their patterns counter-clockwise.

    The axis of rotation passes through the point `about`. It is parallel to the coordinate axis `axis`: "x", "y" or
    "z".
    """
    return [replace(p, surface=turned(p.surface, axis, angle_deg, about)) for p in parts]


def shift(parts: Iterable[ObjectPart], offset: Vector) -> list[ObjectPart]:
    """Move parts and their patterns by `offset`."""
    return [replace(p, surface=p.surface + offset) for p in parts]


def scale(parts: Iterable[ObjectPart], factors: Vector) -> list[ObjectPart]:
    """Scale parts about the origin by the `factors` along x, y and z. Their patterns are stretched with them."""
    return [replace(p, surface=p.surface * factors) for p in parts]


def ring_of(original: ObjectPart, count: int, start_deg: float = 0.0) -> list[ObjectPart]:
    """Return `count` copies of a part, evenly spaced around the z axis.

    The first copy is the part rotated by `start_deg` degrees about the z axis.
    """
    return [
        replace(copy, name=f"{original.name}_{number}")
        for number in range(count)
        for copy in turn([original], "z", start_deg + 360 * number / count)
    ]


def bounds(parts: Iterable[ObjectPart]) -> tuple[Points, Points]:
    """Return the minimum [3] and maximum [3] corner of the bounding box of all parts."""
    points = np.concatenate([p.surface.reshape(-1, 3) for p in parts])
    return points.min(axis=0), points.max(axis=0)
