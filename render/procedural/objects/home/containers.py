"""Build buckets and baskets."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, turn
from render.procedural.primitives.rings import torus

IRON = Paint((0.35, 0.36, 0.38), 0.4, 0.6)


def bucket(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a pail of metal, plastic or wood with a wire handle; empty, or filled with water or sand."""
    colors = palette(rng)
    style = pick(rng, ("metal", "plastic", "plastic", "wood"))
    top, foot, high = rng.uniform(0.28, 0.33), rng.uniform(0.19, 0.24), rng.uniform(0.45, 0.58)
    color = usual(rng, ((0.80, 0.12, 0.12), (0.15, 0.35, 0.7), (0.95, 0.75, 0.15), (0.2, 0.5, 0.3)), colors.main, 0.6)
    wall = [
        (foot * 0.95, 0.0),
        (foot, 0.015),
        (top, high),
        (top + 0.02, high + 0.005),
        (top + 0.02, high + 0.03),
        (top - 0.015, high + 0.03),
        (foot - 0.01, 0.05),
    ]
    match style:
        case "metal":
            paint = Paint(pick(rng, (rgb.STEEL, rgb.GRAY, color)), 0.35, 0.6)
        case "wood":
            tone = pick(rng, rgb.WOODS)
            staves = pt.blend(
                pt.solid(tone),
                shade(tone, 0.5),
                lambda p: pt.edge(np.abs(np.sin(8 * np.arctan2(p[:, 1], p[:, 0]))) - 0.08, 0.08),
            )
            paint = Paint(staves, 0.7)
        case _:
            paint = Paint(color, 0.4)
    parts = [part("pail", shapes.lathe(wall, 44), paint)]
    if style == "wood" or rng.uniform() < 0.4:
        for share in (0.2, 0.75):
            radius = foot + (top - foot) * share
            parts.append(
                part(
                    "hoop",
                    torus(radius + 0.002, 0.014, 44, 8) * (1, 1, 1.6) + (0, 0, high * share),
                    IRON if style != "plastic" else Paint(shade(color, 0.8), 0.4),
                )
            )
    fill = pick(rng, (None, None, (0.45, 0.65, 0.78), (0.85, 0.72, 0.48)))
    if fill is not None:
        level = top - (top - foot) * 0.12
        parts.append(
            part(
                "content",
                shapes.lathe(
                    [(level - 0.02, high * 0.86), (level - 0.01, high * 0.88), (level * 0.5, high * 0.90)], 36
                ),
                Paint(fill, 0.2),
            )
        )
    up = rng.uniform() < 0.6
    arc = shapes.curve(
        (
            (-top - 0.015, 0, high - 0.02),
            (-top * 1.15, 0, high + top * 1.5),
            (top * 1.15, 0, high + top * 1.5),
            (top + 0.015, 0, high - 0.02),
        ),
        24,
    )
    bail = [part("bail", shapes.tube(arc, 0.014, 10), IRON)]
    middle = arc[len(arc) // 2]
    bail.append(
        part(
            "grip",
            shapes.capsule((-0.08, 0, float(middle[2])), (0.08, 0, float(middle[2])), 0.03),
            Paint(pick(rng, (rgb.BLACK, rgb.WHITE, rgb.WOODS[0])), 0.6),
        )
    )
    parts += turn(bail, "x", 0.0 if up else float(pick(rng, (1, -1)) * rng.uniform(60, 78)), (0, 0, high - 0.02))
    return parts + pair(part("ear", shapes.ellipsoid((top + 0.01, 0, high - 0.03), (0.02, 0.045, 0.045), 16, 10), IRON))


def basket(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a round, oval or square wicker basket with an arched handle; empty or with fruit or eggs."""
    colors = palette(rng)
    straw = usual(rng, ((0.72, 0.50, 0.26), (0.82, 0.64, 0.38), (0.50, 0.32, 0.17)), colors.main, 0.9)
    wide, deep, high = rng.uniform(0.32, 0.42), rng.uniform(0.26, 0.32), rng.uniform(0.22, 0.34)
    square = rng.uniform() < 0.3
    outline = shapes.rounded_rectangle(2.0, 2.0, 0.5, 9) if square else shapes.circle(48)
    outline = outline * (wide, deep)

    def weave(points: pt.Floats) -> pt.Floats:
        around = np.arctan2(points[:, 1] / deep, points[:, 0] / wide) * 16
        row = np.floor(points[:, 2] / 0.035)
        return pt.edge(
            np.sin(around + np.pi * (row % 2)) * 0.5 + 0.9 * np.abs(points[:, 2] / 0.035 % 1.0 - 0.5) - 0.2, 0.5
        )

    wicker = pt.blend(pt.solid(shade(straw, 0.55)), straw, weave)
    if rng.uniform() < 0.3:
        wicker = pt.blend(wicker, colors.main, lambda p: pt.edge(np.abs(p[:, 2] - high * 0.6) - 0.035, 0.01))
    levels = ((0.72, 0.0), (0.78, 0.02), (0.92, high * 0.6), (1.0, high), (0.95, high), (0.86, high * 0.6), (0.7, 0.04))
    parts = [part("basket", shapes.loft([shapes.at_height(outline * s, z) for s, z in levels]), Paint(wicker, 0.9))]
    twist = Paint(pt.blend(pt.solid(straw), shade(straw, 0.55), pt.stripes(rng, (1, 1, 1), 0.05, 0.35)), 0.9)
    loop = np.concatenate([outline, outline[:1]])
    rim = shapes.tube(shapes.at_height(loop * 0.985, high), 0.028, 10, round_ends=False)
    parts.append(part("rim", rim, twist))
    rise = rng.uniform(0.3, 0.42)
    if rng.uniform() < 0.75:
        arc = shapes.curve(
            (
                (-wide * 0.97, 0, high - 0.06),
                (-wide, 0, high + rise * 1.35),
                (wide, 0, high + rise * 1.35),
                (wide * 0.97, 0, high - 0.06),
            ),
            24,
        )
        parts.append(part("handle", shapes.tube(arc, 0.026, 12), twist))
    else:
        for side in (-1, 1):
            arc = shapes.curve(
                (
                    (side * wide * 0.95, -0.12, high),
                    (side * wide * 1.12, -0.1, high + 0.2),
                    (side * wide * 1.12, 0.1, high + 0.2),
                    (side * wide * 0.95, 0.12, high),
                ),
                14,
            )
            parts.append(part("handle", shapes.tube(arc, 0.024, 10), twist))
    if rng.uniform() < 0.5:
        fill = pick(rng, ((0.80, 0.12, 0.10), (0.93, 0.88, 0.78), rgb.ORANGE, (0.45, 0.65, 0.2)))
        for number in range(11):
            ring, angle = (0.0 if number < 1 else (0.3 if number < 5 else 0.58)), number * 2.39996
            spot = (
                ring * wide * float(np.cos(angle)),
                ring * deep * float(np.sin(angle)),
                high * 0.86 + (0.06 if number < 5 else 0.0),
            )
            parts.append(
                part(
                    "fruit", shapes.ellipsoid(spot, (0.085, 0.085, 0.08), 18, 12), Paint(rgb.vary(rng, fill, 0.05), 0.4)
                )
            )
    return parts
