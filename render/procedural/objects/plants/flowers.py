"""Build flowers."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Palette, Rgb, hsv, mix, palette, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, part, ring_of, shift, turn
from render.procedural.primitives.surface import curve, ellipsoid, lathe, tube


def flower(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a flower in a pot or on grass, a cut flower with its stem, or a blossom alone. It faces the front."""
    form = rng.uniform()
    bloom = _bloom_color(rng)
    if form < 0.4:
        return _potted(rng, bloom)
    blossom = pick(rng, (_open_blossom, _open_blossom, _trumpet, _cup))(rng, bloom)
    if form < 0.65:
        return _on_stem(rng, blossom)
    return turn(blossom, "x", rng.uniform(55, 90))


def _bloom_color(rng: np.random.Generator) -> Rgb:
    if rng.uniform() < 0.15:
        return rgb.WHITE
    return hsv(rng.uniform(0.70, 1.17), rng.uniform(0.5, 0.95), rng.uniform(0.7, 0.98))


def _petals(paint: Paint, count: int, size: tuple[float, float], inner: float, tilt_deg: float) -> list[ObjectPart]:
    """Return `count` petals about the z axis.

    Args:
        paint: Their paint.
        count: Their number.
        size: Their length and width.
        inner: Distance of their inner ends from the axis.
        tilt_deg: Angle by which their tips are raised.
    """
    length, width = size
    blade = ellipsoid((0, -length / 2, 0), (width / 2, length / 2, 0.02), 24, 14)
    bent = blade + np.stack([0 * blade[..., 0], 0 * blade[..., 0], 0.5 * blade[..., 0] ** 2 / width], axis=-1)
    raised = shift(turn([part("petal", bent, paint)], "x", -tilt_deg), (0, -inner, 0))
    return ring_of(raised[0], count)


def _open_blossom(rng: np.random.Generator, bloom: Rgb) -> list[ObjectPart]:
    """Build a wide blossom that faces up: one to three rings of petals, and a heart or long stamens."""
    count, rings = int(rng.integers(5, 9)), int(rng.integers(1, 4))
    dark = mix(bloom, pick(rng, (rgb.WHITE, rgb.YELLOW, shade(bloom, 0.5))), 0.6)
    parts: list[ObjectPart] = []
    for number in range(rings):
        length = 0.42 - 0.10 * number
        width = rng.uniform(1.0, 1.5) * 2 * np.pi * 0.6 * length / count
        tip = pt.blend(pt.solid(bloom), dark, pt.inside((0, 0, 0), (0.9 * length, 0.45 * length, 1.0), 0.2))
        petals = _petals(Paint(tip, 0.6), count, (length, min(width, 0.36)), 0.03, rng.uniform(5, 22) + 18 * number)
        parts += shift(turn(petals, "z", 180 / count * number), (0, 0, 0.015 * number))
    heart_color = pick(rng, (rgb.YELLOW, rgb.BROWN, rgb.ORANGE, shade(bloom, 0.35), rgb.LEAF))
    if rng.uniform() < 0.4:
        stalk = tube(curve(((0, 0, 0.0), (0.02, 0, 0.16), (0.03, 0.02, 0.30)), 8), 0.018, 10)
        dust = ellipsoid((0.03, 0.02, 0.30), (0.04, 0.04, 0.05), 16, 10)
        return [*parts, part("stalk", stalk, Paint(heart_color, 0.6)), part("dust", dust, Paint(rgb.YELLOW, 0.8))]
    radius = rng.uniform(0.07, 0.13)
    seeds = pt.blend(pt.solid(heart_color), shade(heart_color, 0.6), pt.spots(rng, 0.05, 0.012))
    return [*parts, part("heart", ellipsoid((0, 0, 0.05), (radius, radius, 0.06), 28, 14), Paint(seeds, 0.8))]


def _trumpet(rng: np.random.Generator, bloom: Rgb) -> list[ObjectPart]:
    """Build a daffodil that faces up: six pointed petals and a trumpet, both mostly yellow, orange or white."""
    outer = pick(rng, (rgb.WHITE, rgb.YELLOW, (0.98, 0.90, 0.45), bloom))
    inner = pick(rng, (rgb.YELLOW, rgb.ORANGE, outer))
    width, deep = rng.uniform(0.10, 0.16), rng.uniform(0.14, 0.26)
    profile = [(0.05, 0.0), (0.6 * width, 0.4 * deep), (width, deep), (width + 0.03, deep + 0.02)]
    inside = [(width - 0.01, deep - 0.02), (0.5 * width, 0.4 * deep), (0.02, 0.03)]
    petals = _petals(Paint(outer, 0.6), 6, (rng.uniform(0.30, 0.38), 0.24), 0.03, rng.uniform(0, 15))
    return [*petals, part("trumpet", lathe([*profile, *inside], 32), Paint(inner, 0.6))]


