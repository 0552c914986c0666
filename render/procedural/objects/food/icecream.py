"""Build ice creams: cones, bowls and ice pops."""

import numpy as np

from render.procedural.objects.food.sweets import cherry
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import hsv, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, part, shift
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import Points, box, ellipsoid, lathe, loft, moved, tube


def icecream(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a cone with scoops or a soft-serve swirl, a bowl with scoops, or an ice pop on a stick."""
    kind = pick(rng, ("scoops", "scoops", "scoops", "swirl", "swirl", "pop", "bowl"))
    if kind == "pop":
        return _ice_pop(rng)
    parts: list[ObjectPart] = []
    if kind == "bowl":
        glass = lathe(
            [
                (0.20, 0.0),
                (0.20, 0.03),
                (0.05, 0.06),
                (0.05, 0.16),
                (0.22, 0.26),
                (0.34, 0.46),
                (0.32, 0.47),
                (0.2, 0.34),
            ],
            40,
        )
        parts.append(
            part("bowl", glass, Paint(pick(rng, ((0.75, 0.87, 0.92), rgb.WHITE, hsv(rng.uniform(), 0.4, 0.9))), 0.1))
        )
        for number in range(3):
            parts += shift(
                _scoop(rng, 0.19),
                (0.14 * float(np.cos(2.1 * number - 1.57)), 0.14 * float(np.sin(2.1 * number - 1.57)), 0.50),
            )
        return parts + shift(cherry(0.06), (0, 0, 0.72))
    height, mouth = rng.uniform(0.60, 0.78), rng.uniform(0.18, 0.22)
    parts.append(_cone(rng, height, mouth))
    if kind == "swirl":
        return parts + _swirl(rng, height, mouth)
    z, size = height + 0.10, 1.12 * mouth
    for _ in range(int(pick(rng, (1, 1, 2, 2, 3)))):
        parts += shift(_scoop(rng, size), (rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02), z))
        z += 1.25 * size
        size *= 0.92
    top = z - 0.3 * size
    match pick(rng, ("cherry", "wafer", "none", "none")):
        case "cherry":
            parts += shift(cherry(0.07), (0, 0, top + 0.02))
        case "wafer":
            stick = tube(np.linspace((0.05, 0, top - 0.12), (0.16, 0.02, top + 0.26), 8), 0.035, 14, round_ends=False)
            paint = pt.blend(
                pt.solid((0.78, 0.55, 0.28)), (0.45, 0.27, 0.12), pt.stripes(rng, (0.6, 0.8, 0.8), 0.05, 0.35)
            )
            parts.append(part("wafer", stick, Paint(paint, 0.7)))
        case _:
            pass
    return parts


def _flavor(rng: np.random.Generator) -> pt.Pattern:
    """Draw the color of a scoop, with chips or ripples in some."""
    color = vary(
        rng,
        pick(
            rng,
            (
                (0.96, 0.90, 0.74),
                (0.96, 0.62, 0.70),
                (0.40, 0.24, 0.15),
                (0.66, 0.86, 0.66),
                (0.98, 0.80, 0.45),
                (0.55, 0.75, 0.92),
                (0.70, 0.55, 0.80),
            ),
        ),
        0.03,
    )
    paint = pt.blend(pt.solid(color), shade(color, 0.88), pt.patches(rng, 0.05, 0.35))
    match pick(rng, ("plain", "plain", "chips", "ripple")):
        case "chips":
            return pt.blend(paint, (0.22, 0.12, 0.08), pt.spots(rng, 0.09, 0.013))
        case "ripple":
            return pt.blend(
                paint,
                pick(rng, ((0.72, 0.10, 0.18), (0.35, 0.18, 0.10))),
                pt.stripes(rng, (0.3, 0.2, 1), 0.12, 0.25, 0.6),
            )
        case _:
            return paint


def _scoop(rng: np.random.Generator, size: float) -> list[ObjectPart]:
    """Build a scoop about the origin with an uneven skirt."""
    paint = Paint(_flavor(rng), 0.6)
    ball = ellipsoid((0, 0, 0), (size, size, size), 36, 24)
    noise = pt.waves(rng, 0.5 * size)(ball.reshape(-1, 3)).reshape(ball.shape[:2])
    ball = ball * (1 + 0.025 * noise)[..., None]
    ball[:, -1] = ball[:, 0]
    skirt = torus(0.90 * size, 0.20 * size, 48, 14)
    wave = np.sin(int(rng.integers(6, 10)) * np.arctan2(skirt[..., 1], skirt[..., 0]))
    skirt[..., :2] *= (1 + 0.05 * wave)[..., None]
    return [part("scoop", ball, paint), part("skirt", moved(skirt, (0, 0, -0.42 * size)), paint)]


def _cone(rng: np.random.Generator, height: float, mouth: float) -> ObjectPart:
    color = vary(rng, pick(rng, ((0.85, 0.62, 0.32), (0.78, 0.52, 0.24), (0.90, 0.70, 0.42))), 0.03)
    shape = lathe(
        [
            (0.02, 0.0),
            (0.06, 0.05),
            (mouth, height),
            (1.06 * mouth, height + 0.01),
            (1.04 * mouth, height + 0.05),
            (0.8 * mouth, height + 0.05),
        ],
        40,
    )
    around = int(rng.integers(7, 11))

    def waffle(points: Points) -> pt.Floats:
        share, rise = np.arctan2(points[:, 1], points[:, 0]) * around / (2 * np.pi), points[:, 2] / 0.13
        first, second = share + rise, share - rise
        return pt.edge(np.minimum(np.abs(first - np.round(first)), np.abs(second - np.round(second))) - 0.085, 0.06)

    return part("cone", shape, Paint(pt.blend(pt.solid(color), shade(color, 0.62), waffle), 0.75))


def _swirl(rng: np.random.Generator, height: float, mouth: float) -> list[ObjectPart]:
    """Build soft serve: a rope wound up in a shrinking spiral around a core."""
    color = vary(rng, pick(rng, ((0.97, 0.94, 0.86), (0.97, 0.94, 0.86), (0.45, 0.28, 0.18), (0.96, 0.68, 0.74))), 0.02)
    turns, rise = rng.uniform(2.6, 3.6), rng.uniform(0.34, 0.48)
    t = np.linspace(0, 1, 110)
    reach, angle = 0.88 * mouth * (1 - t) ** 0.8, 2 * np.pi * turns * t
    path = np.stack([reach * np.cos(angle), reach * np.sin(angle), height + 0.06 + rise * t**0.85], 1)
    rope = tube(path, 0.105 * (1 - 0.82 * t) + 0.004, 16)
    core = lathe([(0.8 * mouth, height), (0.85 * mouth, height + 0.08), (0.03, height + 0.95 * rise)], 30)
    return [part("swirl", rope, Paint(color, 0.5)), part("core", core, Paint(color, 0.5))]


def _ice_pop(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an ice pop with a round top on a wooden stick, some with a coat or three colors."""
    wide, tall, thick = rng.uniform(0.36, 0.44), rng.uniform(0.72, 0.88), rng.uniform(0.15, 0.19)
    angle = np.linspace(0, np.pi, 16)
    arch = np.stack([0.5 * wide * np.cos(angle), tall - 0.5 * wide + 0.5 * wide * np.sin(angle)], 1)
    outline = np.concatenate([[(-0.5 * wide, 0.02), (-0.47 * wide, 0.0), (0.47 * wide, 0.0), (0.5 * wide, 0.02)], arch])
    center = outline.mean(axis=0)
    rings = [
        np.stack([*(center + (outline - center) * share).T, np.full(len(outline), z)], 1)
        for z, share in ((-0.5, 0.80), (-0.36, 0.95), (0.0, 1.0), (0.36, 0.95), (0.5, 0.80))
    ]
    bar = np.stack([loft(rings)[..., 0], -thick * loft(rings)[..., 2], loft(rings)[..., 1]], axis=-1)
    first, second, third = (hsv(rng.uniform(), rng.uniform(0.5, 0.8), 0.93) for _ in range(3))
    paint = pt.solid(pick(rng, (first, (0.36, 0.20, 0.12), (0.96, 0.62, 0.70))))
    if rng.uniform() < 0.5:
        paint = pt.blend(
            pt.blend(pt.solid(first), second, pt.beyond((0, 0, 1), 0.34 * tall, 0.03)),
            third,
            pt.beyond((0, 0, 1), 0.67 * tall, 0.03),
        )
    stick = box((0, 0, -0.12), (0.09, 0.035, 0.36), 0.017)
    return shift(
        [part("ice", bar, Paint(paint, 0.25)), part("stick", stick, Paint((0.86, 0.70, 0.46), 0.7))], (0, 0, 0.32)
    )
