"""Build birds with long legs or a long neck: herons, flamingos, storks, ostriches, geese."""

from dataclasses import dataclass

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.limbs import limb
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import SurfaceGrid, capsule, ellipsoid, loft

FEATHERS = 0.75


@dataclass(frozen=True)
class Wader:
    """Colors and sizes of a long-legged or long-necked bird.

    `leg` and `neck` are the lengths of the legs and the neck; `bill` is the length and half the height of the bill.
    """

    body: Rgb
    wing: Rgb
    neck_color: Rgb
    bill_color: Rgb
    leg_color: Rgb
    leg: float
    neck: float
    bill: tuple[float, float]


HERON_GRAY: Rgb = (0.50, 0.55, 0.62)
DARK: Rgb = (0.10, 0.10, 0.11)
WADERS: dict[str, Wader] = {
    "heron": Wader(
        HERON_GRAY, (0.38, 0.43, 0.52), (0.80, 0.80, 0.80),
        (0.88, 0.68, 0.25), (0.45, 0.38, 0.28), 0.50, 0.55, (0.26, 0.032),
    ),
    "egret": Wader(rgb.WHITE, (0.92, 0.92, 0.92), rgb.WHITE, (0.92, 0.72, 0.20), DARK, 0.50, 0.55, (0.22, 0.028)),
    "flamingo": Wader(
        (0.96, 0.62, 0.62), (0.93, 0.48, 0.50), (0.97, 0.66, 0.65),
        (0.92, 0.70, 0.66), (0.93, 0.55, 0.55), 0.68, 0.70, (0.13, 0.042),
    ),
    "stork": Wader(rgb.WHITE, DARK, rgb.WHITE, (0.85, 0.25, 0.12), (0.82, 0.25, 0.15), 0.48, 0.40, (0.28, 0.034)),
    "crane": Wader(
        (0.58, 0.60, 0.62), (0.48, 0.50, 0.53), (0.25, 0.25, 0.27),
        (0.45, 0.42, 0.36), DARK, 0.55, 0.52, (0.14, 0.028),
    ),
    "ostrich": Wader(
        (0.12, 0.11, 0.11), (0.90, 0.88, 0.85), (0.74, 0.62, 0.55),
        (0.72, 0.58, 0.48), (0.72, 0.60, 0.54), 0.58, 0.68, (0.11, 0.038),
    ),
    "goose": Wader(
        (0.55, 0.47, 0.40), (0.45, 0.38, 0.33), (0.50, 0.43, 0.37),
        (0.93, 0.55, 0.25), (0.92, 0.52, 0.28), 0.16, 0.34, (0.15, 0.050),
    ),
    "swan": Wader(rgb.WHITE, (0.92, 0.92, 0.92), rgb.WHITE, (0.93, 0.50, 0.15), DARK, 0.14, 0.48, (0.15, 0.046)),
    "canada": Wader((0.52, 0.44, 0.36), (0.42, 0.35, 0.28), DARK, DARK, DARK, 0.17, 0.38, (0.13, 0.046)),
}  # fmt: skip


def feather_fan(length: float, root: float, tip: float, thick: float) -> SurfaceGrid:
    """Build a flat fan of feathers from the origin to y = `length`.

    `root` is half the width of the fan at the origin. `tip` is about half its width at y = `length`. `thick` is about
    half its thickness at the origin.
    """
    angle = np.arange(20) * (2 * np.pi / 20)
    rings = []
    for share in (0.0, 0.3, 0.6, 0.9, 0.98, 1.0):
        half = (root + (tip - root) * share) * (1.0 if share < 0.9 else 0.85 if share < 1 else 0.4)
        rings.append(
            np.stack([half * np.sin(angle), np.full(20, share * length), thick * (1.1 - share) * np.cos(angle)], 1)
        )
    return loft(rings)


