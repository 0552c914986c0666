"""Build pigs and elephants."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.limbs import limb, path_through, trunk
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import curve, ellipsoid, lathe, moved, tube, turned

SKIN = 0.65


def pig(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a round pig with a snout disc, pointed ears and a curly tail; pink, spotted, belted or brown."""
    base = vary(rng, pick(rng, ((0.95, 0.68, 0.66), (0.93, 0.72, 0.66), (0.96, 0.62, 0.66), (0.90, 0.75, 0.68))), 0.03)
    coat = pick(rng, ("pink", "pink", "pink", "pink", "spotted", "belted", "brown"))
    dark: Rgb = (0.20, 0.16, 0.16)
    body = pt.solid(base)
    if coat == "spotted":
        body = pt.blend(body, dark, pt.patches(rng, 0.18, 0.3))
    elif coat == "belted":
        body = pt.blend(pt.solid(dark), base, lambda p: pt.edge(np.abs(p[:, 1] + 0.18) - 0.11, 0.02))
    elif coat == "brown":
        body = pt.solid(vary(rng, (0.45, 0.29, 0.20), 0.03))
    plain: Rgb = (
        base if coat in ("pink", "spotted") else (vary(rng, dark, 0.02) if coat == "belted" else (0.43, 0.28, 0.19))
    )
    girth, leg = rng.uniform(0.88, 1.2), rng.uniform(0.13, 0.22)
    middle = leg + 0.29 * girth
    barrel = trunk(
        [
            (-0.44, middle + 0.02, 0.17, 0.18),
            (-0.28, middle, 0.25, 0.265),
            (0.05, middle - 0.01, 0.285, 0.295),
            (0.32, middle, 0.26, 0.28),
            (0.46, middle + 0.02, 0.17, 0.19),
        ]
    )
    parts = [part("body", (barrel - (0, 0, middle)) * (girth, 1, girth) + (0, 0, middle), Paint(body, SKIN))]
    for y in (-0.29, 0.31):
        shape = limb([(0.15, y, middle - 0.02, 0.115), (0.155, y, leg, 0.082), (0.155, y - 0.01, 0.05, 0.06)], 14, 18)
        hoof = moved(lathe([(0.06, 0.0), (0.064, 0.02), (0.055, 0.07)], 18), (0.155, y - 0.012, 0))
        parts += pair(part("leg", shape, Paint(body, SKIN)))
        parts += pair(part("hoof", hoof, Paint(mix(shade(plain, 0.5), (0.3, 0.2, 0.18), 0.5), 0.5)))
    head = turn(turn(_pig_head(rng, plain, body), "x", rng.uniform(-5, 12)), "z", rng.uniform(-20, 20))
    parts += shift(head, (0, -0.52, middle + 0.11))
    t = np.linspace(0, 1, 30)
    helix = np.stack(
        [0.055 * np.sin(3.5 * np.pi * t), 0.50 + 0.17 * t, middle + 0.12 + 0.055 * np.cos(3.5 * np.pi * t)], 1
    )
    return [*parts, part("tail", tube(helix, np.linspace(0.026, 0.012, 30), 12), Paint(plain, SKIN))]


def _pig_head(rng: np.random.Generator, plain: Rgb, body: pt.Pattern) -> list[ObjectPart]:
    """Build a head about the origin, 0.42 wide; the snout points to the front."""
    reach = rng.uniform(0.22, 0.33)
    skull = ellipsoid((0, 0, 0), (0.205, 0.20, 0.195), 30, 20)
    snout = limb([(0, -0.10, -0.04, 0.125), (0, -reach, -0.05, 0.085), (0, -reach - 0.02, -0.05, 0.083)], 10, 24)
    disc = turned(lathe([(0.085, -0.03), (0.092, 0.0), (0.085, 0.03)], 26), "x", 90) * (1.05, 1, 0.9)
    pink = mix(plain, (0.90, 0.45, 0.48), 0.5)
    parts = [
        part("head", skull, Paint(body, SKIN)),
        part("snout", snout, Paint(plain, SKIN)),
        part("snout_disc", moved(disc, (0, -reach - 0.09, -0.05)), Paint(pink, 0.5)),
    ]
    lop = rng.uniform() < 0.45
    ear = lathe([(0.088, 0.0), (0.08, 0.05), (0.05, 0.13), (0.008, 0.20)], 20) * (1, 0.35, 1)
    ears = turn(turn([part("ear", ear, Paint(mix(plain, pink, 0.4), SKIN))], "x", 75 if lop else 12), "y", 25)
    for feature in (
        *shift(ears, (0.12, -0.05 if lop else 0.0, 0.15)),
        bead_eye((0.105, -0.165, 0.065), 0.028, (0.5, -1.0, 0.1)),
        part("nostril", ellipsoid((0.033, -reach - 0.122, -0.05), (0.017, 0.01, 0.025), 14, 10), shade(pink, 0.45)),
    ):
        parts += pair(feature)
    mouth = curve(((-0.08, -0.17, -0.13), (0, -0.25, -0.16), (0.08, -0.17, -0.13)), 10)
    return [*parts, part("mouth", tube(mouth, 0.008, 8), Paint(shade(pink, 0.5), 0.5))]


