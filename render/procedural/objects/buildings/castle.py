"""Build castles."""

import numpy as np

from render.procedural.objects.buildings.walls import ROOFS, roof_tiles
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import SurfaceGrid

STONES: tuple[Rgb, ...] = (
    (0.66, 0.64, 0.60),
    (0.78, 0.70, 0.55),
    (0.50, 0.52, 0.56),
    (0.80, 0.62, 0.60),
    (0.88, 0.87, 0.84),
)
PALE: tuple[Rgb, ...] = ((0.93, 0.92, 0.90), (0.95, 0.88, 0.82), (0.88, 0.90, 0.95), (0.95, 0.82, 0.86))
SPIRES: tuple[Rgb, ...] = ((0.22, 0.30, 0.62), (0.42, 0.26, 0.60), (0.25, 0.45, 0.66), (0.70, 0.30, 0.42))


def castle(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a castle with round corner towers and a keep, a square fortress, or a castle of many slim towers."""
    colors = palette(rng)
    match pick(rng, ("keep", "keep", "fortress", "spires")):
        case "fortress":
            return _fortress(rng)
        case "spires":
            return _spires(rng, colors)
        case _:
            return _castle_with_keep(rng, colors)


def _fortress(rng: np.random.Generator) -> list[ObjectPart]:
    """Build four walls with battlements, four square corner towers and a gate; sometimes a low hall stands inside."""
    stone = vary(rng, pick(rng, STONES), 0.04)
    paint = Paint(pt.blend(pt.solid(stone), shade(stone, 0.75), pt.bricks(0.15, 0.075)), 0.9)
    plain = Paint(shade(stone, 0.94), 0.9)
    half, wall, width = rng.uniform(0.42, 0.55), rng.uniform(0.26, 0.40), rng.uniform(0.24, 0.32)
    tower = wall + rng.uniform(0.10, 0.28)
    parts: list[ObjectPart] = []
    for y in (-half, half):
        for item in _square_tower(width, tower, paint, plain):
            parts += pair(shift([item], (half, y, 0))[0])
        parts += shift(_curtain(2 * half, wall, paint, plain), (0, y, 0))
    for item in turn(_curtain(2 * half, wall, paint, plain), "z", 90):
        parts += pair(shift([item], (half, 0, 0))[0])
    court = shapes.box((0, 0, 0.02), (2 * half, 2 * half, 0.04), 0.01)
    parts.append(
        part("court", court, Paint(pick(rng, ((0.62, 0.58, 0.5), (0.45, 0.55, 0.32), shade(stone, 0.8))), 0.9))
    )
    if rng.uniform() < 0.4:
        roof = Paint(roof_tiles(vary(rng, pick(rng, ROOFS)), 0.08), 0.8)
        side, high = half * 0.8, wall * 0.8
        parts.append(part("hall", shapes.box((0, half * 0.3, high / 2), (side, side, high), 0.006), paint))
        parts.append(
            part("roof", shapes.box((0, half * 0.3, high + 0.1), (side + 0.1, side + 0.1, 0.2), 0.01, 0.2), roof)
        )
    return [*parts, *_gate(-half - 0.06, wall)]


def _square_tower(width: float, height: float, paint: Paint, plain: Paint) -> list[ObjectPart]:
    tooth = shapes.box((0, 0, height + 0.11), (0.075, 0.06, 0.09), 0.008)
    edge = width * 0.58 - 0.03
    places = [(-edge, -edge), (0.0, -edge), (edge, -edge)]
    teeth = [piece for x, y in places for piece in shift([part("tooth", tooth, plain)], (x, y, 0))]
    return [
        part("tower", shapes.box((0, 0, height / 2), (width, width, height), 0.008), paint),
        part("top", shapes.box((0, 0, height + 0.03), (width * 1.16, width * 1.16, 0.09), 0.008), plain),
        part("slit", shapes.box((0, -width / 2, height * 0.72), (0.04, 0.02, 0.12), 0.006), Paint(rgb.CHARCOAL, 0.8)),
        *(piece for angle in range(0, 360, 90) for piece in turn(teeth, "z", angle)),
    ]


def _spires(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a pale castle of a high main building and slim round towers with pointed roofs close around it."""
    wall, roof = pick(rng, PALE), vary(rng, pick(rng, (*SPIRES, colors.main)))
    paint, plain = Paint(vary(rng, wall, 0.03), 0.8), Paint(shade(wall, 0.9), 0.8)
    width, depth, high = rng.uniform(0.42, 0.6), rng.uniform(0.34, 0.45), rng.uniform(0.38, 0.6)
    parts = [
        part("hall", shapes.box((0, 0, high / 2), (width, depth, high), 0.01), paint),
        part("base", shapes.box((0, 0, 0.06), (width + 0.36, depth + 0.30, 0.12), 0.02), plain),
    ]
    hall_roof = shapes.box((0, 0, high + 0.11), (width + 0.06, depth + 0.06, 0.24), 0.01, 0.12)
    parts.append(part("roof", hall_roof, Paint(roof_tiles(roof, 0.08), 0.7)))
    radius = rng.uniform(0.075, 0.10)
    for y, grow in ((-depth / 2, 1.0), (depth / 2, rng.uniform(1.1, 1.5))):
        for item in _tower(radius, high * grow + rng.uniform(0.0, 0.15), roof, paint, plain):
            parts += pair(shift([item], (width / 2 + 0.02, y, 0))[0])
    for item in _tower(radius * 0.8, high * rng.uniform(0.45, 0.75), roof, paint, plain):
        parts += pair(shift([item], (width / 2 + 0.16, -depth / 2 - 0.05, 0))[0])
    middle = high + rng.uniform(0.3, 0.55)
    parts += shift(_tower(radius * 1.3, middle, roof, paint, plain), (0, 0.03, 0))
    pane = Paint((0.30, 0.40, 0.60), 0.2, 0.1)
    for z in np.arange(0.22, high - 0.08, 0.17):
        window = shapes.ellipsoid((width * 0.24, -depth / 2, float(z)), (0.035, 0.015, 0.055), 16, 10)
        parts += pair(part("window", window, pane))
    gate = shift(_gate(0.0, rng.uniform(0.3, 0.36)), (0, -depth / 2 - 0.02, 0.0))
    return [*parts, *gate, *shift(_flag(colors.accent, 0.2), (0, 0.03, middle + 0.62))]


def _castle_with_keep(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a castle: four round towers with pointed or flat tops, battlements, a keep, and a gate in front."""
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
        return [*parts, part("roof", cone, Paint(roof_tiles(roof, 0.08), 0.7))]
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
