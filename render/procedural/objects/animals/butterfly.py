"""Build butterflies."""

from collections.abc import Sequence

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.limbs import limb, through
from render.procedural.primitives.part import ObjectPart, Paint, bounds, pair, part, shift, turn
from render.procedural.primitives.surface import Points, capsule, curve, ellipsoid, moved, prism, tube

FOREWING = [
    (0.02, 0.16),
    (0.12, 0.34),
    (0.34, 0.55),
    (0.58, 0.62),
    (0.64, 0.50),
    (0.56, 0.24),
    (0.46, 0.08),
    (0.22, 0.0),
    (0.02, 0.0),
]
HINDWING = [
    (0.02, 0.06),
    (0.20, 0.08),
    (0.42, 0.04),
    (0.50, -0.12),
    (0.44, -0.32),
    (0.28, -0.44),
    (0.14, -0.36),
    (0.04, -0.12),
]
TAILED = [
    (0.02, 0.06),
    (0.22, 0.08),
    (0.42, 0.0),
    (0.46, -0.16),
    (0.36, -0.34),
    (0.31, -0.58),
    (0.25, -0.42),
    (0.12, -0.30),
    (0.04, -0.12),
]
VEIN_STEP = 0.42  # radians between veins
COLORS: dict[str, tuple[Rgb, Rgb, Rgb]] = {  # main color, border, spots
    "monarch": ((0.93, 0.50, 0.10), (0.07, 0.06, 0.06), (0.96, 0.95, 0.92)),
    "morpho": ((0.12, 0.45, 0.88), (0.06, 0.07, 0.12), (0.85, 0.92, 0.97)),
    "swallowtail": ((0.96, 0.84, 0.28), (0.07, 0.06, 0.06), (0.22, 0.40, 0.78)),
    "admiral": ((0.20, 0.13, 0.11), (0.08, 0.07, 0.07), (0.92, 0.32, 0.14)),
    "white": ((0.95, 0.94, 0.88), (0.35, 0.34, 0.34), (0.25, 0.24, 0.24)),
    "brimstone": ((0.92, 0.90, 0.35), (0.80, 0.78, 0.30), (0.93, 0.55, 0.15)),
    "peacock": ((0.72, 0.22, 0.13), (0.30, 0.20, 0.16), (0.25, 0.40, 0.80)),
}


