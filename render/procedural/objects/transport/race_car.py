"""Build formula racing cars."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part
from render.procedural.primitives.wheels import road_wheel

CARBON = Paint((0.10, 0.10, 0.11), 0.4, 0.2)


def race_car(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a formula racing car: a slim nose, a driver, open wheels, and wings in front and behind."""
    colors = palette(rng)
    length, height = rng.uniform(0.9, 1.1), rng.uniform(0.17, 0.21)
    body_color = usual(rng, (rgb.RED, (0.9, 0.9, 0.88), (0.1, 0.2, 0.5), rgb.ORANGE, rgb.CHARCOAL), colors.main, 0.5)
    along = np.array([-0.98, -0.7, -0.25, 0.05, 0.4, 0.8]) * length
    spine = np.stack([0 * along, along, np.array([0.6, 0.75, 1.0, 1.05, 1.0, 0.95]) * height], axis=1)
    hull = shapes.tube(spine, np.array([0.035, 0.07, 0.12, 0.15, 0.14, 0.07]), 24)
    band = pt.blend(
        pt.solid(body_color), pick(rng, (rgb.WHITE, colors.second)), lambda p: pt.edge(np.abs(p[:, 0]) - 0.035, 0.01)
    )
    paint = Paint(pick(rng, (pt.solid(body_color), band)), 0.25, 0.05)
    pod = shapes.box((0.21, 0.32 * length, height * 0.85), (0.17, 0.62 * length, height * 1.1), 0.05)
    parts = [
        part("hull", hull, paint),
        *pair(part("side_pod", pod, Paint(body_color, 0.25, 0.05))),
        part("floor", shapes.box((0, 0.2 * length, 0.06), (0.52, 1.1 * length, 0.03), 0.01), CARBON),
        *_driver(rng, colors, height),
        *_wings(rng, colors, length, height),
    ]
    hub = Paint(pick(rng, (rgb.STEEL, rgb.CHARCOAL, (0.8, 0.65, 0.2))), 0.4, 0.4)
    for y, radius, width in ((-0.60 * length, 0.165, 0.14), (0.62 * length, 0.18, 0.19)):
        for item in road_wheel((0.37, y, radius), radius, width, hub, 0.55):
            parts += pair(item)
        for offset in (-0.07, 0.07):
            arm = shapes.capsule((0.06, y + offset, height), (0.33, y + offset * 0.3, radius), 0.012, sides=8)
            parts += pair(part("arm", arm, CARBON))
    return parts


def _driver(rng: np.random.Generator, colors: Palette, height: float) -> list[ObjectPart]:
    """Build the helmet of the driver, and the air intake behind it."""
    top = height + 0.14
    helmet = pick(rng, (colors.accent, rgb.WHITE, rgb.YELLOW, rgb.RED))
    intake = shapes.box((0, 0.24, top + 0.03), (0.13, 0.34, 0.17), 0.045, 0.8)
    return [
        part("cockpit", shapes.ellipsoid((0, 0.0, height + 0.10), (0.10, 0.19, 0.06)), CARBON),
        part("helmet", shapes.ellipsoid((0, 0.03, top + 0.03), (0.065, 0.075, 0.07), 24, 14), Paint(helmet, 0.25)),
        part("visor", shapes.ellipsoid((0, -0.02, top + 0.04), (0.052, 0.04, 0.03), 20, 10), Paint(rgb.BLACK, 0.1)),
        part("intake", intake, Paint(colors.main, 0.3)),
    ]


def _wings(rng: np.random.Generator, colors: Palette, length: float, height: float) -> list[ObjectPart]:
    paint = Paint(pick(rng, (colors.main, colors.second, rgb.WHITE, rgb.CHARCOAL)), 0.3)
    front, rear, lift = -0.98 * length, 0.92 * length, height + rng.uniform(0.22, 0.30)
    front_plate = shapes.box((0.41, front + 0.02, 0.11), (0.02, 0.24, 0.12), 0.006)
    rear_plate = shapes.box((0.29, rear, lift - 0.06), (0.02, 0.24, 0.22), 0.006)
    strut = shapes.box((0, rear - 0.06, (height + lift) / 2), (0.04, 0.06, lift - height), 0.01)
    return [
        part("front_wing", shapes.box((0, front, 0.075), (0.82, 0.2, 0.025), 0.008), paint),
        part("rear_wing", shapes.box((0, rear, lift), (0.58, 0.17, 0.035), 0.012), paint),
        part("rear_flap", shapes.box((0, rear + 0.07, lift - 0.07), (0.58, 0.1, 0.025), 0.008), paint),
        part("strut", strut, CARBON),
        *pair(part("front_plate", front_plate, CARBON)),
        *pair(part("rear_plate", rear_plate, paint)),
    ]
