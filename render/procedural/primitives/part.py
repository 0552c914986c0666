"""Parts of an object: a surface and its paint. An object is a list of parts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from render.procedural.primitives.color import Rgb
from render.procedural.primitives.pattern import Pattern
from render.procedural.primitives.surface import Points, Surface, Vector, mirrored, turned


@dataclass(frozen=True)
class Paint:
    """A plain color, or a pattern (then the part gets a texture), and a finish in glTF's metallic-roughness terms."""

    base: Rgb | Pattern
    roughness: float = 0.6
    metallic: float = 0.0


@dataclass(frozen=True)
class Part:
    """`rest` is the surface on which the pattern is evaluated: where the part was before it was turned or moved."""

    name: str
    surface: Surface
    paint: Paint
    rest: Surface


def part(name: str, surface: Surface, paint: Paint | Rgb | Pattern) -> Part:
    """A part painted where it stands. A bare color or pattern gets the default finish."""
    return Part(name, surface, paint if isinstance(paint, Paint) else Paint(paint), surface)


def pair(original: Part) -> list[Part]:
    """The part and its reflection (left and right), pattern included."""
    reflection = Part(f"{original.name}_right", mirrored(original.surface), original.paint, original.rest[:, ::-1])
    return [replace(original, name=f"{original.name}_left"), reflection]


def turn(parts: Iterable[Part], axis: str, angle_deg: float, about: Vector = (0, 0, 0)) -> list[Part]:
    """Rotate finished parts; their patterns turn with them."""
    return [replace(p, surface=turned(p.surface, axis, angle_deg, about)) for p in parts]


def shift(parts: Iterable[Part], offset: Vector) -> list[Part]:
    """Move finished parts; their patterns move with them."""
    return [replace(p, surface=p.surface + offset) for p in parts]


def ring_of(original: Part, count: int, start_deg: float = 0.0) -> list[Part]:
    """`count` copies around the z axis."""
    return [
        replace(copy, name=f"{original.name}_{number}")
        for number in range(count)
        for copy in turn([original], "z", start_deg + 360 * number / count)
    ]


def bounds(parts: Iterable[Part]) -> tuple[Points, Points]:
    """Lowest and highest corner over all parts."""
    points = np.concatenate([p.surface.reshape(-1, 3) for p in parts])
    return points.min(axis=0), points.max(axis=0)
