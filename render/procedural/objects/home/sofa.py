"""Build sofas and armchairs."""

import numpy as np

from render.procedural.objects.home.furniture import cloth
from render.procedural.primitives import color as rgb
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, mix, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn

UPHOLSTERY: tuple[Rgb, ...] = (
    (0.55, 0.55, 0.56),
    (0.36, 0.38, 0.42),
    (0.78, 0.70, 0.58),
    (0.45, 0.26, 0.15),
    (0.62, 0.14, 0.14),
    (0.18, 0.30, 0.50),
    (0.22, 0.40, 0.32),
)


def sofa(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a sofa or an armchair with one to three seats, block or rolled arms, and cushions."""
    colors = palette(rng)
    color = usual(rng, UPHOLSTERY, colors.main, 0.75)
    seats = int(rng.choice([1, 2, 2, 3, 3]))
    fabric = (
        cloth(rng, Palette(color, mix(color, rgb.WHITE, 0.35), colors.accent), 0.13)
        if rng.uniform() < 0.3
        else Paint(color, pick(rng, (0.35, 0.9, 0.9)))
    )
    pitch, arm, depth = rng.uniform(0.36, 0.44), rng.uniform(0.10, 0.16), rng.uniform(0.50, 0.60)
    width, seat, back = seats * pitch, rng.uniform(0.28, 0.34), rng.uniform(0.58, 0.72)
    rolled, leg = rng.uniform() < 0.4, rng.uniform(0.05, 0.12)
    parts = [
        part(
            "base",
            shapes.box((0, 0, (leg + seat - 0.08) / 2 + 0.02), (width + arm, depth, seat - leg - 0.06), 0.03),
            fabric,
        ),
        part(
            "back",
            shapes.turned(
                shapes.box((0, depth / 2 - 0.07, (leg + back) / 2), (width + arm * 1.4, 0.16, back - leg), 0.06),
                "x",
                -5,
                (0, depth / 2, leg),
            ),
            fabric,
        ),
    ]
    x = (width + arm) / 2
    high = seat + rng.uniform(0.12, 0.18)
    if rolled:
        roll = shapes.capsule(
            (x + 0.02, -depth / 2 + 0.03, high - 0.03), (x + 0.02, depth / 2 - 0.05, high - 0.03), arm * 0.68, sides=24
        )
        parts += pair(part("arm_roll", roll, fabric))
    parts += pair(
        part(
            "arm",
            shapes.box((x, 0, (leg + high) / 2), (arm, depth, high - leg - (0.04 if rolled else 0)), 0.045),
            fabric,
        )
    )
    for number in range(seats):
        middle = (number - (seats - 1) / 2) * pitch
        cushion = shapes.box((middle, -0.05, seat - 0.01), (pitch * 0.985, depth * 0.84, 0.12), 0.045)
        rest = shapes.turned(
            shapes.box((middle, depth / 2 - 0.19, seat + 0.19), (pitch * 0.97, 0.14, back - seat - 0.02), 0.06),
            "x",
            -12,
            (0, depth / 2 - 0.19, seat),
        )
        parts += [part("seat", cushion, fabric), part("rest", rest, fabric)]
    for side in (-1, 1):
        if rng.uniform() < 0.45:
            pillow = shapes.ellipsoid((0, 0, 0.15), (0.15, 0.055, 0.15), 24, 14)
            pillow = np.sign(pillow - (0, 0, 0.15)) * np.abs((pillow - (0, 0, 0.15)) / 0.15) ** 0.8 * 0.15 + (
                0,
                0,
                0.15,
            )
            throw = cloth(rng, Palette(colors.accent, colors.second, colors.main), 0.08)
            parts += shift(
                turn([part("pillow", pillow * (1, 0.9, 1), throw)], "x", -22),
                (side * (width / 2 - 0.17), depth * 0.02, seat + 0.05),
            )
    feet = Paint(pick(rng, (*rgb.WOODS, rgb.BLACK)), 0.5)
    for y in (-depth / 2 + 0.05, depth / 2 - 0.05):
        parts += pair(part("leg", shapes.capsule((x, y, leg + 0.02), (x, y, 0.02), 0.028, 0.02), feet))
    return parts
