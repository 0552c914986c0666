"""Build lanterns."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.wheels import CHROME

FLAME = Paint((1.0, 0.78, 0.25), 0.3)


def lantern(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a hurricane lantern, a square candle lantern, or a round paper lantern."""
    colors = palette(rng)
    match pick(rng, ("hurricane", "hurricane", "square", "paper")):
        case "hurricane":
            return _hurricane_lantern(rng, colors)
        case "square":
            return _square_lantern(rng, colors)
        case _:
            return _paper_lantern(rng, colors)


def _hurricane_lantern(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    metal = Paint(
        usual(
            rng,
            (
                (0.75, 0.12, 0.10),
                (0.15, 0.15, 0.16),
                (0.16, 0.32, 0.5),
                (0.80, 0.62, 0.26),
                (0.25, 0.4, 0.28),
                rgb.STEEL,
            ),
            colors.main,
        ),
        0.35,
        0.3,
    )
    glass = Paint(
        pt.blend(pt.solid((0.80, 0.85, 0.84)), (1.0, 0.85, 0.45), pt.inside((0, 0, 0.38), (0.13, 0.13, 0.14), 0.7)), 0.1
    )
    base = shapes.lathe([(0.2, 0.0), (0.23, 0.02), (0.23, 0.11), (0.2, 0.15), (0.11, 0.18), (0.11, 0.22)], 36)
    globe = shapes.lathe([(0.10, 0.22), (0.14, 0.30), (0.155, 0.38), (0.14, 0.47), (0.10, 0.56)], 32)
    cap = shapes.lathe(
        [
            (0.12, 0.55),
            (0.17, 0.57),
            (0.15, 0.61),
            (0.09, 0.64),
            (0.08, 0.70),
            (0.11, 0.71),
            (0.07, 0.76),
            (0.02, 0.77),
        ],
        32,
    )
    wick = shapes.ellipsoid((0, -0.13, 0.36), (0.035, 0.03, 0.07), 16, 12)
    parts = [
        part("base", base, metal),
        part("globe", globe, glass),
        part("flame", wick, FLAME),
        part("cap", cap, metal),
    ]
    side = shapes.tube(
        shapes.curve(((0.2, 0, 0.08), (0.32, 0, 0.14), (0.28, 0, 0.5), (0.25, 0, 0.72), (0.08, 0, 0.67)), 18), 0.028, 12
    )
    parts += pair(part("side_tube", side, metal))
    for z in (0.30, 0.46):
        parts.append(part("guard", shapes.moved(torus(0.165, 0.008, 36, 8), (0, 0, z)), metal))
    return parts + _bail(rng, 0.23, 0.58, rng.uniform(0.25, 0.36), CHROME)


def _bail(rng: np.random.Generator, half: float, z: float, rise: float, paint: Paint) -> list[ObjectPart]:
    """Build a wire handle over the top, upright or fallen to one side."""
    arc = shapes.curve(
        ((-half, 0, z), (-half * 1.2, 0, z + rise * 1.35), (half * 1.2, 0, z + rise * 1.35), (half, 0, z)), 20
    )
    return turn(
        [part("bail", shapes.tube(arc, 0.013, 8), paint)],
        "x",
        float(pick(rng, (0, 0, rng.uniform(-50, 50)))),
        (0, 0, z),
    )


def _square_lantern(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    metal = Paint(usual(rng, (rgb.BLACK, rgb.BLACK, rgb.WHITE, (0.45, 0.30, 0.18)), colors.main), 0.5, 0.2)
    width, high = rng.uniform(0.32, 0.42), rng.uniform(0.42, 0.6)
    glow = Paint(
        pt.blend(
            pt.solid((0.80, 0.83, 0.78)),
            (1.0, 0.86, 0.5),
            pt.inside((0, 0, high * 0.45), (width * 0.6, width * 0.6, high * 0.4), 0.7),
        ),
        0.12,
    )
    sides = int(pick(rng, (4, 4, 6)))
    turned = np.pi / sides
    outline = (
        np.stack(
            [
                np.cos(np.arange(sides) * 2 * np.pi / sides + turned),
                np.sin(np.arange(sides) * 2 * np.pi / sides + turned),
            ],
            axis=1,
        )
        * width
        / 2
        / np.cos(turned)
    )
    roof = shapes.loft(
        [
            shapes.at_height(outline * s, z)
            for s, z in ((1.15, high), (1.12, high + 0.03), (0.45, high + 0.2), (0.3, high + 0.22), (0.3, high + 0.27))
        ]
    )
    parts = [
        part(
            "base",
            shapes.loft([shapes.at_height(outline * s, z) for s, z in ((1.12, 0.0), (1.12, 0.05), (1.0, 0.07))]),
            metal,
        ),
        part("glass", shapes.loft([shapes.at_height(outline * 0.92, z) for z in (0.06, high)]), glow),
        part("roof", roof, metal),
        part("ring", shapes.moved(shapes.turned(torus(0.075, 0.014, 28, 8), "x", 90), (0, 0, high + 0.335)), metal),
    ]
    for x, y in outline:
        parts.append(
            part(
                "post",
                shapes.capsule(
                    (float(x) * 0.95, float(y) * 0.95, 0.05), (float(x) * 0.95, float(y) * 0.95, high), 0.018
                ),
                metal,
            )
        )
    candle = shapes.capsule((0, -width * 0.46, 0.1), (0, -width * 0.46, high * 0.4), 0.04)
    flame = shapes.ellipsoid((0, -width * 0.47, high * 0.4 + 0.09), (0.022, 0.018, 0.045), 14, 10)
    front = [part("candle", candle, rgb.CREAM), part("flame", flame, FLAME)]
    for mid in (0.5,) if rng.uniform() < 0.5 else ():
        bars = shapes.capsule((0, -width * 0.47, 0.05), (0, -width * 0.47, high), 0.008)
        parts += [q for q in ring_of(part("bar", bars, metal), sides) if mid]
    return parts + front


def _paper_lantern(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    color = usual(
        rng, ((0.85, 0.12, 0.10), (0.85, 0.12, 0.10), (0.95, 0.90, 0.78), (0.95, 0.6, 0.15)), colors.main, 0.8
    )
    radius, high = rng.uniform(0.3, 0.36), rng.uniform(0.22, 0.36)
    count = int(rng.integers(9, 14))
    profile = []
    for t in np.linspace(-0.85, 0.85, count * 4):
        bulge = np.sqrt(1 - t * t * 0.95) * (1 + 0.018 * np.cos(2 * np.pi * t * count / 1.7))
        profile.append((float(radius * bulge), float(high * t)))
    gold = Paint((0.88, 0.68, 0.25), 0.35, 0.4)
    shade_line = pt.blend(
        pt.solid(color),
        shade(color, 0.75),
        lambda p: pt.edge(np.sin(p[:, 2] / high / 1.7 * count * 2 * np.pi + 1.5), 0.8),
    )
    parts = [part("paper", shapes.lathe(profile, 40), Paint(shade_line, 0.7))]
    low, top = profile[0], profile[-1]
    for (r, z), way in ((low, -1), (top, 1)):
        ends = sorted([(r * 0.95, z - 0.01 * way), (r * 0.95, z + 0.05 * way)], key=lambda q: q[1])
        parts.append(part("cap", shapes.lathe(ends, 32), gold))
    parts.append(
        part(
            "tassel",
            shapes.lathe([(0.05, low[1] - 0.42), (0.035, low[1] - 0.2), (0.012, low[1] - 0.16), (0.012, low[1])], 20),
            Paint(pick(rng, ((0.85, 0.12, 0.10), (0.9, 0.7, 0.25))), 0.8),
        )
    )
    parts.append(
        part("loop", shapes.moved(shapes.turned(torus(0.06, 0.010, 24, 8), "x", 90), (0, 0, top[1] + 0.1)), gold)
    )
    return shift(parts, (0, 0, 0.42 - low[1]))
