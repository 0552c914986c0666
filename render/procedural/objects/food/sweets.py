"""Build cakes and donuts."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, part, ring_of, shift, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import (
    Points,
    SurfaceGrid,
    at_height,
    capsule,
    circle,
    ellipsoid,
    lathe,
    loft,
    moved,
)

ICINGS: tuple[Rgb, ...] = (
    (0.96, 0.60, 0.70),
    (0.36, 0.20, 0.12),
    (0.97, 0.95, 0.90),
    (0.36, 0.20, 0.12),
    (0.98, 0.88, 0.55),
    (0.62, 0.85, 0.78),
    (0.70, 0.60, 0.88),
)
SPONGES: tuple[Rgb, ...] = ((0.93, 0.78, 0.48), (0.40, 0.23, 0.13), (0.70, 0.15, 0.14), (0.88, 0.70, 0.42))
CHERRY: Rgb = (0.80, 0.08, 0.12)


def cake(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a round cake of one to three tiers with dripping icing, cream, fruit or candles, or one slice of a cake."""
    icing, cream = (
        vary(rng, pick(rng, ICINGS), 0.03),
        vary(rng, pick(rng, (rgb.WHITE, rgb.CREAM, (0.97, 0.72, 0.78))), 0.02),
    )
    sponge = vary(rng, pick(rng, SPONGES), 0.03)
    if rng.uniform() < 0.3:
        return _cake_slice(rng, sponge, icing, cream)
    tiers = int(pick(rng, (1, 1, 1, 2, 3)))
    radius, height, z = rng.uniform(0.38, 0.48), rng.uniform(0.26, 0.36) if tiers == 1 else rng.uniform(0.2, 0.26), 0.0
    parts: list[ObjectPart] = []
    if rng.uniform() < 0.6:
        plate = lathe([(0.7 * radius, -0.03), (1.28 * radius, 0.0), (1.25 * radius, 0.02), (0.9 * radius, 0.012)], 44)
        parts.append(part("plate", plate, Paint(pick(rng, (rgb.WHITE, rgb.STEEL, (0.85, 0.75, 0.55))), 0.25)))
    naked = rng.uniform() < 0.35
    for tier in range(tiers):
        parts += shift(_tier(rng, (radius, height), sponge if naked else cream, cream, naked), (0, 0, z))
        z += height
        parts += shift(_drip(rng, radius, height, icing), (0, 0, z))
        parts += (
            shift(_blobs(rng, radius, cream, icing), (0, 0, z + 0.015))
            if tier == tiers - 1 or rng.uniform() < 0.4
            else []
        )
        radius *= 0.68 if tier < tiers - 1 else 1.0
    if rng.uniform() < 0.65:
        parts += shift(_candles(rng, radius), (0, 0, z + 0.02))
    elif rng.uniform() < 0.7:
        parts += shift(cherry(0.07), (0, 0, z + 0.08))
    return shift(parts, (0, 0, 0.03))


def _tier(rng: np.random.Generator, size: tuple[float, float], side: Rgb, cream: Rgb, naked: bool) -> list[ObjectPart]:
    """Build a tier of `size` (radius, height), whose layers show if it is `naked`."""
    radius, height = size
    body = lathe([(0.97 * radius, 0.0), (radius, 0.02), (radius, height - 0.02), (0.96 * radius, height)], 48)
    paint = pt.solid(side)
    if naked:
        layers = int(rng.integers(2, 4))
        paint = pt.blend(paint, cream, lambda p: pt.edge(0.40 - np.abs((p[:, 2] / height * layers) % 1.0 - 0.5), 0.06))
    elif rng.uniform() < 0.4:
        paint = pt.blend(paint, hsv(rng.uniform(), 0.5, 0.9), pt.spots(rng, 0.11, 0.018))
    return [part("tier", body, Paint(paint, 0.75))]


def _drip(rng: np.random.Generator, radius: float, height: float, icing: Rgb) -> list[ObjectPart]:
    """Build icing on top of a tier (its top at z = 0) that runs down its side in drops."""
    sides, drops = 120, int(rng.integers(9, 16))
    unit, angle = circle(sides), np.arange(sides) * (2 * np.pi / sides)
    lengths = rng.uniform(0.15, 0.62, drops)
    wave = np.clip(np.cos(drops * angle), 0, 1) ** 0.7
    depth = height * (0.10 + wave * lengths[np.round(angle * drops / (2 * np.pi)).astype(np.int64) % drops])
    rings = [np.concatenate([unit * (radius * 0.99), -depth[:, None] - 0.004], axis=1)]
    rings.append(np.concatenate([unit * (radius + 0.022), -depth[:, None] * 0.93 + 0.0], axis=1))
    rings += [
        at_height(unit * (radius + 0.020), -0.01),
        at_height(unit * (radius + 0.008), 0.014),
        at_height(unit * (0.95 * radius), 0.022),
    ]
    return [part("icing", loft(rings), Paint(icing, 0.25))]


