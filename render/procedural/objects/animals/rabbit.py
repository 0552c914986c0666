"""Build rabbits."""

import numpy as np

from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import PINK, WHITE, mix, shade
from render.procedural.primitives.features import FUR, Coat, bead_eye, coat, fur, whiskers
from render.procedural.primitives.limbs import trunk
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, scale, shift, turn
from render.procedural.primitives.surface import box, capsule, curve, ellipsoid, lathe, tube


def rabbit(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a rabbit with long ears, two front teeth and a round tail, sitting up or crouching on four legs."""
    colors = coat(rng, ("plain", "plain", "patched", "spotted"))
    return _crouching(rng, colors) if rng.uniform() < 0.55 else _sitting_up(rng, colors)


def _crouching(rng: np.random.Generator, colors: Coat) -> list[ObjectPart]:
    length, girth, lift = rng.uniform(0.28, 0.46), rng.uniform(0.9, 1.1), rng.uniform(0.0, 0.10)
    coat_pattern = fur(rng, colors, (0, 1, 0), 0.5)
    back = (
        (-length - 0.06, 0.30 + lift, 0.12, 0.13),
        (-0.5 * length, 0.25 + 0.4 * lift, 0.165, 0.175),
        (0.3 * length, 0.28, 0.21, 0.235),
        (length, 0.23, 0.18, 0.20),
        (length + 0.10, 0.20, 0.11, 0.12),
    )
    body = trunk([(y, z, girth * wide, girth * high) for y, z, wide, high in back])
    thigh = ellipsoid((0.165 * girth, 0.62 * length, 0.17), (0.09, 0.19, 0.16), 24, 14)
    hind_foot = ellipsoid((0.16 * girth, 0.30 * length, 0.045), (0.055, 0.18, 0.045), 20, 12)
    arm = capsule((0.09, -0.85 * length, 0.20), (0.095, -0.95 * length, 0.045), 0.06, 0.05)
    paw = ellipsoid((0.095, -length - 0.02, 0.035), (0.05, 0.075, 0.036), 18, 10)
    light = mix(colors.body, colors.light, 0.4)
    parts = [
        part("body", body, Paint(coat_pattern, FUR)),
        part("tail", ellipsoid((0, length + 0.21, 0.26), (0.08, 0.08, 0.085), 20, 14), Paint(WHITE, 0.95)),
    ]
    for name, surface, color in (
        ("thigh", thigh, colors.body),
        ("foot", hind_foot, light),
        ("arm", arm, colors.body),
        ("paw", paw, light),
    ):
        parts += pair(part(name, surface, Paint(color, FUR)))
    head = _rabbit_head(rng, colors, coat_pattern if colors.style != "plain" else pt.solid(colors.body))
    nod = turn(turn(scale(head, (0.78, 0.86, 0.80)), "x", rng.uniform(-20, 8)), "z", rng.uniform(-20, 20))
    return parts + shift(nod, (0, -length - 0.17, 0.40 + 1.6 * lift))


def _sitting_up(rng: np.random.Generator, colors: Coat) -> list[ObjectPart]:
    """Build a rabbit on its hind legs; sometimes it holds a carrot."""
    girth = rng.uniform(0.9, 1.12)
    profile = [(0.12, 0.0), (0.23, 0.05), (0.275, 0.18), (0.255, 0.34), (0.19, 0.50), (0.12, 0.60)]
    body = lathe(profile, 36) * (girth, girth, 1.0)
    coat_pattern = fur(rng, colors, (0, 0, 1), 0.5)
    belly = pt.blend(coat_pattern, colors.light, pt.inside((0, -0.26, 0.26), (0.17, 0.2, 0.22)))
    parts = [
        part("body", body, Paint(belly, FUR)),
        part("tail", ellipsoid((0, 0.29 * girth, 0.13), (0.1, 0.1, 0.1), 20, 14), Paint(WHITE, 0.95)),
    ]
    foot = ellipsoid((0.14, -0.20, 0.055), (0.085, 0.19, 0.06), 22, 12)
    arm = capsule((0.20, -0.08, 0.43), (0.11, -0.27, 0.30), 0.065, 0.058)
    parts += pair(part("foot", foot, Paint(mix(colors.body, colors.light, 0.4), FUR))) + pair(
        part("arm", arm, Paint(colors.body, FUR))
    )
    if rng.uniform() < 0.5:
        parts += _carrot()
    head = _rabbit_head(rng, colors, coat_pattern if colors.style != "plain" else pt.solid(colors.body))
    return parts + shift(turn(head, "z", rng.uniform(-12, 12)), (0, -0.05, 0.74))


def _rabbit_head(rng: np.random.Generator, colors: Coat, coat_pattern: pt.Pattern) -> list[ObjectPart]:
    """Build a head about the origin, 0.44 wide, with ears 0.4 long."""
    cheek = part("cheek", ellipsoid((0.058, -0.165, -0.065), (0.085, 0.07, 0.065), 20, 12), Paint(colors.light, FUR))
    ear_length, bent = rng.uniform(0.34, 0.52), rng.uniform() < 0.3
    tip = (0.30, -0.02, 0.12 + 0.4 * ear_length) if bent else (0.08 + 0.3 * rng.uniform(), 0.02, 0.12 + ear_length)
    path = curve(((0.075, 0.0, 0.12), (0.09, 0.0, 0.12 + 0.8 * ear_length), tip), 14)
    width = np.interp(np.linspace(0, 1, 14), [0, 0.5, 0.85, 1], [0.045, 0.078, 0.06, 0.02])
    flat = (1.0, 0.5, 1.0)
    shapes = [part("head", ellipsoid((0, 0, 0), (0.22, 0.205, 0.20), 32, 20), Paint(coat_pattern, FUR))]
    for feature in (
        cheek,
        part("ear", tube(path, width, 18) * flat, Paint(colors.body, FUR)),
        part("ear_inside", tube(path[1:-1], width[1:-1] * 0.62, 16) * flat - (0, 0.026, 0), Paint(PINK, FUR)),
        bead_eye((0.105, -0.155, 0.045), 0.046, (0.3, -1.0, 0.1)),
        *whiskers((0.09, -0.22, -0.06), 0.18, 0.005),
    ):
        shapes += pair(feature)
    teeth = box((0, -0.215, -0.125), (0.055, 0.02, 0.06), 0.008)
    nose = ellipsoid((0, -0.232, -0.025), (0.034, 0.022, 0.024), 16, 10)
    return [*shapes, part("nose", nose, Paint(shade(PINK, 0.9), 0.4)), part("teeth", teeth, Paint(WHITE, 0.3))]


def _carrot() -> list[ObjectPart]:
    root = lathe([(0.006, -0.17), (0.03, -0.10), (0.05, 0.02), (0.055, 0.07), (0.03, 0.10)], 18)
    shapes = [part("carrot", root, Paint((0.95, 0.45, 0.10), 0.5))]
    for lean in (-0.05, 0.0, 0.05):
        leaf = tube(curve(((0, 0, 0.08), (lean, 0, 0.16), (2 * lean, 0, 0.22)), 6), np.linspace(0.016, 0.008, 6), 8)
        shapes.append(part("leaf", leaf, Paint((0.2, 0.6, 0.2), 0.6)))
    return shift(turn(turn(shapes, "x", 10), "y", 30), (0.0, -0.33, 0.31))
