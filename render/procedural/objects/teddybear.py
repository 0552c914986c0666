"""Build teddy bears."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, palette, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import curve, ellipsoid, lathe, moved, tube

PLUSH = 0.95
FURS: tuple[Rgb, ...] = (
    (0.68, 0.45, 0.24),
    (0.55, 0.34, 0.18),
    (0.80, 0.60, 0.36),
    (0.42, 0.26, 0.15),
    (0.88, 0.76, 0.56),
    (0.94, 0.91, 0.85),
    (0.62, 0.58, 0.54),
)


def teddybear(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a sitting or standing plush bear with round ears and a light muzzle; some wear a bow, scarf or shirt."""
    colors = palette(rng)
    fur = (
        vary(rng, pick(rng, FURS), 0.03)
        if rng.uniform() < 0.85
        else pick(rng, (hsv(0.93, 0.4, 0.95), hsv(0.58, 0.4, 0.9), colors.main))
    )
    light = mix(fur, rgb.CREAM, rng.uniform(0.45, 0.8))
    if sum(fur) > 2.5:
        light = shade(fur, 0.85)
    plush = pt.blend(pt.solid(fur), shade(fur, 0.90), pt.patches(rng, 0.025, 0.4))
    coat = Paint(plush, PLUSH)
    girth, head = rng.uniform(0.88, 1.12), rng.uniform(0.9, 1.15)
    sitting = rng.uniform() < 0.7
    base = 0.02 if sitting else 0.26
    body = (
        pt.blend(plush, light, pt.inside((0, -0.25, base + 0.25), (0.15, 0.16, 0.17))) if rng.uniform() < 0.5 else plush
    )
    dressed = rng.uniform() < 0.2
    if dressed:
        knit = (
            pt.blend(pt.solid(colors.main), colors.second, pt.stripes(rng, (0, 0, 1), 0.10, 0.45))
            if rng.uniform() < 0.5
            else pt.solid(colors.main)
        )
        body = pt.blend(body, knit, pt.beyond((0, 0, 1), base + 0.14, 0.01))
    trunk = lathe([(0.10, 0.0), (0.21, 0.04), (0.255, 0.18), (0.24, 0.32), (0.18, 0.46), (0.12, 0.54)], 34) * (
        girth,
        0.9 * girth,
        1,
    )
    parts = [part("body", moved(trunk, (0, 0, base)), Paint(body, PLUSH))]
    lift = rng.uniform(-20, 60)
    arm = limb(
        [(0.0, 0, 0, 0.075), (0.12, -0.03, -0.10, 0.085), (0.20, -0.09, -0.20, 0.088), (0.215, -0.11, -0.23, 0.08)],
        16,
        20,
    )
    sleeve = Paint(knit, PLUSH) if dressed else coat
    arms = shift(turn([part("arm", arm, sleeve)], "x", -0.5 * lift), (0.16 * girth, -0.03, base + 0.42))
    if sitting:
        spread = rng.uniform(0.16, 0.26)
        leg = limb(
            [
                (0.13, -0.02, 0.10, 0.105),
                (0.13 + 0.4 * spread, -0.22, 0.095, 0.10),
                (0.13 + 0.75 * spread, -0.40, 0.10, 0.098),
            ],
            16,
            22,
        )
        foot = ellipsoid((0.13 + 0.78 * spread, -0.44, 0.135), (0.108, 0.075, 0.135), 24, 16)
        sole = ellipsoid((0.13 + 0.80 * spread, -0.50, 0.135), (0.075, 0.025, 0.10), 22, 12)
    else:
        leg = limb([(0.11, 0, base + 0.10, 0.115), (0.13, -0.01, 0.18, 0.105), (0.135, -0.01, 0.08, 0.10)], 16, 22)
        foot = ellipsoid((0.138, -0.06, 0.07), (0.108, 0.15, 0.07), 24, 14)
        sole = ellipsoid((0.138, -0.06, 0.012), (0.08, 0.11, 0.015), 20, 10)
    for feature in (*arms, part("leg", leg, coat), part("foot", foot, coat), part("sole", sole, Paint(light, PLUSH))):
        parts += pair(feature)
    top = base + 0.50 + 0.20 * head
    tilt = turn(turn(_bear_head(rng, fur, light, plush, head), "y", rng.uniform(-9, 9)), "z", rng.uniform(-16, 16))
    parts += shift(tilt, (0, -0.04, top))
    return parts + _neckwear(rng, colors.main, colors.accent, base + 0.50, 0.15 * girth)