def _blobs(rng: np.random.Generator, radius: float, cream: Rgb, icing: Rgb) -> list[ObjectPart]:
    """Build a circle of cream rosettes, strawberries or cherries near the border."""
    count = int(rng.integers(7, 13))
    match pick(rng, ("cream", "cream", "berries", "none")):
        case "cream":
            color = (
                cream if sum(np.abs(np.subtract(cream, icing))) > 0.3 else pick(rng, ((0.96, 0.60, 0.70), rgb.WHITE))
            )
            size = 0.16 * radius
            rose = lathe(
                [
                    (size, 0.0),
                    (1.05 * size, 0.3 * size),
                    (0.75 * size, 0.8 * size),
                    (0.3 * size, 1.2 * size),
                    (0.04 * size, 1.5 * size),
                ],
                24,
            )
            blob = ring_of(part("rosette", moved(rose, (0, -0.78 * radius, 0)), Paint(color, 0.6)), count)
            return blob + (
                ring_of(
                    part(
                        "cherry",
                        ellipsoid((0, -0.78 * radius, 1.5 * size), (0.45 * size, 0.45 * size, 0.45 * size), 14, 10),
                        Paint(CHERRY, 0.2),
                    ),
                    count,
                )
                if rng.uniform() < 0.4
                else []
            )
        case "berries":
            berry = lathe([(0.02, 0.0), (0.065, 0.03), (0.06, 0.07), (0.03, 0.115), (0.005, 0.13)], 18)
            red = pt.blend(pt.solid((0.85, 0.12, 0.13)), rgb.YELLOW, pt.spots(rng, 0.03, 0.004))
            return ring_of(part("berry", moved(berry, (0, -0.76 * radius, 0)), Paint(red, 0.35)), count)
        case _:
            return []


def _candles(rng: np.random.Generator, radius: float) -> list[ObjectPart]:
    count = int(rng.integers(1, 9))
    place = 0.0 if count == 1 else 0.5 * radius
    parts: list[ObjectPart] = []
    for number in range(count):
        color = hsv(rng.uniform(), 0.6, 0.95)
        paint = pt.blend(pt.solid(color), rgb.WHITE, pt.stripes(rng, (1, 0, 1), 0.06, 0.5))
        items = [
            part("candle", capsule((0, 0, 0), (0, 0, 0.2), 0.018), Paint(paint, 0.5)),
            part("wick", capsule((0, 0, 0.2), (0, 0, 0.235), 0.004), rgb.BLACK),
            part(
                "flame",
                lathe([(0.006, 0.215), (0.02, 0.24), (0.014, 0.27), (0.002, 0.305)], 14),
                Paint(pt.blend(pt.solid(rgb.YELLOW), rgb.ORANGE, pt.beyond((0, 0, -1), -0.25, 0.04)), 0.6),
            ),
        ]
        angle = 2 * np.pi * number / count
        parts += shift(items, (place * float(np.cos(angle)), place * float(np.sin(angle)), 0))
    return parts


def cherry(size: float) -> list[ObjectPart]:
    stalk = limb([(0, 0, 0.8 * size, 0.007), (0.03, 0, 1.7 * size, 0.007), (0.09, 0, 2.3 * size, 0.008)], 10, 8)
    return [
        part("cherry", ellipsoid((0, 0, 0), (size, size, 0.95 * size), 24, 16), Paint(CHERRY, 0.15)),
        part("stalk", stalk, Paint((0.35, 0.40, 0.15), 0.7)),
    ]


def _cake_slice(rng: np.random.Generator, sponge: Rgb, icing: Rgb, cream: Rgb) -> list[ObjectPart]:
    """Build a wedge whose cut sides show its layers; the tip points to the front."""
    height, radius, layers = rng.uniform(0.34, 0.46), rng.uniform(0.62, 0.75), int(rng.integers(2, 4))
    angle = np.linspace(-0.42, 0.42, 18)
    outline = np.concatenate([[(0.0, 0.0)], radius * np.stack([np.cos(angle), np.sin(angle)], 1)])
    outline[:, 0] -= 0.62 * radius
    inner = outline * 0.97
    wedge = loft(
        [at_height(inner, 0.0), at_height(outline, 0.015), at_height(outline, height - 0.01), at_height(inner, height)]
    )
    crumbs = pt.blend(pt.solid(sponge), shade(sponge, 0.82), pt.patches(rng, 0.025, 0.35))
    cuts = pt.blend(crumbs, cream, lambda p: pt.edge(0.41 - np.abs((p[:, 2] / height * layers) % 1.0 - 0.5), 0.05))
    paint = pt.blend(cuts, icing, lambda p: pt.edge(0.955 * radius - np.hypot(p[:, 0] + 0.62 * radius, p[:, 1]), 0.02))
    top = loft(
        [
            at_height(outline * 1.02, -0.03),
            at_height(outline * 1.03, 0.0),
            at_height(outline * 1.01, 0.035),
            at_height(outline * 0.94, 0.045),
        ]
    )
    parts = [part("slice", wedge, Paint(paint, 0.8)), part("icing", moved(top, (0, 0, height)), Paint(icing, 0.3))]
    if rng.uniform() < 0.75:
        size = 0.10
        rose = lathe([(size, 0.0), (1.05 * size, 0.3 * size), (0.7 * size, 0.8 * size), (0.3 * size, 1.1 * size)], 22)
        parts += shift([part("rosette", rose, Paint(cream, 0.6))], (0.20 * radius, 0, height + 0.04))
        parts += shift(cherry(0.065), (0.20 * radius, 0, height + 0.19))
    if rng.uniform() < 0.5:
        plate = lathe([(0.30, -0.025), (0.50, 0.005), (0.49, 0.018), (0.35, 0.008)], 44)
        parts.append(part("plate", plate, Paint(rgb.WHITE, 0.2)))
    return shift(turn(parts, "z", 90 + pick(rng, (-1, 1)) * rng.uniform(5, 65)), (0, 0, 0.025))


