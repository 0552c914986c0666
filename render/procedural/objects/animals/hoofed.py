"""Build horses and cows."""

from dataclasses import dataclass

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, pick, shade, vary
from render.procedural.primitives.features import FUR, bead_eye
from render.procedural.primitives.limbs import limb, path_through, trunk
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, scale, shift, turn
from render.procedural.primitives.pattern import Pattern
from render.procedural.primitives.surface import capsule, curve, ellipsoid, lathe, moved, tube

Station = tuple[float, float, float, float]
LYING_DROP = 0.38
NOSTRIL: Rgb = (0.16, 0.11, 0.11)


@dataclass(frozen=True)
class HorseColors:
    """Paint of a horse's body, and colors of its mane and tail, lower legs (`socks`) and muzzle."""

    body: Pattern
    plain: Rgb
    mane: Rgb
    socks: Rgb
    muzzle: Rgb
    blaze: bool


def horse(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a horse that stands, walks or grazes; bay, chestnut, black, white, palomino, dapple gray or pinto."""
    colors = _horse_colors(rng)
    girth, tall = rng.uniform(0.88, 1.15), rng.uniform(0.9, 1.1)
    paint = Paint(colors.body, FUR)
    barrel = trunk(
        [
            (-0.50, 0.88, 0.10, 0.13),
            (-0.38, 0.85, 0.17, 0.215),
            (-0.18, 0.83, 0.185, 0.235),
            (0.08, 0.83, 0.195, 0.205),
            (0.32, 0.86, 0.195, 0.205),
            (0.46, 0.85, 0.165, 0.18),
            (0.54, 0.84, 0.09, 0.11),
        ]
    )
    parts = [part("body", barrel * (girth, 1, 1), paint)]
    stride = rng.uniform(8, 26) if rng.uniform() < 0.5 else rng.uniform(0, 5)
    front = [(-0.35, 0.74, 0.095), (-0.355, 0.56, 0.062), (-0.36, 0.36, 0.046), (-0.36, 0.2, 0.033), (-0.37, 0.1, 0.04)]
    hind = [(0.40, 0.76, 0.145), (0.36, 0.58, 0.10), (0.475, 0.38, 0.05), (0.455, 0.2, 0.037), (0.43, 0.1, 0.043)]
    for x, stations, swing in ((0.105, front, stride), (0.115, hind, stride)):
        for side in (-1, 1):
            leg = _hoofed_leg(x * girth, stations, colors.body, colors.socks, 0.05)
            leg = turn(leg, "x", side * swing * (1 if stations is front else -1), (0, stations[0][0], stations[0][1]))
            parts += leg if side > 0 else [pair(item)[1] for item in leg]
    head = _horse_head(colors)
    if rng.uniform() < 0.22:
        neck = [(0.0, -0.40, 0.90, 0.17), (0.0, -0.58, 0.78, 0.13), (0.0, -0.74, 0.56, 0.10), (0.0, -0.80, 0.44, 0.085)]
        head = shift(turn(head, "x", rng.uniform(-42, -25)), (0, -0.82, 0.42))
    else:
        lift = rng.uniform(-0.06, 0.10)
        neck = [
            (0.0, -0.38, 0.93, 0.175),
            (0.0, -0.52, 1.06 + 0.3 * lift, 0.14),
            (0.0, -0.62, 1.22 + lift, 0.112),
            (0.0, -0.66, 1.35 + lift, 0.095),
        ]
        nod = turn(turn(head, "x", rng.uniform(-12, 14)), "z", rng.uniform(-18, 18))
        head = shift(nod, (0, -0.68, 1.36 + lift))
    parts += [part("neck", limb(neck, 20, 24) * (0.72, 1, 1), paint), *head, *_mane(rng, neck, colors.mane)]
    parts.append(_hair_tail(rng, colors.mane))
    return scale(parts, (1, 1, tall))


def _horse_colors(rng: np.random.Generator) -> HorseColors:
    kind = pick(rng, ("bay", "bay", "chestnut", "chestnut", "black", "white", "palomino", "gray", "pinto"))
    brown = vary(rng, pick(rng, ((0.42, 0.24, 0.13), (0.52, 0.30, 0.16), (0.34, 0.20, 0.12))), 0.03)
    pale = vary(rng, (0.90, 0.88, 0.84), 0.03)
    base, mane, socks = {
        "bay": (brown, (0.08, 0.07, 0.07), (0.10, 0.08, 0.07)),
        "chestnut": (vary(rng, (0.56, 0.29, 0.14), 0.04), pick(rng, ((0.50, 0.25, 0.12), (0.85, 0.72, 0.5))), pale),
        "black": (vary(rng, (0.10, 0.09, 0.10), 0.02), (0.05, 0.05, 0.05), pick(rng, (pale, (0.08, 0.08, 0.08)))),
        "white": (pale, pick(rng, (rgb.WHITE, (0.75, 0.73, 0.70))), shade(pale, 0.92)),
        "palomino": (vary(rng, (0.80, 0.60, 0.34), 0.04), (0.95, 0.91, 0.80), rgb.WHITE),
        "gray": (vary(rng, (0.60, 0.60, 0.61), 0.04), (0.30, 0.30, 0.32), (0.35, 0.35, 0.37)),
        "pinto": (rgb.WHITE, brown, rgb.WHITE),
    }[kind]
    body = pt.solid(base)
    if kind == "gray":
        body = pt.blend(body, mix(base, rgb.WHITE, 0.6), pt.spots(rng, 0.10, 0.028, 0.2))
    elif kind == "pinto":
        body = pt.blend(body, brown, pt.patches(rng, 0.33, 0.5))
    muzzle = shade(base, 0.5) if kind in ("bay", "gray", "palomino") else mix(base, (0.35, 0.27, 0.26), 0.4)
    return HorseColors(body, base if kind != "pinto" else brown, mane, socks, muzzle, bool(rng.uniform() < 0.5))


def _hoofed_leg(
    x: float, stations: list[tuple[float, float, float]], body: Pattern, sock: Rgb, hoof: float
) -> list[ObjectPart]:
    """Build the left leg through stations (y, z, radius) from the top to the fetlock, with a hoof on the ground."""
    height = stations[2][1]
    paint = pt.blend(body, sock, pt.beyond((0, 0, -1), -0.72 * height, 0.06))
    shape = limb([(x, y, z, r) for y, z, r in stations], 22, 18)
    foot = stations[-1][0]
    block = lathe([(hoof * 1.05, 0.0), (hoof * 1.02, 0.02), (hoof * 0.78, 0.085), (hoof * 0.6, 0.10)], 18)
    dark = mix(shade(sock, 0.35), (0.13, 0.11, 0.10), 0.6)
    return [part("leg", shape, Paint(paint, FUR)), part("hoof", moved(block, (x, foot - 0.012, 0)), Paint(dark, 0.5))]


def _horse_head(colors: HorseColors) -> list[ObjectPart]:
    """Build a head whose poll is at the origin; the face slopes down to the front."""
    skull = limb(
        [
            (0, 0.03, -0.01, 0.085),
            (0, -0.08, -0.06, 0.108),
            (0, -0.20, -0.17, 0.085),
            (0, -0.31, -0.28, 0.064),
            (0, -0.36, -0.33, 0.060),
        ],
        20,
        24,
    ) * (0.78, 1, 1)
    paint = pt.blend(colors.body, colors.muzzle, pt.inside((0, -0.40, -0.37), (0.2, 0.14, 0.14), 0.3))
    if colors.blaze:
        stripe = pt.inside((0, -0.27, -0.13), (0.026, 0.24, 0.24))
        paint = pt.blend(paint, rgb.WHITE, lambda p: stripe(p) * (p[:, 1] + 0.9 * p[:, 2] < -0.10))
    ear = lathe([(0.032, 0.0), (0.036, 0.03), (0.026, 0.08), (0.005, 0.13)], 16) * (1, 0.6, 1)
    nostril = ellipsoid((0.038, -0.395, -0.325), (0.014, 0.02, 0.016), 14, 10)
    forelock = limb([(0, 0.03, 0.09, 0.02), (0, -0.08, 0.065, 0.032), (0, -0.14, -0.005, 0.012)], 12, 12)
    parts = [part("head", skull, Paint(paint, FUR)), part("forelock", forelock, Paint(colors.mane, FUR))]
    for feature in (
        *shift(turn(turn([part("ear", ear, Paint(colors.plain, FUR))], "y", 14), "x", 8), (0.048, 0.0, 0.06)),
        bead_eye((0.078, -0.115, -0.045), 0.024, (1.0, -0.6, 0.1)),
        part("nostril", nostril, Paint(NOSTRIL, 0.6)),
    ):
        parts += pair(feature)
    return parts


def _mane(rng: np.random.Generator, neck: list[Station], color: Rgb) -> list[ObjectPart]:
    """Build locks of hair along the crest of the neck that fall to one side, or an upright mane."""
    count = 11
    places = path_through([(x, y + 0.80 * r, z + 0.62 * r) for x, y, z, r in neck], count)
    side, fall = pick(rng, (-1.0, 1.0)), rng.uniform(0.12, 0.22)
    crest = tube(places, np.linspace(0.05, 0.042, count), 12) * (0.7, 1, 1)
    locks = [part("mane", crest, Paint(color, FUR))]
    for place in places[1:]:
        x, y, z = (float(v) for v in place)
        lock = limb(
            [
                (x, y, z + 0.01, 0.035),
                (x + side * 0.085, y + 0.0, z - 0.3 * fall, 0.038),
                (x + side * 0.105, y - 0.01, z - fall, 0.012),
            ],
            9,
            10,
        )
        locks.append(part("mane", lock, Paint(vary(rng, color, 0.015), FUR)))
    return locks


def _hair_tail(rng: np.random.Generator, color: Rgb) -> ObjectPart:
    out, sway = rng.uniform(0.10, 0.24), rng.uniform(-0.08, 0.08)
    stations = [
        (0.0, 0.55, 0.95, 0.035),
        (0.0, 0.57 + 0.6 * out, 0.90, 0.05),
        (sway, 0.58 + out, 0.62, 0.075),
        (1.5 * sway, 0.56 + out, 0.36, 0.06),
        (2 * sway, 0.56 + out, 0.24, 0.015),
    ]
    return part("tail", limb(stations, 20, 16), Paint(color, FUR))


def cow(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a cow with horns, level ears, a wide muzzle and an udder, standing or lying; patched or of one color."""
    kind = pick(rng, ("holstein", "holstein", "holstein", "hereford", "brown", "cream", "black"))
    brown = vary(rng, pick(rng, ((0.50, 0.28, 0.15), (0.62, 0.38, 0.20), (0.40, 0.22, 0.13))), 0.03)
    dark = pick(rng, ((0.09, 0.08, 0.09), (0.09, 0.08, 0.09), brown))
    base = {"holstein": rgb.WHITE, "hereford": brown, "brown": brown, "cream": (0.88, 0.80, 0.66), "black": dark}[kind]
    body = pt.solid(base)
    if kind == "holstein":
        body = pt.blend(body, dark, pt.patches(rng, rng.uniform(0.26, 0.40), rng.uniform(0.35, 0.6)))
    elif kind == "hereford":
        body = pt.blend(body, rgb.WHITE, pt.beyond((0, -0.25, -1), -0.56, 0.05))
    girth, tall = rng.uniform(0.9, 1.15), rng.uniform(0.9, 1.08)
    barrel = trunk(
        [
            (-0.52, 0.74, 0.12, 0.15),
            (-0.40, 0.71, 0.19, 0.23),
            (-0.10, 0.68, 0.235, 0.26),
            (0.20, 0.67, 0.25, 0.265),
            (0.42, 0.71, 0.225, 0.23),
            (0.55, 0.74, 0.15, 0.165),
        ]
    )
    parts = [part("body", barrel * (girth, 1, 1), Paint(body, FUR))]
    neck = [(0, -0.42, 0.78, 0.19), (0, -0.58, 0.84, 0.155), (0, -0.68, 0.90, 0.14)]
    parts.append(part("neck", limb([(x, y, z, r) for x, y, z, r in neck], 14, 24) * (0.8, 1, 1), Paint(body, FUR)))
    front = [
        (-0.38, 0.62, 0.10),
        (-0.385, 0.46, 0.072),
        (-0.39, 0.29, 0.055),
        (-0.385, 0.17, 0.042),
        (-0.39, 0.09, 0.048),
    ]
    hind = [(0.44, 0.66, 0.14), (0.40, 0.50, 0.10), (0.49, 0.32, 0.057), (0.47, 0.18, 0.045), (0.45, 0.09, 0.05)]
    sock = pick(rng, (rgb.WHITE, base)) if kind != "holstein" else rgb.WHITE
    lying = rng.uniform() < 0.16
    if lying:
        parts += _folded_legs(body, sock, girth)
    else:
        stride = pick(rng, (0.0, rng.uniform(5, 16)))
        for stations, swing in ((front, stride), (hind, -stride)):
            for side in (-1, 1):
                leg = _hoofed_leg(0.14 * girth, stations, body, sock, 0.058)
                leg = turn(leg, "x", side * swing, (0, stations[0][0], stations[0][1]))
                parts += leg if side > 0 else [pair(item)[1] for item in leg]
        if rng.uniform() < 0.75:
            parts += _udder()
    head = _cow_head(rng, base, dark, body, kind)
    turned = turn(turn(head, "x", rng.uniform(-14, 8)), "z", rng.uniform(-22, 22))
    parts += shift(turned, (0, -0.72, 0.98))
    if lying:
        return scale(shift(parts, (0, 0, -LYING_DROP)), (1, 1, tall))
    return scale([*parts, *_tuft_tail(rng, base, dark)], (1, 1, tall))


def _folded_legs(body: Pattern, sock: Rgb, girth: float) -> list[ObjectPart]:
    """Build the legs of a lying cow, folded under a body that is LYING_DROP too high."""
    z, parts = LYING_DROP, []
    fore = [(0.15 * girth, -0.36, z + 0.20, 0.10), (0.18, -0.50, z + 0.08, 0.07), (0.19, -0.60, z + 0.055, 0.055)]
    shin = [(0.19, -0.60, z + 0.05, 0.052), (0.15, -0.46, z + 0.04, 0.042), (0.10, -0.36, z + 0.035, 0.04)]
    thigh = [
        (0.18 * girth, 0.40, z + 0.22, 0.16),
        (0.29 * girth, 0.28, z + 0.14, 0.13),
        (0.33 * girth, 0.14, z + 0.08, 0.075),
    ]
    foot = [
        (0.33 * girth, 0.30, z + 0.06, 0.06),
        (0.35 * girth, 0.12, z + 0.045, 0.045),
        (0.34 * girth, -0.02, z + 0.04, 0.045),
    ]
    for name, stations, paint in (
        ("foreleg", fore, body),
        ("shin", shin, pt.solid(sock)),
        ("thigh", thigh, body),
        ("foot", foot, pt.solid(sock)),
    ):
        parts += pair(part(name, limb(stations, 16, 18), Paint(paint, FUR)))
    hoof = ellipsoid((0.34 * girth, -0.09, z + 0.04), (0.05, 0.07, 0.04), 16, 10)
    return parts + pair(part("hoof", hoof, Paint((0.14, 0.12, 0.11), 0.5)))


def _udder() -> list[ObjectPart]:
    pink: Rgb = (0.93, 0.66, 0.64)
    parts = [part("udder", ellipsoid((0, 0.30, 0.42), (0.13, 0.15, 0.10), 22, 14), Paint(pink, 0.6))]
    for y in (0.24, 0.34):
        parts += pair(part("teat", capsule((0.055, y, 0.36), (0.06, y, 0.30), 0.02, 0.016), Paint(pink, 0.6)))
    return parts


def _cow_head(rng: np.random.Generator, base: Rgb, dark: Rgb, body: Pattern, kind: str) -> list[ObjectPart]:
    """Build a head with the poll near the origin; the face slopes down to the front."""
    skull = limb(
        [(0, 0.02, -0.02, 0.125), (0, -0.09, -0.08, 0.140), (0, -0.20, -0.19, 0.108), (0, -0.28, -0.27, 0.10)], 16, 26
    ) * (0.92, 1, 1)
    face = pt.solid(rgb.WHITE) if kind == "hereford" else body
    if kind == "holstein":
        cheeks = pt.blend(pt.solid(rgb.WHITE), dark, lambda p: pt.edge(0.045 - np.abs(p[:, 0]), 0.03))
        face = cheeks if rng.uniform() < 0.6 else body
    nose_color = pick(rng, ((0.92, 0.66, 0.62), (0.92, 0.66, 0.62), (0.22, 0.18, 0.18)))
    muzzle = ellipsoid((0, -0.315, -0.295), (0.115, 0.085, 0.085), 26, 16)
    parts = [part("head", skull, Paint(face, FUR)), part("muzzle", muzzle, Paint(nose_color, 0.55))]
    ear = ellipsoid((0.20, 0.0, 0.0), (0.105, 0.025, 0.055), 20, 12)
    features = [
        *shift(turn([part("ear", ear, Paint(pick(rng, (dark, base)), FUR))], "y", 12), (0.0, 0.02, 0.035)),
        bead_eye((0.118, -0.125, -0.035), 0.030, (0.9, -0.8, 0.1)),
        part("nostril", ellipsoid((0.045, -0.385, -0.265), (0.018, 0.018, 0.022), 14, 10), Paint(NOSTRIL, 0.6)),
    ]
    if rng.uniform() < 0.7:
        reach = rng.uniform(0.10, 0.22)
        path = curve(((0.07, 0.0, 0.09), (0.10 + reach, 0.0, 0.10), (0.08 + reach, -0.06, 0.14 + reach)), 12)
        features.append(part("horn", tube(path, np.linspace(0.034, 0.010, 12), 14), Paint((0.90, 0.84, 0.70), 0.45)))
    for feature in features:
        parts += pair(feature)
    return parts


def _tuft_tail(rng: np.random.Generator, base: Rgb, dark: Rgb) -> list[ObjectPart]:
    sway = rng.uniform(-0.14, 0.14)
    rope = limb(
        [(0, 0.60, 0.86, 0.03), (0, 0.70, 0.80, 0.024), (sway, 0.70, 0.5, 0.018), (sway, 0.69, 0.34, 0.018)], 16
    )
    tuft = limb([(sway, 0.69, 0.36, 0.022), (sway, 0.69, 0.28, 0.045), (sway, 0.69, 0.16, 0.012)], 12, 14)
    return [part("tail", rope, Paint(base, FUR)), part("tuft", tuft, Paint(dark, FUR))]
