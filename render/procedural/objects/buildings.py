"""Build houses and castles."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, mix, palette, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid

ROOFS: tuple[Rgb, ...] = (
    (0.70, 0.22, 0.16),
    (0.32, 0.34, 0.40),
    (0.48, 0.29, 0.18),
    (0.20, 0.40, 0.55),
    (0.25, 0.45, 0.30),
    (0.80, 0.45, 0.20),
)
STONES: tuple[Rgb, ...] = (
    (0.66, 0.64, 0.60),
    (0.78, 0.70, 0.55),
    (0.50, 0.52, 0.56),
    (0.80, 0.62, 0.60),
    (0.88, 0.87, 0.84),
)
PANE = 0.15


def house(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a house of one or two floors. Its door and gable face the front, and most houses have a chimney."""
    colors = palette(rng)
    width, depth, floors = rng.uniform(0.75, 1.05), rng.uniform(0.7, 0.95), int(rng.integers(1, 3))
    wall, pitch = 0.34 * floors + rng.uniform(0.06, 0.14), rng.uniform(0.30, 0.52)
    paint = _walls(rng, colors)
    roof = Paint(_tiles(vary(rng, pick(rng, ROOFS)), 0.09), 0.8)
    gable = shapes.facing_front(
        shapes.prism(np.array([(-width / 2, wall - 0.02), (width / 2, wall - 0.02), (0, wall + pitch)]), depth, 0.004)
    )
    parts = [
        part(
            "base",
            shapes.box((0, 0, 0.015), (width + 0.16, depth + 0.16, 0.05), 0.015),
            Paint(pick(rng, ((0.45, 0.6, 0.3), (0.6, 0.58, 0.54))), 0.9),
        ),
        part("walls", shapes.box((0, 0, wall / 2), (width, depth, wall), 0.006), paint),
        part("gable", gable, paint),
        *_gable_roof(width, depth, wall, pitch, roof),
        *_door(rng, colors, -depth / 2),
        *_windows(rng, colors, width, depth, floors),
    ]
    if rng.uniform() < 0.75:
        x, y = width * pick(rng, (-0.27, 0.27)), depth * 0.18
        parts.append(
            part(
                "chimney",
                shapes.box((x, y, wall + pitch * 0.75), (0.13, 0.13, pitch * 0.9), 0.01),
                Paint(pt.blend(pt.solid((0.65, 0.30, 0.22)), rgb.CREAM, pt.bricks(0.09, 0.045)), 0.9),
            )
        )
    gable_window = shapes.ellipsoid((0, -depth / 2 - 0.005, wall + 0.36 * pitch), (0.075, 0.02, 0.075), 24, 12)
    return [*parts, part("gable_window", gable_window, Paint(rgb.GLASS, PANE, 0.2))]


def _walls(rng: np.random.Generator, colors: Palette) -> Paint:
    """Return the paint of walls: render, bricks, or boards."""
    pale = mix(colors.main, rgb.WHITE, rng.uniform(0.1, 0.6))
    match pick(rng, ("render", "bricks", "boards")):
        case "bricks":
            brick = vary(rng, pick(rng, ((0.68, 0.32, 0.24), (0.80, 0.55, 0.36), pale)))
            return Paint(pt.blend(pt.solid(brick), mix(brick, rgb.CREAM, 0.7), pt.bricks(0.14, 0.065)), 0.9)
        case "boards":
            return Paint(
                pt.blend(pt.solid(pale), shade(pale, 0.7), lambda p: pt.edge((p[:, 2] / 0.07) % 1.0 - 0.14, 0.08)), 0.7
            )
        case _:
            return Paint(pale, 0.9)


def _tiles(color: Rgb, size: float) -> pt.Pattern:
    """Return the paint of courses of roof tiles: bricks that are a little darker in their joints."""
    return pt.blend(pt.solid(color), shade(color, 0.62), pt.bricks(size, size * 0.6, 0.1))