def _cup(rng: np.random.Generator, bloom: Rgb) -> list[ObjectPart]:
    """Build a tulip or a rose that faces up: rings of steep petals."""
    count, rings = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    parts: list[ObjectPart] = []
    for number in range(rings):
        color = shade(bloom, 1 - 0.10 * number)
        size = (0.36, 0.30 - 0.03 * number)
        petals = _petals(Paint(color, 0.6), count, size, 0.10 - 0.02 * number, rng.uniform(48, 66) + 5 * number)
        parts += turn(petals, "z", 180 / count * number)
    return [*parts, part("base", ellipsoid((0, 0, 0.04), (0.10, 0.10, 0.07), 20, 12), Paint(bloom, 0.6))]


def _on_stem(rng: np.random.Generator, blossom: list[ObjectPart]) -> list[ObjectPart]:
    """Put a blossom that faces up on a stem with one or two long leaves, without a pot."""
    height, green = rng.uniform(0.7, 1.1), vary(rng, rgb.LEAF)
    bend = rng.uniform(-0.12, 0.12)
    stem = tube(curve(((0, 0.04, 0.0), (bend, 0.04, 0.5 * height), (0, 0.02, height)), 14), 0.024, 12)
    parts = [part("stem", stem, Paint(green, 0.6))]
    for number in range(int(rng.integers(1, 4))):
        blade = ellipsoid((0.22, 0, 0), (0.23, 0.05, 0.014), 22, 10)
        leaf = part("leaf", blade, Paint(shade(green, rng.uniform(0.7, 1.0)), 0.6))
        turned = turn(turn([leaf], "y", -rng.uniform(40, 72)), "z", 130 * number + rng.uniform(0, 60))
        parts += shift(turned, (0, 0.04, rng.uniform(0.02, 0.4) * height))
    return parts + shift(turn(blossom, "x", rng.uniform(10, 75)), (0, 0, height))


def _potted(rng: np.random.Generator, bloom: Rgb) -> list[ObjectPart]:
    colors = palette(rng)
    height, petals = rng.uniform(0.55, 0.85), int(rng.integers(5, 13))
    length = rng.uniform(0.2, 0.3)
    wide = min(0.12, 1.25 * np.pi * 0.6 * length / petals)
    petal = ellipsoid((0, -0.10 - length * 0.5, 0), (wide, length * 0.62, 0.035), 20, 12)
    tipped = pt.blend(
        pt.solid(bloom),
        mix(bloom, colors.second, 0.5),
        lambda p: pt.edge(0.5 * length - np.hypot(p[:, 0], p[:, 1]) + 0.1, 0.08),
    )
    heart_color = pick(rng, (rgb.YELLOW, rgb.BROWN, rgb.ORANGE))
    seeds = pt.blend(pt.solid(heart_color), shade(heart_color, 0.6), pt.spots(rng, 0.05, 0.012))
    heart = ellipsoid((0, 0, 0.02), (0.14, 0.14, 0.065), 28, 14)
    head = [*ring_of(part("petal", petal, Paint(tipped, 0.6)), petals), part("heart", heart, Paint(seeds, 0.8))]
    facing = shift(turn(head, "x", rng.uniform(62, 82)), (0, -0.05, height + 0.22))
    green = vary(rng, rgb.LEAF)
    stem = tube(
        curve(((0, 0, 0.1), (rng.uniform(-0.1, 0.1), 0, height * 0.5), (0, -0.02, height + 0.2)), 12), 0.026, 12
    )
    leaf = part(
        "leaf",
        ellipsoid((0.16, 0, 0), (0.17, 0.065, 0.02), 20, 10),
        Paint(pt.blend(pt.solid(green), shade(green, 0.7), lambda p: pt.edge(np.abs(p[:, 1]) - 0.012, 0.012)), 0.6),
    )
    parts = [*facing, part("stem", stem, Paint(green, 0.6))]
    for angle, z in ((25, 0.28), (200, 0.38), (-30, 0.46)):
        parts += shift(turn(turn([leaf], "y", -30), "z", angle), (0, 0, 0.1 + z * height))
    return parts + _stand(rng, colors)


def _stand(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    if rng.uniform() < 0.5:
        return [part("grass", lathe([(0.26, 0.06), (0.23, 0.10), (0.1, 0.13)], 32), Paint(vary(rng, rgb.GRASS), 0.9))]
    pot = lathe([(0.14, -0.12), (0.19, 0.08), (0.22, 0.085), (0.22, 0.14), (0.19, 0.145)], 32)
    paint = pt.blend(pt.solid(colors.accent), colors.second, pt.stripes(rng, (0, 0, 1), 0.11, 0.4))
    return [
        part("pot", pot, Paint(paint, 0.5)),
        part("soil", lathe([(0.19, 0.12), (0.185, 0.155)], 28), Paint(rgb.BROWN, 0.95)),
    ]