def _bear_head(rng: np.random.Generator, fur: Rgb, light: Rgb, plush: pt.Pattern, size: float) -> list[ObjectPart]:
    """Build a head about the origin, 0.5 wide."""
    muzzle = ellipsoid((0, -0.185 * size, -0.055), (0.115, 0.095, 0.088), 28, 18)
    parts = [
        part("head", ellipsoid((0, 0, 0), (0.25 * size, 0.22 * size, 0.222 * size), 34, 22), Paint(plush, PLUSH)),
        part("muzzle", muzzle, Paint(light, PLUSH)),
    ]
    dark = pick(rng, ((0.07, 0.06, 0.06), (0.07, 0.06, 0.06), (0.25, 0.14, 0.09)))
    front = -0.185 * size - 0.088
    nose = ellipsoid((0, front, -0.02), (0.046, 0.026, 0.034), 20, 12)
    mouth = curve(((-0.055, front + 0.03, -0.105), (0, front - 0.02, -0.13), (0.055, front + 0.03, -0.105)), 10)
    line = tube(np.array([(0, front + 0.004, -0.04), (0, front + 0.0, -0.08), (0, front + 0.012, -0.113)]), 0.007, 8)
    parts += [
        part("nose", nose, Paint(dark, 0.35)),
        part("mouth", tube(mouth, 0.007, 8), dark),
        part("seam", line, dark),
    ]
    ear = ellipsoid((0, 0, 0), (0.092, 0.05, 0.092), 24, 16)
    inner = ellipsoid((0, -0.028, -0.004), (0.062, 0.034, 0.062), 22, 14)
    ears = shift(
        turn([part("ear", ear, Paint(fur, PLUSH)), part("ear_inside", inner, Paint(light, PLUSH))], "y", 30),
        (0.195 * size, 0.0, 0.175 * size),
    )
    for feature in (*ears, bead_eye((0.092 * size, -0.190 * size, 0.045 * size), 0.030, (0.25, -1.0, 0.1))):
        parts += pair(feature)
    return parts


def _neckwear(rng: np.random.Generator, main: Rgb, accent: Rgb, z: float, radius: float) -> list[ObjectPart]:
    """Build a bow, a scarf or nothing at the neck."""
    color = pick(rng, (rgb.RED, main, accent, hsv(0.6, 0.75, 0.75)))
    match pick(rng, ("bow", "bow", "scarf", "none", "none")):
        case "bow":
            paint = Paint(
                pt.blend(pt.solid(color), rgb.WHITE, pt.spots(rng, 0.06, 0.014)) if rng.uniform() < 0.4 else color, 0.7
            )
            wing = limb([(0.0, 0, 0, 0.025), (0.07, 0, 0.01, 0.055), (0.125, 0, 0.015, 0.065)], 12, 18) * (1, 0.5, 1)
            knot = ellipsoid((0, -0.01, 0), (0.032, 0.03, 0.034), 18, 12)
            return shift([*pair(part("bow", wing, paint)), part("knot", knot, paint)], (0, -radius - 0.08, z - 0.03))
        case "scarf":
            knit = pt.blend(pt.solid(color), accent, pt.stripes(rng, (1, 0, 1), 0.09, 0.4))
            loop = lathe(
                [(radius, z - 0.05), (radius + 0.06, z - 0.03), (radius + 0.06, z + 0.03), (radius, z + 0.05)], 32
            )
            end = limb(
                [
                    (0.09, -radius - 0.03, z, 0.04),
                    (0.11, -radius - 0.10, z - 0.08, 0.045),
                    (0.12, -radius - 0.11, z - 0.20, 0.045),
                ],
                12,
                16,
            )
            return [part("scarf", loop, Paint(knit, 0.9)), part("scarf_end", end, Paint(knit, 0.9))]
        case _:
            return []