def _gable_roof(width: float, depth: float, wall: float, pitch: float, paint: Paint) -> list[ObjectPart]:
    """Build two slabs that overhang the walls, with the ridge along y."""
    slope = np.array([width / 2, pitch]) / np.hypot(width / 2, pitch)
    eave = np.array([width / 2, wall]) + np.array([slope[0], -slope[1]]) * 0.09
    ridge, lift = np.array([0.0, wall + pitch]), np.array([slope[1], slope[0]]) * 0.055
    outline = np.array([ridge, eave, eave + lift, (0.0, ridge[1] + 0.055 / slope[0])])
    return pair(part("roof", shapes.facing_front(shapes.prism(outline, depth + 0.14, 0.004)), paint))


def _door(rng: np.random.Generator, colors: Palette, y: float) -> list[ObjectPart]:
    color = pick(rng, (colors.accent, rgb.RED, *rgb.WOODS[:2]))
    x = pick(rng, (0.0, 0.0, -0.18))
    return [
        part("door_frame", shapes.box((x, y - 0.008, 0.16), (0.21, 0.03, 0.31), 0.008), Paint(rgb.WHITE, 0.6)),
        part("door", shapes.box((x, y - 0.02, 0.15), (0.165, 0.03, 0.27), 0.008), Paint(color, 0.5)),
        part(
            "knob",
            shapes.ellipsoid((x + 0.055, y - 0.045, 0.15), (0.016, 0.016, 0.016), 14, 8),
            Paint((0.85, 0.70, 0.3), 0.3, 0.8),
        ),
        part("step", shapes.box((x, y - 0.07, 0.02), (0.26, 0.12, 0.045), 0.01), Paint((0.62, 0.60, 0.58), 0.9)),
    ]


def window(width: float, height: float, frame: Rgb) -> ObjectPart:
    """Build a window with crossed bars that faces the front, centered at the origin; `frame` is the frame's color."""

    def bars(points: Points) -> pt.Floats:
        x, z = np.abs(points[:, 0]), np.abs(points[:, 2])
        border = np.minimum(width / 2 - x, height / 2 - z)
        return pt.edge(np.minimum(np.minimum(x, z) - 0.010, border - 0.022), 0.008)

    return part(
        "window",
        shapes.box((0, 0, 0), (width, 0.04, height), 0.006),
        Paint(pt.blend(pt.solid(rgb.GLASS), frame, bars), PANE),
    )


def _windows(rng: np.random.Generator, colors: Palette, width: float, depth: float, floors: int) -> list[ObjectPart]:
    """Build windows beside the door and on every floor in front, on both sides, and two behind."""
    frame = pick(rng, (rgb.WHITE, rgb.CREAM, colors.accent, rgb.CHARCOAL))
    pane = window(rng.uniform(0.15, 0.2), rng.uniform(0.16, 0.2), frame)
    parts: list[ObjectPart] = []
    for floor in range(floors):
        z = 0.22 + 0.34 * floor
        parts += pair(shift([pane], (width * 0.31, -depth / 2, z))[0])
        parts += shift([pane], (width * 0.25, depth / 2, z))
        for y in (-0.24, 0.24):
            parts += pair(shift(turn([pane], "z", 90), (width / 2, y * depth, z))[0])
    if floors == 2:
        parts += shift([pane], (0, -depth / 2, 0.56))
    return parts


