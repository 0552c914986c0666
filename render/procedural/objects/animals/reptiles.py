"""Build turtles and frogs."""

from dataclasses import replace

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.features import bead_eye, eye
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points, curve, ellipsoid, lathe, moved, tube

SKIN = 0.6


def turtle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a tortoise on stubby legs or a sea turtle with flippers; its shell has plates with dark joints."""
    sea = rng.uniform() < 0.35
    shell = vary(
        rng,
        pick(rng, ((0.45, 0.33, 0.18), (0.36, 0.40, 0.20), (0.55, 0.42, 0.24), (0.30, 0.34, 0.22), (0.25, 0.50, 0.25))),
        0.03,
    )
    skin = vary(
        rng,
        pick(rng, ((0.42, 0.55, 0.25), (0.50, 0.48, 0.32), (0.35, 0.50, 0.32), (0.62, 0.58, 0.40), (0.40, 0.65, 0.28))),
        0.03,
    )
    if rng.uniform() < 0.1:
        shell, skin = hsv(rng.uniform(), 0.6, 0.6), hsv(rng.uniform(0.2, 0.4), 0.6, 0.75)
    height, length = (rng.uniform(0.20, 0.27) if sea else rng.uniform(0.28, 0.42)), rng.uniform(0.42, 0.52)
    wide = rng.uniform(0.36, 0.44)
    base = 0.14 if sea else rng.uniform(0.13, 0.2)
    angle = np.linspace(0, np.pi / 2, 14)[:-1]
    dome = [(float(np.cos(a)) ** 0.8, float(np.sin(a))) for a in angle]
    back = lathe([(0.85, -0.18), (1.03, -0.12), (1.05, -0.02), *dome, (0.02, 1.0)], 44) * (wide, length, height)
    plates = pt.blend(_plates(rng, shell, wide, length), shade(shell, 1.35), lambda p: pt.edge(p[:, 2] - 0.01, 0.02))
    under = lathe([(0.75, -0.42), (0.92, -0.25), (0.90, -0.08)], 36) * (wide, length, max(height, 0.25))
    parts = [
        part("shell", back, Paint(plates, 0.45)),
        part("belly", under, Paint(mix(skin, (0.92, 0.84, 0.55), 0.7), 0.6)),
    ]
    blotches = pt.blend(pt.solid(skin), mix(skin, shade(skin, 0.6), 0.8), pt.spots(rng, 0.07, 0.018))
    parts += _flippers(rng, blotches, wide, length) if sea else _stubs(rng, blotches, wide, length, base)
    lift = rng.uniform(0.0, 0.16)
    tip = (-length - 0.20, 0.02 + lift)
    neck = limb(
        [(0, -0.8 * length, -0.02, 0.105), (0, -length - 0.06, 0.0 + 0.4 * lift, 0.09), (0, *tip, 0.085)], 14, 20
    )
    parts.append(part("neck", neck, Paint(blotches, SKIN)))
    parts += shift(
        turn(_turtle_head(rng, skin, blotches), "z", rng.uniform(-22, 22)), (0, tip[0] - 0.04, tip[1] + 0.04)
    )
    tail = limb(
        [(0, 0.85 * length, -0.04, 0.06), (0, length + 0.08, -0.07, 0.035), (0, length + 0.17, -0.09, 0.008)], 10, 14
    )
    return shift([*parts, part("tail", tail, Paint(blotches, SKIN))], (0, 0, base))


def _plates(rng: np.random.Generator, shell: Rgb, wide: float, length: float) -> pt.Pattern:
    """Return hexagonal plates on the shell, dark at their joints and lighter in their middle."""
    pitch = rng.uniform(0.24, 0.32)
    dark, light = shade(shell, 0.45), mix(shell, (0.88, 0.75, 0.40), rng.uniform(0.15, 0.5))

    def distance(points: Points) -> pt.Floats:
        """Return a value for each of n points [n]: 0 at the border of its hexagonal plate, 1 at the plate's center."""
        xy = points[:, :2] / pitch
        best = np.full((len(points), 2), np.inf)
        row = np.round(xy[:, 1] / 0.866)
        for step in (-1, 0, 1):
            line = row + step
            column = np.round(xy[:, 0] - 0.5 * (line % 2)) + 0.5 * (line % 2)
            for side in (-1, 0, 1):
                gap = np.hypot(xy[:, 0] - column - side, xy[:, 1] - 0.866 * line)
                best = np.sort(np.concatenate([best, gap[:, None]], axis=1), axis=1)[:, :2]
        return np.asarray(best[:, 1] - best[:, 0])

    pattern = pt.blend(pt.solid(shell), light, lambda p: pt.edge(0.55 - distance(p), 0.3))
    return pt.blend(pattern, dark, lambda p: pt.edge(distance(p) - 0.12, 0.08))


