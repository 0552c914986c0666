"""Build the wheels of vehicles: solid ones with a hub, and wheels with spokes."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.part import ObjectPart, Paint, part
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import Vector

RUBBER = Paint((0.07, 0.07, 0.08), 0.85)
CHROME = Paint(rgb.STEEL, 0.25, 0.7)


def road_wheel(center: Vector, radius: float, width: float, hub: Paint, share: float = 0.6) -> list[ObjectPart]:
    """Build a tire and a hub on its left side (+x). Use `pair` to add the right side.

    Args:
        center: Center of the tire.
        radius: Outer radius of the tire.
        width: Width of the tire.
        hub: Paint of the hub.
        share: Radius of the hub as a fraction of `radius`.
    """
    half = width / 2
    bead, round_off = radius * 0.86, radius * 0.95
    tire = shapes.lathe(
        [
            (bead, -half),
            (round_off, -half * 0.9),
            (radius, -half * 0.5),
            (radius, half * 0.5),
            (round_off, half * 0.9),
            (bead, half),
            (radius * share, half * 0.9),
        ],
        32,
    )
    disc = shapes.lathe(
        [
            (radius * share, 0.0),
            (radius * share * 0.95, half * 1.05),
            (radius * share * 0.75, half * 0.9),
            (radius * share * 0.35, half * 0.95),
            (radius * share * 0.3, half * 1.25),
            (radius * 0.08, half * 1.3),
        ],
        28,
    )
    return [
        part(name, shapes.moved(shapes.turned(surface, "y", 90), center), paint)
        for name, surface, paint in (("tire", tire, RUBBER), ("hub", disc, hub))
    ]


def spoked_wheel(
    center: Vector,
    radius: float,
    tire: float,
    spokes: int,
    rim: Paint,
    *,
    rubber: Paint = RUBBER,
    spoke: float = 0.006,
    hub: float = 0.03,
) -> list[ObjectPart]:
    """Build a wheel in the yz plane: a tire, a rim, a hub and thin spokes.

    Args:
        center: Center of the wheel.
        radius: Outer radius of the tire.
        tire: Radius of the tire's cross-section.
        spokes: Number of spokes.
        rim: Paint of the rim.
        rubber: Paint of the tire.
        spoke: Radius of a spoke.
        hub: Half the length of the hub.
    """
    inner = radius - 2 * tire
    parts = [
        part("tire", torus(radius - tire, tire, 44, 12), rubber),
        part("rim", torus(inner, tire * 0.7, 44, 10), rim),
        part("hub", shapes.capsule((0, 0, -hub), (0, 0, hub), hub * 0.9), CHROME),
    ]
    for number in range(spokes):
        angle = 2 * np.pi * number / spokes
        end = (inner * float(np.cos(angle)), inner * float(np.sin(angle)), 0.0)
        foot = hub * 0.6 * (1 if number % 2 else -1)
        parts.append(part("spoke", shapes.capsule((0, 0, foot), end, spoke, sides=6), rim if spoke > 0.01 else CHROME))
    return [part(p.name, shapes.moved(shapes.turned(p.surface, "y", 90), center), p.paint) for p in parts]
