"""Build locomotives."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import Vector
from render.procedural.primitives.wheels import CHROME

IRON = Paint((0.10, 0.10, 0.11), 0.5, 0.2)
GLASS = Paint((0.16, 0.22, 0.28), 0.12, 0.1)
BRASS = Paint((0.82, 0.62, 0.22), 0.3, 0.5)
LAMP = Paint((1.0, 0.96, 0.75), 0.1)
STEAM_COLORS: tuple[Rgb, ...] = (
    (0.10, 0.10, 0.11),
    (0.10, 0.10, 0.11),
    (0.10, 0.32, 0.16),
    (0.65, 0.10, 0.10),
    (0.13, 0.25, 0.55),
)
DIESEL_COLORS: tuple[Rgb, ...] = (
    (0.80, 0.12, 0.10),
    (0.93, 0.70, 0.10),
    (0.14, 0.28, 0.58),
    (0.15, 0.40, 0.22),
    (0.90, 0.45, 0.10),
)


def train(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a steam locomotive, a diesel or electric locomotive, or the head of a high-speed train."""
    colors = palette(rng)
    match pick(rng, ("steam", "steam", "steam", "diesel", "diesel", "fast")):
        case "steam":
            return _steam(rng, colors)
        case "diesel":
            return _diesel(rng, colors)
        case _:
            return _high_speed(rng, colors)


