"""Build houses from blocks: box-shaped wings with a roof, windows and doors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from render.procedural.objects.buildings.walls import (
    FLOOR,
    PANE,
    ROOFS,
    barn_door,
    door,
    gable_roof,
    logs,
    plank_paint,
    roof_tiles,
    wall_paint,
    wall_windows,
    window,
)
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, mix, palette, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn

RoofShape = Literal["gable_front", "gable_side", "hip", "flat"]

GROUNDS: Final[tuple[Rgb, ...]] = ((0.45, 0.6, 0.3), (0.6, 0.58, 0.54), (0.62, 0.54, 0.40))
PLASTERS: Final[tuple[Rgb, ...]] = (
    (0.93, 0.92, 0.88),
    (0.90, 0.84, 0.70),
    (0.80, 0.62, 0.42),
    (0.72, 0.72, 0.72),
    (0.85, 0.66, 0.52),
)
TOWN_ROOFS: Final[tuple[RoofShape, ...]] = ("flat", "flat", "hip", "gable_front", "gable_side")


@dataclass(frozen=True)
class Block:
    """A wing of a house: a box with a roof on top. Its ridge is along x for gable_side, and along y for gable_front."""

    width: float  # along x
    depth: float  # along y
    wall: float  # height of the walls
    pitch: float  # height of the roof
    roof: RoofShape
    wall_paint: Paint
    roof_paint: Paint

    def parts(self) -> list[ObjectPart]:
        """Return the walls and the roof, with the middle of the base at the origin."""
        width, depth, wall = self.width, self.depth, self.wall
        body = part("walls", shapes.box((0, 0, wall / 2), (width, depth, wall), 0.006), self.wall_paint)
        match self.roof:
            case "hip":
                size = (width + 0.14, depth + 0.14, self.pitch)
                share = float(np.clip(1 - 1.5 * self.pitch / max(width, depth), 0.08, 0.6))
                roof = shapes.box((0, 0, wall + self.pitch / 2), size, 0.01, share)
                return [body, part("roof", roof, self.roof_paint)]
            case "flat":
                rim = shapes.box((0, 0, wall + 0.03), (width + 0.05, depth + 0.05, self.pitch), 0.008)
                top = shapes.box((0, 0, wall + 0.03), (width - 0.05, depth - 0.05, self.pitch + 0.01), 0.006)
                return [body, part("rim", rim, self.wall_paint), part("roof", top, self.roof_paint)]
            case "gable_side":
                turned = Block(depth, width, wall, self.pitch, "gable_front", self.wall_paint, self.roof_paint)
                return [body, *turn(turned.parts()[1:], "z", 90)]
            case _:
                outline = np.array([(-width / 2, wall - 0.02), (width / 2, wall - 0.02), (0, wall + self.pitch)])
                gable = shapes.facing_front(shapes.prism(outline, depth, 0.004))
                roof_parts = gable_roof(width, depth, wall, self.pitch, self.roof_paint)
                return [body, part("gable", gable, self.wall_paint), *roof_parts]


def house(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a house. Its door faces the front.

    It is a house with a gable in front or at the sides, a barn, a log cabin, a house with a flat or hipped roof or with
    two wings, a town house of several floors, or an inn with an overhanging upper floor.
    """
    colors = palette(rng)
    return pick(rng, STYLES)(rng, colors)


def _roof(rng: np.random.Generator) -> Paint:
    return Paint(roof_tiles(vary(rng, pick(rng, ROOFS)), 0.09), 0.8)


def _ground(rng: np.random.Generator, width: float, depth: float, share: float = 0.65) -> list[ObjectPart]:
    """Build a plate under a house of this width and depth, for a `share` of the houses."""
    if rng.uniform() > share:
        return []
    plate = shapes.box((0, 0, 0.015), (width + 0.16, depth + 0.16, 0.05), 0.015)
    return [part("base", plate, Paint(pick(rng, GROUNDS), 0.9))]


def _chimney(rng: np.random.Generator, x: float, y: float, low: float, high: float) -> list[ObjectPart]:
    """Build a chimney from height `low` to `high`, for three of four houses."""
    if rng.uniform() > 0.75:
        return []
    bricks = pt.blend(pt.solid((0.65, 0.30, 0.22)), rgb.CREAM, pt.bricks(0.09, 0.045))
    paint = Paint(pick(rng, (bricks, pt.solid((0.62, 0.60, 0.57)))), 0.9)
    return [part("chimney", shapes.box((x, y, (low + high) / 2), (0.13, 0.13, high - low), 0.01), paint)]


