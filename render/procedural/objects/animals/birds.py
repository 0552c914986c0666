"""Build songbirds, pigeons, crows and parrots (kind bird), and owls."""

from dataclasses import dataclass

import numpy as np

from render.procedural.objects.animals.waders import feather_fan, wader
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.features import bead_eye, eye
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import capsule, curve, ellipsoid, lathe, loft, tube

FEATHERS = 0.75
WADER_SHARE = 0.3
BARK: Rgb = (0.40, 0.28, 0.19)


@dataclass(frozen=True)
class Plumage:
    """Colors of back, breast, cap, wing, beak and legs of a bird."""

    back: Rgb
    breast: Rgb
    cap: Rgb
    wing: Rgb
    beak: Rgb
    legs: Rgb


SPECIES: dict[str, Plumage] = {
    "robin": Plumage(
        (0.42, 0.34, 0.26), (0.90, 0.42, 0.16), (0.42, 0.34, 0.26),
        (0.36, 0.29, 0.23), (0.2, 0.18, 0.17), (0.45, 0.30, 0.22),
    ),
    "blue_tit": Plumage(
        (0.45, 0.56, 0.36), (0.95, 0.83, 0.30), (0.22, 0.45, 0.75),
        (0.25, 0.45, 0.70), (0.2, 0.2, 0.22), (0.32, 0.38, 0.45),
    ),
    "cardinal": Plumage(
        (0.75, 0.13, 0.12), (0.86, 0.18, 0.14), (0.80, 0.13, 0.12),
        (0.62, 0.13, 0.13), (0.93, 0.45, 0.15), (0.45, 0.28, 0.22),
    ),
    "sparrow": Plumage(
        (0.50, 0.36, 0.24), (0.80, 0.74, 0.66), (0.45, 0.32, 0.24),
        (0.40, 0.26, 0.17), (0.30, 0.26, 0.22), (0.65, 0.45, 0.35),
    ),
    "canary": Plumage(
        (0.95, 0.80, 0.15), (0.98, 0.88, 0.30), (0.96, 0.82, 0.18),
        (0.88, 0.75, 0.20), (0.95, 0.65, 0.50), (0.85, 0.58, 0.50),
    ),
    "crow": Plumage(
        (0.09, 0.09, 0.11), (0.10, 0.10, 0.12), (0.08, 0.08, 0.10),
        (0.07, 0.07, 0.10), (0.12, 0.12, 0.12), (0.12, 0.12, 0.12),
    ),
    "bluebird": Plumage(
        (0.18, 0.38, 0.78), (0.93, 0.90, 0.85), (0.20, 0.42, 0.82),
        (0.15, 0.32, 0.68), (0.20, 0.20, 0.22), (0.25, 0.22, 0.22),
    ),
    "parrot": Plumage(
        (0.20, 0.65, 0.22), (0.45, 0.78, 0.25), (0.20, 0.65, 0.22),
        (0.16, 0.50, 0.30), (0.88, 0.25, 0.18), (0.5, 0.45, 0.42),
    ),
    "pigeon": Plumage(
        (0.55, 0.58, 0.62), (0.50, 0.50, 0.56), (0.36, 0.40, 0.46),
        (0.66, 0.68, 0.70), (0.25, 0.24, 0.25), (0.85, 0.40, 0.36),
    ),
    "dove": Plumage(
        (0.94, 0.94, 0.93), (0.96, 0.96, 0.95), (0.94, 0.94, 0.93),
        (0.90, 0.90, 0.90), (0.80, 0.55, 0.45), (0.85, 0.45, 0.40),
    ),
    "seagull": Plumage(
        (0.94, 0.94, 0.94), (0.96, 0.96, 0.96), (0.95, 0.95, 0.95),
        (0.62, 0.66, 0.70), (0.95, 0.72, 0.18), (0.92, 0.66, 0.30),
    ),
    "toucan": Plumage(
        (0.08, 0.08, 0.09), (0.09, 0.09, 0.10), (0.08, 0.08, 0.09),
        (0.07, 0.07, 0.08), (0.96, 0.58, 0.10), (0.35, 0.42, 0.50),
    ),
    "eagle": Plumage(
        (0.28, 0.19, 0.13), (0.30, 0.21, 0.14), (0.94, 0.93, 0.90),
        (0.24, 0.16, 0.11), (0.95, 0.75, 0.18), (0.92, 0.74, 0.25),
    ),
    "hawk": Plumage(
        (0.45, 0.32, 0.22), (0.85, 0.76, 0.62), (0.42, 0.30, 0.21),
        (0.38, 0.26, 0.18), (0.35, 0.32, 0.28), (0.90, 0.72, 0.28),
    ),
    "goldfinch": Plumage(
        (0.92, 0.76, 0.14), (0.97, 0.84, 0.25), (0.10, 0.09, 0.09),
        (0.11, 0.10, 0.10), (0.92, 0.60, 0.30), (0.6, 0.42, 0.35),
    ),
}  # fmt: skip


