"""Build armored tanks."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points

ARMY: tuple[Rgb, ...] = (
    (0.33, 0.37, 0.22),
    (0.33, 0.37, 0.22),
    (0.70, 0.60, 0.42),
    (0.42, 0.44, 0.43),
    (0.24, 0.30, 0.22),
)
STEEL_TRACK = Paint((0.16, 0.16, 0.16), 0.7, 0.2)


def tank(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a tank: tracks with road wheels, a sloped hull, and a turret with a gun, in army colors or camouflage."""
    colors = palette(rng)
    color = usual(rng, ARMY, colors.main, 0.9)
    length, width, high = rng.uniform(0.58, 0.68), rng.uniform(0.40, 0.46), rng.uniform(0.22, 0.26)
    paint = Paint(_camouflage(rng, color), 0.75)
    side = np.array(
        [
            (-length * 0.98, 0.2),
            (-length * 0.7, 0.1),
            (length * 0.85, 0.1),
            (length, 0.22),
            (length, high + 0.09),
            (-length * 0.45, high + 0.11),
        ]
    )
    parts = [
        part("hull", shapes.facing_side(shapes.prism(side, width * 1.35, 0.015)), paint),
        part(
            "engine_deck", shapes.box((0, length * 0.68, high + 0.1), (width * 1.1, length * 0.5, 0.05), 0.015), paint
        ),
    ]
    parts += _tracks(rng, paint, length, width, high)
    turret = _turret(rng, paint, color, width, length)
    aim = float(pick(rng, (0.0, 0.0, rng.uniform(-40, 40))))
    parts += shift(turn(turret, "z", aim), (0, 0.02, high + 0.1))
    lamp = shapes.ellipsoid((width * 0.55, -length * 0.72, high + 0.02), (0.035, 0.025, 0.035), 18, 12)
    return parts + pair(part("lamp", lamp, Paint((1.0, 0.97, 0.8), 0.2)))


def _camouflage(rng: np.random.Generator, color: Rgb) -> Rgb | pt.Pattern:
    if rng.uniform() < 0.55:
        return color
    paint = pt.blend(pt.solid(color), pick(rng, ((0.36, 0.25, 0.16), shade(color, 0.55))), pt.patches(rng, 0.2, 0.35))
    return pt.blend(paint, pick(rng, ((0.12, 0.13, 0.11), (0.75, 0.68, 0.5))), pt.patches(rng, 0.16, 0.2))


def _tracks(rng: np.random.Generator, paint: Paint, length: float, width: float, high: float) -> list[ObjectPart]:
    """Build the tracks around a row of wheels, with a fender above."""
    outline = _track_outline(length, high)
    links = pt.blend(pt.solid((0.16, 0.16, 0.16)), (0.32, 0.31, 0.29), lambda p: pt.edge(np.sin(p[:, 1] * 95), 0.5))
    belt = shapes.facing_side(shapes.prism(outline, 0.2, 0.012))
    parts = pair(part("track", shapes.moved(belt, (width, 0, 0)), Paint(links, 0.8)))
    inset = shapes.facing_side(shapes.prism((outline - (0, 0.13)) * (0.93, 0.72) + (0, 0.13), 0.205, 0.004))
    parts += pair(part("recess", shapes.moved(inset, (width, 0, 0)), Paint((0.09, 0.09, 0.09), 0.9)))
    count = int(rng.integers(5, 7))
    radius = min(0.095, 0.7 * length / count)
    for y in np.linspace(-0.62, 0.62, count) * length:
        parts += _track_wheel(paint, (width + 0.10, float(y), radius + 0.025), radius)
    for y in (-0.86 * length, 0.86 * length):
        parts += _track_wheel(paint, (width + 0.10, y, high * 0.66), 0.07)
    fender = shapes.box((width + 0.01, 0, high + 0.025), (0.25, 2.02 * length, 0.025), 0.008)
    return parts + pair(part("fender", fender, paint))


def _track_outline(length: float, high: float) -> Points:
    """Return the side view of a track: flat below, round at both raised ends."""
    angle = np.linspace(-0.35 * np.pi, 0.5 * np.pi, 10)
    radius = high * 0.36
    end = np.stack([0.87 * length + radius * np.cos(angle), high - radius + radius * np.sin(angle)], axis=1)
    return np.concatenate([[(-0.66 * length, 0.0), (0.0, 0.0), (0.66 * length, 0.0)], end, (end * (-1, 1))[::-1]])


def _track_wheel(paint: Paint, center: tuple[float, float, float], radius: float) -> list[ObjectPart]:
    wheel = shapes.lathe(
        [(radius, -0.02), (radius, 0.012), (radius * 0.82, 0.02), (radius * 0.4, 0.008), (radius * 0.3, 0.03)], 28
    )
    return pair(part("wheel", shapes.moved(shapes.turned(wheel, "y", 90), center), paint))


def _turret(rng: np.random.Generator, paint: Paint, color: Rgb, width: float, length: float) -> list[ObjectPart]:
    """Build a turret about the z axis, standing on z = 0, with its gun to the front."""
    tall, caliber, reach = rng.uniform(0.17, 0.22), rng.uniform(0.032, 0.042), rng.uniform(0.55, 0.8)
    rounded = rng.uniform() < 0.5
    if rounded:
        shell = shapes.lathe([(0.30, 0.0), (0.31, 0.04), (0.28, tall * 0.7), (0.2, tall), (0.08, tall * 1.04)], 36) * (
            1.0,
            1.2,
            1.0,
        )
    else:
        shell = shapes.box((0, 0.03, tall / 2), (0.58, 0.66, tall), 0.04, 0.72)
    z = tall * 0.5
    gun = shapes.tube(np.array([(0, -0.25, z), (0, -0.3 - 0.5 * reach, z), (0, -0.3 - reach, z)]), caliber * 0.8, 18)
    brake = shapes.tube(
        np.array([(0, -0.24 - reach, z), (0, -0.3 - reach, z), (0, -0.36 - reach, z)]),
        caliber * 1.25,
        18,
        round_ends=False,
    )
    hatch = shapes.lathe([(0.1, 0.0), (0.1, 0.05), (0.08, 0.065)], 28)
    parts = [
        part("turret", shell, paint),
        part("mantlet", shapes.box((0, -0.3, z), (0.22, 0.12, tall * 0.75), 0.03), paint),
        part("gun", gun, Paint(shade(color, 0.85), 0.6)),
        part("hatch", shapes.moved(hatch, (0.11, 0.06, tall - 0.02)), paint),
        part("antenna", shapes.capsule((-0.18, 0.24, tall * 0.7), (-0.18, 0.28, tall + 0.35), 0.008), rgb.CHARCOAL),
    ]
    if rng.uniform() < 0.6:
        parts.append(part("muzzle_brake", brake, Paint(shade(color, 0.7), 0.6)))
    if rng.uniform() < 0.5:
        star = shapes.ellipsoid((0.29 if rounded else 0.255, 0.05, tall * 0.55), (0.02, 0.07, 0.06), 20, 12)
        parts += pair(part("emblem", star, Paint(pick(rng, (rgb.WHITE, rgb.RED)), 0.6)))
    return parts