def _frame(rng: np.random.Generator, colors: Palette) -> Rgb:
    return pick(rng, (rgb.WHITE, rgb.CREAM, colors.accent, rgb.CHARCOAL, rgb.WOODS[1]))


def _gable_front_house(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    width, depth, floors = rng.uniform(0.75, 1.05), rng.uniform(0.7, 0.95), int(rng.integers(1, 3))
    wall, pitch = FLOOR * floors + rng.uniform(0.06, 0.14), rng.uniform(0.30, 0.52)
    block = Block(width, depth, wall, pitch, "gable_front", wall_paint(rng, colors), _roof(rng))
    gable_window = shapes.ellipsoid((0, -depth / 2 - 0.005, wall + 0.36 * pitch), (0.075, 0.02, 0.075), 24, 12)
    x = width * pick(rng, (-0.27, 0.27))
    return [
        *_ground(rng, width, depth),
        *block.parts(),
        *door(rng, colors, -depth / 2, pick(rng, (0.0, 0.0, -0.18))),
        *wall_windows(rng, _frame(rng, colors), (width, depth), floors, door_at=0.0),
        *_chimney(rng, x, depth * 0.18, wall + 0.3 * pitch, wall + 1.2 * pitch),
        part("gable_window", gable_window, Paint(rgb.GLASS, PANE, 0.2)),
    ]


def _wide_house(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a house whose ridge is parallel to the front."""
    width, depth, floors = rng.uniform(0.95, 1.4), rng.uniform(0.6, 0.8), int(rng.integers(1, 3))
    wall, pitch = FLOOR * floors + rng.uniform(0.04, 0.1), rng.uniform(0.24, 0.45)
    block = Block(width, depth, wall, pitch, "gable_side", wall_paint(rng, colors), _roof(rng))
    place = pick(rng, (0.0, -0.2, 0.25)) * width
    return [
        *_ground(rng, width, depth),
        *block.parts(),
        *door(rng, colors, -depth / 2, place),
        *wall_windows(rng, _frame(rng, colors), (width, depth), floors, door_at=place),
        *_chimney(rng, width * pick(rng, (-0.32, 0.32)), 0.0, wall + 0.6 * pitch, wall + pitch + 0.16),
    ]


def _barn(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a long building of planks with large doors and few windows: a barn, a stable or a warehouse."""
    roof: RoofShape = pick(rng, ("gable_front", "gable_side", "gable_side"))
    long, short = rng.uniform(1.1, 1.7), rng.uniform(0.6, 0.85)
    width, depth = (long, short) if roof == "gable_side" else (short, long)
    wood = pick(rng, (*rgb.WOODS, (0.58, 0.16, 0.13), (0.66, 0.52, 0.34), (0.55, 0.55, 0.54)))
    paint = plank_paint(vary(rng, wood))
    wall, pitch = rng.uniform(0.36, 0.5), rng.uniform(0.18, 0.36)
    roof_paint = _roof(rng) if rng.uniform() < 0.5 else plank_paint(shade(vary(rng, wood), rng.uniform(0.6, 0.9)))
    parts = [*_ground(rng, width, depth, 0.4), *Block(width, depth, wall, pitch, roof, paint, roof_paint).parts()]
    frame = pick(rng, (rgb.WHITE, shade(wood, 0.6), rgb.WOODS[0]))
    count = int(rng.integers(1, 4)) if roof == "gable_side" else 1
    for x in (np.arange(count) - (count - 1) / 2) * width / max(count, 1.6):
        parts += shift(barn_door(wood, frame, rng.uniform(0.26, 0.32), wall * 0.78), (float(x), -depth / 2, 0))
    if rng.uniform() < 0.6:
        pane = window(0.13, 0.11, frame)
        for y in (-0.25, 0.25):
            parts += pair(shift(turn([pane], "z", 90), (width / 2, y * depth, wall * 0.62))[0])
    return parts


def _cabin(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a log cabin with a wide roof."""
    roof: RoofShape = pick(rng, ("gable_front", "gable_side"))
    width, depth = rng.uniform(0.8, 1.05), rng.uniform(0.75, 0.95)
    wood = vary(rng, pick(rng, (*rgb.WOODS[:3], (0.66, 0.48, 0.28))))
    wall, pitch = rng.uniform(0.40, 0.52), rng.uniform(0.26, 0.42)
    block = Block(width, depth, wall, pitch, roof, plank_paint(wood), _roof(rng))
    gable_window = window(0.14, 0.13, rgb.WOODS[1])
    parts = [
        *_ground(rng, width, depth),
        *block.parts(),
        *logs(wood, width, depth, wall),
        *shift(door(rng, colors, -depth / 2, 0.0), (0, -0.03, 0)),
        *shift(wall_windows(rng, rgb.WOODS[1], (width + 0.07, depth + 0.07), 1, door_at=0.0), (0, 0, 0.02)),
        *_chimney(rng, width * 0.28, depth * 0.2, wall + 0.2 * pitch, wall + pitch + 0.14),
    ]
    return parts + (shift([gable_window], (0, -depth / 2, wall + 0.34 * pitch)) if roof == "gable_front" else [])


def _flat_house(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a house with a flat roof and a raised rim; sometimes the windows have bars, and beams stick out."""
    width, depth, floors = rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.0), pick(rng, (1, 1, 2))
    plaster = vary(rng, pick(rng, (*PLASTERS, mix(colors.main, rgb.WHITE, 0.5))))
    wall = FLOOR * floors + rng.uniform(0.06, 0.14)
    top = Paint(pick(rng, (shade(plaster, 0.7), (0.42, 0.40, 0.38))), 0.9)
    block = Block(width, depth, wall, rng.uniform(0.06, 0.12), "flat", Paint(plaster, 0.9), top)
    place = pick(rng, (0.0, -0.22, 0.22)) * width
    parts = [
        *_ground(rng, width, depth),
        *block.parts(),
        *door(rng, colors, -depth / 2, place),
        *wall_windows(rng, _frame(rng, colors), (width, depth), floors, door_at=place),
    ]
    if rng.uniform() < 0.35:
        for x in np.linspace(-0.42, 0.42, 7) * width:
            beam = shapes.capsule(
                (float(x), -depth / 2 - 0.08, wall - 0.06), (float(x), 0, wall - 0.06), 0.022, sides=10
            )
            parts.append(part("beam", beam, Paint(rgb.WOODS[1], 0.8)))
    return parts


def _house_with_wings(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a wide house with a wing in front of one end, so that its plan is an L."""
    width, depth, wing, reach = (
        rng.uniform(1.0, 1.3),
        rng.uniform(0.5, 0.62),
        rng.uniform(0.45, 0.55),
        rng.uniform(0.3, 0.5),
    )
    floors = pick(rng, (1, 1, 2))
    wall, pitch = FLOOR * floors + 0.07, rng.uniform(0.24, 0.36)
    paint, roof = wall_paint(rng, colors), _roof(rng)
    if rng.uniform() < 0.3:
        paint = plank_paint(vary(rng, pick(rng, rgb.WOODS)))
    main = Block(width, depth, wall, pitch, "gable_side", paint, roof)
    front = Block(wing, reach + depth / 2, wall * pick(rng, (1.0, 0.85)), pitch * 0.95, "gable_front", paint, roof)
    side = pick(rng, (-1.0, 1.0)) * (width - wing) / 2
    frame = _frame(rng, colors)
    pane = window(0.15, 0.17, frame)
    wing_y = -(reach + depth / 2) / 2
    parts = [*_ground(rng, width, depth + 2 * reach, 0.3), *main.parts(), *shift(front.parts(), (side, wing_y, 0))]
    parts += wall_windows(rng, frame, (width, depth), floors, door_at=side)
    parts += shift([pane], (side, -depth / 2 - reach, 0.22))
    parts += door(rng, colors, -depth / 2, -side * 0.25)
    chimney = _chimney(rng, -side * 0.7, 0.0, wall + 0.6 * pitch, wall + pitch + 0.15)
    return shift([*parts, *chimney], (0, reach / 2, 0))


def _hipped_house(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    width, depth, floors = rng.uniform(0.8, 1.2), rng.uniform(0.7, 0.95), int(rng.integers(1, 3))
    wall, pitch = FLOOR * floors + rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.5)
    block = Block(width, depth, wall, pitch, "hip", wall_paint(rng, colors), _roof(rng))
    place = pick(rng, (0.0, 0.0, -0.2)) * width
    return [
        *_ground(rng, width, depth),
        *block.parts(),
        *door(rng, colors, -depth / 2, place),
        *wall_windows(rng, _frame(rng, colors), (width, depth), floors, door_at=place),
        *_chimney(rng, width * 0.25, depth * 0.1, wall + 0.2 * pitch, wall + pitch + 0.06),
    ]


def _town_house(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build one or two joined blocks of three to five floors with many windows."""
    count, frame = pick(rng, (1, 2, 2)), _frame(rng, colors)
    widths = [rng.uniform(0.48, 0.75) for _ in range(count)]
    depth, parts, left = rng.uniform(0.5, 0.75), list[ObjectPart](), -sum(widths) / 2
    for width in widths:
        floors = int(rng.integers(3, 6)) if count == 1 else int(rng.integers(2, 5))
        wall = FLOOR * 0.9 * floors + 0.08
        roof: RoofShape = pick(rng, TOWN_ROOFS)
        pitch = 0.08 if roof == "flat" else rng.uniform(0.16, 0.34)
        paint = wall_paint(rng, colors) if rng.uniform() < 0.6 else Paint(vary(rng, pick(rng, PLASTERS)), 0.9)
        roof_paint = Paint(rgb.CHARCOAL, 0.9) if roof == "flat" else _roof(rng)
        block = Block(width, depth, wall, pitch, roof, paint, roof_paint)
        own = [
            *block.parts(),
            *door(rng, colors, -depth / 2, 0.0),
            *wall_windows(rng, frame, (width, depth), floors, door_at=0.0, floor_height=FLOOR * 0.9),
        ]
        parts += shift(own, (left + width / 2, 0, 0))
        left += width
    return [*_ground(rng, sum(widths), depth), *parts]


def _inn(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a house with a stone ground floor and a wider upper floor with timbers; some have a porch on columns."""
    width, depth = rng.uniform(0.8, 1.1), rng.uniform(0.65, 0.85)
    stone = vary(rng, pick(rng, ((0.62, 0.60, 0.56), (0.70, 0.62, 0.50))))
    ground = Paint(pt.blend(pt.solid(stone), shade(stone, 0.7), pt.bricks(0.13, 0.075)), 0.9)
    plaster, timber = vary(rng, pick(rng, PLASTERS)), pick(rng, rgb.WOODS[:3])
    upper_width, upper_depth = width + 0.14, depth + 0.14
    posts = pt.blend(pt.solid(plaster), timber, lambda p: pt.edge(np.abs((p[:, 0] / 0.2) % 1.0 - 0.5) - 0.08, 0.04))
    roof: RoofShape = pick(rng, ("gable_side", "gable_front", "hip"))
    upper = Block(upper_width, upper_depth, FLOOR + 0.02, rng.uniform(0.28, 0.45), roof, Paint(posts, 0.85), _roof(rng))
    beam = shapes.box((0, 0, FLOOR + 0.05), (upper_width + 0.03, upper_depth + 0.03, 0.05), 0.008)
    frame = _frame(rng, colors)
    parts = [
        *_ground(rng, width, depth),
        part("walls", shapes.box((0, 0, (FLOOR + 0.06) / 2), (width, depth, FLOOR + 0.06), 0.006), ground),
        part("beam", beam, Paint(timber, 0.8)),
        *shift(upper.parts(), (0, 0, FLOOR + 0.06)),
        *door(rng, colors, -depth / 2, 0.0),
        *wall_windows(rng, frame, (width, depth), 1, door_at=0.0),
        *shift(wall_windows(rng, frame, (upper_width, upper_depth), 1, door_at=None), (0, 0, FLOOR + 0.02)),
    ]
    if rng.uniform() < 0.5:
        parts += _porch(rng, -depth / 2)
    return parts


def _porch(rng: np.random.Generator, y: float) -> list[ObjectPart]:
    """Build a roof on two columns in front of the door."""
    paint = Paint(pick(rng, (rgb.WHITE, rgb.CREAM, *rgb.WOODS[:2])), 0.7)
    column = part("column", shapes.capsule((0.22, y - 0.24, 0.02), (0.22, y - 0.24, 0.36), 0.028), paint)
    roof = shapes.box((0, y - 0.15, 0.40), (0.58, 0.32, 0.06), 0.012)
    return [*pair(column), part("porch_roof", roof, paint)]


STYLES: Final[tuple[Callable[[np.random.Generator, Palette], list[ObjectPart]], ...]] = (
    *(_gable_front_house,) * 3,
    *(_wide_house,) * 2,
    *(_barn,) * 2,
    _cabin,
    *(_flat_house,) * 2,
    _house_with_wings,
    _hipped_house,
    *(_town_house,) * 2,
    _inn,
)
"""The builders of houses, each as often as its share."""