def castle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a castle: four round towers with pointed or flat tops, battlements, a keep, and a gate in front."""
    colors = palette(rng)
    stone = vary(rng, pick(rng, STONES), 0.04)
    paint = Paint(pt.blend(pt.solid(stone), shade(stone, 0.72), pt.bricks(0.16, 0.08)), 0.9)
    plain = Paint(shade(stone, 0.93), 0.9)
    half, wall, radius = rng.uniform(0.38, 0.5), rng.uniform(0.3, 0.42), rng.uniform(0.12, 0.165)
    tower, pointed = wall + rng.uniform(0.15, 0.35), rng.uniform() < 0.7
    roof = pick(rng, (vary(rng, pick(rng, ROOFS)), colors.main)) if pointed else None
    parts: list[ObjectPart] = []
    for y in (-half, half):
        for item in _tower(radius, tower, roof, paint, plain):
            parts += pair(shift([item], (half, y, 0))[0])
        parts += shift(_curtain(2 * half, wall, paint, plain), (0, y, 0))
    for item in turn(_curtain(2 * half, wall, paint, plain), "z", 90):
        parts += pair(shift([item], (half, 0, 0))[0])
    keep = rng.uniform(1.25, 1.6) * tower
    parts += shift(_tower(radius * 1.5, keep, roof, paint, plain), (0, 0.1, 0))
    top = keep + (0.62 if pointed else 0.15)
    return [*parts, *_gate(-half - 0.06, wall), *shift(_flag(colors.accent, 0.22), (0, 0.1, top))]


def _tower(radius: float, height: float, roof: Rgb | None, paint: Paint, plain: Paint) -> list[ObjectPart]:
    crown = [
        (radius * 1.08, 0.0),
        (radius, 0.04),
        (radius, height),
        (radius * 1.2, height + 0.05),
        (radius * 1.2, height + 0.12),
    ]
    parts = [part("tower", shapes.lathe(crown, 28), paint)]
    slit = shapes.ellipsoid((0, -radius, height * 0.75), (0.022, 0.015, 0.055), 14, 10)
    parts.append(part("slit", slit, Paint(rgb.CHARCOAL, 0.8)))
    if roof is not None:
        cone = shapes.lathe(
            [
                (radius * 1.36, height + 0.10),
                (radius * 1.36, height + 0.12),
                (radius * 0.6, height + 0.36),
                (0.008, height + 0.58),
            ],
            28,
        )
        return [*parts, part("roof", cone, Paint(_tiles(roof, 0.08), 0.7))]
    tooth = shapes.box((0, -radius * 1.08, height + 0.15), (0.075, 0.07, 0.08), 0.008)
    return parts + [piece for angle in range(0, 360, 60) for piece in turn([part("tooth", tooth, plain)], "z", angle)]


def _curtain(length: float, height: float, paint: Paint, plain: Paint) -> list[ObjectPart]:
    """Build a wall along x with a row of merlons on top."""
    merlons = [
        shapes.box((float(x), 0, height + 0.04), (0.075, 0.10, 0.09), 0.008)
        for x in np.linspace(-0.36, 0.36, 6) * length
    ]
    return [
        part("wall", shapes.box((0, 0, height / 2), (length, 0.10, height), 0.006), paint),
        *(part("merlon", m, plain) for m in merlons),
    ]


def _arch(width: float, height: float, depth: float) -> SurfaceGrid:
    angle = np.linspace(0, np.pi, 13)
    round_top = np.stack([np.cos(angle) * width / 2, height - width / 2 + np.sin(angle) * width / 2], axis=1)
    return shapes.facing_front(
        shapes.prism(np.concatenate([[(-width / 2, 0.0), (width / 2, 0.0)], round_top]), depth, 0.006)
    )


def _gate(y: float, wall: float) -> list[ObjectPart]:
    wood = rgb.WOODS[3]
    planks = pt.blend(pt.solid(wood), shade(wood, 0.5), lambda p: pt.edge((p[:, 0] / 0.05) % 1.0 - 0.16, 0.1))
    arch = shapes.moved(_arch(0.32, wall * 0.82, 0.06), (0, y + 0.01, 0))
    return [
        part("gate_arch", arch, Paint((0.42, 0.40, 0.38), 0.9)),
        part("gate", shapes.moved(_arch(0.24, wall * 0.70, 0.06), (0, y - 0.01, 0)), Paint(planks, 0.8)),
    ]


def _flag(color: Rgb, size: float) -> list[ObjectPart]:
    cloth = shapes.facing_front(shapes.prism(np.array([(0.0, 0.06), (size, 0.13), (0.0, 0.20)]), 0.016, 0.004))
    return [
        part("pole", shapes.capsule((0, 0, -0.08), (0, 0, 0.2), 0.012), Paint(rgb.CHARCOAL, 0.5)),
        part("flag", cloth, Paint(color, 0.8)),
    ]
