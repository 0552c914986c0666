"""Build bicycles and motorcycles."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import SurfaceGrid, Vector
from render.procedural.primitives.wheels import CHROME, RUBBER, spoked_wheel

FRAMES: tuple[Rgb, ...] = (
    (0.80, 0.10, 0.10),
    (0.10, 0.10, 0.11),
    (0.12, 0.35, 0.70),
    (0.15, 0.50, 0.28),
    (0.92, 0.92, 0.92),
    (0.45, 0.75, 0.80),
)
LEATHER = Paint((0.12, 0.10, 0.09), 0.7)


def rod(first: Vector, second: Vector, radius: float) -> SurfaceGrid:
    """Return a thin straight tube with few faces between the points `first` and `second`."""
    return shapes.capsule(first, second, radius, sides=10)


def bicycle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a bicycle with a diamond or a step-through frame, and flat, swept-back or drop handlebars."""
    colors = palette(rng)
    frame = Paint(usual(rng, FRAMES, colors.main, 0.7), 0.3, 0.1)
    radius, base, thick = rng.uniform(0.30, 0.36), rng.uniform(0.50, 0.55), rng.uniform(0.018, 0.024)
    tire = rng.uniform(0.018, 0.032)
    step = rng.uniform() < 0.3
    rear, front, crank = (0.0, base, radius), (0.0, -base, radius), (0.0, 0.06, radius * 0.88)
    seat, head, stem = (0.0, 0.20, radius * 2.15), (0.0, -base + 0.20, radius * 1.75), (0.0, -base + 0.26, radius * 2.3)
    joint = (0.0, 0.13, radius * 1.35) if step else (0.0, 0.17, radius * 1.95)
    tubes = [
        (crank, seat),
        (crank, head),
        (joint, (0.0, head[1] + 0.03, head[2] + (0.12 if not step else 0.02))),
        (head, stem),
    ]
    parts = [part("frame", rod(a, b, thick), frame) for a, b in tubes]
    for offset in (0.035,):
        for a, b in ((crank, rear), (joint, rear), (head, front)):
            parts += pair(part("stay", rod((offset * 0.4, *a[1:]), (offset, *b[1:]), thick * 0.7), frame))
    rim = Paint(pick(rng, (rgb.STEEL, rgb.STEEL, rgb.CHARCOAL)), 0.3, 0.6)
    rubber = RUBBER if rng.uniform() < 0.8 else Paint(rgb.CREAM, 0.8)
    for center in (rear, front):
        parts += spoked_wheel(center, radius, tire, 16, rim, rubber=rubber, spoke=0.0055, hub=0.028)
    saddle = shapes.loft(
        [shapes.at_height(_saddle() * s, z) for s, z in ((0.8, -0.02), (1.0, 0.0), (0.95, 0.03), (0.6, 0.045))]
    )
    leather = Paint(pick(rng, ((0.10, 0.09, 0.09), (0.40, 0.22, 0.12))), 0.7)
    parts += [
        part("saddle", shapes.moved(saddle, (0, seat[1] + 0.02, seat[2] + 0.06)), leather),
        part("seat_post", rod(seat, (0, seat[1] + 0.02, seat[2] + 0.06), thick * 0.7), CHROME),
        *_pedals(crank, rear, radius),
        *_handlebars(rng, stem, thick, leather),
    ]
    return parts + _bicycle_extras(rng, colors, frame, radius=radius, tire=tire, base=base)


def _saddle() -> shapes.Points:
    """Return the outline of a saddle, narrow in front."""
    y = np.linspace(-0.14, 0.13, 14)
    half = np.interp(y, [-0.14, -0.12, 0.0, 0.07, 0.12, 0.13], [0.012, 0.025, 0.04, 0.075, 0.07, 0.04])
    return np.concatenate([np.stack([half, y], axis=1), np.stack([-half, y], axis=1)[::-1]])


def _pedals(crank: Vector, rear: Vector, radius: float) -> list[ObjectPart]:
    _, y, z = crank
    chainring = shapes.moved(shapes.turned(torus(0.075, 0.014, 28, 8), "y", 90), (-0.05, y, z))
    sprocket = shapes.moved(shapes.turned(torus(0.035, 0.012, 20, 8), "y", 90), (-0.05, rear[1], rear[2]))
    parts = [part("chainring", chainring, CHROME), part("sprocket", sprocket, CHROME)]
    for side, lean in ((-1, 1), (1, -1)):
        end = (side * 0.07, y + lean * 0.10, z - lean * 0.10)
        parts.append(part("crank", rod((side * 0.05, y, z), end, 0.014), CHROME))
        parts.append(part("pedal", shapes.box((side * 0.12, end[1], end[2]), (0.1, 0.09, 0.03), 0.01), rgb.BLACK))
    for low, high in ((-0.078, -0.038), (0.078, 0.038)):
        parts.append(part("chain", rod((-0.05, y, z + low), (-0.05, rear[1], rear[2] + high), 0.007), rgb.CHARCOAL))
    return parts


