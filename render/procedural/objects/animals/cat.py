"""Build cats: sitting or standing; tabby, plain, tuxedo, calico, spotted or color-pointed."""

from dataclasses import dataclass

import numpy as np

from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import BLACK, CHARCOAL, PINK, RED, YELLOW, Rgb, hsv, mix, pick, shade
from render.procedural.primitives.features import FUR, Coat, coat, eye, fur, leg, tail, whiskers
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.pattern import Pattern
from render.procedural.primitives.surface import Points, curve, ellipsoid, lathe, moved, tube, turned

STYLES = ("striped", "striped", "striped", "plain", "tuxedo", "patched", "spotted", "pointed")
EYES: tuple[Rgb, ...] = ((0.45, 0.75, 0.20), (0.95, 0.72, 0.15), (0.30, 0.65, 0.90), (0.80, 0.50, 0.12))


@dataclass(frozen=True)
class Proportions:
    """Scale factors near 1 for the parts of a cat's body, and whether the paws and the chest are white."""

    head: float
    ear: float
    girth: float
    leg: float
    white_paws: bool
    white_chest: bool


def cat(rng: np.random.Generator) -> list[ObjectPart]:
    colors = coat(rng, STYLES)
    size = Proportions(
        head=rng.uniform(0.92, 1.15),
        ear=rng.uniform(0.85, 1.25),
        girth=rng.uniform(0.88, 1.12),
        leg=rng.uniform(0.85, 1.15),
        white_paws=colors.style == "tuxedo" or rng.uniform() < 0.4,
        white_chest=colors.style in ("tuxedo", "patched") or rng.uniform() < 0.5,
    )
    head = turn(_head(rng, colors, size), "z", rng.uniform(-14, 14))
    if rng.uniform() < 0.6:
        return [*_sitting(rng, colors, size), *shift(head, (0.0, -0.17, 0.84))]
    return [*_standing(rng, colors, size), *shift(head, (0.0, -0.44, 0.44 * size.leg + 0.36))]


def _paw(colors: Coat, size: Proportions) -> Rgb:
    if colors.style == "pointed":
        return colors.dark
    return colors.light if size.white_paws else mix(colors.body, colors.light, 0.25)


def _head(rng: np.random.Generator, colors: Coat, size: Proportions) -> list[ObjectPart]:
    """Build a head about the origin, 0.5 wide, looking to the front."""
    iris, slit = pick(rng, EYES), bool(rng.uniform() < 0.6)
    skull = ellipsoid((0, 0, 0), (0.255 * size.head, 0.215, 0.215), 36, 24)
    muzzle = ellipsoid((0.052, -0.195, -0.068), (0.072, 0.062, 0.056), 20, 12)
    whisker_root = (0.085, -0.235, -0.06)
    parts = [part("head", skull, Paint(_face(rng, colors), FUR))]
    for feature in (
        part(
            "muzzle",
            muzzle,
            Paint(mix(colors.light, (1, 1, 1), 0.3) if colors.style != "pointed" else colors.dark, FUR),
        ),
        eye((0.100, -0.160, 0.035), 0.064, iris, (0.28, -1.0, 0.05), slit=slit, iris_deg=66),
        *whiskers(whisker_root, rng.uniform(0.20, 0.28), 0.0055),
        *_ear(rng, colors, size),
        _mouth(),
    ):
        parts += pair(feature)
    nose_color = pick(rng, (PINK, shade(PINK, 0.8), CHARCOAL))
    nose = ellipsoid((0, -0.258, -0.03), (0.034, 0.022, 0.022), 16, 10)
    chin = ellipsoid((0, -0.180, -0.125), (0.055, 0.05, 0.04), 16, 10)
    return [*parts, part("nose", nose, Paint(nose_color, 0.3)), part("chin", chin, Paint(colors.light, FUR))]


