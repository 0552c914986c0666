"""Build parts that several kinds of houses have: walls, roofs, doors and windows."""

from typing import Final

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, mix, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points

ROOFS: tuple[Rgb, ...] = (
    (0.70, 0.22, 0.16),
    (0.32, 0.34, 0.40),
    (0.48, 0.29, 0.18),
    (0.20, 0.40, 0.55),
    (0.25, 0.45, 0.30),
    (0.80, 0.45, 0.20),
)
PANE: Final = 0.15  # roughness of window panes
FLOOR: Final = 0.34  # height of a floor


def wall_paint(rng: np.random.Generator, colors: Palette) -> Paint:
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


def roof_tiles(color: Rgb, size: float) -> pt.Pattern:
    """Return the paint of courses of roof tiles: bricks that are a little darker in their joints."""
    return pt.blend(pt.solid(color), shade(color, 0.62), pt.bricks(size, size * 0.6, 0.1))


def gable_roof(width: float, depth: float, wall: float, pitch: float, paint: Paint) -> list[ObjectPart]:
    """Build two slabs that overhang the walls, with the ridge along y."""
    slope = np.array([width / 2, pitch]) / np.hypot(width / 2, pitch)
    eave = np.array([width / 2, wall]) + np.array([slope[0], -slope[1]]) * 0.09
    ridge, lift = np.array([0.0, wall + pitch]), np.array([slope[1], slope[0]]) * 0.055
    outline = np.array([ridge, eave, eave + lift, (0.0, ridge[1] + 0.055 / slope[0])])
    return pair(part("roof", shapes.facing_front(shapes.prism(outline, depth + 0.14, 0.004)), paint))


def door(rng: np.random.Generator, colors: Palette, y: float, x: float) -> list[ObjectPart]:
    """Build a door with a frame and a step at `x` in a wall that faces the front at `y`."""
    color = pick(rng, (colors.accent, rgb.RED, *rgb.WOODS[:2]))
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


def wall_windows(
    rng: np.random.Generator,
    frame: Rgb,
    size: tuple[float, float],
    floors: int,
    *,
    door_at: float | None,
    floor_height: float = FLOOR,
) -> list[ObjectPart]:
    """Build rows of windows on the four walls of a box.

    Args:
        rng: Generator of the size and the number of windows.
        frame: Color of the frames.
        size: Width (x) and depth (y) of the box, whose base is centered at the origin.
        floors: Number of floors.
        door_at: The x of a door in front, where the ground floor has no window. None: no door.
        floor_height: Height of a floor.
    """
    width, depth = size
    pane = window(rng.uniform(0.13, 0.19), rng.uniform(0.15, 0.19), frame)
    spacing = rng.uniform(0.27, 0.42)
    parts: list[ObjectPart] = []
    for floor in range(floors):
        z = 0.22 + floor_height * floor
        for x in _places(width, spacing):
            if floor or door_at is None or abs(x - door_at) > 0.2:
                parts += shift([pane], (x, -depth / 2, z))
            parts += shift([pane], (x, depth / 2, z))
        for y in _places(depth, spacing):
            parts += pair(shift(turn([pane], "z", 90), (width / 2, y, z))[0])
    return parts


def _places(length: float, spacing: float) -> list[float]:
    """Return the positions of windows in a wall of this length, evenly spaced about its middle."""
    count = max(1, round((length - 0.1) / spacing))
    return [float(place) for place in (np.arange(count) - (count - 1) / 2) * length / (count + 0.15)]


def plank_paint(wood: Rgb) -> Paint:
    """Return the paint of upright planks."""
    gaps = pt.blend(
        pt.solid(wood),
        shade(wood, 0.55),
        lambda p: np.maximum(
            pt.edge((p[:, 0] / 0.075) % 1.0 - 0.12, 0.08), pt.edge((p[:, 1] / 0.075) % 1.0 - 0.12, 0.08)
        ),
    )
    return Paint(gaps, 0.85)


def barn_door(wood: Rgb, frame: Rgb, width: float, height: float) -> list[ObjectPart]:
    """Build two leaves with crossed braces that face the front, with the middle of their base at the origin."""
    leaf = shapes.box((width / 4, -0.012, height / 2), (width / 2 - 0.01, 0.03, height), 0.006)
    brace = shapes.capsule((0.02, -0.032, 0.03), (width / 2 - 0.02, -0.032, height - 0.03), 0.014, sides=8)
    border = shapes.box((0, -0.005, height / 2 + 0.015), (width + 0.06, 0.026, height + 0.03), 0.006)
    paint = Paint(frame, 0.8)
    return [
        part("door_frame", border, paint),
        *pair(part("leaf", leaf, plank_paint(shade(wood, 0.8)))),
        *pair(part("brace", brace, paint)),
    ]


def logs(wood: Rgb, width: float, depth: float, wall: float) -> list[ObjectPart]:
    """Build horizontal logs on the four walls of a box, which cross at the corners."""
    radius = 0.036
    paint = Paint(pt.blend(pt.solid(wood), shade(wood, 0.7), lambda p: pt.edge(np.sin(p[:, 2] * 180) - 0.4, 0.6)), 0.85)
    parts: list[ObjectPart] = []
    for z in np.arange(radius, wall - radius, 2 * radius):
        along = shapes.capsule(
            (-width / 2 - 0.07, -depth / 2, float(z)), (width / 2 + 0.07, -depth / 2, float(z)), radius, sides=10
        )
        across = shapes.capsule(
            (width / 2, -depth / 2 - 0.07, float(z + radius)),
            (width / 2, depth / 2 + 0.07, float(z + radius)),
            radius,
            sides=10,
        )
        parts += [part("log", along, paint), *shift([part("log", along, paint)], (0, depth, 0))]
        parts += pair(part("log", across, paint))
    return parts
