"""Build dinosaurs: tyrannosaurs, long-necked sauropods, stegosaurs and triceratopses."""

from collections.abc import Sequence

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.features import eye
from render.procedural.primitives.limbs import limb, path_through
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import (
    Vector,
    capsule,
    ellipsoid,
    facing_side,
    lathe,
    moved,
    prism,
    tube,
    turned,
)

HIDES: tuple[Rgb, ...] = (
    (0.36, 0.55, 0.25),
    (0.45, 0.62, 0.30),
    (0.52, 0.42, 0.28),
    (0.45, 0.36, 0.25),
    (0.55, 0.52, 0.40),
    (0.80, 0.50, 0.22),
    (0.35, 0.50, 0.58),
    (0.25, 0.45, 0.35),
)
Station = tuple[float, float, float, float]


def dinosaur(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a dinosaur of one of four families, mostly green or brown, with a light belly, some with a pattern."""
    base = vary(rng, pick(rng, HIDES), 0.04) if rng.uniform() < 0.8 else hsv(rng.uniform(), 0.6, 0.75)
    skin = pt.solid(base)
    match pick(rng, ("plain", "stripes", "spots", "patches")):
        case "stripes":
            bands = pt.stripes(rng, (0, 1, 0), rng.uniform(0.13, 0.22), 0.4, 0.15)
            skin = pt.blend(skin, shade(base, 0.55), lambda p: bands(p) * pt.edge(0.42 - p[:, 2], 0.2))
        case "spots":
            skin = pt.blend(skin, shade(base, 0.6), pt.spots(rng, 0.13, 0.03))
        case "patches":
            skin = pt.blend(skin, shade(base, 0.72), pt.patches(rng, 0.14, 0.4))
        case _:
            pass
    light = mix(base, (0.93, 0.88, 0.70), rng.uniform(0.5, 0.85))
    build = pick(rng, (_tyrannosaur, _tyrannosaur, _sauropod, _stegosaur, _triceratops))
    return build(rng, base, skin, light)


def _belly(skin: pt.Pattern, light: Rgb, level: float) -> Paint:
    """Return the hide with a light belly below z = `level`."""
    return Paint(pt.blend(skin, light, pt.beyond((0, -0.25, -1), -level, 0.06)), 0.65)


def _leg(top: Station, knee: Station, foot: Vector, radius: float, paint: Paint) -> list[ObjectPart]:
    """Build the left leg with a round foot and three toes on the ground."""
    x, y, _ = foot
    shape = limb([top, knee, (x, y, 0.09, radius), (x, y, 0.05, radius * 1.05)], 18, 18)
    sole = ellipsoid((x, y - 0.2 * radius, 0.035), (1.15 * radius, 1.3 * radius, 0.05), 20, 10)
    claws = [
        part(
            "claw",
            ellipsoid((x + dx * radius, y - 1.35 * radius, 0.025), (0.3 * radius, 0.4 * radius, 0.026), 12, 8),
            Paint((0.88, 0.83, 0.70), 0.5),
        )
        for dx in (-0.65, 0.0, 0.65)
    ]
    return [part("leg", shape, paint), part("foot", sole, paint), *claws]


def _eyes(center: Vector, radius: float, rng: np.random.Generator) -> list[ObjectPart]:
    iris = pick(rng, ((0.95, 0.75, 0.15), (0.85, 0.45, 0.10), rgb.BLACK, (0.70, 0.80, 0.25)))
    return pair(eye(center, radius, iris, (0.85, -0.8, 0.05), iris_deg=66))


def _tyrannosaur(rng: np.random.Generator, base: Rgb, skin: pt.Pattern, light: Rgb) -> list[ObjectPart]:
    """Build a biped with a large head, small arms and a heavy tail, upright or leaning forward."""
    lean = rng.uniform(0, 18)
    body = _belly(skin, light, 0.42)
    spine = [
        (0, -0.30, 0.95, 0.13),
        (0, -0.22, 0.82, 0.155),
        (0, -0.05, 0.62, 0.21),
        (0, 0.12, 0.50, 0.20),
        (0, 0.38, 0.38, 0.12),
        (0, 0.70, 0.30, 0.07),
        (0, 1.0, 0.34, 0.02),
    ]
    parts = [part("body", limb(spine, 34, 28), body)]
    thigh = limb([(0.14, 0.08, 0.52, 0.15), (0.19, -0.02, 0.34, 0.115), (0.19, 0.10, 0.18, 0.06)], 16, 20)
    features = [part("thigh", thigh, Paint(skin, 0.65))]
    features += _leg((0.19, 0.10, 0.20, 0.062), (0.19, 0.09, 0.13, 0.055), (0.19, 0.02, 0.0), 0.075, Paint(skin, 0.65))
    arm = limb([(0.13, -0.24, 0.72, 0.05), (0.17, -0.32, 0.62, 0.038), (0.14, -0.40, 0.64, 0.026)], 12, 14)
    features.append(part("arm", arm, Paint(skin, 0.65)))
    for dx in (-0.02, 0.02):
        features.append(
            part(
                "finger",
                capsule((0.14 + dx, -0.40, 0.64), (0.14 + 1.6 * dx, -0.46, 0.61), 0.014, 0.006),
                Paint(light, 0.5),
            )
        )
    for feature in features:
        parts += pair(feature)
    parts += _back_spikes(rng, spine, base, rng.uniform() < 0.5)
    head = shift(turn(_jaws(rng, skin, light), "z", rng.uniform(-16, 16)), (0, -0.36, 1.06))
    upper = turn(
        [p for p in parts if p.name in ("body",) or p.name.startswith(("arm", "finger", "spike"))] + head,
        "x",
        lean,
        (0, 0.1, 0.5),
    )
    rest = [p for p in parts if not (p.name == "body" or p.name.startswith(("arm", "finger", "spike")))]
    return upper + rest


def _jaws(rng: np.random.Generator, skin: pt.Pattern, light: Rgb) -> list[ObjectPart]:
    """Build a head about the origin with open jaws and teeth."""
    gape = rng.uniform(4, 24)
    upper = limb(
        [(0, 0.10, 0.0, 0.135), (0, -0.05, 0.03, 0.150), (0, -0.22, 0.01, 0.115), (0, -0.38, -0.015, 0.085)], 20, 24
    ) * (0.9, 1, 0.85)
    lower = limb([(0, 0.06, -0.09, 0.09), (0, -0.12, -0.105, 0.085), (0, -0.33, -0.11, 0.06)], 14, 22) * (0.95, 1, 0.8)
    parts = [part("head", upper, Paint(skin, 0.65))]
    jaw = [part("jaw", lower, Paint(light, 0.65))]
    fang = lathe([(0.016, 0.0), (0.003, 0.05)], 10)
    for y in np.linspace(-0.40, -0.12, 6):
        x = 0.075 * float(np.sqrt(max(0.05, 1 - ((y + 0.12) / 0.36) ** 2)))
        parts += pair(part("tooth", moved(turned(fang, "x", 180), (x, float(y), -0.075)), Paint(rgb.WHITE, 0.3)))
        jaw += pair(part("tooth", moved(fang, (x, float(y), -0.035)), Paint(rgb.WHITE, 0.3)))
    parts += turn(jaw, "x", gape, (0, 0.05, -0.05))
    parts += _eyes((0.105, -0.08, 0.075), 0.042, rng)
    nostril = ellipsoid((0.035, -0.455, 0.02), (0.012, 0.012, 0.012), 12, 8)
    return parts + pair(part("nostril", nostril, (0.1, 0.08, 0.07)))


def _back_spikes(rng: np.random.Generator, spine: Sequence[Station], base: Rgb, present: bool) -> list[ObjectPart]:
    """Build a row of small cones along the back."""
    if not present:
        return []
    color = pick(rng, (shade(base, 0.5), hsv(rng.uniform(), 0.7, 0.8)))
    tops = path_through([(x, y + 0.55 * r, z + 0.80 * r) for x, y, z, r in spine], 14)[1:-1]
    cone = lathe([(0.035, -0.02), (0.025, 0.03), (0.004, 0.075)], 12)
    return [p for y, z in tops[:, 1:] for p in shift([part("spike", cone, Paint(color, 0.6))], (0, float(y), float(z)))]


def _sauropod(rng: np.random.Generator, base: Rgb, skin: pt.Pattern, light: Rgb) -> list[ObjectPart]:
    """Build a four-legged body with a long raised neck, a small head and a long tail."""
    rise, reach = rng.uniform(0.45, 0.85), rng.uniform(0.42, 0.62)
    top = (-reach - 0.32, 0.62 + rise)
    spine = [
        (0, top[0], top[1], 0.062),
        (0, -reach - 0.20, 0.62 + 0.72 * rise, 0.075),
        (0, -reach, 0.62 + 0.3 * rise, 0.105),
        (0, -0.30, 0.56, 0.18),
        (0, 0.0, 0.50, 0.265),
        (0, 0.28, 0.47, 0.21),
        (0, 0.60, 0.36, 0.10),
        (0, 0.95, 0.24, 0.055),
        (0, 1.25, 0.20 + rng.uniform(0, 0.2), 0.015),
    ]
    parts = [part("body", limb(spine, 46, 28), _belly(skin, light, 0.38))]
    for y in (-0.20, 0.24):
        for item in _leg((0.13, y, 0.48, 0.125), (0.155, y, 0.25, 0.092), (0.16, y, 0.0), 0.088, Paint(skin, 0.65)):
            parts += pair(item)
    head = limb(
        [(0, 0.05, 0.0, 0.07), (0, -0.05, 0.01, 0.092), (0, -0.17, -0.03, 0.070), (0, -0.22, -0.04, 0.06)], 16, 22
    )
    shapes = [part("head", head, Paint(skin, 0.65)), *_eyes((0.066, -0.07, 0.045), 0.030, rng)]
    smile = path_through(
        [(0.065, -0.14, -0.06), (0.045, -0.26, -0.065), (-0.045, -0.26, -0.065), (-0.065, -0.14, -0.06)], 14
    )
    shapes.append(part("mouth", tube(smile, 0.007, 8), Paint(shade(base, 0.35), 0.6)))
    shapes += pair(part("nostril", ellipsoid((0.025, -0.27, 0.005), (0.010, 0.010, 0.010), 10, 8), (0.1, 0.08, 0.07)))
    parts += shift(turn(shapes, "z", rng.uniform(-25, 25)), (0, top[0], top[1] + 0.02))
    return parts + _back_spikes(rng, spine[3:], base, rng.uniform() < 0.25)


def _stegosaur(rng: np.random.Generator, base: Rgb, skin: pt.Pattern, light: Rgb) -> list[ObjectPart]:
    """Build a high-arched body with two rows of plates and a spiked tail."""
    spine = [
        (0, -0.78, 0.26, 0.05),
        (0, -0.66, 0.30, 0.075),
        (0, -0.50, 0.36, 0.09),
        (0, -0.28, 0.47, 0.18),
        (0, 0.05, 0.53, 0.25),
        (0, 0.32, 0.48, 0.19),
        (0, 0.62, 0.36, 0.10),
        (0, 0.98, 0.30, 0.03),
    ]
    parts = [part("body", limb(spine, 40, 28), _belly(skin, light, 0.36))]
    for y, z in ((-0.25, 0.36), (0.22, 0.46)):
        for item in _leg((0.13, y, z, 0.115), (0.17, y, 0.5 * z, 0.085), (0.17, y, 0.0), 0.082, Paint(skin, 0.65)):
            parts += pair(item)
    parts += _eyes((0.052, -0.70, 0.33), 0.024, rng)
    color = pick(rng, (hsv(rng.uniform(0.0, 0.15), 0.75, 0.8), shade(base, 0.55), hsv(rng.uniform(), 0.6, 0.8)))
    tops = path_through([(x, y, z + 0.9 * r) for x, y, z, r in spine[2:]], 10)[:-1]
    for number, (y, z) in enumerate(tops[:, 1:]):
        size = 0.11 + 0.17 * float(np.sin(np.pi * (number + 1) / 10))
        outline = np.array([(-0.25, -0.1), (0.25, -0.1), (0.55, 0.45), (0.0, 1.15), (-0.55, 0.45)]) * size
        plate = facing_side(prism(outline, 0.035, 0.012))
        side = 0.045 if number % 2 else -0.045
        shown = turn([part("plate", plate, Paint(color, 0.6))], "y", 8 if side > 0 else -8)
        parts += shift(shown, (side, float(y), float(z) + 0.1 * size))
    for y, z in ((0.82, 0.33), (0.93, 0.32)):
        spike = capsule((0.03, y, z), (0.17, y + 0.08, z + 0.13), 0.024, 0.005)
        parts += pair(part("tail_spike", spike, Paint((0.90, 0.85, 0.72), 0.5)))
    return parts


def _triceratops(rng: np.random.Generator, base: Rgb, skin: pt.Pattern, light: Rgb) -> list[ObjectPart]:
    """Build a stout body whose head carries three horns and a frill."""
    spine = [
        (0, -0.34, 0.52, 0.19),
        (0, -0.15, 0.51, 0.25),
        (0, 0.10, 0.52, 0.275),
        (0, 0.33, 0.48, 0.21),
        (0, 0.60, 0.36, 0.10),
        (0, 0.90, 0.22, 0.02),
    ]
    parts = [part("body", limb(spine, 32, 28), _belly(skin, light, 0.36))]
    for y in (-0.25, 0.24):
        for item in _leg((0.15, y, 0.44, 0.125), (0.19, y, 0.22, 0.092), (0.19, y, 0.0), 0.09, Paint(skin, 0.65)):
            parts += pair(item)
    accent = pick(rng, (shade(base, 0.6), mix(base, rgb.ORANGE, 0.5), light))
    frill = ellipsoid((0, 0, 0), (rng.uniform(0.26, 0.33), 0.05, rng.uniform(0.24, 0.31)), 34, 16)
    edge = pt.blend(pt.solid(accent), base, pt.inside((0, 0, 0), (0.20, 0.2, 0.19), 0.15))
    head = [*shift(turn([part("frill", frill, Paint(edge, 0.65))], "x", 28), (0, 0.03, 0.15))]
    skull = limb(
        [(0, 0.05, 0.02, 0.165), (0, -0.12, -0.02, 0.155), (0, -0.28, -0.08, 0.105), (0, -0.38, -0.13, 0.055)], 18, 24
    )
    horn: Rgb = (0.92, 0.87, 0.74)
    length = rng.uniform(0.22, 0.36)
    brow = limb(
        [
            (0.10, -0.12, 0.10, 0.045),
            (0.125, -0.25, 0.18 + 0.1 * length, 0.035),
            (0.13, -0.20 - length, 0.20 + 0.75 * length, 0.006),
        ],
        14,
        14,
    )
    nose = limb([(0, -0.28, 0.0, 0.04), (0, -0.34, 0.10, 0.025), (0, -0.37, 0.16, 0.005)], 10, 14)
    beak = limb([(0, -0.34, -0.10, 0.06), (0, -0.42, -0.14, 0.045), (0, -0.44, -0.20, 0.012)], 12, 16)
    head += [
        part("head", skull, Paint(skin, 0.65)),
        part("nose_horn", nose, Paint(horn, 0.5)),
        part("beak", beak, Paint(mix(base, horn, 0.6), 0.5)),
    ]
    head += pair(part("brow_horn", brow, Paint(horn, 0.5))) + _eyes((0.125, -0.16, 0.03), 0.034, rng)
    return parts + shift(turn(turn(head, "x", rng.uniform(-8, 10)), "z", rng.uniform(-16, 16)), (0, -0.50, 0.60))