def _handlebars(rng: np.random.Generator, stem: Vector, thick: float, grip: Paint) -> list[ObjectPart]:
    _, y, z = stem
    control: tuple[Vector, ...]
    match pick(rng, ("flat", "swept", "drop")):
        case "flat":
            control = ((0.0, y - 0.03, z + 0.02), (0.12, y - 0.03, z + 0.04), (0.26, y + 0.02, z + 0.05))
            tip = ((0.19, y - 0.01, z + 0.05), (0.29, y + 0.02, z + 0.05))
        case "swept":
            control = ((0.0, y - 0.03, z), (0.28, y - 0.12, z + 0.13), (0.24, y + 0.14, z + 0.08))
            tip = ((0.24, y + 0.07, z + 0.09), (0.24, y + 0.18, z + 0.075))
        case _:
            control = ((0.0, y - 0.02, z), (0.34, y + 0.0, z), (0.20, y - 0.34, z - 0.02), (0.2, y - 0.06, z - 0.14))
            tip = ((0.205, y - 0.15, z - 0.12), (0.2, y - 0.03, z - 0.145))
    bar = shapes.tube(shapes.curve(control, 14), thick * 0.7, 10)
    return pair(part("handlebar", bar, CHROME)) + pair(part("grip", rod(*tip, thick * 1.05), grip))


def _bicycle_extras(
    rng: np.random.Generator, colors: Palette, frame: Paint, *, radius: float, tire: float, base: float
) -> list[ObjectPart]:
    """Build fenders, a basket in front and a rack behind, each at random."""
    parts: list[ObjectPart] = []
    if rng.uniform() < 0.4:
        for y, (low, high) in ((base, (20, 190)), (-base, (-10, 140))):
            angle = np.deg2rad(np.linspace(low, high, 16))
            arc = np.stack(
                [0 * angle, y + (radius + 0.015) * np.cos(angle), radius + (radius + 0.015) * np.sin(angle)], axis=1
            )
            parts.append(part("fender", shapes.tube(arc, tire * 1.3, 10), frame))
    if rng.uniform() < 0.25:
        wicker = shapes.lathe([(0.09, 0.0), (0.13, 0.16), (0.12, 0.16), (0.08, 0.02)], 24)
        parts.append(
            part("basket", shapes.moved(wicker, (0, -base + 0.05, radius * 2.05)), Paint((0.66, 0.46, 0.25), 0.9))
        )
    if rng.uniform() < 0.25:
        rack = shapes.box((0, base - 0.02, radius * 2.12), (0.1, 0.3, 0.02), 0.008)
        parts.append(part("rack", rack, CHROME))
        parts += pair(part("strut", rod((0.045, base - 0.02, radius * 2.12), (0.04, base, radius), 0.009), CHROME))
    return parts