def _stubs(rng: np.random.Generator, paint: pt.Pattern, wide: float, length: float, base: float) -> list[ObjectPart]:
    parts: list[ObjectPart] = []
    for y in (-0.58 * length, 0.60 * length):
        stub = limb(
            [
                (0.62 * wide, y, -0.02, 0.105),
                (0.82 * wide, 1.12 * y, -0.5 * base, 0.092),
                (0.86 * wide, 1.15 * y, -base + 0.05, 0.085),
            ],
            12,
            18,
        )
        foot = moved(lathe([(0.088, 0.0), (0.098, 0.025), (0.08, 0.09)], 20), (0.86 * wide, 1.15 * y - 0.01, -base))
        parts += pair(part("leg", stub, Paint(paint, SKIN))) + pair(part("foot", foot, Paint(paint, SKIN)))
    return parts


def _flippers(rng: np.random.Generator, paint: pt.Pattern, wide: float, length: float) -> list[ObjectPart]:
    reach, sweep = rng.uniform(0.36, 0.48), rng.uniform(-0.05, 0.30)
    front = limb(
        [
            (0.6 * wide, -0.6 * length, -0.03, 0.09),
            (0.6 * wide + 0.55 * reach, -0.85 * length, -0.03, 0.105),
            (0.6 * wide + reach, -0.55 * length + sweep, -0.06, 0.03),
        ],
        18,
        20,
    )
    hind = limb(
        [
            (0.5 * wide, 0.75 * length, -0.03, 0.08),
            (0.8 * wide, length, -0.04, 0.085),
            (0.9 * wide, length + 0.14, -0.06, 0.03),
        ],
        14,
        18,
    )
    flat = (1.0, 1.0, 0.35)
    return pair(part("flipper", front * flat, Paint(paint, SKIN))) + pair(
        part("hind_flipper", hind * flat, Paint(paint, SKIN))
    )


def _turtle_head(rng: np.random.Generator, skin: Rgb, paint: pt.Pattern) -> list[ObjectPart]:
    size = rng.uniform(0.9, 1.25)
    skull = ellipsoid((0, -0.03, 0.0), (0.105 * size, 0.145 * size, 0.10 * size), 26, 16)
    mouth = curve(((0.085 * size, -0.09, -0.03), (0, -0.26 * size, -0.045), (-0.085 * size, -0.09, -0.03)), 12)
    parts = [
        part("head", skull, Paint(paint, SKIN)),
        part("mouth", tube(mouth, 0.007, 8), Paint(shade(skin, 0.4), 0.6)),
    ]
    for side in pair(bead_eye((0.075 * size, -0.11 * size, 0.035), 0.026 * size, (0.9, -0.8, 0.2))):
        parts.append(side)
    return parts


