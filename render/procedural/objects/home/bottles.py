"""Build bottles and vases."""

import numpy as np

from render.procedural.objects.home.tableware import glaze
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, hsv, palette, pick, shade, usual, vary
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn

GREEN_GLASS: Rgb = (0.10, 0.28, 0.14)
BROWN_GLASS: Rgb = (0.34, 0.17, 0.06)
CLEAR: Rgb = (0.75, 0.85, 0.88)
# Outlines as (radius, height) in units of the radius and of the height of the bottle.
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "wine": [
        (0.95, 0.0),
        (1.0, 0.02),
        (1.0, 0.56),
        (0.95, 0.63),
        (0.62, 0.70),
        (0.40, 0.76),
        (0.36, 0.82),
        (0.36, 0.98),
    ],
    "burgundy": [
        (0.95, 0.0),
        (1.0, 0.02),
        (1.0, 0.42),
        (0.9, 0.52),
        (0.62, 0.64),
        (0.42, 0.74),
        (0.35, 0.82),
        (0.34, 0.98),
    ],
    "beer": [(0.95, 0.0), (1.0, 0.02), (1.0, 0.54), (0.9, 0.61), (0.6, 0.69), (0.46, 0.78), (0.40, 0.95), (0.42, 0.97)],
    "water": [
        (0.9, 0.0),
        (1.0, 0.03),
        (0.96, 0.2),
        (1.0, 0.3),
        (0.92, 0.45),
        (1.0, 0.6),
        (0.98, 0.72),
        (0.6, 0.86),
        (0.4, 0.9),
        (0.4, 0.95),
    ],
    "soda": [
        (0.8, 0.0),
        (0.98, 0.05),
        (0.93, 0.2),
        (0.84, 0.3),
        (1.0, 0.5),
        (1.0, 0.6),
        (0.7, 0.75),
        (0.44, 0.86),
        (0.42, 0.95),
    ],
    "milk": [(0.96, 0.0), (1.0, 0.03), (1.0, 0.55), (0.9, 0.66), (0.6, 0.78), (0.55, 0.86), (0.62, 0.94), (0.62, 0.97)],
    "flask": [(0.9, 0.0), (1.0, 0.03), (1.0, 0.70), (0.97, 0.76), (0.75, 0.82), (0.6, 0.84), (0.6, 0.9)],
}