def butterfly(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a butterfly with spread wings, which face the front or are level.

    Its colors are random or those of a species.
    """
    name = pick(rng, tuple(COLORS))
    main, border, spot = COLORS[name]
    if rng.uniform() < 0.25:
        main, border, spot = (
            hsv(rng.uniform(), 0.75, 0.9),
            pick(rng, ((0.07, 0.06, 0.07), hsv(rng.uniform(), 0.7, 0.45))),
            hsv(rng.uniform(), 0.6, 0.95),
        )
    main = vary(rng, main, 0.04)
    size = np.array([rng.uniform(0.9, 1.15), rng.uniform(0.85, 1.15)])
    tailed = name == "swallowtail" or rng.uniform() < 0.15
    veined = name in ("monarch", "swallowtail") or rng.uniform() < 0.3
    eyed = name == "peacock" or rng.uniform() < 0.2
    wings: list[ObjectPart] = []
    for label, outline, z in (("hindwing", TAILED if tailed else HINDWING, -0.012), ("forewing", FOREWING, 0.012)):
        points = _smooth(outline, 40) * size
        paint = _wing_paint(rng, points, (main, border, spot), veined, eyed)
        wings.append(part(label, moved(prism(points, 0.02, 0.008), (0.015, 0, z)), Paint(paint, 0.7)))
    level = rng.uniform() < 0.35
    fold = rng.uniform(20, 50) if level else rng.uniform(-4, 35)
    parts: list[ObjectPart] = []
    for wing in turn(wings, "y", -fold):
        parts += pair(wing)
    parts += _insect_body(rng, mix(border, (0.16, 0.12, 0.10), 0.6))
    pitch = rng.uniform(8, 30) if level else rng.uniform(48, 95)
    parts = turn(turn(parts, "z", 180 if level else 0), "x", pitch)  # level: the head points to the front
    return shift(parts, (0, 0, -float(bounds(parts)[0][2])))


def _smooth(outline: Sequence[tuple[float, float]], count: int) -> Points:
    """Return a closed smooth curve [count, 2] through an outline given clockwise, in counter-clockwise order."""
    points = np.asarray(outline)[::-1]
    cycle = np.concatenate([points[-2:], points, points[:3]])
    dense = through(cycle, (len(cycle) - 1) * 12 + 1)
    loop = dense[24 : 24 + 12 * len(points)]
    keep = np.linspace(0, len(loop), count, endpoint=False).astype(np.int64)
    return np.asarray(loop[keep])


def _wing_paint(
    rng: np.random.Generator, outline: Points, colors: tuple[Rgb, Rgb, Rgb], veined: bool, eyed: bool
) -> pt.Pattern:
    """Return the paint of one wing: a dark border with light spots, veins from the root, and an eye spot."""
    main, border, spot = colors
    width = rng.uniform(0.045, 0.09)

    def rim(points: Points) -> pt.Floats:
        gap = np.linalg.norm(points[:, None, :2] - outline[None], axis=2).min(axis=1)
        away = np.linalg.norm(points[:, :2], axis=1) > 0.2
        return np.asarray(pt.edge(gap - width, 0.03) * away)

    def veins(points: Points) -> pt.Floats:
        radius, angle = np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0]) / VEIN_STEP
        across = radius * np.abs(angle - np.round(angle)) * VEIN_STEP
        return np.asarray(pt.edge(across - 0.007, 0.006) * (radius > 0.12))

    glow = pt.blend(pt.solid(main), mix(main, rgb.WHITE, 0.25), pt.inside((0.28, 0.15, 0), (0.24, 0.26, 1.0), 0.8))
    paint = pt.blend(glow, border, veins) if veined else glow
    paint = pt.blend(paint, border, rim)
    dots = pt.spots(rng, 0.07, 0.022)
    paint = pt.blend(paint, spot, lambda p: dots(p) * rim(p))
    if eyed:
        x, y = (float(v) for v in outline.mean(axis=0) * 1.25)
        for radius, color in ((0.085, border), (0.065, mix(spot, rgb.YELLOW, 0.5)), (0.042, spot), (0.02, rgb.BLACK)):
            paint = pt.blend(paint, color, pt.inside((x, y, 0), (radius, radius, 1.0)))
    return paint


def _insect_body(rng: np.random.Generator, color: Rgb) -> list[ObjectPart]:
    """Build a body along +y (the head at +y 0.25) with antennae."""
    fuzzy = Paint(pt.blend(pt.solid(color), shade(color, 1.5), pt.stripes(rng, (0, 1, 0), 0.07, 0.3)), 0.85)
    trunk = limb(
        [(0, -0.34, 0, 0.018), (0, -0.15, 0, 0.036), (0, 0.05, 0, 0.045), (0, 0.15, 0, 0.055), (0, 0.22, 0, 0.04)],
        24,
        18,
    )
    parts = [
        part("body", trunk, fuzzy),
        part("head", ellipsoid((0, 0.27, 0.005), (0.045, 0.045, 0.042), 18, 12), fuzzy),
    ]
    spread = rng.uniform(0.10, 0.2)
    path = curve(((0.015, 0.30, 0.02), (0.05, 0.42, 0.04), (spread, 0.54, 0.03)), 12)
    for feature in (
        part("antenna", tube(path, 0.0075, 8), Paint(color, 0.6)),
        part("knob", capsule((spread, 0.535, 0.03), (spread + 0.02, 0.56, 0.03), 0.014), Paint(color, 0.6)),
        bead_eye((0.036, 0.285, 0.015), 0.018, (1.0, 0.4, 0.4)),
    ):
        parts += pair(feature)
    return parts
