"""Build helicopters and biplanes."""

import numpy as np

from render.procedural.objects.transport.aircraft import wing
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.wheels import CHROME, road_wheel

GLASS = Paint((0.25, 0.36, 0.45), 0.1, 0.1)
DARK = Paint((0.15, 0.15, 0.16), 0.5, 0.2)
HELICOPTERS: tuple[Rgb, ...] = (
    (0.82, 0.12, 0.10),
    (0.95, 0.78, 0.12),
    (0.14, 0.30, 0.62),
    (0.93, 0.93, 0.92),
    (0.30, 0.36, 0.22),
    (0.92, 0.45, 0.10),
    (0.18, 0.18, 0.20),
)
BIPLANES: tuple[Rgb, ...] = (
    (0.82, 0.10, 0.10),
    (0.96, 0.80, 0.10),
    (0.12, 0.28, 0.62),
    (0.38, 0.40, 0.22),
    (0.88, 0.80, 0.62),
    (0.20, 0.48, 0.28),
)


def helicopter(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a helicopter with a glazed nose, a tail boom with a rotor, and skids or wheels."""
    colors = palette(rng)
    color = usual(rng, HELICOPTERS, colors.main, 0.8)
    second = pick(rng, (rgb.WHITE, rgb.CHARCOAL, colors.second, color))
    width, length, high = rng.uniform(0.17, 0.22), rng.uniform(0.38, 0.5), rng.uniform(0.19, 0.24)
    place = np.linspace(0, 1, 22)
    radii = np.interp(place, [0, 0.06, 0.2, 0.4, 0.65, 0.85, 1.0], [0.25, 0.5, 0.82, 1.0, 0.98, 0.72, 0.35])
    y = -length + 2 * length * place
    spine = np.stack([0 * y, y, 0.06 * np.clip(place - 0.5, 0, 1)], axis=1)
    body = shapes.tube(spine, radii, 32) * (width, 1.0, high)
    body[..., 1] = np.clip(body[..., 1], -length - 0.05, length + 0.05)
    paint = pt.blend(pt.solid(color), second, pt.beyond((0, 0.2, -1), rng.uniform(0.04, 0.14)))
    boom = shapes.tube(
        np.array([(0, length * 0.6, 0.07), (0, length, 0.09), (0, length + 0.5, 0.13)]), [0.12, 0.08, 0.04], 20
    )
    fin = np.array([(length + 0.36, 0.1), (length + 0.52, 0.06), (length + 0.62, 0.36), (length + 0.5, 0.36)])
    top = high + 0.04
    parts = [
        part("body", body, Paint(_glazed(paint, color, length, width, high), 0.25, 0.05)),
        part("boom", boom, Paint(color, 0.3, 0.05)),
        part("fin", shapes.facing_side(shapes.prism(fin, 0.03, 0.01)), Paint(second, 0.3)),
        part(
            "engine",
            shapes.ellipsoid((0, 0.08, high * 0.95), (width * 0.62, length * 0.55, 0.10), 24, 14),
            Paint(color, 0.3, 0.05),
        ),
        part("mast", shapes.capsule((0, -0.02, high), (0, -0.02, top + 0.12), 0.025), DARK),
        part("hub", shapes.ellipsoid((0, -0.02, top + 0.13), (0.07, 0.07, 0.03), 18, 10), DARK),
    ]
    parts += pair(
        part(
            "stabilizer",
            shapes.moved(wing((0.0, 0.11), (0.03, 0.11), 0.2, 0.02), (0.02, length + 0.24, 0.12)),
            Paint(second, 0.3),
        )
    )
    parts += _rotors(rng, (0.0, -0.02, top + 0.13), length + 0.54, rng.uniform(0.66, 0.8))
    parts += _skids(rng, width, length, high)
    return shift(parts, (0, 0, high + 0.16))


def _glazed(paint: pt.Pattern, color: Rgb, length: float, width: float, high: float) -> pt.Pattern:
    """Add a glass nose with posts, and a side window behind it."""

    def nose(points: pt.Floats) -> pt.Floats:
        front = pt.edge(points[:, 1] + length * 0.42 + 0.25 * points[:, 2], 0.02)
        upper = pt.edge(-0.05 * high - points[:, 2] - 0.25 * (points[:, 1] + 0.42 * length), 0.02)
        post = pt.edge(0.016 - np.abs(points[:, 0]), 0.01)
        return front * upper * post

    def window(points: pt.Floats) -> pt.Floats:
        along = np.abs(points[:, 1] + length * 0.14) - length * 0.2
        pane = pt.edge(np.maximum(along, np.abs(points[:, 2] - high * 0.32) - high * 0.32), 0.015)
        return np.where(np.abs(points[:, 0]) > width * 0.5, pane, 0.0)

    return pt.blend(pt.blend(paint, GLASS.base, nose), GLASS.base, window)


def _rotors(rng: np.random.Generator, hub: tuple[float, float, float], tail: float, reach: float) -> list[ObjectPart]:
    """Build the main rotor of two to five blades at `hub` and the tail rotor at y = `tail`."""
    blade = shapes.box((0, reach / 2, 0), (0.075, reach, 0.02), 0.009)
    tip = pick(rng, (rgb.YELLOW, rgb.WHITE, rgb.CHARCOAL))
    paint = Paint(pt.blend(pt.solid(rgb.CHARCOAL), tip, lambda p: pt.edge(reach * 0.9 - np.abs(p[:, 1]), 0.01)), 0.5)
    blades = ring_of(part("blade", blade, paint), int(rng.integers(2, 6)), rng.uniform(0, 180))
    small = shapes.ellipsoid((0, 0, 0.08), (0.012, 0.02, 0.08), 14, 10)
    rear = [
        p for angle in (30, 150, 270) for p in turn([part("tail_blade", small, Paint(rgb.CHARCOAL, 0.5))], "x", angle)
    ]
    return [
        *shift(blades, hub),
        *shift(rear, (0.05, tail, 0.28)),
        part("tail_hub", shapes.capsule((0, tail, 0.28), (0.05, tail, 0.28), 0.02), DARK),
    ]


def _skids(rng: np.random.Generator, width: float, length: float, high: float) -> list[ObjectPart]:
    low, reach = -high - 0.13, width + 0.06
    parts: list[ObjectPart] = []
    if rng.uniform() < 0.7:
        path = shapes.curve(
            (
                (reach, -length * 0.95, low + 0.09),
                (reach, -length * 0.8, low),
                (reach, 0, low),
                (reach, length * 0.8, low),
            ),
            12,
        )
        metal = pick(rng, (DARK, CHROME))
        parts += pair(part("skid", shapes.tube(path, 0.022, 10), metal))
        for y in (-length * 0.4, length * 0.35):
            strut = shapes.curve(((0.05, y, -high * 0.7), (reach * 0.8, y, -high), (reach, y, low)), 8)
            parts += pair(part("strut", shapes.tube(strut, 0.02, 10), metal))
        return parts
    for y, x in ((-length * 0.55, 0.05), (length * 0.45, reach)):
        for item in road_wheel((x, y, low + 0.06), 0.08, 0.06, CHROME):
            parts += pair(item)
        parts += pair(part("strut", shapes.capsule((x * 0.6, y, -high * 0.6), (x, y, low + 0.08), 0.025), DARK))
    return parts


def biplane(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a biplane: two wings joined by struts, a propeller, an open cockpit and wheels."""
    colors = palette(rng)
    color = usual(rng, BIPLANES, colors.main, 0.8)
    trim = pick(rng, (color, color, rgb.WHITE, rgb.CREAM, colors.second))
    girth, span, gap = rng.uniform(0.12, 0.15), rng.uniform(0.72, 0.9), rng.uniform(0.34, 0.42)
    place = np.linspace(-0.55, 0.75, 20)
    radii = girth * np.interp(place, [-0.55, -0.45, -0.1, 0.3, 0.75], [0.85, 1.0, 1.0, 0.75, 0.3])
    hull = shapes.tube(np.stack([0 * place, place, 0.05 * np.clip(place, 0, 1)], axis=1), radii, 28)
    stripe = (
        pt.blend(pt.solid(color), trim, lambda p: pt.edge(np.abs(p[:, 2] - 0.02) - 0.03, 0.01))
        if rng.uniform() < 0.5
        else pt.solid(color)
    )
    parts = [
        part("fuselage", hull, Paint(stripe, 0.4)),
        part(
            "cowl",
            shapes.tube(
                np.array([(0, y, 0) for y in (-0.64, -0.58, -0.46)]), [girth * 0.85, girth * 1.05, girth * 1.08], 28
            ),
            Paint(pick(rng, (rgb.STEEL, rgb.CHARCOAL, color)), 0.3, 0.4),
        ),
        part(
            "cockpit",
            shapes.ellipsoid((0, 0.2, girth * 0.75), (girth * 0.55, 0.11, 0.05), 20, 12),
            Paint(rgb.BROWN, 0.8),
        ),
        part("windshield", shapes.box((0, 0.08, girth + 0.03), (0.12, 0.015, 0.07), 0.006), GLASS),
    ]
    if rng.uniform() < 0.5:
        parts.append(
            part(
                "pilot",
                shapes.ellipsoid((0, 0.22, girth + 0.06), (0.06, 0.065, 0.075), 20, 14),
                Paint((0.45, 0.28, 0.16), 0.7),
            )
        )
    paint = Paint(_wing_paint(rng, trim, span, colors), 0.45)
    low, high, stagger = -girth * 0.6, gap, -0.08
    for z, shift_y, reach in ((low, 0.0, span * 0.94), (high, stagger, span)):
        surface = shapes.moved(wing((-0.15, 0.15), (-0.13, 0.13), reach, 0.05), (0.0, -0.16 + shift_y, z))
        parts += pair(part("wing", surface, paint))
    for x in (span * 0.62, 0.1):
        for y in (-0.09, 0.08):
            foot = (x if x > 0.2 else 0.06, -0.16 + y, low if x > 0.2 else girth * 0.7)
            parts += pair(
                part(
                    "strut",
                    shapes.capsule(foot, (x, -0.16 + y + stagger, high), 0.014),
                    Paint(pick(rng, rgb.WOODS), 0.5),
                )
            )
    return shift(parts + _biplane_tail(trim, color) + _biplane_nose(rng, girth), (0, 0, girth + 0.28))


def _wing_paint(rng: np.random.Generator, base: Rgb, span: float, colors: Palette) -> pt.Pattern:
    """Return the paint of the wings: plain, roundels, checked or striped tips."""
    match pick(rng, ("plain", "roundel", "tips", "checks")):
        case "roundel":
            paint = pt.solid(base)
            for radius, color in ((0.13, (0.12, 0.2, 0.55)), (0.09, rgb.WHITE), (0.045, rgb.RED)):

                def mask(p: pt.Floats, radius: float = radius) -> pt.Floats:
                    return pt.edge(np.hypot(np.abs(p[:, 0]) - span * 0.72, p[:, 1] + 0.18) - radius, 0.015)

                paint = pt.blend(paint, color, mask)
            return paint
        case "tips":
            return pt.blend(
                pt.solid(base), colors.accent, lambda p: pt.edge(np.abs(np.abs(p[:, 0]) - span * 0.8) - 0.06, 0.01)
            )
        case "checks":
            check = pt.checker(0.075)
            return pt.blend(
                pt.solid(base),
                rgb.WHITE,
                lambda p: check(p * (1, 1, 0) + (0, 0, 0.01)) * (np.abs(p[:, 0]) > span * 0.7),
            )
        case _:
            return pt.solid(base)


def _biplane_tail(trim: Rgb, color: Rgb) -> list[ObjectPart]:
    fin = np.array([(0.55, 0.04), (0.80, 0.04), (0.86, 0.18), (0.80, 0.3), (0.68, 0.28)])
    tailplane = shapes.moved(wing((0.0, 0.2), (0.05, 0.2), 0.32, 0.03), (0, 0.56, 0.05))
    return [
        part("fin", shapes.facing_side(shapes.prism(fin, 0.03, 0.01)), Paint(color, 0.4)),
        *pair(part("tailplane", tailplane, Paint(trim, 0.4))),
        part("tail_skid", shapes.capsule((0, 0.66, 0.0), (0, 0.78, -0.12), 0.016), DARK),
    ]


def _biplane_nose(rng: np.random.Generator, girth: float) -> list[ObjectPart]:
    spinner = shapes.ellipsoid((0, -0.70, 0), (0.05, 0.08, 0.05), 20, 12)
    blade = part(
        "blade", shapes.ellipsoid((0, -0.71, 0.15), (0.035, 0.014, 0.16), 18, 12), Paint(pick(rng, rgb.WOODS), 0.4)
    )
    start = rng.uniform(0, 180)
    parts = [part("spinner", spinner, CHROME), *turn([blade], "y", start), *turn([blade], "y", start + 180)]
    low = -girth - 0.18
    for item in road_wheel((0.2, -0.32, low), 0.1, 0.05, Paint(pick(rng, (rgb.CREAM, rgb.STEEL, rgb.RED)), 0.4), 0.7):
        parts += pair(item)
    for y in (-0.42, -0.2):
        parts += pair(part("leg", shapes.capsule((0.08, y, -girth * 0.7), (0.18, -0.32, low), 0.016), DARK))
    return [*parts, part("axle", shapes.capsule((-0.19, -0.32, low), (0.19, -0.32, low), 0.014), DARK)]
