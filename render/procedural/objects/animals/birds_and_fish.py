"""Build ducks, penguins and fish."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Palette, Rgb, hsv, mix, palette, pick, shade, vary
from render.procedural.primitives.features import bead_eye, eye
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points, curve, ellipsoid, facing_side, lathe, prism, tube

BEAK: Rgb = (0.97, 0.60, 0.10)
FISH_COLORS: tuple[Rgb, ...] = (
    (0.55, 0.58, 0.60),
    (0.42, 0.46, 0.34),
    (0.25, 0.40, 0.62),
    (0.50, 0.40, 0.30),
    (0.78, 0.36, 0.22),
    (0.15, 0.58, 0.60),
    (0.80, 0.76, 0.66),
)


def duck(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a rubber duck, or a drake with a green head and a white collar."""
    wild = rng.uniform() < 0.35
    body = (
        (0.62, 0.52, 0.44)
        if wild
        else pick(rng, (vary(rng, rgb.YELLOW), vary(rng, rgb.WHITE), palette(rng).main, palette(rng).main))
    )
    head = (0.08, 0.38, 0.22) if wild else body
    length, size = rng.uniform(0.9, 1.15), rng.uniform(0.9, 1.2)
    spine = curve(((0, -0.36, 0.30), (0, -0.1, 0.20), (0, 0.3, 0.22), (0, 0.62, 0.46)), 18) * (1, length, 1)
    radii = np.interp(np.linspace(0, 1, 18), [0, 0.25, 0.55, 0.8, 1], [0.15, 0.26, 0.27, 0.16, 0.035])
    plumage = pt.solid(body)
    if wild:
        plumage = pt.blend(plumage, (0.36, 0.22, 0.16), pt.beyond((0, -1, 0.2), 0.25 * length, 0.03))
    wing_path = curve(((0.25, -0.22, 0.30), (0.33, 0.05, 0.24), (0.24, 0.42, 0.40)), 12) * (1, length, 1)
    wing = tube(wing_path, np.interp(np.linspace(0, 1, 12), [0, 0.4, 1], [0.06, 0.13, 0.02]), 18)
    wing_color = (0.45, 0.40, 0.38) if wild else shade(body, pick(rng, (0.85, 0.95, 0.7)))
    parts = [part("body", tube(spine, radii, 32), Paint(plumage, 0.5))]
    parts += pair(part("wing", (wing - (0.27, 0, 0)) * (0.45, 1, 1) + (0.27, 0, 0), Paint(wing_color, 0.5)))
    neck = tube(curve(((0, -0.30, 0.30), (0, -0.36, 0.62)), 8), np.linspace(0.16, 0.12, 8), 24)
    ring = (
        pt.blend(pt.solid(head), rgb.WHITE, lambda p: pt.edge(np.abs(p[:, 2] - 0.46) - 0.025, 0.01))
        if wild
        else pt.solid(head)
    )
    parts.append(part("neck", neck, Paint(ring, 0.5)))
    return parts + shift(_duck_head(head, pick(rng, (BEAK, BEAK, rgb.RED))), (0, -0.38, 0.62 + 0.06 * size))


def _duck_head(color: Rgb, bill: Rgb) -> list[ObjectPart]:
    upper = ellipsoid((0, -0.27, -0.03), (0.115, 0.17, 0.035), 24, 12)
    lower = ellipsoid((0, -0.235, -0.065), (0.09, 0.13, 0.025), 24, 12)
    return [
        part("head", ellipsoid((0, 0, 0), (0.205, 0.205, 0.20), 28, 18), Paint(color, 0.5)),
        part("bill", upper, Paint(bill, 0.4)),
        part("bill_below", lower, Paint(shade(bill, 0.85), 0.4)),
        *pair(bead_eye((0.12, -0.135, 0.065), 0.048, (0.5, -1.0, 0.1))),
    ]


