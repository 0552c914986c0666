"""Build trees."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, part, ring_of, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid, curve, ellipsoid, lathe, tube

FOLIAGE: tuple[Rgb, ...] = (
    rgb.LEAF,
    (0.36, 0.62, 0.22),
    (0.16, 0.42, 0.22),
    (0.88, 0.52, 0.14),
    (0.78, 0.25, 0.16),
    (0.95, 0.68, 0.76),
)
BARKS: tuple[Rgb, ...] = ((0.42, 0.28, 0.18), (0.55, 0.42, 0.30), (0.85, 0.83, 0.78))


def tree(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a tree with a round crown, a conifer, a palm, or a tree with visible branches.

    Some round crowns have fruit or blossom. Some conifers are decorated for Christmas. Some branches are bare. Round
    crowns and conifers stand on a patch of grass.
    """
    form = rng.uniform()
    if form < 0.2:
        return _palm(rng)
    if form < 0.4:
        return _branching(rng)
    height = rng.uniform(0.36, 0.55)
    bark = vary(rng, pick(rng, BARKS))
    trunk_paint = pt.blend(pt.solid(bark), shade(bark, 0.55), pt.stripes(rng, (1, 0.6, 0.12), 0.045, 0.35, 0.5))
    lean = rng.uniform(-0.06, 0.06)
    trunk = tube(curve(((0, 0, 0.0), (0, 0, 0.2), (lean, 0, height + 0.15)), 10), np.linspace(0.10, 0.055, 10), 18)
    ground = lathe([(0.30, 0.0), (0.27, 0.03), (0.12, 0.05)], 32)
    parts = [part("trunk", trunk, Paint(trunk_paint, 0.9)), part("grass", ground, Paint(vary(rng, rgb.GRASS), 0.9))]
    return parts + (_conifer(rng, height) if rng.uniform() < 0.4 else _crown(rng, height, lean))


def _crown(rng: np.random.Generator, height: float, lean: float) -> list[ObjectPart]:
    color = vary(rng, pick(rng, FOLIAGE))
    leaves = Paint(pt.blend(pt.solid(color), shade(color, 0.72), pt.patches(rng, 0.09, 0.45)), 0.9)
    main = rng.uniform(0.28, 0.36)
    center = np.array([lean, 0.0, height + main * 0.85])
    balls = [(center, main)]
    for number in range(int(rng.integers(4, 8))):
        angle, rise = number * 2.4 + rng.uniform(0, 0.8), rng.uniform(-0.35, 0.75)
        way = np.array([np.cos(angle), np.sin(angle), rise])
        balls.append((center + way / np.linalg.norm(way) * main * 0.72, main * rng.uniform(0.45, 0.68)))
    parts = [part("leaves", ellipsoid(_vector(c), (r, r, r * 0.92), 26, 16), leaves) for c, r in balls]
    if rng.uniform() < 0.6:
        fruit = pick(rng, (rgb.RED, rgb.ORANGE, rgb.YELLOW, rgb.PINK, rgb.WHITE))
        for _ in range(24):
            ball_center, radius = balls[int(rng.integers(len(balls)))]
            way = rng.normal(size=3) * (1, 1, 0.7)
            spot = ball_center + way / np.linalg.norm(way) * radius * 0.98
            parts.append(part("fruit", ellipsoid(_vector(spot), (0.042, 0.042, 0.042), 14, 10), Paint(fruit, 0.4)))
    return parts


def _conifer(rng: np.random.Generator, height: float) -> list[ObjectPart]:
    color = vary(rng, pick(rng, ((0.13, 0.38, 0.22), (0.22, 0.50, 0.25), (0.20, 0.42, 0.40))))
    tiers, wide = int(rng.integers(3, 5)), rng.uniform(0.34, 0.45)
    snowy, decorated = rng.uniform() < 0.35, rng.uniform() < 0.4
    parts: list[ObjectPart] = []
    for tier in range(tiers):
        low, radius = height * 0.55 + tier * 0.24, wide * (1 - 0.74 * tier / tiers)
        cone = lathe(
            [
                (radius * 0.3, low + 0.03),
                (radius, low),
                (radius * 0.95, low + 0.03),
                (radius * 0.45, low + 0.22),
                (0.01, low + 0.42),
            ],
            32,
        )
        paint = pt.blend(pt.solid(color), rgb.WHITE if snowy else shade(color, 0.75), pt.patches(rng, 0.09, 0.4))
        parts.append(part("branches", cone, Paint(paint, 0.9)))
        if decorated:
            ball = part(
                "ball",
                ellipsoid((0, -radius * 0.9, low + 0.035), (0.045, 0.045, 0.045), 16, 10),
                Paint(pick(rng, (rgb.RED, rgb.YELLOW, hsv(0.6, 0.8, 0.9))), 0.15, 0.3),
            )
            parts += ring_of(ball, max(4, 8 - 2 * tier), 25.0 * tier)
    if decorated:
        top = height * 0.55 + (tiers - 1) * 0.24 + 0.44
        parts.append(part("star", ellipsoid((0, 0, top), (0.06, 0.06, 0.07), 16, 10), Paint(rgb.YELLOW, 0.3, 0.3)))
    return parts


