"""Build guitars and drums."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import Points
from render.procedural.primitives.wheels import CHROME

TOPS: tuple[Rgb, ...] = ((0.82, 0.56, 0.28), (0.90, 0.72, 0.45), (0.62, 0.33, 0.15), (0.45, 0.20, 0.10))
ELECTRIC: tuple[Rgb, ...] = (
    (0.80, 0.10, 0.10),
    (0.10, 0.10, 0.11),
    (0.93, 0.92, 0.88),
    (0.45, 0.70, 0.80),
    (0.75, 0.42, 0.12),
)


def guitar(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an acoustic or an electric guitar or a ukulele, upright, with its strings to the front."""
    colors = palette(rng)
    electric = rng.uniform() < 0.4
    return _electric_guitar(rng, colors) if electric else _acoustic_guitar(rng, colors)


def _acoustic_guitar(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    scale = rng.uniform(0.9, 1.05)
    length, width, depth = 0.52 * scale, 0.22 * rng.uniform(0.92, 1.08), rng.uniform(0.11, 0.14)
    color = usual(rng, TOPS, colors.main, 0.85)
    place = np.linspace(0, 1, 40)
    half = width * np.interp(
        place,
        [0, 0.03, 0.1, 0.3, 0.45, 0.60, 0.78, 0.93, 0.98, 1],
        [0.2, 0.5, 0.82, 1.0, 0.86, 0.66, 0.74, 0.58, 0.35, 0.12],
    )
    half = np.convolve(np.pad(half, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    z = place * length
    outline = np.concatenate([np.stack([half, z], axis=1), np.stack([-half, z], axis=1)[::-1]])
    sides = shade(color, rng.uniform(0.5, 0.8))
    front = -depth / 2
    grain = pt.blend(pt.solid(color), shade(color, 0.85), pt.grain(rng, (0, 0, 1), 0.03))
    if rng.uniform() < 0.3:
        grain = pt.blend(
            grain,
            shade(color, 0.3),
            lambda p: pt.edge(0.13 - np.hypot(p[:, 0] / (width * 4.2), (p[:, 2] - length * 0.45) / 1.9), 0.06),
        )
    body = shapes.facing_front(shapes.prism(outline, depth, 0.006))
    top = shapes.moved(
        shapes.facing_front(shapes.prism(outline * (0.97, 0.985) + (0, 0.004), 0.01, 0.004)), (0, front - 0.003, 0)
    )
    hole_z, hole = length * 0.63, width * 0.25
    parts = [
        part("body", body, Paint(sides, 0.3)),
        part("top", top, Paint(grain, 0.3)),
        part(
            "rosette",
            shapes.ellipsoid((0, front - 0.006, hole_z), (hole * 1.25, 0.006, hole * 1.25), 32, 10),
            Paint(shade(color, 0.45), 0.4),
        ),
        part(
            "hole",
            shapes.ellipsoid((0, front - 0.010, hole_z), (hole, 0.006, hole), 32, 10),
            Paint((0.05, 0.03, 0.02), 0.9),
        ),
        part(
            "bridge",
            shapes.box((0, front - 0.015, length * 0.25), (width * 0.72, 0.022, 0.035), 0.008),
            Paint(rgb.BROWN, 0.5),
        ),
    ]
    if rng.uniform() < 0.4:
        guard = shapes.ellipsoid((width * 0.32, front - 0.008, hole_z - 0.08), (0.045, 0.005, 0.075), 24, 10)
        parts.append(part("pick_guard", guard, Paint(pick(rng, (rgb.BLACK, rgb.BROWN)), 0.3)))
    return parts + _neck(
        rng,
        (length * 0.73, length, length + 0.40 * scale),
        front,
        length * 0.25,
        (color, sides),
        slotted=rng.uniform() < 0.5,
    )


def _neck(
    rng: np.random.Generator,
    at: tuple[float, float, float],
    front: float,
    bridge: float,
    woods: tuple[Rgb, Rgb],
    *,
    slotted: bool,
) -> list[ObjectPart]:
    """Build neck, fretboard, head, tuners and strings; `at`: the z where fretboard, neck and head start."""
    low, joint, nut = at
    board_color = pick(rng, ((0.16, 0.10, 0.07), (0.30, 0.18, 0.10), (0.75, 0.55, 0.32)))
    board = pt.blend(pt.solid(board_color), rgb.STEEL, pt.stripes(rng, (0, 0, 1), 0.045, 0.14))
    head = shapes.box((0, front + 0.02, nut + 0.085), (0.095, 0.035, 0.17), 0.012, 1.2)
    parts = [
        part(
            "neck",
            shapes.box((0, front + 0.022, (joint + nut) / 2), (0.062, 0.045, nut - joint + 0.04), 0.02),
            Paint(woods[1], 0.4),
        ),
        part(
            "fretboard",
            shapes.box((0, front - 0.008, (low + nut) / 2), (0.066, 0.018, nut - low), 0.004),
            Paint(board, 0.5),
        ),
        part("head", head, Paint(pick(rng, woods), 0.35)),
        part("nut", shapes.box((0, front - 0.010, nut), (0.066, 0.022, 0.012), 0.003), rgb.CREAM),
    ]
    for z in (0.04, 0.09, 0.14):
        peg = shapes.capsule((0.04, front + 0.02, nut + z), (0.075, front + 0.02, nut + z), 0.012, 0.017)
        parts += pair(part("tuner", peg, Paint(rgb.CREAM, 0.4) if slotted else CHROME))
    for x in np.linspace(-0.024, 0.024, 6):
        string = shapes.capsule((float(x), front - 0.024, bridge), (float(x), front - 0.024, nut), 0.0022, sides=6)
        parts.append(part("string", string, CHROME))
    return parts


def _electric_guitar(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    color, depth, scale = usual(rng, ELECTRIC, colors.main, 0.75), rng.uniform(0.07, 0.09), rng.uniform(0.92, 1.05)
    double = rng.uniform() < 0.6
    right = [
        (0.0, 0.0),
        (0.1, 0.0),
        (0.17, 0.04),
        (0.19, 0.11),
        (0.165, 0.19),
        (0.135, 0.25),
        (0.15, 0.32),
        (0.145, 0.385),
        (0.11, 0.40),
        (0.075, 0.35),
        (0.05, 0.315),
    ]
    left = [
        (0.05, 0.33),
        (0.08, 0.40),
        (0.125, 0.435),
        (0.155, 0.41),
        (0.155, 0.35),
        (0.135, 0.27),
        (0.165, 0.19),
        (0.19, 0.11),
        (0.17, 0.04),
        (0.1, 0.0),
    ]
    if not double:
        left = [
            (0.04, 0.385),
            (0.09, 0.385),
            (0.13, 0.36),
            (0.145, 0.31),
            (0.135, 0.25),
            (0.165, 0.18),
            (0.19, 0.11),
            (0.17, 0.04),
            (0.1, 0.0),
        ]
    points = np.array(right + [(-x, z) for x, z in left])
    outline = _rounded(points) * (1.05, 1.0)
    front, nut = -depth / 2, 0.40 + 0.38 * scale
    paint: Rgb | pt.Pattern = color
    if rng.uniform() < 0.3:
        paint = pt.blend(
            pt.solid((0.85, 0.55, 0.15)),
            shade(color, 0.3),
            lambda p: pt.edge(0.12 - np.hypot(p[:, 0], (p[:, 2] - 0.19) * 0.8), 0.09),
        )
    body = shapes.facing_front(shapes.prism(outline, depth, 0.02))
    guard_color = pick(rng, (rgb.WHITE, rgb.WHITE, rgb.BLACK, rgb.CREAM))
    guard = shapes.moved(
        shapes.facing_front(shapes.prism(_rounded(points) * (0.62, 0.62) + (0.03, 0.10), 0.008, 0.003)),
        (0, front - 0.003, 0),
    )
    wood = pick(rng, ((0.86, 0.66, 0.38), (0.5, 0.28, 0.14)))
    parts = [
        part("body", body, Paint(paint, 0.15, 0.05)),
        part("bridge", shapes.box((0, front - 0.015, 0.085), (0.1, 0.02, 0.035), 0.006), CHROME),
    ]
    if rng.uniform() < 0.75:
        parts.append(part("pick_guard", guard, Paint(guard_color, 0.3)))
    for z in (0.14, 0.20, 0.26):
        pickup = shapes.box((0, front - 0.014, z), (0.095, 0.022, 0.028), 0.008)
        parts.append(part("pickup", pickup, Paint(pick(rng, (rgb.BLACK, rgb.CREAM)), 0.4)))
    for x, z in ((0.10, 0.13), (0.12, 0.085), (0.125, 0.04)):
        knob = shapes.moved(
            shapes.turned(shapes.lathe([(0.017, 0.0), (0.014, 0.022)], 16), "x", 90), (x, front - 0.005, z)
        )
        parts.append(part("knob", knob, CHROME))
    return parts + _neck(rng, (0.28, 0.34, nut), front, 0.085, (wood, wood), slotted=False)


def _rounded(points: Points) -> Points:
    """Return a smooth closed outline through a coarse one: corners cut three times (Chaikin)."""
    for _ in range(3):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def drum(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a snare or floor drum, a marching drum with ropes and sticks, or a djembe."""
    colors = palette(rng)
    color = usual(
        rng, ((0.75, 0.10, 0.10), (0.12, 0.25, 0.6), (0.12, 0.12, 0.13), (0.62, 0.38, 0.2)), colors.main, 0.65
    )
    match pick(rng, ("snare", "marching", "marching", "djembe")):
        case "djembe":
            return _djembe(rng, color, colors)
        case style:
            return _side_drum(rng, style, color, colors)


def _side_drum(rng: np.random.Generator, style: str, color: Rgb, colors: Palette) -> list[ObjectPart]:
    radius, height = rng.uniform(0.32, 0.40), rng.uniform(0.26, 0.40) if style == "snare" else rng.uniform(0.42, 0.6)
    rim = (
        Paint(pick(rng, (rgb.STEEL, (0.85, 0.66, 0.22), colors.accent)), 0.3, 0.5)
        if style == "snare"
        else Paint(pick(rng, ((0.85, 0.66, 0.22), rgb.WHITE, colors.accent)), 0.4)
    )
    skin = Paint(pick(rng, (rgb.WHITE, rgb.CREAM)), 0.7)
    shell = pt.solid(color)
    if rng.uniform() < 0.4:
        shell = pt.blend(shell, shade(color, 0.7), pt.grain(rng, (0, 0, 1), 0.04))
    parts = [
        part("shell", shapes.lathe([(radius, 0.0), (radius, height)], 48), Paint(shell, 0.3)),
        part(
            "skin",
            shapes.lathe(
                [(radius * 1.01, height - 0.01), (radius * 1.01, height + 0.015), (radius * 0.97, height + 0.022)], 48
            ),
            skin,
        ),
    ]
    hoop = torus(radius * 1.03, 0.022 if style == "snare" else 0.03, 48, 10)
    for z in (0.02, height):
        parts.append(part("hoop", shapes.moved(hoop, (0, 0, z)), rim))
    count = int(rng.integers(6, 10))
    if style == "snare":
        lug = shapes.box((radius * 1.02, 0, height / 2), (0.035, 0.035, height * 0.4), 0.012)
        rod = shapes.capsule((radius * 1.05, 0, 0.02), (radius * 1.05, 0, height), 0.009, sides=8)
        parts += ring_of(part("lug", lug, CHROME), count) + ring_of(part("rod", rod, CHROME), count)
    else:
        step = np.pi / count
        reach = radius * 1.03
        for lean in (-step, step):
            end = (reach * float(np.cos(lean)), reach * float(np.sin(lean)), height)
            rope = shapes.capsule((reach, 0, 0.02), end, 0.012, sides=8)
            parts += ring_of(part("rope", rope, Paint(pick(rng, (rgb.CREAM,)), 0.9)), count)
    if rng.uniform() < 0.6:
        wood = Paint((0.80, 0.60, 0.36), 0.5)
        for angle, x in ((25, 0.05), (-30, -0.05)):
            stick = shapes.capsule((0, -0.33, 0.035), (0, 0.24, 0.035), 0.016, 0.011)
            tip = shapes.ellipsoid((0, 0.26, 0.035), (0.02, 0.03, 0.02), 14, 10)
            parts += shift(
                turn([part("stick", stick, wood), part("stick_tip", tip, wood)], "z", angle), (x, 0, height + 0.01)
            )
    return parts


def _djembe(rng: np.random.Generator, color: Rgb, colors: Palette) -> list[ObjectPart]:
    height, radius = rng.uniform(0.8, 0.95), rng.uniform(0.26, 0.31)
    wood = usual(rng, (*rgb.WOODS, (0.45, 0.22, 0.12)), color, 0.8)
    profile = [(0.62, 0.0), (0.56, 0.1), (0.42, 0.35), (0.42, 0.45), (0.62, 0.6), (0.92, 0.78), (1.0, 0.9), (1.0, 1.0)]
    carved = pt.blend(pt.solid(wood), shade(wood, 0.6), pt.grain(rng, (0, 0, 1), 0.05))
    carved = pt.blend(
        carved,
        colors.accent,
        lambda p: (
            pt.edge(np.abs(p[:, 2] - height * 0.28) - 0.035, 0.01) * (np.sin(14 * np.arctan2(p[:, 1], p[:, 0])) > -0.2)
        ),
    )
    reach = [(r * radius, z * height) for r, z in profile]
    parts = [
        part("body", shapes.lathe(reach, 40), Paint(carved, 0.5)),
        part(
            "skin",
            shapes.lathe([(radius, height), (radius * 1.0, height + 0.02), (radius * 0.95, height + 0.028)], 40),
            Paint((0.92, 0.85, 0.70), 0.8),
        ),
    ]
    rope = Paint(pick(rng, (rgb.CREAM, rgb.BLACK, colors.main)), 0.9)
    for z in (0.98, 0.9):
        parts.append(part("ring", shapes.moved(torus(radius * 1.02, 0.018, 40, 8), (0, 0, z * height)), rope))
    parts.append(part("low_ring", shapes.moved(torus(radius * 0.66, 0.02, 36, 8), (0, 0, 0.6 * height)), rope))
    for lean in (-0.2, 0.2):
        end = (radius * 0.66 * float(np.cos(lean)), radius * 0.66 * float(np.sin(lean)), 0.6 * height)
        parts += ring_of(part("cord", shapes.capsule((radius * 1.02, 0, 0.9 * height), end, 0.010, sides=8), rope), 12)
    return parts
