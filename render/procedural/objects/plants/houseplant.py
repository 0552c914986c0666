"""Build potted plants with leaves."""

import numpy as np

from render.procedural.objects.food.fruit import leaf
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, palette, pick, shade, vary
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn
from render.procedural.primitives.surface import box, capsule, curve, ellipsoid, lathe, tube

GREENS: tuple[Rgb, ...] = (
    (0.22, 0.50, 0.20),
    (0.30, 0.58, 0.24),
    (0.16, 0.42, 0.22),
    (0.45, 0.62, 0.28),
    (0.25, 0.48, 0.32),
)
TERRACOTTA: Rgb = (0.76, 0.42, 0.27)


def plant(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a plant in a pot: arching blades, a snake plant, broad leaves on stalks, or a small bush."""
    green = vary(rng, pick(rng, GREENS), 0.03)
    top, wide = rng.uniform(0.28, 0.40), rng.uniform(0.20, 0.26)
    foliage = pick(rng, (_blades, _blades, _snake, _broad, _broad, _bush))(rng, green, wide)
    return [*_pot(rng, top, wide), *shift(foliage, (0, 0, top - 0.03))]


def _pot(rng: np.random.Generator, height: float, wide: float) -> list[ObjectPart]:
    """Build a tapered, round or square pot with soil; terracotta, white, or colored with stripes or dots."""
    colors = palette(rng)
    base = pick(rng, (TERRACOTTA, TERRACOTTA, rgb.WHITE, rgb.CHARCOAL, colors.main))
    paint = pt.solid(base)
    match pick(rng, ("plain", "plain", "band", "stripes", "dots")):
        case "band":
            paint = pt.blend(
                paint, colors.second, lambda p: pt.edge(np.abs(p[:, 2] - 0.5 * height) - 0.2 * height, 0.01)
            )
        case "stripes":
            paint = pt.blend(paint, colors.accent, pt.stripes(rng, (0, 0, 1), 0.3 * height, 0.35))
        case "dots":
            paint = pt.blend(paint, colors.second, pt.spots(rng, 0.11, 0.025))
        case _:
            pass
    soil = part(
        "soil",
        lathe([(0.90 * wide, height - 0.06), (0.88 * wide, height - 0.015)], 28),
        Paint((0.24, 0.16, 0.11), 0.95),
    )
    match pick(rng, ("classic", "classic", "round", "square")):
        case "classic":
            shape = lathe(
                [
                    (0.66 * wide, 0.0),
                    (0.92 * wide, 0.74 * height),
                    (1.06 * wide, 0.75 * height),
                    (1.08 * wide, height),
                    (0.94 * wide, height),
                    (0.9 * wide, 0.9 * height),
                ],
                40,
            )
        case "round":
            shape = lathe(
                [
                    (0.6 * wide, 0.0),
                    (0.95 * wide, 0.2 * height),
                    (1.12 * wide, 0.55 * height),
                    (1.0 * wide, 0.9 * height),
                    (1.02 * wide, height),
                    (0.92 * wide, height),
                    (0.9 * wide, 0.9 * height),
                ],
                40,
            )
        case _:
            shape = box((0, 0, 0.5 * height), (1.75 * wide, 1.75 * wide, height), 0.03, 1.12)
            soil = part(
                "soil",
                box((0, 0, height - 0.02), (1.6 * wide, 1.6 * wide, 0.05), 0.01),
                Paint((0.24, 0.16, 0.11), 0.95),
            )
    return [part("pot", shape, Paint(paint, rng.uniform(0.2, 0.8))), soil]


def _blades(rng: np.random.Generator, green: Rgb, wide: float) -> list[ObjectPart]:
    """Build long narrow leaves that arch outward; some with a light border."""
    edge_color = mix(green, rgb.CREAM, 0.7) if rng.uniform() < 0.4 else shade(green, 0.75)
    parts: list[ObjectPart] = []
    count = int(rng.integers(14, 24))
    for number in range(count):
        reach = wide * rng.uniform(1.2, 2.4) * (0.4 + 0.6 * number / count)
        rise = rng.uniform(0.35, 0.75) * (1.2 - 0.6 * number / count)
        path = curve(((0.02, 0, 0), (0.2 * reach, 0, 1.3 * rise), (reach, 0, rise * rng.uniform(0.3, 0.9))), 16)
        half = np.interp(np.linspace(0, 1, 16), [0, 0.35, 0.8, 1], [0.02, 0.045, 0.028, 0.004])
        blade = tube(path, half, 12, round_ends=False)
        center = np.concatenate([path[:1], path, path[-1:]])[:, None]
        blade = center + (blade - center) * (0.3, 1.0, 0.3) + (0, 0, 0.012)
        middle = pt.blend(
            pt.solid(edge_color), vary(rng, green, 0.03), lambda p: pt.edge(np.abs(p[:, 1]) - 0.026, 0.01)
        )
        parts += turn([part("blade", blade, Paint(middle, 0.5))], "z", 137.5 * number + rng.uniform(-15, 15))
    return parts


def _snake(rng: np.random.Generator, green: Rgb, wide: float) -> list[ObjectPart]:
    """Build stiff upright leaves with light borders and dark cross bands."""
    parts: list[ObjectPart] = []
    rim = (0.85, 0.80, 0.40) if rng.uniform() < 0.6 else shade(green, 1.2)
    for number in range(int(rng.integers(6, 11))):
        tall, half = rng.uniform(0.45, 0.85), rng.uniform(0.055, 0.08)
        stations = [
            (0, 0, 0.0, 0.6 * half),
            (0, 0, 0.45 * tall, half),
            (0.02, 0, 0.8 * tall, 0.8 * half),
            (0.03, 0, tall, 0.15 * half),
        ]
        blade = limb([(x, y, z, r) for x, y, z, r in stations], 18, 16) * (1, 0.25, 1)
        paint = pt.blend(pt.solid(green), shade(green, 0.55), pt.stripes(rng, (0.1, 0, 1), 0.09, 0.4, 0.25))
        paint = pt.blend(pt.solid(rim), paint, pt.inside((0.01, 0, 0), (0.74 * half, 9.0, 9.0)))
        radius = 0.5 * wide * float(np.sqrt(number / 9))
        stand = shift(turn([part("blade", blade, Paint(paint, 0.5))], "y", rng.uniform(2, 14)), (radius, 0, 0))
        parts += turn(turn(stand, "z", rng.uniform(-60, 60), (radius, 0, 0)), "z", 137.5 * number)
    return parts


def _broad(rng: np.random.Generator, green: Rgb, wide: float) -> list[ObjectPart]:
    """Build broad leaves at the ends of thin stalks."""
    parts: list[ObjectPart] = []
    count, size = int(rng.integers(9, 16)), rng.uniform(0.24, 0.34)
    for number in range(count):
        share = (number + 0.5) / count
        reach, rise = wide * (0.3 + 1.1 * share), rng.uniform(0.5, 0.8) * (1.15 - 0.75 * share)
        path = curve(((0, 0, 0), (0.2 * reach, 0, 0.8 * rise), (reach, 0, rise)), 10)
        color = vary(rng, green, 0.03)
        blade = leaf(size * rng.uniform(0.85, 1.15), 0.42 * size, color, 0.5)
        items = [part("stalk", tube(path, 0.011, 8), Paint(shade(color, 0.8), 0.6))]
        items += shift(turn([blade], "y", rng.uniform(5, 40) - 25 * (1 - share)), (0.96 * reach, 0, rise))
        parts += turn(items, "z", 137.5 * number)
    return parts


def _bush(rng: np.random.Generator, green: Rgb, wide: float) -> list[ObjectPart]:
    """Build a round bush of small leaves on a short trunk, some with flowers or fruit."""
    radius, trunk = rng.uniform(0.26, 0.34), rng.uniform(0.05, 0.35)
    center = trunk + 0.8 * radius
    mottled = pt.blend(pt.solid(green), shade(green, 0.65), pt.patches(rng, 0.06, 0.45))
    parts = [
        part("trunk", capsule((0, 0, -0.05), (0, 0, center), 0.035), Paint((0.42, 0.29, 0.19), 0.9)),
        part(
            "crown",
            ellipsoid((0, 0, center), (0.85 * radius, 0.85 * radius, 0.8 * radius), 30, 20),
            Paint(mottled, 0.9),
        ),
    ]
    bloom = pick(rng, (None, rgb.RED, rgb.PINK, rgb.ORANGE, rgb.WHITE, rgb.YELLOW))
    small = leaf(0.15, 0.05, green, 0.4)
    for number in range(40):
        up = 1 - 2 * (number + 0.5) / 40
        tilt = float(np.rad2deg(np.arcsin(up)))
        items = shift(turn([small], "y", rng.uniform(-20, 20)), (0.75 * radius, 0, 0))
        if bloom is not None and number % 3 == 0:
            items.append(part("bloom", ellipsoid((0.92 * radius, 0, 0), (0.05, 0.05, 0.05), 14, 10), Paint(bloom, 0.6)))
        parts += shift(turn(turn(items, "y", -tilt), "z", 137.5 * number), (0, 0, center))
    return parts