def _vector(point: Points) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in point)
    return x, y, z


def _palm(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a palm: a slender, ringed trunk, and long leaves that hang down at their tips."""
    height, bend = rng.uniform(0.8, 1.3), rng.uniform(-0.22, 0.22)
    bark, green = vary(rng, pick(rng, BARKS)), vary(rng, pick(rng, FOLIAGE[:3]))
    rings = pt.blend(pt.solid(bark), shade(bark, 0.65), pt.stripes(rng, (0, 0, 1), 0.07, 0.35))
    path = curve(((0, 0, 0), (0.2 * bend, 0, 0.5 * height), (bend, 0, height)), 14)
    parts = [part("trunk", tube(path, np.linspace(0.065, 0.042, 14), 18), Paint(rings, 0.9))]
    count, reach = int(rng.integers(8, 15)), rng.uniform(0.42, 0.60)
    for number in range(count):
        length, rise = reach * rng.uniform(0.85, 1.1), rng.uniform(0.02, 0.30)
        spine = curve(((0, 0, 0), (0.5 * length, 0, rise), (length, 0, rise - rng.uniform(0.25, 0.5))), 12)
        width = np.interp(np.linspace(0, 1, 12), [0, 0.3, 0.8, 1], [0.02, 0.085, 0.05, 0.01])
        blade = tube(spine, width, 12)
        blade = blade * (1, 1, 0.25) + np.stack([0 * blade[..., 0], 0 * blade[..., 0], 0.75 * _drop(spine, blade)], -1)
        leaf = part("leaf", blade, Paint(shade(green, rng.uniform(0.75, 1.1)), 0.7))
        angle = 360 / count * number + rng.uniform(-10, 10)
        parts += shift(turn([leaf], "z", angle), (bend, 0, height))
    if rng.uniform() < 0.4:
        nut = part("nut", ellipsoid((0.07, 0, -0.05), (0.05, 0.05, 0.055), 16, 10), Paint(rgb.BROWN, 0.7))
        parts += shift(ring_of(nut, 3), (bend, 0, height))
    return parts


def _drop(spine: Points, blade: SurfaceGrid) -> Points:
    """Return the height of the spine below or above each point of a blade that extends along x."""
    heights: Points = np.interp(blade[..., 0], spine[:, 0], spine[:, 2])
    return heights


def _branching(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a trunk that divides into branches and twigs, bare or with clusters of leaves at their ends."""
    bark = vary(rng, pick(rng, BARKS))
    light = pt.blend(pt.solid(bark), shade(bark, 0.5), pt.stripes(rng, (1, 0.6, 0.3), 0.06, 0.3, 0.5))
    leaves, size = rng.uniform() < 0.6, rng.uniform(0.10, 0.15)
    color = vary(rng, pick(rng, FOLIAGE))
    foliage = Paint(pt.blend(pt.solid(color), shade(color, 0.7), pt.patches(rng, 0.06, 0.45)), 0.9)
    parts: list[ObjectPart] = []

    def grow(start: Points, way: Points, length: float, radius: float, left: int) -> None:
        middle = start + 0.5 * length * way + rng.normal(size=3) * 0.05 * length
        end = start + length * way
        points = curve((_vector(start), _vector(middle), _vector(end)), 7)
        parts.append(part("branch", tube(points, np.linspace(radius, 0.62 * radius, 7), 10), Paint(light, 0.9)))
        if left == 0:
            if leaves:
                cluster = ellipsoid(_vector(end), (size, size, 0.85 * size), 14, 8)
                parts.append(part("leaves", cluster, foliage))
            return
        spread, first = rng.uniform(0.5, 0.8), rng.uniform(0, 2 * np.pi)
        for number in range(int(rng.integers(2, 4)) + (left == 3)):
            angle = first + 2.4 * number
            side = np.array([np.cos(angle), np.sin(angle), 0.15])
            next_way = way + spread * side
            grow(end, next_way / np.linalg.norm(next_way), length * rng.uniform(0.62, 0.8), 0.62 * radius, left - 1)

    grow(np.zeros(3), np.array([0.0, 0.0, 1.0]), rng.uniform(0.3, 0.45), rng.uniform(0.05, 0.08), 3)
    return parts