def motorcycle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a classic motorcycle, a sports motorcycle with a fairing, or a chopper with a long fork."""
    colors = palette(rng)
    paint = Paint(usual(rng, FRAMES[:3] + FRAMES[:2] + ((0.95, 0.50, 0.08), (0.95, 0.8, 0.1)), colors.main), 0.2, 0.2)
    style = pick(rng, ("classic", "classic", "sport", "chopper"))
    radius, tire = rng.uniform(0.27, 0.31), rng.uniform(0.06, 0.08)
    rear = (0.0, 0.50, radius)
    front = (0.0, -0.56 - (0.16 if style == "chopper" else 0.0), radius)
    neck = (0.0, -0.26, radius * 2.35)
    parts = [
        part("tank", shapes.ellipsoid((0, -0.06, radius * 2.32), (0.13, 0.25, 0.12), 28, 16), paint),
        part("frame", rod(neck, (0, -0.1, radius * 0.8), 0.03), rgb.CHARCOAL),
        part("backbone", rod(neck, (0, 0.4, radius * 2.05), 0.035), rgb.CHARCOAL),
        part("cradle", rod((0, -0.1, radius * 0.75), (0, 0.25, radius * 0.75), 0.04), rgb.CHARCOAL),
        *_motorcycle_body(rng, style, paint, radius, neck=neck, front=front, rear=rear),
        *_engine(radius),
    ]
    for item in (
        part("fork", rod((0.09, *neck[1:]), (0.09, *front[1:]), 0.028), CHROME),
        part("swing_arm", rod((0.07, 0.05, radius * 1.05), (0.09, *rear[1:]), 0.03), rgb.CHARCOAL),
        part("shock", rod((0.1, 0.36, radius * 2.0), (0.1, 0.48, radius * 1.05), 0.032), CHROME),
    ):
        parts += pair(item)
    for center in (rear, front):
        parts += spoked_wheel(center, radius, tire, 10 if style == "sport" else 14, CHROME, spoke=0.009, hub=0.05)
    return parts


def _engine(radius: float) -> list[ObjectPart]:
    block = shapes.box((0, 0.06, radius * 1.1), (0.24, 0.34, 0.2), 0.05)
    parts = [part("engine", block, Paint((0.25, 0.25, 0.27), 0.4, 0.5))]
    for lean in (-0.10, 0.10):
        cylinder = shapes.capsule((0, 0.04 + lean * 0.4, radius * 1.25), (0, 0.04 + lean * 1.3, radius * 1.85), 0.085)
        parts.append(part("cylinder", cylinder, CHROME))
    case = shapes.moved(shapes.turned(shapes.lathe([(0.1, 0.0), (0.09, 0.03)], 24), "y", 90), (0.11, 0.1, radius))
    pipe = shapes.tube(
        shapes.curve(
            (
                (0.1, -0.1, radius * 1.7),
                (0.16, -0.32, radius * 0.6),
                (0.16, 0.1, radius * 0.55),
                (0.17, 0.4, radius * 0.75),
            ),
            16,
        ),
        0.03,
        12,
    )
    muffler = shapes.capsule((0.17, 0.36, radius * 0.72), (0.18, 0.78, radius * 0.95), 0.045, 0.055)
    for item in (part("case", case, CHROME), part("pipe", pipe, CHROME), part("muffler", muffler, CHROME)):
        parts += pair(item)
    return parts


def _motorcycle_body(
    rng: np.random.Generator, style: str, paint: Paint, radius: float, *, neck: Vector, front: Vector, rear: Vector
) -> list[ObjectPart]:
    """Build seat, fenders, handlebars, lamps and, for a sports motorcycle, a fairing."""
    parts: list[ObjectPart] = []
    for center, (low, high) in ((rear, (30, 150)), (front, (50, 150))):
        angle = np.deg2rad(np.linspace(low, high, 14))
        reach = radius + 0.03
        arc = np.stack([0 * angle, center[1] + reach * np.cos(angle), radius + reach * np.sin(angle)], axis=1)
        fender = shapes.tube(arc, 0.035, 12) * (2.3, 1, 1)
        parts.append(part("fender", fender, paint))
    back = 0.5 if style != "sport" else 0.55
    seat = shapes.tube(
        shapes.curve(((0, 0.14, radius * 2.2), (0, 0.3, radius * 2.0), (0, back + 0.1, radius * 2.35)), 10),
        np.linspace(0.06, 0.075, 10),
        20,
    )
    parts.append(part("seat", seat * (1.5, 1, 1), LEATHER))
    z = neck[2]
    height = {"classic": 0.14, "sport": 0.04, "chopper": 0.32}[style]
    bar = shapes.curve(
        ((0, neck[1], z), (0.2, neck[1] - 0.04, z + height), (0.34, neck[1] + 0.1, z + height * 0.8)), 12
    )
    parts += pair(part("handlebar", shapes.tube(bar, 0.018, 10), CHROME))
    parts += pair(
        part(
            "grip",
            rod((0.28, neck[1] + 0.06, z + height * 0.75), (0.36, neck[1] + 0.12, z + height * 0.82), 0.026),
            LEATHER,
        )
    )
    if style == "sport":
        nose = shapes.tube(
            np.array([(0, -0.1, z - 0.14), (0, -0.3, z - 0.05), (0, -0.52, z - 0.1), (0, -0.62, z - 0.16)]),
            [0.16, 0.2, 0.14, 0.06],
            24,
        )
        side = shapes.ellipsoid((0.13, -0.16, radius * 1.45), (0.05, 0.26, 0.2), 24, 14)
        screen = shapes.ellipsoid((0, -0.36, z + 0.1), (0.11, 0.13, 0.09), 24, 14)
        tail = shapes.capsule((0, 0.48, radius * 2.25), (0, 0.76, radius * 2.6), 0.09, 0.03)
        parts += [
            part("fairing", nose, paint),
            part("screen", screen, Paint(rgb.GLASS, 0.1)),
            part("tail", tail, paint),
        ]
        parts += pair(part("side_fairing", side, paint))
        parts += pair(
            part(
                "head_lamp",
                shapes.ellipsoid((0.07, -0.60, z - 0.11), (0.05, 0.03, 0.03), 16, 10),
                Paint((1.0, 0.97, 0.85), 0.1),
            )
        )
    else:
        lamp = shapes.ellipsoid((0, neck[1] - 0.13, z - 0.04), (0.09, 0.08, 0.09), 24, 14)
        glass = shapes.ellipsoid((0, neck[1] - 0.19, z - 0.04), (0.075, 0.04, 0.075), 24, 14)
        parts += [part("lamp", lamp, CHROME), part("head_lamp", glass, Paint((1.0, 0.97, 0.82), 0.1))]
    stop = shapes.ellipsoid((0, rear[1] + radius * 0.85, radius * 1.75), (0.05, 0.03, 0.04), 16, 10)
    return [*parts, part("rear_lamp", stop, Paint(rgb.RED, 0.2))]
