"""Build mining dump trucks."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift
from render.procedural.primitives.wheels import CHROME, road_wheel

GLASS = Paint((0.16, 0.22, 0.28), 0.12, 0.1)
LIGHT = Paint((1.0, 0.97, 0.82), 0.1)


def dump_truck(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a mining dump truck: huge wheels, a high hood, a cab beside it, and a bed whose roof covers the cab."""
    colors = palette(rng)
    color = usual(rng, ((0.96, 0.74, 0.06), (0.93, 0.60, 0.10), (0.92, 0.92, 0.90)), colors.main, 0.8)
    wheel, width = rng.uniform(0.24, 0.30), rng.uniform(0.72, 0.85)
    deck, nose, back = wheel * 2 + 0.10, -0.82, rng.uniform(0.62, 0.78)
    paint, dark = Paint(color, 0.4), Paint(rgb.CHARCOAL, 0.6)
    bars = pt.blend(pt.solid(rgb.CHARCOAL), shade(color, 0.8), lambda p: pt.edge(np.sin(p[:, 2] * 110), 0.5))
    hood = shapes.box((0, nose + 0.2, deck - 0.16), (width * 0.62, 0.42, 0.40), 0.03)
    fender = shapes.box((width * 0.38, nose + 0.26, deck - 0.02), (width * 0.28, 0.56, 0.06), 0.015)
    parts = [
        part("frame", shapes.box((0, (nose + back) / 2, wheel), (width * 0.5, back - nose - 0.1, 0.16), 0.03), dark),
        part("hood", hood, paint),
        part("deck", shapes.box((0, nose + 0.24, deck + 0.03), (width, 0.52, 0.04), 0.01), paint),
        part("grille", shapes.box((0, nose - 0.01, deck - 0.18), (width * 0.5, 0.04, 0.26), 0.012), Paint(bars, 0.5)),
        part("bumper", shapes.box((0, nose - 0.02, wheel * 0.85), (width * 0.9, 0.10, 0.16), 0.03), paint),
        *pair(part("fender", fender, paint)),
        *_cab(rng, color, (width * pick(rng, (-0.28, 0.28)), nose + 0.22, deck + 0.05)),
        *_bed(rng, color, width, back, deck),
    ]
    lamp = shapes.ellipsoid((width * 0.36, nose - 0.02, deck - 0.20), (0.05, 0.03, 0.04), 18, 10)
    rail = shapes.capsule(
        (width * 0.40, nose - 0.04, wheel * 0.8), (width * 0.40, nose + 0.02, deck + 0.02), 0.012, sides=8
    )
    parts += pair(part("head_lamp", lamp, LIGHT)) + pair(part("rail", rail, CHROME))
    hub = Paint(pick(rng, (color, rgb.STEEL, rgb.CHARCOAL)), 0.45, 0.2)
    for y, thickness in ((nose + 0.30, 0.18), (back - 0.26, 0.26)):
        for item in road_wheel((width / 2 - 0.08, y, wheel), wheel, thickness, hub, 0.5):
            parts += pair(item)
    return parts


def _cab(rng: np.random.Generator, color: rgb.Rgb, base: tuple[float, float, float]) -> list[ObjectPart]:
    """Build a cab with windows on all sides; `base` is the middle of its floor."""
    height = rng.uniform(0.24, 0.30)
    shell = shapes.box((0, 0, height / 2), (0.32, 0.34, height), 0.02)
    front = shapes.box((0, -0.165, height * 0.58), (0.26, 0.03, height * 0.5), 0.008)
    side = shapes.box((0.155, 0, height * 0.58), (0.03, 0.24, height * 0.5), 0.008)
    items = [
        part("cab", shell, Paint(color, 0.4)),
        part("windshield", front, GLASS),
        *pair(part("window", side, GLASS)),
    ]
    return shift(items, base)


def _bed(rng: np.random.Generator, color: rgb.Rgb, width: float, back: float, deck: float) -> list[ObjectPart]:
    """Build the bed, whose floor rises to the back, its ribs, a load of earth or none, and the roof over the cab."""
    low, high = deck - 0.02, deck + rng.uniform(0.34, 0.44)
    side = np.array([(-0.26, low + 0.06), (0.15, low), (back, low + 0.16), (back + 0.12, high - 0.06), (-0.30, high)])
    bed = shapes.facing_side(shapes.prism(side, width * 1.06, 0.02))
    roof = shapes.box((0, -0.56, high - 0.005), (width * 1.02, 0.62, 0.05), 0.012)
    paint = Paint(color, 0.45)
    parts = [part("bed", bed, paint), part("roof", roof, paint)]
    for y in np.linspace(-0.12, back - 0.08, 5):
        rib = shapes.box((width * 0.54, float(y), (low + high) / 2 + 0.05), (0.03, 0.05, (high - low) * 0.75), 0.008)
        parts += pair(part("rib", rib, Paint(shade(color, 0.9), 0.45)))
    if rng.uniform() < 0.6:
        soil_color = pick(rng, (rgb.BROWN, (0.5, 0.48, 0.45), (0.25, 0.24, 0.24)))
        soil = pt.blend(pt.solid(soil_color), shade(soil_color, 0.6), pt.patches(rng, 0.07))
        heap = shapes.ellipsoid((0, (back - 0.2) / 2, high - 0.06), (width * 0.46, (back + 0.2) * 0.45, 0.17), 28, 14)
        parts.append(part("soil", heap, Paint(soil, 0.95)))
    return parts
