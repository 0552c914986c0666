"""Build buses and trucks."""

import numpy as np

from render.procedural.objects.transport.dump_truck import dump_truck
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift
from render.procedural.primitives.wheels import CHROME, road_wheel

GLASS = Paint((0.16, 0.22, 0.28), 0.12, 0.1)
LIGHT = Paint((1.0, 0.97, 0.82), 0.1)
TAIL_LIGHT = Paint(rgb.RED, 0.2)
BUS_COLORS: tuple[Rgb, ...] = (
    (0.80, 0.10, 0.10),
    (0.15, 0.35, 0.70),
    (0.92, 0.92, 0.90),
    (0.20, 0.55, 0.25),
    (0.95, 0.62, 0.10),
    (0.30, 0.60, 0.78),
)
SCHOOL_YELLOW: Rgb = (0.96, 0.70, 0.07)
CAB_COLORS: tuple[Rgb, ...] = (
    (0.80, 0.12, 0.10),
    (0.93, 0.93, 0.92),
    (0.12, 0.30, 0.65),
    (0.95, 0.75, 0.12),
    (0.15, 0.45, 0.25),
    (0.90, 0.45, 0.10),
    (0.12, 0.12, 0.13),
)


def bus(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a city bus, a coach, a double-decker or an American school bus."""
    colors, style = palette(rng), pick(rng, ("city", "city", "coach", "double", "school"))
    length, width = rng.uniform(1.45, 1.8) * (0.85 if style == "double" else 1.0), rng.uniform(0.44, 0.5)
    wheel, floor = rng.uniform(0.12, 0.14), 0.10
    roof = floor + {"city": 0.52, "coach": 0.60, "double": 0.86, "school": 0.52}[style] * rng.uniform(0.95, 1.08)
    color = SCHOOL_YELLOW if style == "school" else usual(rng, BUS_COLORS[:1] * 3 + BUS_COLORS, colors.main)
    front = -length / 2 + (0.26 if style == "school" else 0.0)
    size = (width, length / 2 - front, roof - floor)
    body = shapes.box((0, (front + length / 2) / 2, (floor + roof) / 2), size, 0.05 if style != "school" else 0.09)
    parts = [part("body", body, Paint(_bus_paint(rng, style, color, colors.second, (floor, roof)), 0.3, 0.05))]
    rows = (floor + 0.34, floor + 0.69) if style == "double" else ((floor + roof) / 2 + 0.09,)
    for level in rows:
        parts += _bus_windows(rng, style, (front, length / 2), width, level)
    if style == "school":
        hood = shapes.box((0, front - 0.11, floor + 0.14), (width * 0.82, 0.34, 0.28), 0.06)
        parts.append(part("hood", hood, Paint(color, 0.3, 0.05)))
        parts += pair(part("stop_lamp", shapes.ellipsoid((width * 0.36, front, roof - 0.03), (0.03,) * 3), TAIL_LIGHT))
    nose = -length / 2
    parts += _bus_ends(rng, style, (front, nose, length / 2), width, floor=floor, roof=roof)
    axles = [nose + 0.3 * (length / 1.7), length / 2 - 0.36 * (length / 1.7)]
    axles += [axles[1] + 2.1 * wheel] if style == "coach" else []
    hub = Paint(pick(rng, (rgb.STEEL, rgb.GRAY, rgb.CHARCOAL)), 0.4, 0.4)
    for y in axles:
        for item in road_wheel((width / 2 - 0.03, y, wheel), wheel, 0.09, hub):
            parts += pair(item)
    return parts


def _bus_paint(
    rng: np.random.Generator, style: str, color: Rgb, second: Rgb, heights: tuple[float, float]
) -> pt.Pattern:
    base, (floor, roof) = pt.solid(color), heights
    if style == "school":
        lines = (floor + 0.07, floor + 0.17)
        return pt.blend(
            base, rgb.BLACK, lambda p: pt.edge(np.min([np.abs(p[:, 2] - z) for z in lines], axis=0) - 0.012, 0.01)
        )
    match pick(rng, ("plain", "skirt", "band", "roof")):
        case "skirt":
            return pt.blend(base, second, pt.beyond((0, 0, -1), -floor - 0.14))
        case "band":
            return pt.blend(base, second, lambda p: pt.edge(np.abs(p[:, 2] - floor - 0.17) - 0.035, 0.01))
        case "roof":
            return pt.blend(base, pick(rng, (rgb.WHITE, rgb.CREAM)), pt.beyond((0, 0, 1), roof - 0.08))
        case _:
            return base


def _bus_windows(
    rng: np.random.Generator, style: str, span: tuple[float, float], width: float, level: float
) -> list[ObjectPart]:
    """Build a row of side windows; a coach has one long band of dark glass."""
    front, back = span[0] + 0.10, span[1] - 0.08
    height = 0.19 if style != "coach" else 0.23
    if style == "coach":
        band = shapes.box((width / 2, (front + back) / 2, level), (0.02, back - front, height), 0.008)
        return pair(part("window", band, GLASS))
    count = int(rng.integers(5, 9))
    pitch = (back - front) / count
    places = front + pitch * (np.arange(count) + 0.5)
    return [
        item
        for y in places
        for item in pair(
            part("window", shapes.box((width / 2, float(y), level), (0.02, pitch * 0.84, height), 0.008), GLASS)
        )
    ]


def _bus_ends(
    rng: np.random.Generator,
    style: str,
    ends: tuple[float, float, float],
    width: float,
    *,
    floor: float,
    roof: float,
) -> list[ObjectPart]:
    """Build windshield, lamps, bumpers, destination sign, door and rear window."""
    front, nose, back = ends
    level = (floor + 0.34) if style == "double" else (floor + roof) / 2 + 0.08
    shield = 0.24 if style != "school" else 0.19
    parts = [
        part("windshield", shapes.box((0, front, level), (width * 0.9, 0.03, shield), 0.012), GLASS),
        part("rear_window", shapes.box((0, back, level + 0.03), (width * 0.76, 0.02, 0.16), 0.008), GLASS),
        part("bumper", shapes.box((0, nose - 0.01, floor + 0.03), (width * 0.98, 0.05, 0.06), 0.02), rgb.CHARCOAL),
        part("rear_bumper", shapes.box((0, back, floor + 0.03), (width * 0.98, 0.05, 0.06), 0.02), rgb.CHARCOAL),
        part("door", shapes.box((-width / 2, front + 0.16, floor + 0.24), (0.025, 0.16, 0.36), 0.01), GLASS),
    ]
    if style == "double":
        parts.append(part("upper", shapes.box((0, front, floor + 0.69), (width * 0.9, 0.03, 0.2), 0.012), GLASS))
    if style in ("city", "double"):
        sign = shapes.box((0, front, level + shield / 2 + 0.05), (width * 0.7, 0.03, 0.06), 0.01)
        text = pt.blend(pt.solid(rgb.BLACK), rgb.ORANGE, lambda p: pt.edge(np.sin(p[:, 0] * 150) + 0.2, 0.5))
        parts.append(part("sign", sign, Paint(text, 0.4)))
    if style == "school":
        parts.append(part("grille", shapes.box((0, nose + 0.01, floor + 0.14), (0.22, 0.03, 0.15), 0.012), rgb.BLACK))
    lamp = shapes.ellipsoid((width * 0.36, nose + 0.01, floor + 0.11), (0.045, 0.025, 0.035), 20, 12)
    rear = shapes.box((width * 0.38, back, floor + 0.14), (0.05, 0.03, 0.09), 0.012)
    mirror = shapes.box((width / 2 + 0.05, front - 0.03, level + 0.03), (0.04, 0.03, 0.1), 0.012)
    for item in (part("head_lamp", lamp, LIGHT), part("rear_lamp", rear, TAIL_LIGHT), part("mirror", mirror, GLASS)):
        parts += pair(item)
    return parts


def truck(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a truck.

    It is a pickup, a fire truck, a garbage truck, a mining dump truck, or a truck with a box, a tank, a tipper or logs
    behind the cab.
    """
    if rng.uniform() < 0.13:
        return dump_truck(rng)
    colors = palette(rng)
    color = usual(rng, CAB_COLORS, colors.main, 0.8)
    style = pick(rng, ("box", "box", "tank", "tipper", "pickup", "pickup", "flatbed", "fire", "fire", "garbage"))
    if style == "fire":
        color = usual(rng, ((0.80, 0.08, 0.07),), (0.85, 0.75, 0.1), 0.9)
    width, wheel = rng.uniform(0.46, 0.54), rng.uniform(0.13, 0.16) * (1.1 if style == "pickup" else 1.0)
    load, floor = rng.uniform(0.8, 1.15) * {"pickup": 0.7, "fire": 1.2}.get(style, 1.0), wheel * 1.25
    hood = 0.36 if style == "pickup" else pick(rng, (0.0, 0.0, 0.28))
    cab = {"pickup": rng.uniform(0.45, 0.65), "fire": rng.uniform(0.4, 0.6)}.get(style, rng.uniform(0.34, 0.42))
    high = floor + (0.42 if style == "pickup" else rng.uniform(0.48, 0.56))
    front = -(load + cab) / 2
    frame = shapes.box((0, -hood / 2, floor), (width * 0.8, load + cab + hood, 0.08), 0.02)
    parts = [part("frame", frame, Paint(rgb.CHARCOAL, 0.6))]
    parts += _cab(rng, color, width, (front - hood, front, front + cab), floor=floor, high=high)
    if style == "garbage":
        body = _garbage_body(rng, color, width, load, (high - floor) * rng.uniform(1.05, 1.25))
    else:
        body = _load(rng, style, color, width=width, load=load, cab=high - floor)
    parts += shift(body, (0, front + cab + load / 2 + 0.02, floor + 0.04))
    hub = Paint(pick(rng, (rgb.STEEL, rgb.GRAY, rgb.WHITE, color)), 0.4, 0.4)
    back = load / 2 + cab / 2
    axles = [front - hood + 0.2, back - 0.22] + ([back - 0.24 - 2.1 * wheel] if load > 0.95 else [])
    for y in axles:
        for item in road_wheel((width / 2 - 0.03, y, wheel), wheel, 0.11, hub):
            parts += pair(item)
    rear = shapes.box((width * 0.38, back + 0.02, floor), (0.08, 0.03, 0.05), 0.012)
    return parts + pair(part("rear_lamp", rear, TAIL_LIGHT))


def _cab(
    rng: np.random.Generator, color: Rgb, width: float, along: tuple[float, float, float], *, floor: float, high: float
) -> list[ObjectPart]:
    """Build the cab from its side view; `along` is where the hood, the windshield and the rear wall are (y)."""
    nose, front, back = along
    belt, lean = floor + 0.55 * (high - floor), rng.uniform(0.03, 0.10)
    outline = np.array([(front, floor - 0.04), (back, floor - 0.04), (back, high), (front + lean, high), (front, belt)])
    paint = Paint(color, 0.3, 0.1)
    parts = [part("cab", shapes.facing_side(shapes.prism(outline, width, 0.03)), paint)]
    if nose < front:
        hood = shapes.box(
            (0, (nose + front) / 2 + 0.03, (floor + belt) / 2 - 0.02),
            (width * 0.94, front - nose + 0.06, belt - floor),
            0.05,
        )
        parts.append(part("hood", hood, paint))
    tilt = float(np.rad2deg(np.arctan2(lean, high - belt)))
    pane = shapes.box((0, 0, (high - belt) / 2), (width * 0.86, 0.02, (high - belt) * 0.74), 0.008)
    parts.append(part("windshield", shapes.moved(shapes.turned(pane, "x", -tilt), (0, front, belt)), GLASS))
    side = (front + lean + back) / 2
    door = shapes.box(
        (width / 2, side, (belt + high) / 2 - 0.01), (0.02, (back - front - lean) * 0.72, (high - belt) * 0.7), 0.008
    )
    lamp = shapes.ellipsoid((width * 0.37, nose - 0.005, floor + 0.06), (0.05, 0.025, 0.04), 20, 12)
    mirror = shapes.box((width / 2 + 0.05, front + 0.02, belt + 0.08), (0.035, 0.03, 0.12), 0.012)
    fender = shapes.box((width * 0.42, nose + 0.2, floor + 0.02), (0.13, 0.36, 0.07), 0.03)
    for item in (
        part("side_window", door, GLASS),
        part("head_lamp", lamp, LIGHT),
        part("mirror", mirror, rgb.CHARCOAL),
        part("fender", fender, paint),
    ):
        parts += pair(item)
    bars = pt.blend(pt.solid(rgb.CHARCOAL), rgb.STEEL, lambda p: pt.edge(np.sin(p[:, 2] * 140), 0.5))
    grille = shapes.box((0, nose, floor + 0.11), (width * 0.56, 0.03, 0.15), 0.012)
    bumper = shapes.box((0, nose - 0.01, floor - 0.05), (width * 1.0, 0.06, 0.08), 0.025)
    return [*parts, part("grille", grille, Paint(bars, 0.4, 0.3)), part("bumper", bumper, CHROME)]


def _load(
    rng: np.random.Generator, style: str, color: Rgb, *, width: float, load: float, cab: float
) -> list[ObjectPart]:
    """Build what stands on the frame, with its floor at z = 0 and its middle at y = 0."""
    colors = palette(rng)
    match style:
        case "box":
            height = cab * rng.uniform(1.0, 1.3)
            base = usual(rng, (rgb.WHITE, rgb.WHITE, (0.75, 0.76, 0.78)), colors.main)
            stripe = pt.stripes(rng, (0, 0.6, 1), 0.4, 0.25) if rng.uniform() < 0.4 else pt.beyond((0, 0, -1), -0.08)
            paint = Paint(pt.blend(pt.solid(base), pick(rng, (color, colors.accent)), stripe), 0.45)
            return [part("box", shapes.box((0, 0, height / 2), (width * 1.04, load, height), 0.02), paint)]
        case "tank":
            radius = width * 0.46
            shape = shapes.capsule(
                (0, -load / 2 + radius * 0.5, radius), (0, load / 2 - radius * 0.5, radius), radius, sides=32
            )
            metal = Paint(pick(rng, (rgb.STEEL, rgb.WHITE, color)), 0.25, 0.4)
            hatch = shapes.moved(shapes.lathe([(0.07, 0.0), (0.07, 0.06), (0.05, 0.07)], 20), (0, 0, 2 * radius - 0.02))
            return [part("tank", shape, metal), part("hatch", hatch, CHROME)]
        case "tipper":
            high = cab * 0.62
            side = np.array(
                [(-load / 2 - 0.02, 0.03), (load * 0.42, 0.0), (load / 2 + 0.05, high), (-load / 2 - 0.02, high)]
            )
            bed = shapes.facing_side(shapes.prism(side, width, 0.02))
            earth = shapes.ellipsoid((0, 0, high - 0.03), (width * 0.42, load * 0.44, 0.14), 28, 14)
            soil = Paint(pt.blend(pt.solid(rgb.BROWN), shade(rgb.BROWN, 0.6), pt.patches(rng, 0.07)), 0.95)
            ribs = [
                shapes.box((width / 2, y, high / 2), (0.03, 0.03, high * 0.9), 0.008)
                for y in np.linspace(-0.36, 0.36, 4) * load
            ]
            bed_paint = Paint(usual(rng, (rgb.ORANGE, rgb.YELLOW, rgb.STEEL), color), 0.45)
            return [part("bed", bed, bed_paint), part("soil", earth, soil)] + [
                p for rib in ribs for p in pair(part("rib", rib, bed_paint))
            ]
        case "fire":
            ladder: list[ObjectPart] = []
            high = cab * 0.85
            rail = shapes.box((0.09, -0.1, high + 0.1), (0.03, load * 1.25, 0.05), 0.01)
            ladder += pair(part("rail", rail, CHROME))
            ladder += [
                part("rung", shapes.capsule((-0.09, float(y), high + 0.1), (0.09, float(y), high + 0.1), 0.013), CHROME)
                for y in np.linspace(-0.65, 0.5, 9) * load
            ]
            beacon = shapes.box((0, -load / 2 - 0.2, cab + 0.02), (width * 0.7, 0.08, 0.06), 0.025)
            locker = shapes.box((width / 2, 0, high * 0.45), (0.02, load * 0.75, high * 0.45), 0.008)
            band = pt.blend(pt.solid(color), rgb.WHITE, lambda p: pt.edge(np.abs(p[:, 2] - high * 0.82) - 0.025, 0.01))
            body = shapes.box((0, 0, high / 2), (width, load, high), 0.025)
            return [
                part("body", body, Paint(band, 0.3)),
                part("beacon", beacon, Paint((0.15, 0.3, 0.9), 0.2)),
                *pair(part("locker", locker, CHROME)),
                *ladder,
            ]
        case "pickup":
            wall = 0.19
            sides = pair(
                part(
                    "side",
                    shapes.box((width / 2 - 0.03, 0, wall / 2), (0.06, load, wall + 0.04), 0.02),
                    Paint(color, 0.3, 0.1),
                )
            )
            gate = shapes.box((0, load / 2, wall / 2), (width, 0.05, wall + 0.02), 0.02)
            return [
                *sides,
                part("gate", gate, Paint(color, 0.3, 0.1)),
                part("floor", shapes.box((0, 0, 0.02), (width * 0.9, load, 0.04), 0.01), rgb.CHARCOAL),
            ]
        case _:
            deck = shapes.box((0, 0, 0.03), (width * 1.02, load, 0.06), 0.015)
            radius = width * 0.15
            logs = [
                shapes.capsule((x, -load * 0.47, z), (x, load * 0.46, z), radius, sides=14)
                for x, z in ((-2 * radius, 0), (0, 0), (2 * radius, 0), (-radius, 1.7 * radius), (radius, 1.7 * radius))
            ]
            bark = Paint(pick(rng, rgb.WOODS), 0.9)
            return [part("deck", deck, rgb.GRAY)] + [
                part("log", shapes.moved(log, (0, 0, 0.06 + radius)), bark) for log in logs
            ]


def _garbage_body(rng: np.random.Generator, color: Rgb, width: float, load: float, height: float) -> list[ObjectPart]:
    """Build the body of a garbage truck: ribs at the sides, and a hopper in the slanted back."""
    back = load / 2
    corners = [(-back, 0.0), (back - 0.02, 0.0), (back + 0.12, height * 0.35), (back + 0.06, height * 0.7)]
    corners += [(back - 0.16, height), (-back, height)]
    hull = shapes.facing_side(shapes.prism(np.array(corners), width * 1.02, 0.02))
    paint = Paint(usual(rng, (rgb.WHITE, (0.25, 0.45, 0.3), (0.6, 0.62, 0.62), rgb.ORANGE), color), 0.45)
    hopper = shapes.box((0, back + 0.07, height * 0.3), (width * 0.8, 0.1, height * 0.3), 0.02)
    parts = [part("hull", hull, paint), part("hopper", hopper, rgb.CHARCOAL)]
    for y in np.linspace(-0.38, 0.2, 5) * load:
        rib = shapes.box((width * 0.52, float(y), height / 2), (0.03, 0.05, height * 0.92), 0.01)
        parts += pair(part("rib", rib, paint))
    return parts