def penguin(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an upright penguin with a dark back and a white belly and face; some wear a scarf."""
    dark = pick(rng, (rgb.CHARCOAL, (0.12, 0.16, 0.28), (0.25, 0.28, 0.33), hsv(rng.uniform(), 0.5, 0.55)))
    girth, height = rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.15)
    profile = [
        (0.16, 0.03),
        (0.26, 0.08),
        (0.32, 0.24),
        (0.32, 0.42),
        (0.27, 0.62),
        (0.225, 0.76),
        (0.222, 0.88),
        (0.195, 0.98),
        (0.14, 1.05),
        (0.07, 1.085),
    ]
    body = lathe(profile, 40) * (girth, girth * 0.95, height)
    front = pt.blend(
        pt.solid(dark), rgb.WHITE, pt.inside((0, -0.36 * girth, 0.38 * height), (0.25 * girth, 0.34, 0.36 * height))
    )
    for side in (-1, 1):
        front = pt.blend(front, rgb.WHITE, pt.inside((side * 0.085, -0.24, 0.86 * height), (0.10, 0.2, 0.115)))
    wing_path = curve(
        ((0.26 * girth, 0, 0.72 * height), (0.44, 0.0, 0.50), (0.42 + rng.uniform(0, 0.15), -0.02, 0.26)), 12
    )
    wing = tube(wing_path, np.interp(np.linspace(0, 1, 12), [0, 0.5, 1], [0.06, 0.10, 0.035]), 18)
    wing = (wing - (0.36, 0, 0)) * (0.7, 1, 1) + (0.36, 0, 0)
    foot = ellipsoid((0.13, -0.14, 0.035), (0.10, 0.17, 0.04), 20, 10)
    beak = turn(
        [part("beak", lathe([(0.06, 0.0), (0.045, 0.06), (0.008, 0.17)], 18) * (1, 0.7, 1), Paint(BEAK, 0.4))], "x", 95
    )
    parts = [part("body", body, Paint(front, 0.6)), *shift(beak, (0, -0.18 * girth, 0.83 * height))]
    for item in (
        part("wing", wing, Paint(dark, 0.6)),
        part("foot", foot, Paint(BEAK, 0.6)),
        bead_eye((0.085 * girth, -0.185 * girth, 0.91 * height), 0.036),
    ):
        parts += pair(item)
    return parts + (_scarf(rng, 0.24 * girth, 0.70 * height) if rng.uniform() < 0.5 else [])


def _scarf(rng: np.random.Generator, radius: float, z: float) -> list[ObjectPart]:
    colors = palette(rng)
    paint = pt.blend(pt.solid(colors.main), colors.second, pt.stripes(rng, (1, 0, 1), 0.12))
    loop = lathe(
        [(radius, z - 0.05), (radius + 0.05, z - 0.03), (radius + 0.05, z + 0.03), (radius - 0.01, z + 0.05)], 36
    )
    end = tube(curve(((0.11, -radius - 0.02, z), (0.15, -radius - 0.10, z - 0.2)), 8), np.full(8, 0.05), 16)
    return [part("scarf", loop, Paint(paint, 0.9)), part("scarf_end", end, Paint(paint, 0.9))]


def fish(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a fish whose head points to the front: banded, spotted, two-tone or plain.

    It is a deep toy fish with bright, contrasting fins, or a slender fish in natural colors.
    """
    slender = rng.uniform() < 0.5
    colors = _fish_colors(rng) if slender else palette(rng)
    height, length, width = rng.uniform(0.24, 0.40), rng.uniform(0.42, 0.62), rng.uniform(0.13, 0.19)
    if slender:
        height, length, width = rng.uniform(0.17, 0.28), rng.uniform(0.58, 0.80), rng.uniform(0.09, 0.14)
    eye_radius = rng.uniform(0.035, 0.055) if slender else 0.075
    place = np.linspace(0, 1, 20)
    shape = np.interp(place, [0, 0.08, 0.25, 0.45, 0.75, 0.92, 1], [0.18, 0.50, 0.88, 1.0, 0.62, 0.28, 0.22])
    spine = np.stack([0 * place, (place - 0.5) * 2 * length, 0 * place], axis=1)
    body = tube(spine, shape * height, 36) * (width / height, 1.0, 1.0)
    style = pick(rng, ("bands", "bands", "spots", "belly", "checks"))
    paint = pt.solid(colors.main)
    if style == "bands":
        paint = pt.blend(paint, colors.second, pt.stripes(rng, (0, 1, 0), length * rng.uniform(0.45, 0.7), 0.42, 0.05))
    elif style == "spots":
        paint = pt.blend(paint, colors.second, pt.spots(rng, height * 0.5, height * 0.14))
    elif style == "checks":
        paint = pt.blend(paint, shade(colors.main, 0.75), pt.stripes(rng, (0, 1, 1), 0.11, 0.5))
    paint = pt.blend(paint, mix(colors.main, rgb.WHITE, 0.75), pt.beyond((0, 0, -1), 0.45 * height, 0.05))
    mouth = ellipsoid((0, -length - 0.13 * height, -0.04), (0.055, 0.045, 0.035), 18, 10)
    parts = [part("body", body, Paint(paint, 0.35)), part("mouth", mouth, Paint(shade(colors.main, 0.6), 0.4))]
    parts += pair(
        eye(
            (width * 0.62, -length * 0.72, height * 0.22),
            eye_radius,
            pick(rng, (rgb.BLACK, rgb.ORANGE, (0.2, 0.5, 0.8))),
            (0.9, -0.8, 0.05),
        )
    )
    return shift(parts + _fins(colors.accent, height, length, width), (0, 0, height + 0.18))


def _fish_colors(rng: np.random.Generator) -> Palette:
    """Draw colors of wild fish: gray, olive, blue, brown, red or teal, with fins of a similar color."""
    main = vary(rng, pick(rng, FISH_COLORS))
    second = mix(main, pick(rng, FISH_COLORS), rng.uniform(0.2, 0.6))
    return Palette(main, second, shade(main, rng.uniform(0.6, 1.1)))


def _fins(color: Rgb, height: float, length: float, width: float) -> list[ObjectPart]:
    """Build tail, back, belly and side fins as thin outlines in the (y, z) plane."""
    lean = length * 0.9
    outlines: dict[str, Points] = {
        "tail": np.array(
            [
                (lean, -0.05),
                (lean + 0.18, -0.26),
                (lean + 0.38, -0.30),
                (lean + 0.27, 0),
                (lean + 0.38, 0.30),
                (lean + 0.18, 0.26),
                (lean, 0.05),
            ]
        ),
        "back": np.array(
            [
                (-0.5 * length, 0.7 * height),
                (0.5 * length, 0.55 * height),
                (0.6 * length, height + 0.12),
                (0.0, height + 0.20),
                (-0.3 * length, height + 0.12),
            ]
        ),
        "belly": np.array(
            [
                (0.15 * length, -0.8 * height),
                (0.22 * length, -height - 0.13),
                (0.5 * length, -height - 0.06),
                (0.55 * length, -0.5 * height),
            ]
        ),
    }
    fins = [
        part(f"{name}_fin", facing_side(prism(outline, 0.05, 0.02)), Paint(color, 0.5))
        for name, outline in outlines.items()
    ]
    side = ellipsoid((0, 0.13, 0), (0.02, 0.16, 0.085), 18, 10)
    placed = shift(
        turn(turn([part("side_fin", side, Paint(color, 0.5))], "z", -38), "x", -15),
        (width * 0.85, -0.12, -0.25 * height),
    )
    return fins + pair(placed[0])
