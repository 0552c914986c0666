"""Build dogs."""

import numpy as np

from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import BLACK, RED, YELLOW, Rgb, hsv, pick, shade
from render.procedural.primitives.features import (
    FUR,
    Coat,
    coat,
    eye,
    fur,
    leg,
    natural_brown,
    tail,
)
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import capsule, curve, ellipsoid, lathe, tube

TONGUE: Rgb = (0.90, 0.40, 0.45)


def dog(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a standing dog with a long snout, hanging ears and a raised tail; plain, spotted, patched or two-tone."""
    colors = coat(rng, ("plain", "spotted", "spotted", "patched", "saddle"))
    height, length, girth = rng.uniform(0.34, 0.58), rng.uniform(0.30, 0.44), rng.uniform(0.9, 1.15)
    spine = curve(
        ((0, length, height + 0.02), (0, 0.1, height), (0, -0.1, height - 0.02), (0, -0.3, height + 0.04)), 14
    )
    radii = girth * np.interp(np.linspace(0, 1, 14), [0, 0.35, 0.8, 1], [0.17, 0.165, 0.20, 0.17])
    coat_pattern = fur(rng, colors, (0, 1, 0), 0.5)
    if colors.style == "saddle":
        coat_pattern = pt.blend(coat_pattern, colors.dark, pt.beyond((0, 0.2, 1), height + 0.02, 0.04))
    neck = tube(curve(((0, -0.26, height + 0.05), (0, -0.42, height + 0.34)), 6), np.linspace(0.165, 0.125, 6), 24)
    parts = [
        part("body", tube(spine, radii, 32), Paint(coat_pattern, FUR)),
        part("neck", neck, Paint(coat_pattern, FUR)),
    ]
    paw = pick(rng, (colors.light, colors.body))
    for y in (-0.26, length - 0.03):
        for item in leg((0.105, y, height - 0.02), (0.12, y - 0.02, 0.0), 0.078, pt.solid(colors.body), paw):
            parts += pair(item)
    bend = rng.uniform(0.1, 0.35)
    path = curve(
        (
            (0, length + 0.08, height + 0.08),
            (0, length + 0.28, height + 0.12),
            (0, length + 0.22 + bend, height + 0.48),
        ),
        14,
    )
    parts.append(tail(path, np.linspace(0.055, 0.022, 14), pt.solid(colors.body)))
    parts += shift(turn(_dog_head(rng, colors), "z", rng.uniform(-15, 15)), (0, -0.45, height + 0.40))
    return [*parts, *_dog_collar(rng, (0, -0.37, height + 0.22))]


def _dog_head(rng: np.random.Generator, colors: Coat) -> list[ObjectPart]:
    """Build a head about the origin, 0.44 wide; the snout points to the front."""
    snout = rng.uniform(0.26, 0.38)
    skull = pt.blend(pt.solid(colors.body), colors.light, pt.inside((0, -0.25, 0.0), (0.06, 0.2, 0.4)))
    if colors.style == "spotted":
        skull = fur(rng, colors, (1, 0, 0), 0.4)
    shapes = [
        part("head", ellipsoid((0, 0, 0), (0.21, 0.20, 0.20), 32, 20), Paint(skull, FUR)),
        part("snout", capsule((0, -0.10, -0.06), (0, -snout, -0.07), 0.125, 0.09, 24), Paint(colors.light, FUR)),
        part("nose", ellipsoid((0, -snout - 0.075, -0.02), (0.052, 0.04, 0.042), 18, 12), Paint(BLACK, 0.25)),
    ]
    if rng.uniform() < 0.6:
        tongue = ellipsoid((0.0, -snout - 0.02, -0.165), (0.042, 0.022, 0.075), 16, 10)
        shapes.append(part("tongue", tongue, Paint(TONGUE, 0.4)))
    shapes += pair(eye((0.092, -0.150, 0.062), 0.048, natural_brown(rng), (0.25, -1.0, 0.05), iris_deg=70))
    return shapes + _dog_ears(rng, colors)


def _dog_ears(rng: np.random.Generator, colors: Coat) -> list[ObjectPart]:
    """Build hanging ears or, with a probability of one third, pricked ears."""
    color = pick(rng, (colors.dark, shade(colors.body, 0.75)))
    if rng.uniform() < 0.33:
        cone = lathe([(0.085, 0.0), (0.075, 0.06), (0.045, 0.15), (0.012, 0.22)], 20) * (1.0, 0.5, 1.0)
        return pair(shift(turn([part("ear", cone, Paint(color, FUR))], "y", 18), (0.12, 0.02, 0.13))[0])
    drop = rng.uniform(0.24, 0.36)
    path = curve(((0.15, 0.0, 0.13), (0.28, -0.02, 0.16), (0.25, -0.03, 0.13 - drop)), 12)
    flap = tube(path, np.interp(np.linspace(0, 1, 12), [0, 0.65, 1], [0.05, 0.085, 0.06]), 16)
    return pair(part("ear", (flap - (0.2, 0, 0)) * (0.62, 1.0, 1.0) + (0.2, 0, 0), Paint(color, FUR)))


def _dog_collar(rng: np.random.Generator, center: tuple[float, float, float]) -> list[ObjectPart]:
    band = lathe([(0.145, -0.028), (0.168, -0.02), (0.168, 0.02), (0.145, 0.028)], 32)
    tag = ellipsoid((0, -0.19, -0.045), (0.036, 0.014, 0.036), 16, 10)
    color = pick(rng, (RED, hsv(0.6, 0.75, 0.8), hsv(0.33, 0.6, 0.6), hsv(0.1, 0.8, 0.9)))
    return shift(
        turn([part("collar", band, Paint(color, 0.5)), part("tag", tag, Paint(YELLOW, 0.3, 0.7))], "x", 28), center
    )