def bottle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a bottle of wine, beer, water, soda or milk, or a drinking flask; with a label and a cork, cap or lid."""
    colors = palette(rng)
    style = pick(rng, ("wine", "wine", "burgundy", "beer", "beer", "water", "soda", "milk", "flask"))
    slim = {"wine": 0.135, "burgundy": 0.15, "beer": 0.15, "water": 0.16, "soda": 0.16, "milk": 0.2, "flask": 0.16}[
        style
    ]
    radius, height = slim * rng.uniform(0.92, 1.15), rng.uniform(0.95, 1.05) * (0.85 if style == "milk" else 1.0)
    profile = OUTLINES[style]
    places = np.linspace(0, profile[-1][1], 60)
    radii = np.interp(places, [z for _, z in profile], [r for r, _ in profile])
    smooth = np.convolve(np.pad(radii, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    wall = [(float(r) * radius, float(z) * height) for r, z in zip(smooth, places, strict=True)]
    glass = Paint(_glass(rng, style, colors, height), 0.12 if style != "flask" else 0.35, 0.0)
    parts = [part("bottle", shapes.lathe([(radius * 0.8, 0.0), *wall], 40), glass)]
    parts += _closure(rng, style, colors, wall[-1][0], wall[-1][1])
    if rng.uniform() < 0.85:
        parts += _label(rng, style, colors, radius, height)
    return parts


def _glass(rng: np.random.Generator, style: str, colors: Palette, height: float) -> Rgb | pt.Pattern:
    match style:
        case "wine" | "burgundy":
            return usual(
                rng,
                (GREEN_GLASS, GREEN_GLASS, (0.08, 0.09, 0.07), (0.35, 0.06, 0.10), (0.75, 0.70, 0.42)),
                colors.main,
                0.9,
            )
        case "beer":
            return usual(rng, (BROWN_GLASS, BROWN_GLASS, GREEN_GLASS, CLEAR), colors.main, 0.95)
        case "water":
            return usual(rng, (CLEAR, (0.55, 0.78, 0.9)), colors.main, 0.85)
        case "milk":
            return pt.blend(pt.solid(CLEAR), rgb.WHITE, pt.beyond((0, 0, -1), -height * rng.uniform(0.5, 0.8)))
        case "soda":
            drink = pick(rng, ((0.18, 0.08, 0.05), rgb.ORANGE, (0.3, 0.65, 0.2), rgb.RED, colors.main))
            return pt.blend(pt.solid(CLEAR), drink, pt.beyond((0, 0, -1), -height * rng.uniform(0.72, 0.88)))
        case _:
            return colors.main


def _closure(rng: np.random.Generator, style: str, colors: Palette, radius: float, top: float) -> list[ObjectPart]:
    """Build a cork, a capsule, a crown cap, a screw cap or the lid of a flask."""
    match style:
        case "wine" | "burgundy":
            if rng.uniform() < 0.35:
                ring = shapes.lathe([(radius * 1.15, top - 0.04), (radius * 1.15, top)], 24)
                cork = shapes.lathe([(radius * 0.75, top - 0.01), (radius * 0.8, top + 0.05)], 24)
                return [part("rim", ring, Paint(GREEN_GLASS, 0.15)), part("cork", cork, Paint((0.78, 0.60, 0.40), 0.9))]
            foil = pick(rng, (rgb.BLACK, (0.55, 0.08, 0.12), (0.80, 0.64, 0.25), colors.accent))
            capsule = shapes.lathe(
                [
                    (radius * 1.06, top - 0.17),
                    (radius * 1.06, top - 0.03),
                    (radius * 1.12, top - 0.02),
                    (radius * 1.08, top + 0.01),
                ],
                28,
            )
            return [part("capsule", capsule, Paint(foil, 0.35, 0.3))]
        case "beer":
            cap = shapes.lathe(
                [(radius * 1.3, top - 0.02), (radius * 1.2, top + 0.01), (radius * 0.9, top + 0.022)], 24
            )
            return [part("cap", cap, Paint(pick(rng, ((0.85, 0.7, 0.3), rgb.STEEL, colors.accent)), 0.3, 0.5))]
        case "flask":
            lid = shapes.lathe(
                [
                    (radius * 1.15, top - 0.02),
                    (radius * 1.15, top + 0.08),
                    (radius * 0.6, top + 0.09),
                    (radius * 0.5, top + 0.13),
                ],
                28,
            )
            return [part("lid", lid, Paint(pick(rng, (rgb.BLACK, rgb.STEEL, colors.accent)), 0.4))]
        case _:
            lid = shapes.lathe(
                [(radius * 1.12, top - 0.02), (radius * 1.14, top + 0.05), (radius * 1.0, top + 0.06)], 28
            )
            return [
                part(
                    "cap",
                    lid,
                    Paint(pick(rng, (rgb.RED, rgb.WHITE, (0.15, 0.4, 0.75), (0.15, 0.5, 0.3), colors.accent)), 0.4),
                )
            ]


def _label(rng: np.random.Generator, style: str, colors: Palette, radius: float, height: float) -> list[ObjectPart]:
    low, high = {"flask": (0.35, 0.5), "soda": (0.42, 0.62), "water": (0.32, 0.58)}.get(style, (0.16, 0.46))
    low, high = low * height, high * height * rng.uniform(0.95, 1.08)
    paper = pick(rng, (rgb.CREAM, rgb.WHITE, rgb.WHITE, colors.accent, colors.main))
    ink = pick(rng, (rgb.BLACK, shade(colors.main, 0.6), rgb.RED)) if paper != colors.main else rgb.WHITE
    middle = (low + high) / 2
    paint = pt.blend(
        pt.solid(paper), ink, lambda p: pt.edge(np.abs(np.abs(p[:, 2] - middle) - (high - low) * 0.42) - 0.01, 0.006)
    )
    if rng.uniform() < 0.5:
        paint = pt.blend(
            paint, colors.second, pt.inside((0, -radius, middle + 0.02), (radius * 0.5, radius * 0.5, 0.06))
        )
    text = (high - low) * 0.09
    paint = pt.blend(
        paint,
        ink,
        lambda p: (
            pt.edge(np.abs(p[:, 2] - middle + (high - low) * 0.2) - text, 0.006)
            * pt.edge(np.abs(p[:, 0]) - radius * 0.6, 0.01)
            * (np.sin(p[:, 0] * 260) > -0.4)
        ),
    )
    band = shapes.lathe([(radius * 0.9, low), (radius * 1.012, low), (radius * 1.012, high), (radius * 0.9, high)], 40)
    return [part("label", band, Paint(paint, 0.7))]


def vase(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a vase of a random smooth outline, sometimes with two handles, often with flowers in it."""
    colors = palette(rng)
    height, radius = rng.uniform(0.6, 0.85), rng.uniform(0.19, 0.27)
    neck, foot, belly = rng.uniform(0.3, 0.7), rng.uniform(0.45, 0.75), rng.uniform(0.35, 0.65)
    lip = neck * rng.uniform(1.1, 1.7)
    knots = [(0.0, foot), (0.06, foot * 0.95), (belly, 1.0), (0.80, neck), (0.92, neck), (1.0, lip)]
    if rng.uniform() < 0.25:
        knots = [(0.0, foot), (belly * 0.5, foot * 1.05), (1.0, rng.uniform(0.8, 1.0))]
    place = np.linspace(0, 1, 40)
    rough = np.interp(place, [z for z, _ in knots], [r for _, r in knots])
    smooth = np.convolve(np.pad(rough, 4, mode="edge"), np.hanning(11)[1:-1] / np.hanning(11)[1:-1].sum(), mode="valid")
    outside = [(float(r) * radius, float(z) * height) for r, z in zip(smooth, place, strict=True)]
    inside = [(r - 0.02, z) for r, z in outside[:24:-3]]
    pottery = _pottery(rng, colors)
    paint = glaze(rng, pottery, height)
    if rng.uniform() < 0.25:
        low, high = height * belly - 0.1, height * belly + 0.1
        paint = pt.blend(
            paint,
            colors.second,
            lambda p: pt.edge(
                np.abs(p[:, 2] - (low + high) / 2 - 0.05 * np.sin(8 * np.arctan2(p[:, 1], p[:, 0]))) - 0.03, 0.01
            ),
        )
    parts = [
        part(
            "vase",
            shapes.lathe([(outside[0][0] * 0.8, 0.0), *outside, *inside], 44),
            Paint(paint, pick(rng, (0.15, 0.3, 0.7))),
        )
    ]
    throat = inside[2]
    parts.append(
        part("inside", shapes.lathe([(throat[0] + 0.01, throat[1] - 0.01), throat], 36), Paint((0.10, 0.08, 0.07), 0.9))
    )
    if rng.uniform() < 0.25:
        parts += _vase_handles(outside, radius, height, Paint(pottery.main, 0.3))
    return parts + (_bouquet(rng, colors, height) if rng.uniform() < 0.5 else [])


