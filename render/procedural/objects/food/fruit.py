"""Build apples, pears, bananas, pineapples and pumpkins."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, pick, shade, vary
from render.procedural.primitives.limbs import limb, path_through, through
from render.procedural.primitives.part import ObjectPart, Paint, part, ring_of, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid, curve, ellipsoid, lathe, loft, tube

PEEL = 0.35
ORANGES: tuple[Rgb, ...] = ((0.93, 0.48, 0.10), (0.90, 0.42, 0.08), (0.95, 0.56, 0.15), (0.94, 0.50, 0.12))
PUMPKINS = (*ORANGES, *ORANGES, (0.86, 0.62, 0.30), (0.92, 0.90, 0.82), (0.45, 0.50, 0.25))
STALK: Rgb = (0.36, 0.25, 0.15)


def smooth_lathe(stations: list[tuple[float, float]], count: int = 26, sides: int = 40) -> SurfaceGrid:
    """Revolve a smooth curve about the z axis. The curve passes through the (radius, height) pairs `stations`.

    The surface has `count` rings of points along the curve and `sides` faces around the axis.
    """
    rows = through(np.asarray(stations), count)
    return lathe([(max(1e-3, float(r)), float(z)) for r, z in rows], sides)


def leaf(length: float, wide: float, color: Rgb, bend: float = 0.3) -> ObjectPart:
    """Build a pointed leaf with a light midrib, from the origin to x = `length`.

    `wide` is half the width of the leaf. The leaf is arched: its middle is raised by `bend` * `length` / 4.
    """
    angle = np.arange(16) * (2 * np.pi / 16)
    rings = []
    for share in np.linspace(0, 1, 12):
        half = wide * (0.12 + 0.88 * np.sin(np.pi * share**0.8) ** 0.9) * (1 if share < 1 else 0.1)
        lift = bend * length * share * (1 - share)
        dip = 0.25 * half * np.abs(np.cos(angle))
        rings.append(
            np.stack([np.full(16, share * length), half * np.cos(angle), lift + dip + 0.009 * np.sin(angle)], 1)
        )
    paint = pt.blend(pt.solid(color), mix(color, rgb.WHITE, 0.35), lambda p: pt.edge(np.abs(p[:, 1]) - 0.008, 0.01))
    return part("leaf", loft(rings), Paint(paint, 0.55))


def apple(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an apple with a stalk, often with a leaf.

    The skin is plain red, green or yellow, yellow with red streaks, or yellow or green with one red side.
    """
    kind = pick(rng, ("red", "red", "red", "streaked", "streaked", "blushed", "green", "green", "yellow"))
    red = vary(rng, pick(rng, ((0.78, 0.10, 0.10), (0.70, 0.08, 0.12), (0.85, 0.16, 0.12))), 0.03)
    yellow: Rgb = vary(rng, (0.90, 0.78, 0.30), 0.04)
    green = vary(rng, (0.52, 0.72, 0.20), 0.05)
    base = {"red": red, "streaked": yellow, "blushed": pick(rng, (yellow, green)), "green": green, "yellow": yellow}[
        kind
    ]
    skin = pt.solid(base)
    wobble = pt.waves(rng, 0.35)
    if kind == "streaked":
        count, noise, fine = int(rng.integers(14, 24)), pt.waves(rng, 0.12), pt.waves(rng, 0.05)

        def streaks(p: Points) -> pt.Floats:
            wave = np.sin(count * np.arctan2(p[:, 1], p[:, 0]) + 2.5 * noise(p))
            return pt.edge(-0.5 * wave - 0.35 * fine(p * (1, 1, 0.2)) - 0.5 * wobble(p) - 0.45, 1.1)

        skin = pt.blend(skin, red, streaks)
    elif kind == "blushed":
        way = rng.normal(size=3)
        side = (float(way[0]), float(way[1]), 0.4)
        skin = pt.blend(skin, red, lambda p: pt.beyond(side, 0.02, 0.28)(p + 0.06 * wobble(p)[:, None]))
    tall, shoulder, waist = rng.uniform(0.86, 1.1), rng.uniform(0.0, 0.05), rng.uniform(0.62, 0.8)
    skin = pt.blend(skin, mix(base, (0.70, 0.72, 0.25), 0.6), pt.inside((0, 0, 0.34 * tall), (0.11, 0.11, 0.14), 0.8))
    if rng.uniform() < 0.5:
        skin = pt.blend(skin, mix(base, rgb.CREAM, 0.55), pt.spots(rng, 0.075, 0.007))
    body = smooth_lathe(
        [
            (0.03, -0.27),
            (0.12, -0.335),
            (0.24 * waist / 0.7, -0.29),
            (0.375, -0.06),
            (0.395, 0.08),
            (0.34, 0.245),
            (0.21, 0.325 + shoulder),
            (0.10, 0.29),
            (0.03, 0.20),
        ]
    ) * (1, 1, tall)
    lobes = 5 if rng.uniform() < 0.7 else 0
    if lobes:
        bumps = np.cos(lobes * np.arctan2(body[..., 1], body[..., 0]))
        body[..., 2] += 0.014 * bumps * (body[..., 2] < -0.15)
        body[..., :2] *= (1 + 0.018 * bumps * np.abs(body[..., 2] / 0.3))[..., None]
    lean = rng.uniform(-0.08, 0.08)
    stalk = tube(
        curve(
            ((0, 0, 0.19 * tall), (0, 0, 0.33 * tall), (lean, 0.3 * lean, 0.36 * tall + rng.uniform(0.06, 0.16))), 10
        ),
        np.linspace(0.018, 0.024, 10),
        12,
    )
    parts = [part("apple", body, Paint(skin, rng.uniform(0.2, 0.45))), part("stalk", stalk, Paint(STALK, 0.8))]
    if rng.uniform() < 0.6:
        blade = leaf(rng.uniform(0.22, 0.34), rng.uniform(0.07, 0.10), vary(rng, (0.28, 0.55, 0.18), 0.04))
        parts += shift(
            turn(turn([blade], "y", -rng.uniform(5, 35)), "z", rng.uniform(0, 360)), (0.5 * lean, 0, 0.39 * tall)
        )
    calyx = ellipsoid((0, 0, -0.285 * tall), (0.03, 0.03, 0.02), 12, 8)
    parts.append(part("calyx", calyx, Paint((0.25, 0.18, 0.10), 0.9)))
    return shift(turn(parts, "y", rng.uniform(-14, 14)), (0, 0, 0.335 * tall))