def bird(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a perching or flying bird. Its colors are random or those of a species.

    In 30% of the cases, build a bird with long legs or a long neck (`wader`) instead.
    """
    if rng.uniform() < WADER_SHARE:
        return wader(rng)
    name = pick(rng, tuple(SPECIES))
    colors = SPECIES[name]
    if rng.uniform() < 0.12:
        hue = rng.uniform()
        main = hsv(hue, 0.7, 0.8)
        colors = Plumage(main, mix(main, rgb.WHITE, 0.5), main, shade(main, 0.75), rgb.ORANGE, rgb.BROWN)
    plump, tail_length = rng.uniform(0.85, 1.15), rng.uniform(0.28, 0.52)
    flying = rng.uniform() < 0.22
    body = limb(
        [
            (0, -0.20, 0.10, 0.14),
            (0, -0.10, 0.04, 0.195),
            (0, 0.06, -0.01, 0.205),
            (0, 0.24, -0.03, 0.12),
            (0, 0.36, -0.03, 0.05),
        ],
        24,
        30,
    )
    plumage = pt.blend(pt.solid(vary(rng, colors.back, 0.03)), colors.breast, pt.beyond((0, -0.75, -1), 0.02, 0.05))
    if name in ("sparrow", "hawk") or rng.uniform() < 0.12:
        plumage = pt.blend(plumage, shade(colors.back, 0.55), pt.spots(rng, 0.09, 0.02))
    parts = [part("body", body * (plump, 1, plump), Paint(plumage, FEATHERS))]
    parts += shift(turn(_bird_head(rng, colors, name), "z", rng.uniform(-35, 35)), (0, -0.22, 0.20))
    fan = feather_fan(tail_length, 0.07, 0.12, 0.03)
    tail_color = colors.wing
    parts += shift(turn([part("tail", fan, Paint(tail_color, FEATHERS))], "x", rng.uniform(-12, 8)), (0, 0.27, -0.03))
    if flying:
        return shift(turn([*parts, *_spread_wings(rng, colors)], "x", rng.uniform(-15, 5)), (0, 0, 0.35))
    wing = limb(
        [(0.17, -0.16, 0.08, 0.06), (0.195, 0.0, 0.04, 0.125), (0.15, 0.22, -0.02, 0.085), (0.07, 0.48, -0.05, 0.02)],
        20,
        22,
    )
    bars = pt.blend(pt.solid(colors.wing), shade(colors.wing, 0.55), pt.beyond((0, 1, -0.4), 0.16, 0.03))
    if rng.uniform() < 0.6:
        bars = pt.blend(
            bars,
            mix(colors.wing, rgb.WHITE, 0.65),
            lambda p: pt.edge(np.abs(p[:, 1] - 0.4 * p[:, 2] - 0.10) - 0.018, 0.01),
        )
    flat = (wing - (0.14, 0, 0)) * (0.5, 1, 1) + (0.145 * plump, 0, 0)
    parts += pair(ObjectPart("wing", flat, Paint(bars, FEATHERS), wing))
    parts = turn(parts, "x", -rng.uniform(10, 42))
    return shift([*parts, *_bird_legs(rng, colors)], (0, 0, 0.42))


def _bird_head(rng: np.random.Generator, colors: Plumage, name: str) -> list[ObjectPart]:
    """Build a head about the origin, 0.28 wide."""
    round_head = ellipsoid((0, 0, 0), (0.142, 0.15, 0.142), 28, 18)
    paint = pt.blend(pt.solid(colors.breast), colors.cap, pt.beyond((0, 0.45, 1), 0.0, 0.03))
    if name == "blue_tit":
        paint = pt.blend(pt.solid(rgb.WHITE), colors.cap, pt.beyond((0, 0.2, 1), 0.075, 0.02))
        paint = pt.blend(paint, rgb.CHARCOAL, lambda p: pt.edge(np.abs(p[:, 2] - 0.03) - 0.015, 0.01))
    elif name == "cardinal":
        paint = pt.blend(pt.solid(colors.cap), rgb.BLACK, pt.inside((0, -0.16, -0.02), (0.09, 0.08, 0.08)))
    elif name == "toucan":
        paint = pt.blend(pt.solid(colors.cap), (0.97, 0.93, 0.75), pt.inside((0, -0.14, -0.09), (0.12, 0.14, 0.12)))
    elif name == "eagle":
        paint = pt.solid(colors.cap)
    elif name == "robin":
        paint = pt.blend(pt.solid(colors.cap), colors.breast, pt.beyond((0, -1, -0.4), 0.04, 0.03))
    parts = [part("head", round_head, Paint(paint, FEATHERS))]
    if name == "cardinal" or rng.uniform() < 0.08:
        crest = limb([(0, -0.05, 0.10, 0.05), (0, 0.02, 0.19, 0.04), (0, 0.08, 0.26, 0.012)], 12, 14)
        parts.append(part("crest", crest * (0.6, 1, 1), Paint(colors.cap, FEATHERS)))
    long = {"crow": 0.20, "parrot": 0.12}.get(name, rng.uniform(0.10, 0.15))
    thick = 0.062 if name in ("crow", "parrot", "cardinal") else 0.042
    if name in ("parrot", "eagle", "hawk"):
        hook = limb([(0, -0.11, 0.02, 0.055), (0, -0.18, 0.0, 0.045), (0, -0.20, -0.07, 0.012)], 14, 16)
        parts.append(part("beak", hook, Paint(colors.beak, 0.4)))
    elif name == "toucan":
        bill = limb([(0, -0.09, 0.0, 0.075), (0, -0.26, 0.015, 0.075), (0, -0.42, -0.05, 0.02)], 16, 20) * (0.6, 1, 1)
        tip = pt.blend(pt.solid(colors.beak), rgb.BLACK, pt.beyond((0, -1, 0), 0.36))
        parts.append(part("beak", bill, Paint(tip, 0.3)))
    else:
        for lift, factor in ((0.008, 1.0), (-0.018, 0.82)):
            cone = limb(
                [
                    (0, -0.10, lift, thick * factor),
                    (0, -0.14 - 0.6 * long * factor, lift, 0.45 * thick),
                    (0, -0.14 - long * factor, lift - 0.01, 0.006),
                ],
                10,
                16,
            )
            parts.append(
                part("beak", (cone - (0, 0, lift)) * (1, 1, 0.7) + (0, 0, lift), Paint(shade(colors.beak, factor), 0.4))
            )
    return parts + pair(bead_eye((0.108, -0.078, 0.035), 0.026, (1.0, -0.7, 0.1)))


def _spread_wings(rng: np.random.Generator, colors: Plumage) -> list[ObjectPart]:
    """Build raised or level wings about the shoulders, darker at the tips."""
    span, sweep = rng.uniform(0.55, 0.75), rng.uniform(0.05, 0.25)
    angle = np.arange(22) * (2 * np.pi / 22)
    rings = []
    for share in np.linspace(0, 1, 9):
        chord = 0.17 * np.sqrt(max(0.03, 1 - share**2.2)) * (1 + 0.25 * np.sin(np.pi * share))
        y = -0.02 + sweep * share**1.6
        rings.append(
            np.stack([np.full(22, share * span), y + chord * np.cos(angle), 0.022 * (1.2 - share) * np.sin(angle)], 1)
        )
    paint = pt.blend(pt.solid(colors.wing), shade(colors.wing, 0.5), pt.beyond((1, 0.35, 0), 0.62 * span, 0.06))
    wing = turn([part("wing", loft(rings), Paint(paint, FEATHERS))], "y", -rng.uniform(-12, 48))
    return pair(shift(wing, (0.10, 0.0, 0.08))[0])


def _bird_legs(rng: np.random.Generator, colors: Plumage) -> list[ObjectPart]:
    parts: list[ObjectPart] = []
    perch = rng.uniform() < 0.4
    ground = -0.36
    shank = capsule((0.07, 0.06, -0.15), (0.075, 0.02, ground + 0.02), 0.018, 0.014)
    toes = [part("shank", shank, Paint(colors.legs, 0.6))]
    for angle in (-28, 0, 28, 180):
        toe = capsule((0, 0, 0), (0, -0.10, -0.008), 0.014, 0.010)
        toes += shift(turn([part("toe", toe, Paint(colors.legs, 0.6))], "z", angle), (0.075, 0.02, ground + 0.016))
    for item in toes:
        parts += pair(item)
    if perch:
        parts.append(_branch(rng, (0.0, 0.0, ground - 0.035), 0.045))
    return parts


def _branch(rng: np.random.Generator, center: tuple[float, float, float], radius: float) -> ObjectPart:
    x, y, z = center
    bend = rng.uniform(-0.05, 0.05)
    path = curve(((x - 0.45, y + bend, z - 0.02), (x, y - 0.5 * bend, z + 0.01), (x + 0.45, y + bend, z + 0.02)), 12)
    bark = pt.blend(pt.solid(vary(rng, BARK, 0.03)), shade(BARK, 0.6), pt.stripes(rng, (0.1, 1, 0.6), 0.03, 0.4, 0.5))
    return part("branch", tube(path, radius, 14), Paint(bark, 0.95))


def owl(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an upright brown, gray or white owl with facial discs, large eyes and ear tufts; many sit on a branch."""
    body, light = pick(rng, (
        ((0.45, 0.31, 0.19), (0.85, 0.74, 0.58)),
        ((0.52, 0.38, 0.24), (0.90, 0.80, 0.64)),
        ((0.50, 0.49, 0.47), (0.85, 0.84, 0.80)),
        ((0.93, 0.92, 0.90), (0.98, 0.97, 0.95)),
        ((0.72, 0.50, 0.26), (0.95, 0.90, 0.80)),
    ))  # fmt: skip
    if rng.uniform() < 0.1:
        body = hsv(rng.uniform(), 0.55, 0.7)
        light = mix(body, rgb.WHITE, 0.65)
    body = vary(rng, body, 0.03)
    dark = shade(body, 0.5)
    girth, tall = rng.uniform(0.88, 1.18), rng.uniform(0.88, 1.12)
    profile = [
        (0.10, 0.0),
        (0.20, 0.04),
        (0.265, 0.20),
        (0.275, 0.36),
        (0.245, 0.50),
        (0.225, 0.57),
        (0.24, 0.66),
        (0.235, 0.76),
        (0.19, 0.86),
        (0.10, 0.91),
    ]
    trunk = lathe(profile, 36) * (girth, 0.88 * girth, tall)
    belly = pt.inside((0, -0.26 * girth, 0.27 * tall), (0.20 * girth, 0.20, 0.27 * tall), 0.08)
    breast = pt.blend(pt.solid(light), dark, _flecks(rng, pick(rng, ("bars", "spots", "spots"))))
    back = pt.blend(pt.solid(body), dark, pt.spots(rng, 0.11, 0.022))
    parts = [part("body", trunk, Paint(pt.blend(back, breast, belly), 0.9))]
    parts += shift(turn(_owl_face(rng, body, light, dark, girth), "z", rng.uniform(-22, 22)), (0, 0, 0.71 * tall))
    wing = limb(
        [(0.20, -0.02, 0.58, 0.07), (0.275, -0.02, 0.42, 0.13), (0.25, 0.05, 0.20, 0.10), (0.15, 0.15, 0.0, 0.025)],
        20,
        24,
    )
    paint = pt.blend(pt.solid(shade(body, 0.85)), mix(dark, body, 0.3), pt.stripes(rng, (0, 0.3, 1), 0.09, 0.4, 0.12))
    flat = ((wing - (0.24, 0, 0)) * (0.45, 1.05, 1) + (0.235, 0, 0)) * (girth, girth, tall)
    parts += pair(ObjectPart("wing", flat, Paint(paint, 0.9), wing))
    tail = turn([part("tail", feather_fan(0.24, 0.08, 0.10, 0.03), Paint(paint, 0.9))], "x", -62)
    parts += shift(tail, (0, 0.14 * girth, 0.08))
    claws: Rgb = pick(rng, ((0.93, 0.65, 0.20), (0.75, 0.62, 0.40)))
    for x in (0.055, 0.10, 0.145):
        parts += pair(part("claw", capsule((x, -0.10, 0.03), (x + 0.01, -0.22, 0.0), 0.03, 0.02), Paint(claws, 0.5)))
    if rng.uniform() < 0.6:
        parts.append(_branch(rng, (0, -0.10, -0.055), 0.065))
        return shift(parts, (0, 0, 0.12))
    return shift(parts, (0, 0, 0.03))


def _flecks(rng: np.random.Generator, kind: str) -> pt.Mask:
    """Return short bars or spots on the breast of an owl."""
    if kind == "spots":
        return pt.spots(rng, 0.085, 0.020)
    rows, columns = pt.stripes(rng, (0, 0, 1), 0.085, 0.35), pt.stripes(rng, (1, 0, 0), 0.075, 0.65)
    return lambda points: rows(points) * columns(points)


def _owl_face(rng: np.random.Generator, body: Rgb, light: Rgb, dark: Rgb, girth: float) -> list[ObjectPart]:
    """Build discs, eyes, beak and ear tufts of a head about the origin, whose front is at y = -0.2 `girth`."""
    front = -0.185 * girth
    iris = pick(rng, ((0.98, 0.75, 0.10), (0.98, 0.60, 0.10), (0.95, 0.85, 0.25), (0.35, 0.20, 0.10)))
    disc = ellipsoid((0.098, front + 0.015, 0.015), (0.115, 0.05, 0.125), 28, 14)
    rim = pt.blend(pt.solid(light), dark, lambda p: pt.edge(0.105 - np.hypot(p[:, 0] - 0.098, p[:, 2] - 0.015), 0.02))
    size = rng.uniform(0.058, 0.074)
    features = [
        part("disc", disc, Paint(rim, 0.9)),
        eye((0.092, front - 0.022, 0.02), size, iris, (0.18, -1.0, 0.0), iris_deg=rng.uniform(62, 80)),
    ]
    if rng.uniform() < 0.65:
        tuft = lathe([(0.05, 0.0), (0.042, 0.05), (0.008, 0.17)], 14) * (1, 0.6, 1)
        features += shift(
            turn([part("tuft", tuft, Paint(body, 0.9))], "y", rng.uniform(18, 42)), (0.125 * girth, -0.05, 0.13)
        )
    parts: list[ObjectPart] = []
    for feature in features:
        parts += pair(feature)
    beak = limb(
        [(0, front - 0.03, 0.0, 0.032), (0, front - 0.07, -0.03, 0.026), (0, front - 0.065, -0.085, 0.006)], 12, 14
    )
    return [*parts, part("beak", beak, Paint(pick(rng, ((0.93, 0.68, 0.20), (0.25, 0.23, 0.22))), 0.4))]