def _pottery(rng: np.random.Generator, colors: Palette) -> Palette:
    """Return colors of pottery: terracotta, blue and white, celadon or black, else the random palette."""
    match pick(rng, ("terracotta", "blue", "celadon", "black", "any", "any")):
        case "terracotta":
            return Palette(vary(rng, (0.72, 0.38, 0.22)), (0.15, 0.10, 0.08), colors.accent)
        case "blue":
            return Palette((0.12, 0.22, 0.55), rgb.WHITE, colors.accent)
        case "celadon":
            return Palette(vary(rng, (0.55, 0.70, 0.60)), rgb.CREAM, colors.accent)
        case "black":
            return Palette(rgb.BLACK, (0.75, 0.40, 0.20), colors.accent)
        case _:
            return colors


def _vase_handles(outside: list[tuple[float, float]], radius: float, height: float, paint: Paint) -> list[ObjectPart]:
    heights, radii = [z for _, z in outside], [r for r, _ in outside]
    at = [(float(np.interp(s * height, heights, radii)) * 0.95, s * height) for s in (0.88, 0.6)]
    reach = max(at[0][0], at[1][0]) + 0.13
    path = shapes.curve(
        ((at[0][0], 0, at[0][1]), (reach, 0, at[0][1] + 0.08), (reach, 0, at[1][1] + 0.05), (at[1][0], 0, at[1][1])), 14
    )
    handle = part("handle", shapes.tube(path, 0.024, 12), paint)
    return [handle, *turn([handle], "z", 180)]


def _bouquet(rng: np.random.Generator, colors: Palette, height: float) -> list[ObjectPart]:
    """Build five to nine flowers with stems and leaves in the mouth of a vase at z = `height`."""
    parts: list[ObjectPart] = []
    blooms = (hsv(rng.uniform(0.8, 1.2), 0.75, 0.9), pick(rng, (rgb.WHITE, rgb.YELLOW, colors.accent)))
    green = vary(rng, rgb.LEAF)
    for number in range(int(rng.integers(5, 10))):
        lean, length = rng.uniform(0.02, 0.22), rng.uniform(0.15, 0.34)
        angle = number * 137.5
        tip = (lean, 0.0, height + length)
        stem = shapes.tube(
            shapes.curve(((0, 0, height - 0.15), (lean * 0.2, 0, height + length * 0.5), tip), 8), 0.010, 8
        )
        size = rng.uniform(0.055, 0.085)
        flower = [
            part("stem", stem, Paint(green, 0.7)),
            part("heart", shapes.ellipsoid((0, 0, size * 0.3), (size * 0.4,) * 3, 14, 10), Paint(rgb.YELLOW, 0.8)),
        ]
        petal = part(
            "petal",
            shapes.ellipsoid((size * 0.7, 0, size * 0.15), (size * 0.6, size * 0.42, size * 0.22), 12, 8),
            Paint(blooms[number % 2], 0.7),
        )
        ring = [q for k in range(5) for q in turn([petal], "z", 72 * k)]
        flower = [flower[0], *shift(turn([flower[1], *ring], "y", 35), tip)]
        leaf = shapes.ellipsoid((lean * 0.6 + 0.05, 0, height + length * 0.35), (0.07, 0.03, 0.012), 12, 8)
        parts += turn([*flower, part("leaf", leaf, Paint(green, 0.7))], "z", angle)
    return parts