def pear(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a pear with a stalk, sometimes with a leaf.

    The skin is green, yellow, russet or red. It often has small dots, and sometimes one side is redder.
    """
    base = vary(
        rng,
        pick(
            rng,
            (
                (0.68, 0.74, 0.26),
                (0.80, 0.78, 0.30),
                (0.88, 0.78, 0.32),
                (0.55, 0.66, 0.22),
                (0.66, 0.48, 0.26),
                (0.70, 0.22, 0.18),
            ),
        ),
        0.04,
    )
    skin = pt.solid(base)
    if rng.uniform() < 0.45:
        wobble = pt.waves(rng, 0.3)
        side = (float(rng.normal()), float(rng.normal()), 0.2)
        skin = pt.blend(
            skin,
            mix(base, (0.85, 0.30, 0.15), 0.75),
            lambda p: pt.beyond(side, 0.05, 0.3)(p + 0.05 * wobble(p)[:, None]),
        )
    if rng.uniform() < 0.7:
        skin = pt.blend(skin, mix(base, STALK, 0.45), pt.spots(rng, 0.06, 0.006))
    tall, neck, low = rng.uniform(0.88, 1.15), rng.uniform(0.11, 0.16), rng.uniform(0.27, 0.34)
    body = smooth_lathe(
        [
            (0.03, 0.02),
            (0.12, 0.0),
            (0.85 * low, 0.07),
            (low, 0.24),
            (0.86 * low, 0.42),
            (0.38 * low + 0.5 * neck, 0.56),
            (neck, 0.70),
            (0.72 * neck, 0.80),
            (0.3 * neck, 0.835),
            (0.02, 0.82),
        ],
        30,
    ) * (1, 1, tall)
    lean = rng.uniform(-0.12, 0.12)
    body[..., 0] += lean * (body[..., 2] / 0.8) ** 2
    top = 0.80 * tall
    stalk = tube(
        curve(((lean, 0, top), (lean, 0, top + 0.08), (2.2 * lean, 0.02, top + rng.uniform(0.14, 0.22))), 10),
        np.linspace(0.016, 0.022, 10),
        12,
    )
    parts = [part("pear", body, Paint(skin, rng.uniform(0.3, 0.5))), part("stalk", stalk, Paint(STALK, 0.8))]
    if rng.uniform() < 0.45:
        blade = leaf(rng.uniform(0.2, 0.3), rng.uniform(0.06, 0.09), vary(rng, (0.28, 0.55, 0.18), 0.04))
        parts += shift(
            turn(turn([blade], "y", -rng.uniform(5, 35)), "z", rng.uniform(0, 360)), (1.2 * lean, 0, top + 0.06)
        )
    return parts


def banana(rng: np.random.Generator) -> list[ObjectPart]:
    """Build one banana or a bunch of bananas with dark tips.

    The bananas are yellow or greenish. Ripe bananas have brown spots.
    """
    ripe = rng.uniform()
    base = vary(rng, mix((0.74, 0.78, 0.22), (0.97, 0.83, 0.20), min(1.0, 0.2 + 1.6 * ripe)), 0.03)
    count = int(pick(rng, (1, 1, 1, 2, 3, 4, 5)))
    bow, length, thick = rng.uniform(0.55, 0.95), rng.uniform(0.85, 1.05), rng.uniform(0.095, 0.125)
    spotted = ripe > 0.6
    fruit: list[ObjectPart] = []
    for number in range(count):
        angle = (number - (count - 1) / 2) * rng.uniform(19, 25)
        one = _one_banana(rng, base, (bow * rng.uniform(0.94, 1.06), length * rng.uniform(0.93, 1.05), thick), spotted)
        fruit += turn(turn(one, "x", angle), "z", -0.5 * angle)
    if count > 1:
        size = 0.022 + 0.007 * count
        crown = limb([(-0.09, 0, 0.07, 0.8 * size), (0.0, 0, 0.0, 1.1 * size), (0.06, 0, -0.05, size)], 12, 16)
        fruit.append(part("crown", crown, Paint(mix(base, (0.45, 0.42, 0.15), 0.5), 0.6)))
    pose = pick(rng, ("smile", "smile", "arch", "lying", "upright"))
    match pose:
        case "arch":
            fruit = turn(fruit, "y", 180)
        case "lying":
            fruit = turn(fruit, "x", rng.uniform(40, 75))
        case "upright":
            fruit = turn(fruit, "y", pick(rng, (-1, 1)) * rng.uniform(55, 90))
        case _:
            pass
    fruit = turn(fruit, "z", rng.uniform(-35, 35) + pick(rng, (0, 180)))
    low = min(float(p.surface[..., 2].min()) for p in fruit)
    return shift(fruit, (0, 0, -low))


def _one_banana(
    rng: np.random.Generator, base: Rgb, size: tuple[float, float, float], spotted: bool
) -> list[ObjectPart]:
    """Build a banana in the (x, z) plane that curves upward at both ends; its stalk starts at the origin, at -x."""
    place = np.linspace(-1, 1, 30)
    bow, length, thick = size
    arc = place * bow
    radius = 0.5 * length / bow
    path = np.stack([radius * np.sin(arc), 0 * arc, radius * (1 - np.cos(arc))], axis=1)
    path -= path[0]
    shape = np.interp(
        place, [-1, -0.86, -0.72, -0.45, 0, 0.5, 0.82, 0.95, 1], [0.30, 0.32, 0.62, 0.93, 1.0, 0.95, 0.66, 0.34, 0.26]
    )
    surface = tube(path, shape * thick, 30, round_ends=False)
    center = np.concatenate([path[:1], path, path[-1:]])[:, None]
    ridges = 1 + 0.055 * np.cos(5 * np.linspace(0, 2 * np.pi, surface.shape[1]))[None, :, None]
    surface = center + (surface - center) * ridges
    start, end = path[0], path[-1]
    skin = pt.solid(base)
    ridge = pt.waves(rng, 0.3)
    skin = pt.blend(skin, mix(base, (0.80, 0.60, 0.12), 0.5), lambda p: 0.5 * pt.edge(-ridge(p), 0.8))
    if spotted:
        skin = pt.blend(skin, (0.40, 0.24, 0.10), pt.spots(rng, 0.10, rng.uniform(0.006, 0.015)))
    stalk_color = pick(rng, ((0.62, 0.66, 0.22), (0.45, 0.36, 0.16), (0.70, 0.68, 0.25)))
    skin = pt.blend(skin, stalk_color, lambda p: pt.edge(np.linalg.norm(p - start, axis=1) - 0.17 * length, 0.12))
    skin = pt.blend(skin, (0.20, 0.14, 0.08), lambda p: pt.edge(np.linalg.norm(p - end, axis=1) - 0.055, 0.02))
    skin = pt.blend(skin, (0.28, 0.21, 0.10), lambda p: pt.edge(np.linalg.norm(p - start, axis=1) - 0.045, 0.02))
    dark = Paint((0.22, 0.15, 0.08), 0.8)
    tip, cut = (ellipsoid(_vector(point), (0.36 * thick,) * 3, 14, 10) for point in (end, start))
    skin_paint = Paint(skin, rng.uniform(0.4, 0.6))
    return [part("banana", surface, skin_paint), part("tip", tip, dark), part("cut", cut, dark)]


def _vector(point: Points) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in point)
    return x, y, z


def pineapple(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a pineapple: a barrel of scales in crossing spirals under a crown of long leaves."""
    base = vary(rng, pick(rng, ((0.85, 0.60, 0.18), (0.90, 0.68, 0.22), (0.72, 0.50, 0.18), (0.62, 0.56, 0.20))), 0.04)
    wide, tall = rng.uniform(0.26, 0.32), rng.uniform(0.62, 0.82)
    around, pitch = int(rng.integers(8, 12)), rng.uniform(0.12, 0.16)
    joint, light = mix(base, (0.35, 0.28, 0.08), 0.75), mix(base, rgb.YELLOW, 0.4)

    def scales(points: Points) -> pt.Floats:
        """Return values [n] for n points: 1 in the middle of a diamond-shaped scale, 0 at the joints of the scales."""
        turn_share, rise = np.arctan2(points[:, 1], points[:, 0]) * around / (2 * np.pi), points[:, 2] / pitch
        first, second = turn_share + rise, turn_share - rise
        return np.asarray(2 * np.minimum(np.abs(first - np.round(first)), np.abs(second - np.round(second))))

    skin = pt.blend(pt.solid(base), light, lambda p: pt.edge(0.55 - scales(p), 0.35))
    skin = pt.blend(skin, joint, lambda p: pt.edge(scales(p) - 0.16, 0.14))
    skin = pt.blend(skin, (0.30, 0.22, 0.08), lambda p: pt.edge(0.88 - scales(p), 0.08))
    body = smooth_lathe(
        [
            (0.10, 0.0),
            (0.78 * wide, 0.06),
            (0.98 * wide, 0.28 * tall),
            (wide, 0.5 * tall),
            (0.92 * wide, 0.76 * tall),
            (0.62 * wide, 0.95 * tall),
            (0.2 * wide, tall),
        ],
        48,
        96,
    )
    bump = 0.05 * np.clip(scales(body.reshape(-1, 3)).reshape(body.shape[:2]) - 0.15, 0, 1)
    body[..., :2] *= (1 + bump * np.sin(np.pi * np.clip(body[..., 2] / tall, 0, 1)))[..., None]
    parts = [part("fruit", body, Paint(skin, 0.6))]
    green = vary(rng, pick(rng, ((0.25, 0.50, 0.22), (0.35, 0.55, 0.30), (0.22, 0.45, 0.28))), 0.03)
    for ring, (count, lean, length) in enumerate(((9, 62, 0.26), (9, 42, 0.36), (8, 24, 0.44), (5, 9, 0.50))):
        blade = leaf(length * rng.uniform(0.85, 1.15), 0.068, vary(rng, green, 0.02), -0.5 if lean > 20 else 0.1)
        standing = shift(turn([blade], "y", -(90 - lean)), (0.035, 0, 0.95 * tall + 0.015 * ring))
        parts += ring_of(standing[0], count, 17.0 * ring)
    return shift(turn(parts, "y", rng.uniform(-8, 8)), (0, 0, 0.01))


def pumpkin(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a ribbed orange pumpkin with a bent stalk; four in ten have a carved face."""
    base = vary(rng, pick(rng, PUMPKINS), 0.03)
    ribs, deep = int(rng.integers(8, 14)), rng.uniform(0.05, 0.11)
    wide, tall = rng.uniform(0.42, 0.52), rng.uniform(0.30, 0.44)
    body = smooth_lathe(
        [
            (0.05, -0.80),
            (0.35, -0.97),
            (0.72, -0.80),
            (0.98, -0.25),
            (1.0, 0.15),
            (0.82, 0.72),
            (0.50, 0.97),
            (0.25, 0.93),
            (0.06, 0.75),
        ],
        30,
        12 * ribs,
    )
    body *= (wide, wide, tall)
    angle = np.arctan2(body[..., 1], body[..., 0])
    body[..., :2] *= (1 - deep * np.abs(np.cos(0.5 * ribs * angle)) ** 6)[..., None]
    skin = pt.blend(
        pt.solid(base), shade(base, 0.68), lambda p: np.abs(np.cos(0.5 * ribs * np.arctan2(p[:, 1], p[:, 0]))) ** 10
    )
    skin = pt.blend(skin, mix(base, rgb.YELLOW, 0.15), pt.patches(rng, 0.10, 0.2))
    if rng.uniform() < 0.4:
        skin = _carved(rng, skin, wide, tall)
    bend = rng.uniform(-0.14, 0.14)
    stalk_color = vary(rng, pick(rng, ((0.40, 0.42, 0.18), (0.50, 0.42, 0.24), (0.35, 0.48, 0.20))), 0.03)
    stalk = tube(
        path_through(
            [
                (0, 0, 0.68 * tall),
                (0, 0, 0.9 * tall),
                (0.4 * bend, 0, tall + 0.06),
                (bend, 0.02, tall + rng.uniform(0.12, 0.22)),
            ],
            14,
        ),
        np.interp(np.linspace(0, 1, 14), [0, 0.4, 0.85, 1], [0.09, 0.055, 0.045, 0.055]),
        16,
        round_ends=False,
    )
    parts = [part("pumpkin", body, Paint(skin, 0.5)), part("stalk", stalk, Paint(stalk_color, 0.8))]
    if rng.uniform() < 0.35:
        blade = leaf(rng.uniform(0.3, 0.4), rng.uniform(0.13, 0.18), vary(rng, (0.28, 0.52, 0.18), 0.03))
        parts += shift(turn(turn([blade], "y", 12), "z", rng.uniform(0, 360)), (0, 0, 0.98 * tall))
    return shift(parts, (0, 0, 0.95 * tall))


def _carved(rng: np.random.Generator, skin: pt.Pattern, wide: float, tall: float) -> pt.Pattern:
    """Return the skin with triangular eyes, a nose and a toothed mouth on the front."""
    glow = pick(rng, ((0.10, 0.06, 0.03), (0.10, 0.06, 0.03), (0.99, 0.85, 0.25)))
    teeth = int(rng.integers(3, 7))

    def face(points: Points) -> pt.Floats:
        x, z = points[:, 0] / wide, points[:, 2] / tall
        eyes = np.maximum(np.abs(np.abs(x) - 0.36) * 1.5 + (z - 0.30) * 0.55 - 0.18, 0.16 - z)
        nose = np.maximum(np.abs(x) * 1.7 + z * 0.7 - 0.05, -0.14 - z)
        arc = z + 0.30 - 0.55 * x**2
        zigzag = 0.05 * (np.abs(((x * teeth + 0.25) % 1.0) - 0.5) > 0.25)
        mouth = np.maximum(np.abs(arc + 0.07) - 0.14 + zigzag, np.abs(x) - 0.66)
        shape = np.minimum(np.minimum(eyes, nose), mouth)
        return pt.edge(shape, 0.035) * (points[:, 1] < 0)

    return pt.blend(skin, glow, face)
