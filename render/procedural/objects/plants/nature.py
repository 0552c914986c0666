"""Build mushrooms and cacti."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, palette, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.surface import SurfaceGrid, curve, ellipsoid, lathe, tube


def mushroom(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a mushroom on a patch of grass, usually with a spotted cap.

    With a probability of 0.4, the mushroom has a face. With a probability of 0.5, a smaller mushroom stands beside it.
    """
    cap_color = pick(rng, (rgb.RED, vary(rng, rgb.RED), palette(rng).main, vary(rng, (0.62, 0.42, 0.26)), rgb.ORANGE))
    spot_color = pick(rng, (rgb.WHITE, rgb.WHITE, rgb.CREAM, rgb.YELLOW))
    plain = rng.uniform() < 0.2
    stem, wide, tall = rng.uniform(0.34, 0.55), rng.uniform(0.32, 0.48), rng.uniform(0.22, 0.40)
    parts = _toadstool(rng, (stem, wide, tall), cap_color, None if plain else spot_color)
    if rng.uniform() < 0.4:
        parts += pair(bead_eye((0.055, -0.125, stem * 0.55), 0.030))
        smile = tube(
            curve(((-0.035, -0.14, stem * 0.42), (0, -0.155, stem * 0.34), (0.035, -0.14, stem * 0.42)), 8), 0.009, 8
        )
        parts.append(part("mouth", smile, (0.25, 0.12, 0.1)))
    if rng.uniform() < 0.5:
        small = _toadstool(rng, (stem * 0.5, wide * 0.48, tall * 0.5), cap_color, None if plain else spot_color)
        parts += shift(turn(small, "y", 8), (pick(rng, (-1, 1)) * wide * 0.85, -0.1, 0.0))
    return [
        *parts,
        part(
            "grass", lathe([(wide * 1.1, 0.0), (wide, 0.03), (wide * 0.3, 0.05)], 32), Paint(vary(rng, rgb.GRASS), 0.9)
        ),
    ]


def _toadstool(
    rng: np.random.Generator, sizes: tuple[float, float, float], cap: Rgb, spot: Rgb | None
) -> list[ObjectPart]:
    stem, wide, tall = sizes
    foot = wide * 0.36
    stalk = lathe([(foot, 0.0), (foot * 1.05, 0.06), (foot * 0.85, stem * 0.5), (foot * 0.8, stem + 0.06)], 28)
    angle = np.linspace(0, np.pi / 2, 12)[:-1]
    dome = [(float(np.cos(a)) * wide, stem + float(np.sin(a)) * tall) for a in angle]
    hood = lathe([(foot * 0.8, stem + 0.02), (wide * 0.96, stem - 0.03), *dome, (0.02, stem + tall)], 40)
    paint = pt.solid(cap)
    if spot is not None:
        paint = pt.blend(paint, spot, pt.spots(rng, wide * rng.uniform(0.5, 0.7), wide * 0.15))
    gills = pt.blend(paint, rgb.CREAM, pt.beyond((0, 0, -1), -(stem - 0.004)))
    return [part("stem", stalk, Paint(vary(rng, rgb.CREAM, 0.04), 0.8)), part("cap", hood, Paint(gills, 0.35))]


def cactus(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a ribbed cactus in a painted pot, with a flower on top.

    The cactus is either a column with two arms or a ball.
    """
    colors = palette(rng)
    green = vary(rng, pick(rng, ((0.30, 0.58, 0.28), (0.20, 0.48, 0.32), (0.48, 0.65, 0.32))))
    ribs = int(rng.integers(7, 12))
    skin = Paint(
        pt.blend(
            pt.solid(green),
            shade(green, 0.62),
            lambda p: pt.edge(np.sin(ribs * np.arctan2(p[:, 1], p[:, 0])) + 0.55, 0.5),
        ),
        0.7,
    )
    pot = lathe([(0.19, 0.0), (0.255, 0.24), (0.29, 0.245), (0.29, 0.31), (0.25, 0.315)], 36)
    base = pt.solid(pick(rng, ((0.75, 0.42, 0.28), colors.main)))
    pot_paint = pick(
        rng,
        (
            base,
            pt.blend(base, colors.second, pt.stripes(rng, (0, 0, 1), 0.13, 0.4)),
            pt.blend(base, colors.second, pt.spots(rng, 0.14, 0.04)),
        ),
    )
    parts = [
        part("pot", pot, Paint(pot_paint, 0.6)),
        part("soil", lathe([(0.25, 0.29), (0.245, 0.325)], 28), Paint(rgb.BROWN, 0.95)),
    ]
    if rng.uniform() < 0.3:
        size = rng.uniform(0.24, 0.3)
        parts.append(
            part(
                "ball",
                _ribbed(ellipsoid((0, 0, 0.3 + size * 0.8), (size, size, size * 0.95), 4 * ribs, 20), ribs),
                skin,
            )
        )
        return parts + shift(_bloom(colors.accent, 0.07), (0, 0, 0.3 + size * 1.72))
    height = rng.uniform(0.55, 0.85)
    parts.append(
        part("column", _ribbed(tube(np.linspace((0, 0, 0.28), (0, 0, 0.3 + height), 10), 0.13, 4 * ribs), ribs), skin)
    )
    plain = Paint(mix(green, shade(green, 0.62), 0.25), 0.7)
    for side in (-1.0, 1.0):
        low, rise = 0.3 + height * rng.uniform(0.3, 0.6), rng.uniform(0.16, 0.3)
        path = curve(
            ((0, 0, low), (side * 0.42, 0, low - 0.02), (side * 0.31, 0, low + 0.04), (side * 0.31, 0, low + rise)), 18
        )
        parts.append(part("arm", tube(path, 0.075, 18), plain))
    return parts + shift(_bloom(colors.accent, 0.075), (0, 0, 0.42 + height))


def _ribbed(surface: SurfaceGrid, ribs: int) -> SurfaceGrid:
    """Push the surface out and in around the z axis, aligned with the skin's pattern."""
    result = surface.copy()
    result[..., :2] *= 1 + 0.06 * np.sin(ribs * np.arctan2(surface[..., 1], surface[..., 0]))[..., None]
    return result


def _bloom(color: Rgb, size: float) -> list[ObjectPart]:
    petal = part(
        "petal",
        ellipsoid((0, -size * 0.8, size * 0.2), (size * 0.55, size * 0.8, size * 0.3), 16, 10),
        Paint(color, 0.6),
    )
    return [
        *ring_of(petal, 5),
        part(
            "heart", ellipsoid((0, 0, size * 0.3), (size * 0.5, size * 0.5, size * 0.4), 16, 10), Paint(rgb.YELLOW, 0.7)
        ),
    ]