def _face(rng: np.random.Generator, colors: Coat) -> Pattern:
    """Return the fur of the head: stripes on the brow and cheeks, a blaze, or a dark mask."""
    base = fur(rng, colors, (1, 0, 0), 0.5) if colors.style != "striped" else pt.solid(colors.body)
    match colors.style:
        case "striped":
            brow = pt.stripes(rng, (1, 0, 0), 0.085, 0.45, 0.0)
            cheek = pt.stripes(rng, (0, -0.3, 1), 0.095, 0.4, 0.05)
            base = pt.blend(base, colors.dark, lambda p: brow(p) * pt.beyond((0, 0, 1), 0.105)(p))
            base = pt.blend(
                base, colors.dark, lambda p: cheek(p) * pt.edge(0.17 - np.abs(p[:, 0]), 0.02) * (p[:, 2] < 0.09)
            )
            return pt.blend(base, colors.light, pt.inside((0, -0.22, -0.13), (0.14, 0.12, 0.13)))
        case "pointed":
            return pt.blend(base, colors.dark, pt.inside((0, -0.24, -0.03), (0.17, 0.16, 0.15), 0.4))
        case "tuxedo":
            return pt.blend(base, colors.light, pt.inside((0, -0.24, -0.09), (0.10, 0.15, 0.20)))
        case _:
            return base


def _ear(rng: np.random.Generator, colors: Coat, size: Proportions) -> list[ObjectPart]:
    """Build the left ear, pink inside."""
    height = 0.20 * size.ear
    profile = [(0.098, 0.0), (0.092, 0.22 * height), (0.070, 0.5 * height), (0.040, 0.8 * height), (0.010, height)]
    outer = lathe(profile, 24) * (1.0, 0.5, 1.0)
    inner = moved(outer * (0.68, 0.68, 0.74), (0.0, -0.024, 0.014))
    color = colors.dark if colors.style in ("pointed", "patched") else shade(colors.body, 0.9)
    tilt = rng.uniform(14, 26)
    shapes = [
        part("ear", outer, Paint(color, FUR)),
        part("ear_inside", inner, Paint(mix(PINK, colors.light, 0.25), FUR)),
    ]
    return shift(turn(turn(shapes, "y", tilt), "z", 12), (0.135 * size.head, -0.015, 0.145))


def _mouth() -> ObjectPart:
    path = curve(((0.0, -0.262, -0.055), (0.004, -0.258, -0.115), (0.058, -0.250, -0.102)), 8)
    return part("mouth", tube(path, 0.006, 8), CHARCOAL)


def _sitting(rng: np.random.Generator, colors: Coat, size: Proportions) -> list[ObjectPart]:
    """Build an upright body with straight forelegs, folded hind legs and the tail around one side."""
    spine = curve(((0, 0.16, 0.20), (0, 0.12, 0.45), (0, -0.10, 0.52), (0, -0.12, 0.68)), 14)
    girth = size.girth * np.interp(np.linspace(0, 1, 14), [0, 0.25, 0.7, 1], [0.21, 0.235, 0.175, 0.12])
    back = fur(rng, colors, (0, -0.4, 1), 0.42)
    if size.white_chest:
        back = pt.blend(back, colors.light, pt.inside((0, -0.32, 0.42), (0.16, 0.22, 0.32)))
    body = part("body", tube(spine, girth, 32), Paint(back, FUR))
    limb = fur(rng, colors, (0, 0, 1), 0.26) if colors.style != "pointed" else _sock(colors, 0.25)
    haunch = part(
        "haunch",
        ellipsoid((0.165, 0.10, 0.17), (0.125, 0.19, 0.17), 24, 14),
        Paint(fur(rng, colors, (0, 1, 0.3), 0.4), FUR),
    )
    hind_paw = part(
        "hind_paw", ellipsoid((0.19, -0.11, 0.05), (0.07, 0.12, 0.05), 18, 10), Paint(_paw(colors, size), FUR)
    )
    side = pick(rng, (-1.0, 1.0))
    path = curve(
        (
            (0, 0.30, 0.12),
            (side * 0.30, 0.48, 0.02),
            (side * 0.55, 0.10, 0.03),
            (side * 0.36, -0.22, 0.03),
            (side * 0.30, -0.2, 0.20),
        ),
        22,
    )
    parts = [body, _tail(rng, colors, moved(path, (0, 0, 0.02))), *_collar(rng, (0.0, -0.125, 0.66), 0.135, 12)]
    for item in (haunch, hind_paw, *leg((0.085, -0.16, 0.46), (0.085, -0.22, 0.0), 0.075, limb, _paw(colors, size))):
        parts += pair(item)
    return parts