def _steam(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    color = usual(rng, STEAM_COLORS, colors.main, 0.7)
    trim = Paint(pick(rng, (rgb.RED, shade(color, 0.8), rgb.BLACK)), 0.4)
    radius, big, axis = rng.uniform(0.17, 0.21), rng.uniform(0.15, 0.20), rng.uniform(0.42, 0.48)
    front, cab = -0.72, 0.28
    length = rng.uniform(0.34, 0.44)
    bands = pt.blend(pt.solid(color), BRASS_BAND, lambda p: pt.edge(np.abs(p[:, 1] % 0.24 - 0.12) - 0.012, 0.008))
    boiler = shapes.tube(np.array([(0, y, axis) for y in (-0.50, -0.2, 0.1, cab)]), radius, 32, round_ends=False)
    smokebox = shapes.tube(np.array([(0, y, axis) for y in (front, -0.6, -0.5)]), radius * 1.05, 32, round_ends=False)
    door = shapes.ellipsoid((0, front, axis), (radius * 0.8, 0.05, radius * 0.8), 28, 14)
    parts = [
        part("boiler", boiler, Paint(bands if rng.uniform() < 0.6 else color, 0.35, 0.1)),
        part("smokebox", smokebox, IRON),
        part("door", door, Paint((0.17, 0.17, 0.18), 0.5, 0.2)),
        part("lamp", shapes.capsule((0, front - 0.05, axis + radius), (0, front + 0.04, axis + radius), 0.05), LAMP),
        part("frame", shapes.box((0, 0, axis - radius - 0.02), (0.34, 1.5, 0.07), 0.015), trim),
        part("buffer_beam", shapes.box((0, front - 0.05, axis - radius - 0.04), (0.5, 0.05, 0.11), 0.012), rgb.RED),
    ]
    parts += _steam_top(rng, axis + radius, front)
    parts += _steam_cab(rng, color, (cab, cab + length), axis - radius, axis + radius * 2.0)
    for y in np.linspace(-0.30, cab + 0.12, 3):
        parts += pair_of_wheels((0.2, float(y), big), big, trim)
    for y in (-0.68, -0.52):
        parts += pair_of_wheels((0.19, y, big * 0.5), big * 0.5, trim)
    rod = shapes.box((0.245, 0.05, big * 0.85), (0.02, cab + 0.44, 0.035), 0.008)
    piston = shapes.capsule((0.23, -0.66, big * 1.15), (0.23, -0.44, big * 1.15), 0.065)
    parts += pair(part("rod", rod, CHROME)) + pair(part("cylinder", piston, trim))
    parts += pair(
        part(
            "buffer",
            shapes.capsule(
                (0.17, front - 0.12, axis - radius - 0.04), (0.17, front - 0.04, axis - radius - 0.04), 0.04
            ),
            CHROME,
        )
    )
    if rng.uniform() < 0.5:
        parts += _cow_catcher(front, axis - radius - 0.08, trim)
    return parts


BRASS_BAND: Rgb = (0.82, 0.66, 0.28)


def pair_of_wheels(center: Vector, radius: float, paint: Paint) -> list[ObjectPart]:
    """Build two spoked railway wheels: one at `center`, and its mirror image on the other side of the plane x = 0.

    `paint` is the paint of the hubs and spokes.
    """
    disc = shapes.lathe([(radius * 0.8, -0.02), (radius * 0.8, 0.015)], 28)
    rim = torus(radius - 0.02, 0.022, 32, 8)
    hub = shapes.lathe([(radius * 0.25, 0.0), (radius * 0.22, 0.05)], 16)
    wheel = [("disc", disc, IRON), ("rim", rim, CHROME), ("hub", hub, paint)]
    for angle in np.arange(5) * np.pi / 5:
        along = (float(np.cos(angle)) * radius * 0.85, float(np.sin(angle)) * radius * 0.85)
        spoke = shapes.capsule((-along[0], -along[1], 0.02), (along[0], along[1], 0.02), radius * 0.07, sides=8)
        wheel.append(("spoke", spoke, paint))
    return [
        item
        for name, shape, look in wheel
        for item in pair(part(name, shapes.moved(shapes.turned(shape, "y", 90), center), look))
    ]


def _steam_top(rng: np.random.Generator, top: float, front: float) -> list[ObjectPart]:
    """Build the chimney, straight or a funnel, two domes and a bell or whistle."""
    tall = rng.uniform(0.16, 0.26)
    if rng.uniform() < 0.5:
        profile = [(0.075, 0.0), (0.06, 0.04), (0.055, tall), (0.08, tall + 0.01), (0.08, tall + 0.04)]
    else:
        profile = [(0.07, 0.0), (0.05, 0.05), (0.06, tall * 0.6), (0.13, tall), (0.11, tall + 0.06)]
    chimney = shapes.moved(shapes.lathe(profile, 28), (0, front + 0.11, top - 0.03))
    metal = pick(rng, (BRASS, IRON))
    dome = shapes.lathe([(0.1, 0.0), (0.085, 0.05), (0.08, 0.1), (0.05, 0.14), (0.01, 0.155)], 24)
    return [
        part("chimney", chimney, IRON),
        part("dome", shapes.moved(dome, (0, -0.25, top - 0.03)), metal),
        part("sand_dome", shapes.moved(dome * (0.8, 0.8, 0.8), (0, 0.06, top - 0.03)), metal),
    ]


def _steam_cab(
    rng: np.random.Generator, color: Rgb, along: tuple[float, float], low: float, high: float
) -> list[ObjectPart]:
    front, back = along
    middle, length = (front + back) / 2, back - front
    wall = shapes.box((0, middle, (low + high) / 2), (0.46, length, high - low), 0.012)
    roof = shapes.facing_front(shapes.prism(_arch(0.56, 0.09), length + 0.12, 0.01))
    window = shapes.box((0.235, middle, high - 0.14), (0.015, length * 0.5, 0.15), 0.006)
    pane = shapes.ellipsoid((0.15, front, high - 0.12), (0.05, 0.015, 0.05), 20, 12)
    tender = shapes.box((0, back + 0.24, (low + high) / 2 - 0.09), (0.42, 0.36, high - low - 0.18), 0.02)
    coal = shapes.ellipsoid((0, back + 0.24, high - 0.19), (0.18, 0.15, 0.1), 20, 12)
    lumps = pt.blend(pt.solid(rgb.BLACK), rgb.CHARCOAL, pt.spots(rng, 0.07, 0.025))
    parts = [
        part("cab", wall, Paint(color, 0.35, 0.1)),
        part(
            "roof",
            shapes.moved(roof, (0, middle, high - 0.01)),
            Paint(pick(rng, (rgb.CHARCOAL, shade(color, 0.6))), 0.5),
        ),
        *pair(part("window", window, GLASS)),
        *pair(part("front_window", pane, GLASS)),
    ]
    if rng.uniform() < 0.5:
        parts += [part("tender", tender, Paint(color, 0.35, 0.1)), part("coal", coal, Paint(lumps, 0.9))]
        parts.append(part("tender_frame", shapes.box((0, back + 0.16, low), (0.34, 0.5, 0.07), 0.015), IRON))
        for y in (back + 0.15, back + 0.33):
            parts += pair_of_wheels((0.19, y, 0.085), 0.085, Paint(rgb.CHARCOAL, 0.5))
    return parts


def _arch(width: float, height: float) -> shapes.Points:
    """Return the outline of a roof, flat below and curved above."""
    x = np.linspace(width / 2, -width / 2, 17)
    top = np.stack([x, 0.035 + height * (1 - (2 * x / width) ** 2)], axis=1)
    return np.concatenate([[(-width / 2, 0.0), (0.0, 0.0), (width / 2, 0.0)], top])


def _cow_catcher(front: float, top: float, paint: Paint) -> list[ObjectPart]:
    bars = []
    for x in np.linspace(-0.2, 0.2, 9):
        tip = (float(x) * 0.8, front - 0.24 + 0.6 * abs(float(x)), 0.03)
        bars.append(part("bar", shapes.capsule((float(x), front - 0.05, top), tip, 0.016, sides=8), paint))
    return bars


def _bogies(length: float, color: Paint) -> list[ObjectPart]:
    parts: list[ObjectPart] = []
    for middle in (-0.29 * length, 0.29 * length):
        parts += pair(part("bogie", shapes.box((0.18, middle, 0.11), (0.06, 0.42, 0.09), 0.02), IRON))
        for y in (middle - 0.12, middle + 0.12):
            wheel = shapes.lathe([(0.095, -0.03), (0.095, 0.02), (0.04, 0.03)], 24)
            parts += pair(part("wheel", shapes.moved(shapes.turned(wheel, "y", 90), (0.19, y, 0.095)), color))
    return parts


def _diesel(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a box-shaped locomotive: sloping front, side windows, a stripe or a colored lower half."""
    color, second = usual(rng, DIESEL_COLORS, colors.main), pick(rng, (rgb.WHITE, rgb.CREAM, rgb.YELLOW, colors.second))
    length, high, lean = rng.uniform(1.45, 1.7), rng.uniform(0.60, 0.68), rng.uniform(0.03, 0.14)
    front = -length / 2
    side = np.array([(front, 0.16), (-front, 0.16), (-front, high), (front + lean, high), (front, high * 0.62)])
    paint = pt.solid(color)
    match pick(rng, ("plain", "band", "half", "nose")):
        case "band":
            paint = pt.blend(paint, second, lambda p: pt.edge(np.abs(p[:, 2] - 0.32) - 0.045, 0.01))
        case "half":
            paint = pt.blend(paint, second, pt.beyond((0, 0, -1), -high * 0.55))
        case "nose":
            paint = pt.blend(paint, rgb.YELLOW, pt.beyond((0, -1, 0), -front - 0.16))
        case _:
            pass
    tilt = float(np.rad2deg(np.arctan2(lean, high * 0.38)))
    pane = shapes.turned(shapes.box((0, 0, high * 0.19), (0.17, 0.02, high * 0.22), 0.008), "x", -tilt)
    parts = [
        part("body", shapes.facing_side(shapes.prism(side, 0.44, 0.035)), Paint(paint, 0.35, 0.05)),
        part("roof", shapes.box((0, 0.1, high + 0.02), (0.26, length * 0.7, 0.07), 0.025), rgb.GRAY),
        part("frame", shapes.box((0, 0, 0.16), (0.42, length * 1.0, 0.07), 0.015), IRON),
        part("tank", shapes.box((0, 0, 0.1), (0.36, length * 0.24, 0.1), 0.03), IRON),
        part("top_lamp", shapes.ellipsoid((0, front + lean, high - 0.02), (0.05, 0.03, 0.03), 16, 10), LAMP),
        *pair(part("windshield", shapes.moved(pane, (0.1, front, high * 0.62)), GLASS)),
        *pair(part("lamp", shapes.ellipsoid((0.15, front, 0.28), (0.035, 0.02, 0.035), 18, 12), LAMP)),
        *pair(part("buffer", shapes.capsule((0.15, front - 0.07, 0.17), (0.15, front, 0.17), 0.035), CHROME)),
        *pair(
            part("cab_window", shapes.box((0.22, front + lean + 0.13, high - 0.17), (0.015, 0.13, 0.13), 0.006), GLASS)
        ),
        *_bogies(length, IRON),
    ]
    for y in np.linspace(-0.2, 0.36, int(rng.integers(3, 6))) * length:
        vent = shapes.box((0.22, float(y), high - 0.16), (0.015, 0.11, 0.12), 0.006)
        parts += pair(part("vent", vent, Paint(pick(rng, (rgb.CHARCOAL, rgb.GRAY)), 0.5)))
    return parts


def _high_speed(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a streamlined train head with a long nose."""
    color = usual(rng, (rgb.WHITE, rgb.WHITE, rgb.STEEL, (0.80, 0.12, 0.10)), colors.main)
    band = usual(rng, ((0.12, 0.25, 0.62), (0.80, 0.12, 0.10), (0.20, 0.20, 0.22)), colors.accent)
    nose, rings = rng.uniform(0.4, 0.65), []
    outline = shapes.rounded_rectangle(0.44, 0.5, 0.12, 8)
    for y in (*(-0.85 + nose * np.linspace(0, 1, 14) ** 1.3), 0.2, 0.85):
        share = float(np.clip((y + 0.85) / nose, 0, 1))
        size = 0.12 + 0.88 * np.sin(share * np.pi / 2) ** 0.8
        wide = min(1.0, 0.35 + 0.65 * np.sin(share * np.pi / 2) ** 0.6)
        x, z = (outline * (wide, size)).T
        rings.append(np.stack([x, np.full(len(x), y), z + 0.13 + 0.25 * size], axis=1))
    paint = pt.blend(pt.solid(color), band, lambda p: pt.edge(np.abs(p[:, 2] - 0.27) - 0.05, 0.01))
    top = 0.42
    shield = -0.85 + nose * 0.62
    glass = pt.blend(
        paint,
        GLASS.base,
        lambda p: (
            pt.edge(np.abs(p[:, 1] - shield) - nose * 0.15, 0.02)
            * pt.edge(np.abs(p[:, 0]) - 0.17, 0.02)
            * (p[:, 2] > top)
        ),
    )
    parts = [part("body", shapes.loft(rings)[:, ::-1], Paint(glass, 0.25, 0.05)), *_bogies(1.5, IRON)]
    for y in np.linspace(-0.85 + nose + 0.1, 0.78, 6):
        parts += pair(part("window", shapes.box((0.22, float(y), 0.45), (0.015, 0.11, 0.11), 0.006), GLASS))
    return parts + pair(
        part("lamp", shapes.ellipsoid((0.09, -0.85 + nose * 0.12, 0.26), (0.035, 0.03, 0.02), 16, 10), LAMP)
    )
