"""Build cars and sailboats."""

import numpy as np

from render.procedural.objects.transport.race_car import race_car
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, mix, palette, pick
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, scale, turn
from render.procedural.primitives.surface import SurfaceGrid


def car(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a sedan, a hatchback, a van, a low sports car or a formula racing car.

    The car has one or two colors, racing stripes or a checkered band. Some cars have a sign on the roof. One third
    of the closed cars is as tall as toys, the others have the proportions of real cars.
    """
    if rng.uniform() < 0.12:
        return race_car(rng)
    squat = pick(rng, (1.0, 0.82, rng.uniform(0.66, 0.76)))
    return _closed_car(rng, squat)


def _closed_car(rng: np.random.Generator, squat: float) -> list[ObjectPart]:
    """Build a car with a roof. All but its wheels is `squat` times as high as a toy's."""
    colors = palette(rng)
    length, width, wheel = rng.uniform(0.85, 1.1), rng.uniform(0.50, 0.58), rng.uniform(0.13, 0.165)
    floor, belt = wheel * 0.85, wheel * 0.85 + rng.uniform(0.22, 0.28)
    style = pick(rng, ("saloon", "hatchback", "van"))
    roof = belt + (rng.uniform(0.30, 0.40) if style == "van" else rng.uniform(0.22, 0.28))
    hull = shapes.box((0, 0, (floor + belt) / 2), (width, 2 * length * 0.74, belt - floor), 0.085)
    back, front = {"saloon": (0.34, -0.30), "hatchback": (0.60, -0.28), "van": (0.68, -0.46)}[style]
    parts = [
        part("hull", hull, Paint(_livery(rng, colors, belt), 0.25, 0.1)),
        *_cabin(colors, (front * length, back * length), (belt - 0.05, roof), width),
        *_car_face(width, length, floor, belt),
    ]
    if rng.uniform() < 0.3:
        parts.append(
            part("roof_sign", shapes.box((0, 0.06, roof + 0.03), (0.2, 0.1, 0.07), 0.025), Paint(colors.accent, 0.4))
        )
    return [*scale(parts, (1.0, 1.0, squat)), *_wheels(wheel, width, length * 0.46, colors)]


def _livery(rng: np.random.Generator, colors: Palette, belt: float) -> pt.Pattern:
    """Return the paint of a car: one color, a lower half of another, racing stripes, or a checkered band."""
    base = pt.solid(colors.main)
    match pick(rng, ("plain", "two-tone", "racing", "checked")):
        case "two-tone":
            return pt.blend(base, colors.second, pt.beyond((0, 0, -1), -belt * 0.68))
        case "racing":
            return pt.blend(base, colors.second, lambda p: pt.edge(np.abs(np.abs(p[:, 0]) - 0.065) - 0.035, 0.01))
        case "checked":
            check, band = pt.checker(0.06), belt * 0.66
            return pt.blend(base, rgb.WHITE, lambda p: check(p) * pt.edge(np.abs(p[:, 2] - band) - 0.045, 0.01))
        case _:
            return base


def _cabin(colors: Palette, span: tuple[float, float], heights: tuple[float, float], width: float) -> list[ObjectPart]:
    """Build a cabin that is a trapezoid seen from the side, of glass except for the roof and the door posts."""
    (front, back), (low, high) = span, heights
    slope = 0.55 * (high - low)
    side = np.array([(front, low), (back, low), (back - 0.55 * slope, high), (front + slope, high)])
    glass = shapes.facing_side(shapes.prism(side, width * 0.86, 0.05))
    middle = (front + back) / 2 + 0.03
    paint = pt.blend(pt.solid(rgb.GLASS), colors.main, pt.beyond((0, 0, 1), high - 0.045, 0.005))
    paint = pt.blend(
        paint,
        colors.main,
        lambda p: pt.edge(np.abs(p[:, 1] - middle) - 0.022, 0.008) * (np.abs(p[:, 0]) > width * 0.36),
    )
    return [part("cabin", glass, Paint(paint, 0.15, 0.1))]


def _car_face(width: float, length: float, floor: float, belt: float) -> list[ObjectPart]:
    """Build headlights, grille and bumper in front, and red lights and a license plate behind."""
    y, middle = -0.74 * length, (floor + belt) / 2
    head = shapes.ellipsoid((width * 0.33, y, middle + 0.03), (0.062, 0.03, 0.062), 20, 12)
    rear = shapes.box((width * 0.36, -y, middle + 0.03), (0.09, 0.03, 0.07), 0.013)
    bars = pt.blend(pt.solid(rgb.BLACK), rgb.STEEL, lambda p: pt.edge(np.sin(p[:, 2] * 190), 0.5))
    return [
        *pair(part("head_lamp", head, Paint((1.0, 0.97, 0.80), 0.1))),
        *pair(part("rear_lamp", rear, Paint(rgb.RED, 0.2))),
        part("grille", shapes.box((0, y, middle), (width * 0.34, 0.03, 0.085), 0.012), Paint(bars, 0.4)),
        part(
            "bumper",
            shapes.box((0, y - 0.005, floor + 0.05), (width * 0.98, 0.075, 0.06), 0.028),
            Paint(rgb.CHARCOAL, 0.5),
        ),
        part(
            "rear_bumper",
            shapes.box((0, -y + 0.005, floor + 0.05), (width * 0.98, 0.075, 0.06), 0.028),
            Paint(rgb.CHARCOAL, 0.5),
        ),
        part("plate", shapes.box((0, -y + 0.01, middle + 0.01), (0.17, 0.02, 0.05), 0.006), Paint(rgb.WHITE, 0.4)),
    ]


def _wheels(radius: float, width: float, reach: float, colors: Palette) -> list[ObjectPart]:
    hub_color = mix(rgb.STEEL, colors.accent, 0.35)
    tyre = shapes.lathe([(radius * 0.85, -0.05), (radius, -0.03), (radius, 0.03), (radius * 0.85, 0.05)], 32)
    hub = shapes.lathe([(radius * 0.58, 0.0), (radius * 0.55, 0.06), (radius * 0.18, 0.066)], 28)
    wheels: list[ObjectPart] = []
    for y in (-reach, reach):
        for name, shape, paint in (("tyre", tyre, Paint(rgb.BLACK, 0.8)), ("hub", hub, Paint(hub_color, 0.3, 0.6))):
            wheels += pair(
                part(name, shapes.moved(shapes.turned(shape, "y", 90), (width / 2 - 0.015, y, radius)), paint)
            )
    return wheels


def sailboat(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a hull with the bow to the front, a mast, and a mainsail and jib that are plain, striped or two-tone."""
    colors = palette(rng)
    length, beam, mast = rng.uniform(0.55, 0.72), rng.uniform(0.19, 0.26), rng.uniform(0.95, 1.3)
    paint = pt.blend(pt.solid(colors.main), colors.second, pt.beyond((0, 0, -1), -rng.uniform(0.07, 0.16)))
    paint = pt.blend(paint, colors.accent, lambda p: pt.edge(np.abs(p[:, 2] - 0.215) - 0.022, 0.008))
    wood = Paint(pick(rng, rgb.WOODS), 0.5)
    boom, top = 0.38, 0.38 + mast
    flag = np.array([(0.0, top - 0.02), (0.20, top + 0.05), (0.0, top + 0.12)])
    main = _sail((-0.05, boom), (-0.05, boom + mast * 0.95), length * 0.95, 0.11)
    jib = _sail((-length * 0.98, boom - 0.06), (-0.13, boom + mast * 0.78), -0.14, 0.09)
    spar = shapes.capsule((0, -0.08, boom - 0.02), (0, length * 0.97, boom - 0.02), 0.018)
    rig = [part("boom", spar, wood), part("mainsail", main, Paint(_sail_paint(rng, colors), 0.8))]
    swing = pick(rng, (-1, 1)) * rng.uniform(50, 70)
    return [
        part("hull", _hull(length, beam, 0.26), Paint(paint, 0.35)),
        part("deck", shapes.moved(_hull(length * 0.95, beam * 0.88, 0.04), (0, 0, 0.235)), wood),
        part("cabin", shapes.box((0, 0.14, 0.30), (beam * 0.95, 0.3, 0.10), 0.03), Paint(rgb.WHITE, 0.4)),
        part("mast", shapes.capsule((0, -0.08, 0.2), (0, -0.08, top + 0.1), 0.024, 0.016), wood),
        part(
            "flag",
            shapes.moved(shapes.facing_side(shapes.prism(flag, 0.016, 0.005)), (0, -0.07, 0)),
            Paint(colors.accent, 0.8),
        ),
        *turn(rig, "z", swing, (0, -0.08, 0)),
        *turn(
            [part("jib", jib, Paint(pick(rng, (rgb.CREAM, colors.accent)), 0.8))],
            "z",
            -0.5 * swing,
            (0, -length * 0.98, 0),
        ),
    ]


def _hull(length: float, beam: float, height: float) -> SurfaceGrid:
    """Build a flat-bottomed hull, bow at -y and transom at +y. `length` and `beam` are half sizes."""
    y = np.linspace(-1, 1, 24)
    half = np.minimum(((y + 1) / 1.1) ** 0.65, 1.0) * (1 - 0.25 * np.clip(y, 0, 1) ** 2)
    right = np.stack([half * beam, y * length], axis=1)
    outline = np.concatenate([right, (right * (-1, 1))[:0:-1]])
    levels = ((0.0, 0.40, 0.74), (0.2, 0.66, 0.86), (0.55, 0.88, 0.94), (1.0, 1.0, 1.0))
    return shapes.loft([shapes.at_height(outline * (across, along), z * height) for z, across, along in levels])


def _sail(tack: tuple[float, float], head: tuple[float, float], clew_y: float, billow: float) -> SurfaceGrid:
    """Build a triangular sail in the (y, z) plane from tack to head, with a level foot to `clew_y`.

    `billow` is how far it swells toward +x.
    """
    section, rings = shapes.circle(28), []
    for rise in np.linspace(0, 0.985, 18):
        front = tack[0] + (head[0] - tack[0]) * rise
        back = clew_y + (head[0] - clew_y) * rise
        along = (section[:, 1] + 1) / 2
        swell = billow * np.sin(np.pi * along) * (1 - rise) * (0.4 + rise)
        x = 0.010 * section[:, 0] + swell
        rings.append(
            np.stack([x, front + (back - front) * along, np.full(28, tack[1] + (head[1] - tack[1]) * rise)], axis=1)
        )
    return shapes.loft(rings)


def _sail_paint(rng: np.random.Generator, colors: Palette) -> pt.Pattern:
    base = pt.solid(pick(rng, (rgb.CREAM, colors.second)))
    match pick(rng, ("plain", "stripes", "diagonal", "two-tone")):
        case "stripes":
            return pt.blend(base, colors.main, pt.stripes(rng, (0, 0, 1), 0.22, 0.45))
        case "diagonal":
            return pt.blend(base, colors.main, pt.stripes(rng, (0, 1, 1), 0.22, 0.4))
        case "two-tone":
            return pt.blend(base, colors.main, pt.beyond((0, 0, -1), -0.72))
        case _:
            return base