def wader(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a standing bird, such as a heron, stork or goose, with its neck upright, S-shaped or bent forward."""
    kind = pick(rng, tuple(WADERS))
    bird = WADERS[kind]
    plump, leg = rng.uniform(0.9, 1.12) * (1.25 if kind == "ostrich" else 1.0), bird.leg * rng.uniform(0.85, 1.1)
    z = leg + 0.16 * plump
    body_color = vary(rng, bird.body, 0.02)
    body = limb(
        [
            (0, -0.26, 0.06, 0.10),
            (0, -0.12, 0.02, 0.165),
            (0, 0.08, 0.0, 0.175),
            (0, 0.28, 0.0, 0.11),
            (0, 0.40, 0.0, 0.04),
        ],
        24,
        28,
    )
    parts = [part("body", body * (0.95 * plump, 1, plump), Paint(body_color, FEATHERS))]
    wing = limb(
        [(0.13, -0.18, 0.06, 0.06), (0.16, 0.0, 0.03, 0.12), (0.12, 0.24, 0.02, 0.09), (0.05, 0.46, 0.0, 0.02)], 20
    )
    edge = DARK if kind in ("crane", "flamingo", "heron") else shade(bird.wing, 0.7)
    paint = pt.blend(pt.solid(bird.wing), edge, pt.beyond((0, 1, -0.35), rng.uniform(0.16, 0.28), 0.03))
    flat = (wing - (0.12, 0, 0)) * (0.5, 1, 1.0) + (0.125 * plump, 0, 0)
    parts += pair(ObjectPart("wing", flat, Paint(paint, FEATHERS), wing))
    tail = part("tail", feather_fan(0.22, 0.06, 0.10, 0.035), Paint(bird.wing, FEATHERS))
    parts += shift(turn([tail], "x", rng.uniform(-25, 5)), (0, 0.28, 0.0))
    parts = turn(parts, "x", -rng.uniform(0, 14))
    parts += _neck_and_head(rng, bird, kind, bird.neck * rng.uniform(0.88, 1.1))
    return shift(parts, (0, 0, z)) + _legs(bird, leg, rng.uniform(-10, 22), webbed=kind in ("goose", "swan", "canada"))


def _neck_and_head(rng: np.random.Generator, bird: Wader, kind: str, length: float) -> list[ObjectPart]:
    """Build a neck from the breast at (0, -0.26, 0.07) and the head at its end."""
    root, tip = (0.075, 0.042) if bird.leg > 0.3 else (0.105, 0.060)
    match pick(rng, ("s", "s", "upright", "forward")):
        case "s":
            middle, end = ((-0.44, 0.07 + 0.35 * length), (-0.28, 0.07 + 0.65 * length)), (-0.34, 0.07 + 0.95 * length)
        case "upright":
            middle, end = ((-0.34, 0.07 + 0.35 * length), (-0.35, 0.07 + 0.7 * length)), (-0.37, 0.07 + length)
        case _:
            middle, end = ((-0.42, 0.07 + 0.25 * length), (-0.52, 0.07 + 0.5 * length)), (-0.58, 0.07 + 0.75 * length)
    stations = [(0.0, -0.22, 0.05, 1.25 * root)]
    stations += [(0.0, y, z, root + (tip - root) * share) for (y, z), share in zip(middle, (0.55, 0.9), strict=True)]
    neck = limb([*stations, (0.0, *end, tip)], 26, 20)
    paint = pt.blend(pt.solid(bird.neck_color), bird.body, pt.beyond((0, 0.4, -1), -0.16, 0.06))
    parts = [part("neck", neck, Paint(paint, FEATHERS))]
    size = 0.072 if bird.leg > 0.3 else 0.088
    skull = ellipsoid((0, -0.02, 0), (0.88 * size, 1.25 * size, size), 26, 16)
    face = pt.solid(bird.neck_color)
    if kind == "crane":
        face = pt.blend(face, (0.80, 0.15, 0.12), pt.beyond((0, -0.2, 1), 0.04))
    elif kind == "heron":
        face = pt.blend(face, DARK, lambda p: pt.edge(np.abs(p[:, 2] - 0.035) - 0.018, 0.01) * (p[:, 1] > -0.06))
    elif kind == "canada":
        face = pt.blend(face, rgb.WHITE, pt.inside((0, 0.03, -0.05), (0.2, 0.055, 0.075)))
    long, half = bird.bill[0] * rng.uniform(0.9, 1.15), bird.bill[1]
    droop = -0.075 if kind == "flamingo" else -0.01
    bill = limb(
        [
            (0, -0.06, 0.0, half),
            (0, -0.09 - 0.5 * long, 0.1 * droop, 0.72 * half),
            (0, -0.09 - long, droop, 0.2 * half),
        ],
        14,
        18,
    ) * (0.85 if bird.leg > 0.3 else 1.2, 1, 1)
    tipped = pt.blend(pt.solid(bird.bill_color), DARK, pt.beyond((0, -1, 0), 0.09 + 0.62 * long))
    bill_paint = tipped if kind == "flamingo" else pt.solid(bird.bill_color)
    head = [part("head", skull, Paint(face, FEATHERS)), part("bill", bill, Paint(bill_paint, 0.4))]
    head += pair(bead_eye((0.76 * size, -0.055, 0.024), 0.017, (1.0, -0.5, 0.1)))
    turned = turn(turn(head, "x", rng.uniform(0, 22)), "z", rng.uniform(-30, 30))
    return parts + shift(turned, (0.0, end[0] - 0.03, end[1] + 0.02))


def _legs(bird: Wader, leg: float, stride: float, webbed: bool) -> list[ObjectPart]:
    """Build thin legs with a thick thigh, a joint, and toes or webbed feet at z = 0."""
    paint = Paint(bird.leg_color, 0.6)
    thick = 0.030 if bird.neck > 0.6 and bird.leg < 0.6 else 0.020
    parts: list[ObjectPart] = []
    for side in (-1, 1):
        thigh = limb(
            [(0.065, 0.05, leg + 0.10, 0.07), (0.068, 0.06, leg, 0.045), (0.07, 0.07, 0.86 * leg, 1.2 * thick)], 12, 16
        )
        shank = limb(
            [(0.07, 0.07, 0.9 * leg, thick), (0.07, 0.085, 0.48 * leg, 1.35 * thick), (0.07, 0.05, 0.025, thick)],
            16,
            12,
        )
        items = [
            part("thigh", thigh, Paint(mix(bird.body, bird.leg_color, 0.15), FEATHERS)),
            part("shank", shank, paint),
        ]
        for angle in (-30, 0, 30, 180):
            toe = capsule((0, 0, 0), (0, -0.12 if angle < 90 else -0.06, -0.006), 0.017, 0.011)
            items += shift(turn([part("toe", toe, paint)], "z", angle), (0.07, 0.05, 0.018))
        if webbed:
            web = ellipsoid((0.07, -0.01, 0.012), (0.07, 0.075, 0.010), 18, 8)
            items.append(part("web", web, paint))
        items = turn(items, "x", side * 0.5 * stride, (0, 0.05, leg))
        parts += items if side > 0 else [pair(item)[1] for item in items]
    return parts