def frog(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a sitting frog with bulging eyes on its head, a wide mouth, folded hind legs and long toes."""
    green = vary(
        rng,
        pick(rng, ((0.30, 0.62, 0.20), (0.42, 0.68, 0.22), (0.22, 0.50, 0.24), (0.48, 0.60, 0.25), (0.35, 0.70, 0.30))),
        0.03,
    )
    if rng.uniform() < 0.2:
        green = pick(rng, ((0.52, 0.42, 0.25), (0.88, 0.30, 0.15), (0.15, 0.40, 0.80), (0.95, 0.75, 0.15)))
    belly = mix(green, (0.95, 0.94, 0.78), rng.uniform(0.65, 0.95))
    dark = shade(green, 0.55)
    girth, head = rng.uniform(0.9, 1.15), rng.uniform(0.92, 1.15)
    skin: pt.Pattern = pt.solid(green)
    match pick(rng, ("plain", "spots", "stripes")):
        case "spots":
            skin = pt.blend(skin, dark, pt.spots(rng, 0.14, 0.034))
        case "stripes":
            skin = pt.blend(skin, dark, lambda p: pt.edge(np.abs(np.abs(p[:, 0]) - 0.11) - 0.025, 0.015))
        case _:
            pass
    coat = pt.blend(skin, belly, pt.beyond((0, -0.8, -1), -0.07, 0.05))
    body = limb([(0, -0.13, 0.36, 0.20), (0, 0.02, 0.27, 0.235), (0, 0.20, 0.17, 0.17), (0, 0.32, 0.10, 0.07)], 22, 30)
    parts = [part("body", body * (girth, 1, 1), Paint(coat, 0.4))]
    parts += shift(turn(_frog_head(rng, skin, belly, head), "z", rng.uniform(-10, 10)), (0, -0.20, 0.46))
    arm = limb([(0.17, -0.16, 0.30, 0.07), (0.25, -0.22, 0.18, 0.055), (0.22, -0.30, 0.045, 0.045)], 14, 18)
    thigh = limb([(0.14, 0.22, 0.14, 0.10), (0.32, 0.10, 0.20, 0.115), (0.38, -0.06, 0.19, 0.085)], 16, 20)
    shin = limb([(0.38, -0.07, 0.20, 0.075), (0.36, 0.12, 0.09, 0.06), (0.33, 0.22, 0.05, 0.05)], 14, 18)
    foot = limb([(0.33, 0.20, 0.04, 0.05), (0.36, 0.0, 0.03, 0.045), (0.38, -0.16, 0.025, 0.04)], 14, 16)
    features = [
        part(name, shape, Paint(skin, 0.4))
        for name, shape in (("arm", arm), ("thigh", thigh), ("shin", shin), ("foot", foot))
    ]
    for root, reach, angles in (((0.22, -0.31, 0.025), 0.13, (-40, -5, 35)), ((0.38, -0.15, 0.02), 0.17, (-30, 2, 34))):
        for angle in angles:
            way = np.deg2rad(angle)
            end = (root[0] + reach * float(np.sin(way)), root[1] - reach * float(np.cos(way)), 0.018)
            toe = limb(
                [(*root, 0.022), ((root[0] + end[0]) / 2, (root[1] + end[1]) / 2, 0.02, 0.016), (*end, 0.026)], 10, 12
            )
            features.append(part("toe", toe, Paint(mix(green, belly, 0.25), 0.4)))
    for feature in features:
        parts += pair(feature)
    squash = np.array([rng.uniform(0.9, 1.12), rng.uniform(0.9, 1.12), rng.uniform(0.88, 1.12)])
    return [replace(item, surface=item.surface * squash) for item in parts]


def _frog_head(rng: np.random.Generator, skin: pt.Pattern, belly: Rgb, size: float) -> list[ObjectPart]:
    """Build a wide flat head about the origin, 0.5 wide."""
    wide, deep, tall = 0.255 * size, 0.22, 0.145
    face = pt.blend(skin, belly, pt.beyond((0, -0.1, -1), 0.025, 0.02))
    parts = [part("head", ellipsoid((0, 0, 0), (wide, deep, tall), 34, 20), Paint(face, 0.4))]
    angle = np.linspace(-1.25, 1.25, 20)
    lips = np.stack(
        [wide * 1.0 * np.sin(angle), -deep * 1.0 * np.cos(angle), -0.03 + 0.03 * np.sin(angle) ** 2], axis=1
    )
    parts.append(part("mouth", tube(lips, 0.011, 8), Paint((0.20, 0.16, 0.12), 0.5)))
    iris = pick(rng, ((0.95, 0.75, 0.15), (0.85, 0.65, 0.20), (0.85, 0.20, 0.12), rgb.BLACK))
    bulge = ellipsoid((0.145 * size, -0.02, 0.115), (0.085, 0.085, 0.085), 22, 14)
    features = [
        part("lid", bulge, Paint(skin, 0.4)),
        eye((0.155 * size, -0.062, 0.135), 0.062, iris, (0.45, -1.0, 0.15), iris_deg=72),
        part("nostril", ellipsoid((0.035, -deep * 0.965, 0.045), (0.010, 0.010, 0.008), 12, 8), (0.12, 0.15, 0.08)),
    ]
    for feature in features:
        parts += pair(feature)
    return parts
