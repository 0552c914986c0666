"""Build crowns."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, hsv, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, part, ring_of, turn
from render.procedural.primitives.rings import torus

GOLD: Rgb = (0.92, 0.70, 0.22)


def crown(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a crown of gold or silver with points and jewels; sometimes with a velvet cap."""
    colors = palette(rng)
    color = usual(rng, (GOLD, GOLD, (0.96, 0.80, 0.30), rgb.STEEL), colors.main, 0.95)
    metal = Paint(color, 0.25, rng.uniform(0.2, 0.6))
    points, radius = int(rng.integers(5, 10)), rng.uniform(0.32, 0.38)
    low, high, flare = rng.uniform(0.14, 0.2), rng.uniform(0.36, 0.5), rng.uniform(1.0, 1.22)
    sides = points * 8
    angle = np.arange(sides) * 2 * np.pi / sides
    wave = np.abs((angle * points / (2 * np.pi)) % 1.0 - 0.5) * 2
    top = low + (high - low) * wave ** rng.uniform(0.8, 1.6)
    circle = shapes.circle(sides)
    rings = []
    for thick, shares in ((0.0, (0.0, 0.25, 0.5, 0.75, 1.0)), (0.03, (1.0, 0.5, 0.05))):
        for share in shares:
            z = share * top
            wide = radius * (1 + (flare - 1) * z / high) - thick
            rings.append(np.concatenate([circle * wide[:, None], z[:, None]], axis=1))
    jewel = (hsv(0.0, 0.85, 0.75), hsv(0.6, 0.8, 0.75), hsv(0.38, 0.8, 0.6), hsv(0.8, 0.6, 0.7))
    first, second = pick(rng, jewel), pick(rng, jewel)
    parts = [part("band", shapes.loft(rings), metal)]
    for z, reach in ((0.025, 1.015), (low * 0.85, 1.03)):
        parts.append(part("edge", shapes.moved(torus(radius * reach, 0.022, 48, 10), (0, 0, z)), metal))
    tip = shapes.ellipsoid((radius * flare - 0.01, 0, high + 0.02), (0.04, 0.04, 0.04), 16, 12)
    parts += ring_of(part("tip", tip, pick(rng, (metal, Paint(rgb.WHITE, 0.2), Paint(first, 0.15)))), points)
    gem = shapes.ellipsoid((radius * 1.02, 0, low * 0.48), (0.022, 0.042, 0.042), 16, 12)
    small = shapes.ellipsoid((radius * 1.03, 0, low * 0.48), (0.02, 0.026, 0.026), 14, 10)
    parts += ring_of(part("gem", gem, Paint(first, 0.1)), points)
    parts += ring_of(part("small_gem", small, Paint(second, 0.1)), points, 180 / points)
    turned = turn(parts, "z", -90.0)
    if rng.uniform() < 0.4:
        velvet = Paint(pick(rng, ((0.60, 0.06, 0.12), (0.25, 0.10, 0.40), (0.1, 0.15, 0.45))), 0.95)
        cap = shapes.lathe(
            [
                (radius * 0.92, low * 0.5),
                (radius * 0.96, low * 1.2),
                (radius * 0.8, high * 0.95),
                (radius * 0.4, high * 1.1),
                (0.02, high * 1.12),
            ],
            36,
        )
        turned.append(part("cap", cap, velvet))
        arch = shapes.curve(((radius, 0, low), (radius * 1.1, 0, high * 1.5), (0, 0, high * 1.25)), 14)
        turned += ring_of(part("arch", shapes.tube(arch, 0.026, 10), metal), 4, 45)
        turned.append(part("orb", shapes.ellipsoid((0, 0, high * 1.27), (0.06,) * 3, 20, 14), metal))
        turned.append(part("cross", shapes.box((0, 0, high * 1.27 + 0.11), (0.03, 0.02, 0.12), 0.006), metal))
        turned.append(part("cross_bar", shapes.box((0, 0, high * 1.27 + 0.12), (0.09, 0.02, 0.03), 0.006), metal))
    return turned
