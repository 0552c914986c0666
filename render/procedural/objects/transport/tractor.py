"""Build tractors."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift
from render.procedural.primitives.wheels import CHROME, RUBBER, road_wheel

GLASS = Paint((0.16, 0.22, 0.28), 0.12, 0.1)
LIGHT = Paint((1.0, 0.97, 0.82), 0.1)


def tractor(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a farm tractor: large rear wheels with lugs, small front wheels, a long hood, a seat or a cab."""
    colors = palette(rng)
    options: tuple[Rgb, ...] = ((0.80, 0.10, 0.08), (0.13, 0.42, 0.16), (0.13, 0.30, 0.65), (0.92, 0.45, 0.08))
    color = usual(rng, options, colors.main, 0.85)
    hub = Paint(pick(rng, (rgb.YELLOW, rgb.WHITE, rgb.STEEL, shade(color, 0.9))), 0.4)
    big, small = rng.uniform(0.34, 0.40), rng.uniform(0.19, 0.24)
    paint, width = Paint(color, 0.3, 0.05), rng.uniform(0.26, 0.32)
    top, nose = big * 1.45, -rng.uniform(0.68, 0.78)
    hood = shapes.box((0, (nose + 0.02) / 2, top - 0.12), (width, 0.02 - nose, 0.26), 0.05)
    bars = pt.blend(pt.solid(rgb.CHARCOAL), rgb.STEEL, lambda p: pt.edge(np.sin(p[:, 2] * 160), 0.5))
    parts = [
        part("hood", hood, paint),
        part(
            "engine",
            shapes.box((0, (nose + 0.3) / 2, big * 0.85), (width * 0.7, 0.25 - nose, 0.26), 0.04),
            rgb.CHARCOAL,
        ),
        part("grille", shapes.box((0, nose, top - 0.13), (width * 0.7, 0.03, 0.18), 0.012), Paint(bars, 0.4, 0.3)),
        part("exhaust", shapes.capsule((0.06, nose * 0.55, top), (0.06, nose * 0.55, top + 0.3), 0.026), CHROME),
        part("axle", shapes.capsule((-0.3, nose + 0.2, small), (0.3, nose + 0.2, small), 0.04), rgb.CHARCOAL),
        part("deck", shapes.box((0, 0.26, big * 0.9), (0.42, 0.5, 0.12), 0.03), paint),
    ]
    parts += pair(part("lamp", shapes.ellipsoid((width * 0.42, nose, top - 0.04), (0.04, 0.025, 0.04), 18, 12), LIGHT))
    lug = shapes.box((0, big * 0.99, 0.05), (0.045, 0.05, 0.11), 0.012)
    wheel = [*road_wheel((0, 0, 0), big, 0.2, hub, 0.58)]
    for offset, start in ((0.0, 0.0), (-0.10, 9.0)):
        wheel += [
            part("lug", shapes.turned(shapes.moved(p.surface, (0, 0, offset)), "y", 90), RUBBER)
            for p in ring_of(part("lug", lug, RUBBER), 18, start)
        ]
    for item in [*shift(wheel, (0.36, 0.32, big)), *road_wheel((0.31, nose + 0.2, small), small, 0.13, hub, 0.55)]:
        parts += pair(item)
    angle = np.deg2rad(np.linspace(25, 150, 12))
    arch = np.stack([0 * angle, 0.32 - (big + 0.05) * np.cos(angle), big + (big + 0.05) * np.sin(angle)], axis=1)
    fender = shapes.tube(arch, 0.055, 12)
    parts += pair(part("fender", fender * (1.9, 1, 1) + (0.34, 0, 0), paint))
    return parts + _tractor_seat(rng, paint, top, big)


def _tractor_seat(rng: np.random.Generator, paint: Paint, top: float, big: float) -> list[ObjectPart]:
    wheel = shapes.moved(shapes.turned(shapes.lathe([(0.1, -0.01), (0.1, 0.01)], 24), "x", -35), (0, 0.1, top + 0.1))
    parts = [
        part("seat", shapes.box((0, 0.36, top - 0.07), (0.24, 0.2, 0.07), 0.03), rgb.BLACK),
        part("seat_back", shapes.box((0, 0.46, top + 0.06), (0.24, 0.06, 0.24), 0.03), rgb.BLACK),
        part("steering_wheel", wheel, rgb.BLACK),
        part("column", shapes.capsule((0, 0.0, top - 0.05), (0, 0.1, top + 0.1), 0.018), rgb.CHARCOAL),
    ]
    if rng.uniform() < 0.5:
        roof = top + rng.uniform(0.42, 0.5)
        glass = rng.uniform() < 0.6
        if glass:
            parts.append(
                part(
                    "cab", shapes.box((0, 0.28, (top + roof) / 2 - 0.05), (0.40, 0.46, roof - top + 0.06), 0.03), GLASS
                )
            )
        for y in (0.05, 0.51):
            parts += pair(part("post", shapes.capsule((0.205, y, big), (0.2, y, roof), 0.022), paint))
        parts.append(
            part(
                "roof",
                shapes.box((0, 0.28, roof), (0.5, 0.58, 0.07), 0.03),
                Paint(pick(rng, (rgb.WHITE, rgb.CHARCOAL)), 0.4) if rng.uniform() < 0.5 else paint,
            )
        )
    return parts