def elephant(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an elephant with columnar legs, wide ears, tusks and a hanging, curled or raised trunk."""
    gray = vary(rng, pick(rng, ((0.50, 0.50, 0.52), (0.42, 0.41, 0.42), (0.58, 0.57, 0.57), (0.50, 0.46, 0.43))), 0.03)
    skin = (
        gray
        if rng.uniform() < 0.85
        else pick(rng, ((0.95, 0.66, 0.72), (0.45, 0.62, 0.85), hsv(rng.uniform(), 0.5, 0.8)))
    )
    body = Paint(pt.blend(pt.solid(skin), shade(skin, 0.86), pt.patches(rng, 0.12, 0.35)), 0.85)
    girth, leg, stride = rng.uniform(0.9, 1.12), rng.uniform(0.85, 1.1), pick(rng, (0.0, rng.uniform(5, 15)))
    z = 0.78 * leg
    barrel = trunk(
        [
            (-0.42, z + 0.05, 0.20, 0.22),
            (-0.25, z + 0.03, 0.28, 0.31),
            (0.05, z + 0.02, 0.325, 0.33),
            (0.32, z + 0.0, 0.30, 0.31),
            (0.48, z - 0.02, 0.20, 0.22),
        ]
    )
    parts = [part("body", barrel * (girth, 1, 1), body)]
    toes: Rgb = mix(skin, rgb.CREAM, 0.6)
    for y, swing in ((-0.28, stride), (0.34, -stride)):
        for side in (-1, 1):
            column = limb(
                [(0.175, y, z, 0.16), (0.18, y, 0.5 * z, 0.118), (0.18, y, 0.14, 0.108), (0.18, y, 0.09, 0.118)], 16, 22
            )
            foot = moved(lathe([(0.125, 0.0), (0.128, 0.03), (0.115, 0.12)], 24), (0.18, y, 0))
            limbs = [part("leg", column, body), part("foot", foot, body)]
            for angle in (-35, 0, 35):
                nail = ellipsoid((0.18, y - 0.12, 0.03), (0.03, 0.02, 0.03), 12, 8)
                limbs += turn([part("toe", nail, Paint(toes, 0.5))], "z", angle, (0.18, y, 0))
            limbs = turn(limbs, "x", side * swing, (0, y, z))
            parts += limbs if side > 0 else [pair(item)[1] for item in limbs]
    parts += shift(turn(_elephant_head(rng, skin, body), "z", rng.uniform(-12, 12)), (0, -0.56, z + 0.22))
    tail = tube(
        curve(((0, 0.60, z + 0.12), (0, 0.74, z + 0.05), (0, 0.70, z - 0.36)), 12), np.linspace(0.035, 0.014, 12)
    )
    tuft = ellipsoid((0, 0.705, z - 0.40), (0.025, 0.025, 0.07), 12, 10)
    return [*parts, part("tail", tail, body), part("tuft", tuft, Paint(shade(skin, 0.35), 0.9))]


def _elephant_head(rng: np.random.Generator, skin: Rgb, body: Paint) -> list[ObjectPart]:
    """Build a head about the origin, 0.48 wide, with a trunk about 0.8 long."""
    parts = [
        part("head", ellipsoid((0, 0, 0), (0.235, 0.25, 0.26), 32, 20), body),
        part("brow", ellipsoid((0, -0.08, 0.08), (0.18, 0.16, 0.17), 26, 16), body),
    ]
    hang = [(0, -0.18, -0.02), (0, -0.33, -0.22), (0, -0.36, -0.50), (0, -0.40, -0.72), (0, -0.50, -0.75)]
    curl = [(0, -0.18, -0.02), (0, -0.35, -0.22), (0, -0.40, -0.45), (0, -0.54, -0.54), (0, -0.66, -0.42)]
    raised = [(0, -0.18, -0.04), (0, -0.38, -0.14), (0, -0.56, 0.0), (0, -0.62, 0.24), (0, -0.56, 0.42)]
    path = path_through(pick(rng, (hang, hang, curl, raised)), 26)
    rings = 1 + 0.035 * np.sin(np.arange(26) * np.pi)
    proboscis = tube(path, np.linspace(0.125, 0.045, 26) * rings, 22)
    parts.append(part("trunk", proboscis, body))
    ear_width, ear_height = rng.uniform(0.24, 0.36), rng.uniform(0.27, 0.40)
    ear = ellipsoid((ear_width * 0.85, 0.03, -0.04), (ear_width, 0.035, ear_height), 28, 18)
    ear[..., 0] -= 0.25 * np.clip(-(ear[..., 2] + 0.04), 0, None)  # narrower below
    pink = pt.blend(
        pt.solid(skin),
        mix(skin, (0.90, 0.62, 0.62), 0.6),
        pt.inside((ear_width, -0.03, -0.05), (0.7 * ear_width, 0.05, 0.7 * ear_height), 0.2),
    )
    swing = rng.uniform(15, 50)
    features = [
        *shift(turn([part("ear", ear, Paint(pink, 0.8))], "z", swing), (0.15, 0.02, 0.06)),
        bead_eye((0.185, -0.165, 0.04), 0.028, (0.8, -0.8, 0.0)),
    ]
    if rng.uniform() < 0.75:
        length = rng.uniform(0.16, 0.36)
        tusk = curve(((0.10, -0.20, -0.14), (0.13, -0.28, -0.26), (0.13, -0.28 - length, -0.20)), 12)
        features.append(part("tusk", tube(tusk, np.linspace(0.035, 0.012, 12), 14), Paint((0.95, 0.91, 0.80), 0.35)))
    for feature in features:
        parts += pair(feature)
    jaw = ellipsoid((0, -0.16, -0.20), (0.09, 0.12, 0.08), 20, 12)
    return [*parts, part("jaw", jaw, body)]
