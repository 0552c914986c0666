"""Build hammers and scissors."""

import numpy as np

from render.procedural.objects.home.furniture import wood
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.wheels import CHROME

IRON = Paint((0.35, 0.36, 0.38), 0.4, 0.6)


def hammer(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an upright claw hammer, sledgehammer or wooden mallet, sometimes tilted to the left or right.

    The head is at the top. It extends along the x axis.
    """
    colors = palette(rng)
    style = pick(rng, ("claw", "claw", "claw", "claw", "sledge", "mallet"))
    high = rng.uniform(0.85, 1.0)
    timber = Paint(pick(rng, rgb.WOODS[:3]), 0.5)
    metal = pick(rng, (CHROME, IRON, Paint(rgb.CHARCOAL, 0.4, 0.4)))
    steel_handle = style == "claw" and rng.uniform() < 0.4
    profile = [
        (0.035, 0.0),
        (0.042, 0.03),
        (0.036, high * 0.2),
        (0.034, high * 0.4),
        (0.026, high * 0.6),
        (0.028, high),
    ]
    handle = shapes.lathe(profile, 20) * (1.15, 1.0, 1.0)
    parts = [part("handle", handle, metal if steel_handle else timber)]
    if steel_handle or rng.uniform() < 0.35:
        grip = shapes.lathe(
            [(0.044, 0.0), (0.052, 0.02), (0.046, high * 0.2), (0.05, high * 0.36), (0.044, high * 0.38)], 24
        )
        color = usual(rng, (rgb.BLACK, (0.75, 0.1, 0.1), (0.12, 0.3, 0.6), rgb.YELLOW), colors.main)
        bands = (
            pt.blend(pt.solid(color), rgb.BLACK, pt.stripes(rng, (0, 0, 1), 0.09, 0.2))
            if rng.uniform() < 0.4
            else color
        )
        parts.append(part("grip", grip * (1.15, 1.0, 1.0), Paint(bands, 0.7)))
    z = high - 0.03
    match style:
        case "claw":
            parts += _claw_head(metal, z, rng.uniform(0.9, 1.15))
        case "sledge":
            head = shapes.turned(shapes.box((0, 0, 0), (0.17, 0.17, rng.uniform(0.36, 0.46)), 0.035), "y", 90)
            parts.append(part("head", shapes.moved(head, (0, 0, z)), IRON))
        case _:
            radius = rng.uniform(0.12, 0.16)
            head = shapes.lathe([(radius * 0.92, -0.22), (radius, -0.2), (radius, 0.2), (radius * 0.92, 0.22)], 32)
            paint = wood(rng, (1, 0, 0)) if rng.uniform() < 0.7 else Paint(pick(rng, (rgb.BLACK, rgb.RED)), 0.6)
            parts.append(part("head", shapes.moved(shapes.turned(head, "y", 90), (0, 0, z)), paint))
    return turn(parts, "y", float(pick(rng, (0.0, 0.0, rng.uniform(-25, 25)))), (0, 0, 0.05))


def _claw_head(metal: Paint, z: float, size: float) -> list[ObjectPart]:
    face = shapes.turned(shapes.lathe([(0.062, 0.20), (0.065, 0.21), (0.065, 0.26), (0.055, 0.27)], 24), "y", -90)
    neck = shapes.turned(shapes.lathe([(0.052, 0.0), (0.036, 0.1), (0.04, 0.16), (0.058, 0.20)], 24), "y", -90)
    eye = shapes.box((0, 0, 0), (0.11, 0.085, 0.11), 0.02)
    shifted = [part(n, s * size, metal) for n, s in (("face", face), ("neck", neck), ("eye", eye))]
    for side in (-1, 1):
        claw = shapes.tube(
            shapes.curve(
                (
                    (0.03, side * 0.015, 0.01),
                    (0.16, side * 0.018, 0.03),
                    (0.22, side * 0.035, -0.02),
                    (0.27, side * 0.042, -0.10),
                ),
                14,
            ),
            np.linspace(0.036, 0.012, 14),
            12,
        )
        shifted.append(part("claw", claw * size * (1, 0.8, 1), metal))
    return shift(shifted, (0, 0, z))


def scissors(rng: np.random.Generator) -> list[ObjectPart]:
    """Build scissors that are open or nearly closed.

    The scissors are upright, with the points at the top. Their flat side faces the front.
    """
    colors = palette(rng)
    color = usual(rng, ((0.92, 0.42, 0.08), rgb.BLACK, (0.80, 0.10, 0.12), (0.14, 0.32, 0.65)), colors.main, 0.75)
    opening, length = rng.uniform(7, 26), rng.uniform(0.48, 0.62)
    metal = Paint(rgb.STEEL, 0.25, 0.7)
    loop_r = rng.uniform(0.095, 0.12)
    parts: list[ObjectPart] = []
    for side in (-1, 1):
        y = side * 0.018
        edge = np.array(
            [
                (-0.052, -0.03),
                (0.03, -0.03),
                (0.036, length * 0.3),
                (0.0, length),
                (-0.022, length),
                (-0.05, length * 0.5),
            ]
        )
        blade = shapes.moved(shapes.facing_front(shapes.prism(edge, 0.03, 0.008)), (0, y, 0))
        loop = shapes.turned(torus(loop_r, 0.034, 32, 12), "x", 90) * (0.85, 0.9, 1.25) + (0.135, y, -0.40)
        shank = shapes.tube(
            shapes.curve(((0, y, 0.0), (0.0, y, -0.12), (0.075, y, -0.2), (0.11, y, -0.28)), 10),
            np.linspace(0.04, 0.034, 10),
            12,
        )
        half = [
            part("blade", blade, metal),
            part("loop", loop, Paint(color, 0.45)),
            part("shank", shank, Paint(color, 0.45)),
        ]
        half = turn(half, "y", opening / 2)
        parts += half if side > 0 else [q for p in half for q in pair(p)[1:]]
    parts.append(
        part(
            "screw",
            shapes.moved(
                shapes.turned(shapes.lathe([(0.028, -0.05), (0.028, 0.05), (0.02, 0.055)], 20), "x", 90), (0, 0, 0)
            ),
            Paint(rgb.GRAY, 0.3, 0.6),
        )
    )
    low = min(float(p.surface[..., 2].min()) for p in parts)
    return shift(parts, (0, 0, -low))