def _standing(rng: np.random.Generator, colors: Coat, size: Proportions) -> list[ObjectPart]:
    """Build a level body on four legs, with the tail up."""
    height = 0.44 * size.leg
    spine = curve(((0, 0.36, height), (0, 0.15, height + 0.07), (0, -0.15, height), (0, -0.30, height + 0.06)), 14)
    girth = size.girth * np.interp(np.linspace(0, 1, 14), [0, 0.3, 0.7, 1], [0.165, 0.185, 0.18, 0.15])
    back = fur(rng, colors, (0, 1, 0), 0.42)
    if size.white_chest:
        back = pt.blend(back, colors.light, pt.beyond((0, -0.5, -1), 0.09 - height))
    neck = tube(curve(((0, -0.28, height + 0.05), (0, -0.42, height + 0.30)), 6), np.linspace(0.155, 0.12, 6), 24)
    parts = [part("body", tube(spine, girth, 32), Paint(back, FUR)), part("neck", neck, Paint(back, FUR))]
    limb = fur(rng, colors, (0, 0, 1), 0.26) if colors.style != "pointed" else _sock(colors, 0.25)
    for y in (-0.26, 0.36):
        for item in leg((0.095, y, height), (0.105, y - 0.02, 0.0), 0.072, limb, _paw(colors, size)):
            parts += pair(item)
    sway = rng.uniform(-0.2, 0.2)
    path = curve(
        (
            (0, 0.45, height + 0.05),
            (0, 0.75, height + 0.05),
            (sway, 0.62, height + 0.5),
            (2 * sway, 0.85, height + 0.62),
        ),
        22,
    )
    return [*parts, _tail(rng, colors, path), *_collar(rng, (0.0, -0.37, height + 0.21), 0.145, 30)]


def _sock(colors: Coat, level: float) -> Pattern:
    return pt.blend(pt.solid(colors.body), colors.dark, pt.beyond((0, 0, -1), -level, 0.15))


def _tail(rng: np.random.Generator, colors: Coat, path: Points) -> ObjectPart:
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.8, 1], [0.062, 0.052, 0.035])
    paint = fur(rng, colors, (0, 0, 1), 0.30)
    if colors.style in ("striped", "pointed"):
        paint = pt.blend(paint, colors.dark, pt.beyond((0, 0, 1), 0.72 if colors.style == "striped" else 0.2, 0.05))
    return tail(path, radii, paint)


def _collar(
    rng: np.random.Generator, center: tuple[float, float, float], radius: float, tilt_deg: float
) -> list[ObjectPart]:
    """Build a collar with a bell, on one cat in two."""
    if rng.uniform() < 0.5:
        return []
    band = lathe([(radius, -0.02), (radius + 0.018, -0.012), (radius + 0.018, 0.012), (radius, 0.02)], 32)
    color = pick(rng, (RED, hsv(0.6, 0.7, 0.8), hsv(0.4, 0.6, 0.6), hsv(0.83, 0.5, 0.7), BLACK))
    bell = ellipsoid((0, -radius - 0.03, -0.03), (0.035, 0.035, 0.035), 16, 10)
    shapes = [part("collar", turned(band, "x", 0), Paint(color, 0.4)), part("bell", bell, Paint(YELLOW, 0.3, 0.6))]
    return shift(turn(shapes, "x", tilt_deg), center)
