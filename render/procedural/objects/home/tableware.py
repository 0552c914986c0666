"""Build mugs and teapots."""

import numpy as np

from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import BROWN, CREAM, PINK, WHITE, Palette, Rgb, mix, palette, pick, shade
from render.procedural.primitives.part import ObjectPart, Paint, part
from render.procedural.primitives.surface import Points, curve, ellipsoid, lathe, tube

GLAZE = 0.2


def glaze(rng: np.random.Generator, colors: Palette, height: float) -> pt.Pattern:
    """Return a plain or decorated pattern for pottery of this height in two of the `colors`."""
    main, second = (colors.main, colors.second) if rng.uniform() < 0.6 else (pick(rng, (WHITE, CREAM)), colors.main)
    base = pt.solid(main)
    return base if rng.uniform() < 0.15 else pt.blend(base, second, _decoration(rng, height))


def _decoration(rng: np.random.Generator, height: float) -> pt.Mask:
    match pick(rng, ("rings", "dots", "dipped", "checks", "blotches", "uprights")):
        case "rings":
            return pt.stripes(rng, (0, 0, 1), height * rng.uniform(0.2, 0.4), 0.4)
        case "dots":
            return pt.spots(rng, height * 0.26, height * 0.075)
        case "dipped":
            return pt.beyond((0, 0, -1), -height * rng.uniform(0.35, 0.6))
        case "checks":
            return pt.checker(height * 0.2)
        case "blotches":
            return pt.patches(rng, height * 0.35, 0.4)
        case _:
            return _uprights(int(rng.integers(5, 9)))


def _uprights(count: int) -> pt.Mask:
    """Return a mask of bands from top to bottom, evenly spaced around the z axis."""
    return lambda points: pt.edge(-np.sin(count * np.arctan2(points[:, 1], points[:, 0])), 0.15)


