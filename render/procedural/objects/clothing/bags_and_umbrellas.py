"""Build backpacks and umbrellas."""

import numpy as np

from render.procedural.objects.home.furniture import cloth
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, mix, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid


def backpack(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a backpack with a front pocket, side pockets, a handle and shoulder straps behind."""
    colors = palette(rng)
    color = usual(
        rng,
        ((0.14, 0.15, 0.18), (0.16, 0.27, 0.5), (0.72, 0.14, 0.14), (0.33, 0.38, 0.25), (0.5, 0.36, 0.22)),
        colors.main,
        0.6,
    )
    second = pick(rng, (shade(color, 0.7), colors.accent, colors.second, color))
    width, depth, height = rng.uniform(0.46, 0.56), rng.uniform(0.26, 0.32), rng.uniform(0.62, 0.78)
    fabric = (
        cloth(rng, Palette(color, mix(color, rgb.WHITE, 0.4), colors.accent), 0.12)
        if rng.uniform() < 0.3
        else Paint(color, 0.85)
    )
    body = _soft_box((width, depth, height), 0.10)
    low = height * rng.uniform(0.4, 0.48)
    pocket = shapes.moved(_soft_box((width * 0.80, 0.14, low), 0.055), (0, -depth / 2 - 0.03, 0.04))
    dark = Paint(pick(rng, (rgb.CHARCOAL, shade(color, 0.45), rgb.STEEL)), 0.6)
    parts = [part("body", body, fabric), part("pocket", pocket, Paint(second, 0.85))]
    zip_path = shapes.curve(
        (
            (-width * 0.36, -depth / 2 - 0.105, 0.03 + low * 0.66),
            (0, -depth / 2 - 0.115, 0.05 + low * 0.95),
            (width * 0.36, -depth / 2 - 0.105, 0.03 + low * 0.66),
        ),
        12,
    )
    parts.append(part("zipper", shapes.tube(zip_path, 0.011, 8), dark))
    if rng.uniform() < 0.45:
        flap = shapes.moved(_soft_box((width * 1.02, depth * 1.15, height * 0.36), 0.09), (0, -0.01, height * 0.68))
        parts.append(part("flap", flap, Paint(second, 0.85)))
        for x in (-width * 0.22, width * 0.22):
            parts.append(
                part(
                    "buckle_strap",
                    shapes.box((x, -depth * 0.62, height * 0.6), (0.045, 0.03, height * 0.3), 0.01),
                    dark,
                )
            )
            parts.append(
                part(
                    "buckle",
                    shapes.box((x, -depth * 0.68, height * 0.55), (0.07, 0.03, 0.05), 0.01),
                    Paint(rgb.STEEL, 0.3, 0.6),
                )
            )
    else:
        arc = shapes.curve(
            (
                (-width * 0.48, -depth * 0.38, height * 0.5),
                (-width * 0.5, -depth * 0.45, height * 1.08),
                (width * 0.5, -depth * 0.45, height * 1.08),
                (width * 0.48, -depth * 0.38, height * 0.5),
            ),
            18,
        )
        parts.append(part("top_zipper", shapes.tube(arc, 0.012, 8), dark))
        patch = shapes.box((0, -depth / 2 + 0.005, height * 0.68), (width * 0.26, 0.02, 0.07), 0.008)
        parts.append(part("patch", patch, Paint(colors.accent, 0.7)))
    side = shapes.ellipsoid((width / 2, 0, height * 0.22), (0.055, depth * 0.36, height * 0.2), 22, 14)
    strap = shapes.curve(
        (
            (width * 0.22, depth * 0.42, height * 0.95),
            (width * 0.3, depth * 1.3, height * 0.8),
            (width * 0.36, depth * 0.9, height * 0.2),
            (width * 0.34, depth * 0.45, height * 0.08),
        ),
        16,
    )
    band = shapes.tube(strap - (width * 0.3, 0, 0), 0.022, 12) * (2.2, 1, 1) + (width * 0.3, 0, 0)
    for item in (part("side_pocket", side, Paint(second, 0.85)), part("strap", band, Paint(shade(color, 0.6), 0.85))):
        parts += pair(item)
    handle = shapes.curve(
        (
            (-0.06, depth * 0.28, height * 0.96),
            (-0.06, depth * 0.3, height + 0.11),
            (0.06, depth * 0.3, height + 0.11),
            (0.06, depth * 0.28, height * 0.96),
        ),
        12,
    )
    return [*parts, part("handle", shapes.tube(handle, 0.018, 10), dark)]


def _soft_box(size: tuple[float, float, float], bevel: float) -> SurfaceGrid:
    """Build a box that stands on z = 0, rounded above more than below."""
    width, depth, height = size
    rings = []
    for share in np.linspace(0, 1, 20):
        inset = bevel * (0.5 * np.clip(1 - share / 0.1, 0, 1) ** 2 + 1.5 * np.clip((share - 0.72) / 0.28, 0, 1) ** 2.2)
        puff = 0.02 * np.sin(np.pi * share)
        z = height * share
        outline = shapes.rounded_rectangle(
            width - 2 * inset + puff, depth - 1.4 * inset + puff, min(bevel, 0.45 * (depth - 1.4 * inset)), 6
        )
        rings.append(shapes.at_height(outline, z))
    return shapes.loft(rings)


def umbrella(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an open umbrella, upright or tilted, with a hooked or a straight handle."""
    colors = palette(rng)
    radius, rise, ribs = rng.uniform(0.52, 0.62), rng.uniform(0.24, 0.36), int(rng.choice([6, 8, 8, 8, 10]))
    top = rng.uniform(0.78, 0.92)
    main = usual(rng, ((0.80, 0.10, 0.12), rgb.BLACK, (0.14, 0.28, 0.62), (0.95, 0.8, 0.15)), colors.main, 0.5)
    canopy = _canopy(radius, rise, ribs)
    metal = Paint(pick(rng, (rgb.STEEL, rgb.CHARCOAL, rgb.BROWN)), 0.3, 0.3)
    grip = Paint(pick(rng, (rgb.BROWN, rgb.BLACK, (0.6, 0.38, 0.2), colors.accent)), 0.4)
    low = top - rise - rng.uniform(0.55, 0.65)
    parts = [
        part("canopy", shapes.moved(canopy, (0, 0, 0)), Paint(_panels(rng, main, colors, ribs, radius), 0.75)),
        part("pole", shapes.capsule((0, 0, low - top + 0.05), (0, 0, 0.05), 0.017), metal),
        part("tip", shapes.capsule((0, 0, 0.0), (0, 0, 0.08), 0.018, 0.008), metal),
    ]
    if rng.uniform() < 0.75:
        z = low - top
        hook = shapes.curve(((0, 0, z + 0.1), (0, 0, z - 0.16), (0.17, 0, z - 0.16), (0.16, 0, z + 0.02)), 18)
        parts.append(part("handle", shapes.tube(hook, 0.027, 14), grip))
    else:
        parts.append(part("handle", shapes.capsule((0, 0, low - top), (0, 0, low - top + 0.16), 0.032), grip))
    for angle in np.arange(ribs) * 2 * np.pi / ribs:
        end = (0.55 * radius * float(np.cos(angle)), 0.55 * radius * float(np.sin(angle)), -rise * 0.42)
        parts.append(part("rib", shapes.capsule((0, 0, -rise * 1.1), end, 0.006, sides=6), metal))
    lean = rng.uniform(10, 55) if rng.uniform() < 0.55 else 0.0
    tilted = turn(turn(parts, "x", lean), "z", rng.uniform(-60, 60))
    floor = min(float(p.surface[..., 2].min()) for p in tilted)
    return shift(tilted, (0, 0, -floor))


def _canopy(radius: float, rise: float, ribs: int) -> SurfaceGrid:
    """Build the cloth of an umbrella with its top at the origin, open below, its edge scalloped between the ribs."""
    angle = np.arange(ribs * 6) * (2 * np.pi / (ribs * 6))
    sag = np.abs(np.sin(ribs * angle / 2))
    share = np.linspace(0.02, 1.0, 14)
    rings = []
    for inside, places in ((True, share), (False, share[::-1])):
        for s in places:
            reach = radius * s * (1 - 0.10 * sag * s**2)
            z = -rise * s**1.9 + 0.05 * rise * sag * s**2 - (0.012 if inside else 0.0)
            rings.append(
                np.stack([reach * np.cos(angle), reach * np.sin(angle), np.broadcast_to(z, angle.shape)], axis=1)
            )
    return shapes.loft(rings)


def _panels(rng: np.random.Generator, main: Rgb, colors: Palette, ribs: int, radius: float) -> pt.Pattern:
    """Return the paint of the canopy: plain, panels in turn, an edge, rings, dots or all hues."""
    base, second = pt.solid(main), pick(rng, (rgb.WHITE, colors.accent, colors.second))

    def panel(points: Points) -> Points:
        return np.asarray(np.floor((np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) % 1.0) * ribs))

    match pick(rng, ("plain", "plain", "panels", "panels", "edge", "dots", "rainbow")):
        case "panels":
            return pt.blend(base, second, lambda p: panel(p) % 2)
        case "edge":
            return pt.blend(base, second, lambda p: pt.edge(radius * 0.8 - np.hypot(p[:, 0], p[:, 1]), 0.01))
        case "dots":
            return pt.blend(base, second, pt.spots(rng, 0.17, 0.045))
        case "rainbow":
            hues = np.array([rgb.hsv(k / ribs, 0.8, 0.9) for k in range(ribs)])
            return lambda p: np.asarray(hues[panel(p).astype(int) % ribs])
        case _:
            return pt.blend(
                base,
                shade(main, 0.7),
                lambda p: pt.edge(np.abs(np.sin(ribs * np.arctan2(p[:, 1], p[:, 0]) / 2)) - 0.05, 0.05),
            )