def donut(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a ring donut that is tilted to the front, between nearly flat and nearly upright.

    Most donuts have wavy icing, often with sprinkles or a drizzle.
    """
    dough = vary(rng, pick(rng, ((0.82, 0.58, 0.30), (0.75, 0.48, 0.22), (0.45, 0.27, 0.15))), 0.03)
    icing = vary(rng, pick(rng, ICINGS), 0.03)
    radius, thick = rng.uniform(0.28, 0.32), rng.uniform(0.135, 0.175)
    body = torus(radius, thick, 56, 22) * (1, 1, 0.82)
    band = pt.blend(
        pt.solid(dough),
        mix(dough, rgb.CREAM, 0.55),
        lambda p: pt.edge(np.abs(p[:, 2]) - 0.03, 0.04) * (np.hypot(p[:, 0], p[:, 1]) > radius),
    )
    parts = [part("donut", body, Paint(band, 0.75))]
    glazed = rng.uniform() < 0.9
    if glazed:
        parts.append(part("icing", _icing(rng, radius, thick), Paint(_drizzle(rng, icing), 0.2)))
        if rng.uniform() < 0.65:
            parts += _sprinkles(rng, radius, thick, icing)
    facing = turn(turn(parts, "z", rng.uniform(0, 360)), "x", pick(rng, (rng.uniform(20, 50), rng.uniform(50, 85))))
    low = min(float(p.surface[..., 2].min()) for p in facing)
    return shift(facing, (0, 0, -low))


def _icing(rng: np.random.Generator, radius: float, thick: float) -> SurfaceGrid:
    """Build a shell over the upper half of a torus with a wavy lower border on both sides."""
    waves, phase = int(rng.integers(6, 10)), rng.uniform(0, 6)
    sides = 72
    sections: list[Points] = []
    for around in -np.arange(sides) * (2 * np.pi / sides):
        outer = np.deg2rad(-2 + 13 * np.sin(waves * around + phase))
        inner = np.pi - np.deg2rad(4 + 8 * np.sin((waves - 1) * around))
        angle = np.linspace(outer, inner, 14)
        top = np.stack([radius + 1.12 * thick * np.cos(angle), 0.82 * 1.13 * thick * np.sin(angle)], 1)
        under = np.stack([radius + 0.9 * thick * np.cos(angle[::-1]), 0.82 * 0.9 * thick * np.sin(angle[::-1])], 1)
        line = np.concatenate([top, under])
        sections.append(np.stack([line[:, 0] * np.cos(around), line[:, 0] * np.sin(around), line[:, 1]], axis=1))
    return loft([*sections, sections[0]])


def _drizzle(rng: np.random.Generator, icing: Rgb) -> pt.Pattern:
    if rng.uniform() < 0.72:
        return pt.solid(icing)
    other = pick(rng, (rgb.WHITE, (0.36, 0.20, 0.12), (0.96, 0.60, 0.70)))
    return pt.blend(pt.solid(icing), other, pt.stripes(rng, (1, 0.6, 0), 0.10, 0.25, 0.1))


def _sprinkles(rng: np.random.Generator, radius: float, thick: float, icing: Rgb) -> list[ObjectPart]:
    one_color = pick(rng, (rgb.WHITE, (0.36, 0.20, 0.12), None, None, None))
    parts: list[ObjectPart] = []
    for number in range(int(rng.integers(26, 46))):
        color = one_color or hsv(rng.uniform(), rng.uniform(0.5, 0.9), 0.95)
        around, over = number * 2.39996, np.deg2rad(rng.uniform(28, 150))
        bar = part("sprinkle", capsule((-0.016, 0, 0), (0.016, 0, 0), 0.0085, sides=8), Paint(color, 0.4))
        out = radius + 1.13 * thick * float(np.cos(over))
        placed = shift(
            turn(turn([bar], "z", rng.uniform(0, 180)), "y", 90 - float(np.rad2deg(over))),
            (out, 0, 0.94 * thick * float(np.sin(over))),
        )
        parts += turn(placed, "z", float(np.rad2deg(around)))
    return parts