def mug(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a mug with a drink in it and the handle on the right of the front view; one in three has a smiling face."""
    colors = palette(rng)
    height, radius, lip = rng.uniform(0.48, 0.68), rng.uniform(0.24, 0.31), rng.uniform(0.9, 1.18)
    place = np.linspace(0, 1, 8)
    belly = 1 + pick(rng, (0.0, 0.12, -0.10)) * np.sin(np.pi * place)
    wall = [
        (float(r), float(z))
        for r, z in zip(radius * belly * (1 + (lip - 1) * place), place * (height - 0.03) + 0.03, strict=True)
    ]
    rim_radius, rim = wall[-1]
    outside = [(0.86 * radius, 0.0), (0.97 * radius, 0.012), *wall, (rim_radius - 0.015, rim + 0.012)]
    inside = [(r - 0.035, z) for r, z in reversed(wall[2:])]
    paint = glaze(rng, colors, height)
    inner = pick(rng, (WHITE, CREAM, colors.main))
    drink = pick(rng, (BROWN, (0.50, 0.32, 0.18), (0.75, 0.42, 0.15), (0.90, 0.82, 0.70)))
    reach = rng.uniform(0.20, 0.28)
    grip = curve(
        (
            (radius * 0.92, 0, 0.82 * height),
            (radius + 1.5 * reach, 0, 0.95 * height),
            (radius + 1.3 * reach, 0, 0.05 * height),
            (radius * 0.9, 0, 0.2 * height),
        ),
        20,
    )
    level = inside[1]
    heights, radii = [z for _, z in wall], [r for r, _ in wall]
    lining = pt.blend(
        paint,
        inner,
        lambda p: (
            pt.edge(np.hypot(p[:, 0], p[:, 1]) - np.interp(p[:, 2], heights, radii) + 0.02, 0.01)
            * (p[:, 2] > wall[1][1])
        ),
    )
    parts = [
        part("cup", lathe([*outside, *inside], 48), Paint(lining, GLAZE)),
        part("drink", lathe([(level[0] + 0.01, level[1] - 0.01), (level[0] + 0.01, level[1])], 40), Paint(drink, 0.15)),
        part(
            "handle", tube(grip, rng.uniform(0.032, 0.045), 16), Paint(pick(rng, (colors.main, colors.accent)), GLAZE)
        ),
    ]
    return parts + (_smile(radius * float(belly[4]) * (1 + (lip - 1) * 0.5), height) if rng.uniform() < 0.35 else [])


def _smile(radius: float, height: float) -> list[ObjectPart]:
    """Build two eyes, two cheeks and a mouth on the front of a round vessel."""

    def on_wall(x: float, z: float, out: float) -> tuple[float, float, float]:
        return x, -float(np.sqrt(radius**2 - x**2)) - out, z

    face: list[ObjectPart] = []
    dark: Rgb = (0.1, 0.08, 0.08)
    for side in (-1, 1):
        face.append(
            part(
                "eye",
                ellipsoid(on_wall(side * 0.09, 0.60 * height, -0.002), (0.034, 0.016, 0.042), 18, 12),
                Paint(dark, 0.2),
            )
        )
        face.append(
            part(
                "cheek",
                ellipsoid(on_wall(side * 0.15, 0.48 * height, -0.004), (0.035, 0.016, 0.025), 18, 12),
                Paint(PINK, 0.5),
            )
        )
    mouth = curve(
        (
            on_wall(-0.055, 0.50 * height, 0.004),
            on_wall(0.0, 0.36 * height, 0.012),
            on_wall(0.055, 0.50 * height, 0.004),
        ),
        10,
    )
    return [*face, part("mouth", tube(mouth, 0.013, 10), Paint(dark, 0.3))]


def teapot(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a round or tall teapot: spout to the left of the front view, handle to the right, a lid with a knob."""
    colors = palette(rng)
    height, radius = rng.uniform(0.42, 0.62), rng.uniform(0.29, 0.36)
    fullest = rng.uniform(0.35, 0.6)
    place = np.linspace(0, 1, 16)
    swell = np.interp(place, [0, 0.12, fullest, 0.85, 1], [0.62, 0.80, 1.0, 0.68, 0.48])
    swell = np.convolve(np.pad(swell, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    body = [(0.6 * radius, -0.02), *((float(s) * radius, float(z) * height) for s, z in zip(swell, place, strict=True))]
    mouth = body[-1][0]
    dome = rng.uniform(0.07, 0.13)
    lid = [
        (mouth * 1.06, height - 0.005),
        (mouth * 1.04, height + 0.02),
        (mouth * 0.75, height + 0.6 * dome),
        (mouth * 0.12, height + dome),
    ]
    paint, trim = glaze(rng, colors, height), pick(rng, (colors.main, colors.accent, shade(colors.main, 0.7)))
    lid_color = pick(rng, (trim, colors.main, mix(colors.second, WHITE, 0.3)))
    knob = ellipsoid((0, 0, height + dome + 0.03), (0.05, 0.05, 0.045), 20, 12)
    reach = radius + rng.uniform(0.30, 0.38)
    spout = curve(
        (
            (-0.75 * radius, 0, 0.28 * height),
            (-reach, 0, 0.25 * height),
            (-reach + 0.08, 0, 0.8 * height),
            (-reach - 0.06, 0, 1.0 * height),
        ),
        18,
    )
    parts = [
        part("pot", lathe(body, 48), Paint(paint, GLAZE)),
        part("lid", lathe(lid, 40), Paint(lid_color, GLAZE)),
        part("knob", knob, Paint(colors.accent, GLAZE)),
        part("spout", tube(spout, np.linspace(0.105, 0.042, 18), 20, round_ends=False), Paint(trim, GLAZE)),
        part("spout_hole", ellipsoid(_tip(spout), (0.034, 0.034, 0.012), 16, 8), Paint(shade(trim, 0.25), 0.6)),
    ]
    return [*parts, part("handle", tube(_grip(rng, radius, height), 0.036, 16), Paint(trim, GLAZE))]


def _tip(path: Points) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in path[-1])
    return x, y, z


def _grip(rng: np.random.Generator, radius: float, height: float) -> Points:
    """Build a handle at the side, or in one teapot of four arched over the lid."""
    if rng.uniform() < 0.25:
        arch = height + rng.uniform(0.45, 0.6)
        return curve(
            (
                (-0.7 * radius, 0, 0.82 * height),
                (-radius, 0, arch),
                (radius, 0, arch),
                (0.7 * radius, 0, 0.82 * height),
            ),
            24,
        )
    out = radius + rng.uniform(0.40, 0.52)
    return curve(
        (
            (0.62 * radius, 0, 0.86 * height),
            (out, 0, 1.1 * height),
            (out, 0, 0.1 * height),
            (0.85 * radius, 0, 0.22 * height),
        ),
        24,
    )
