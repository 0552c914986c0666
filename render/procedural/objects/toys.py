"""Build robots and snowmen."""

from itertools import pairwise

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, hsv, mix, palette, pick, shade, vary
from render.procedural.primitives.features import bead_eye
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid


def robot(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a robot with a box body, lit eyes, a mouth grille, dials on its chest, jointed arms and an antenna."""
    colors = palette(rng)
    shell = Paint(pick(rng, (colors.main, colors.main, rgb.STEEL, rgb.WHITE)), 0.3, rng.uniform(0.1, 0.5))
    trim, joint = Paint(colors.accent, 0.35, 0.2), Paint(rgb.CHARCOAL, 0.5, 0.4)
    width, body, head = rng.uniform(0.40, 0.56), rng.uniform(0.40, 0.56), rng.uniform(0.26, 0.36)
    leg, depth = rng.uniform(0.22, 0.36), rng.uniform(0.28, 0.36)
    round_body = rng.uniform() < 0.4
    trunk = _drum(width / 2, body) if round_body else shapes.box((0, 0, 0), (width, depth, body), 0.05)
    middle, neck = leg + body / 2 + 0.06, leg + body + 0.06
    front = -(width / 2 if round_body else depth / 2)
    parts = [
        part("body", shapes.moved(trunk, (0, 0, middle)), _plating(rng, shell, colors)),
        part("neck", shapes.capsule((0, 0, neck - 0.02), (0, 0, neck + 0.1), 0.06), joint),
    ]
    parts += shift(_robot_head(rng, colors, shell, head), (0, 0, neck + 0.07 + head / 2))
    parts += _arms(rng, (width / 2, neck - 0.08), shell, joint, trim)
    for item in (
        part("leg", shapes.capsule((width * 0.25, 0, leg + 0.1), (width * 0.25, 0, 0.08), 0.055), joint),
        part("foot", shapes.box((width * 0.26, -0.05, 0.05), (0.17, 0.27, 0.10), 0.035), shell),
    ):
        parts += pair(item)
    return parts + shift(_chest(rng, colors), (0, front - 0.004, middle))


def _plating(rng: np.random.Generator, shell: Paint, colors: Palette) -> Paint:
    """Return the paint of the body: plain, a warning band, or a colored belly."""
    base = shell.base if callable(shell.base) else pt.solid(shell.base)
    match pick(rng, ("plain", "band", "belly")):
        case "band":
            return Paint(
                pt.blend(base, colors.second, pt.stripes(rng, (0, 0, 1), 0.17, 0.3)), shell.roughness, shell.metallic
            )
        case "belly":
            return Paint(pt.blend(base, colors.accent, pt.beyond((0, 0, -1), -0.48)), shell.roughness, shell.metallic)
        case _:
            return shell


def _drum(radius: float, height: float) -> SurfaceGrid:
    h = height / 2
    return shapes.lathe(
        [
            (radius * 0.85, -h),
            (radius * 0.97, -h + 0.03),
            (radius, -h + 0.08),
            (radius, h - 0.08),
            (radius * 0.97, h - 0.03),
            (radius * 0.85, h),
        ],
        36,
    )


def _robot_head(rng: np.random.Generator, colors: Palette, shell: Paint, size: float) -> list[ObjectPart]:
    """Build a head about the origin."""
    width, depth = size * rng.uniform(1.0, 1.4), size * 0.95
    dome = rng.uniform() < 0.35
    shape = (
        shapes.ellipsoid((0, 0, 0), (width * 0.55, depth * 0.55, size * 0.55), 32, 20)
        if dome
        else shapes.box((0, 0, 0), (width, depth, size), 0.045)
    )
    y = -depth * (0.46 if dome else 0.5)
    lit = pick(rng, (rgb.YELLOW, (0.35, 0.90, 0.95), (0.50, 0.95, 0.40), rgb.RED))
    bars = pt.blend(
        pt.solid(rgb.WHITE), rgb.BLACK, lambda p: pt.edge(np.abs((p[:, 0] / 0.035) % 1.0 - 0.5) - 0.22, 0.15)
    )
    mouth = shapes.box((0, y - 0.004, -size * 0.26), (width * 0.46, 0.035, size * 0.15), 0.01)
    eye = part(
        "eye",
        shapes.ellipsoid((width * 0.22, y - 0.01, size * 0.10), (size * 0.155, 0.04, size * 0.155), 24, 14),
        Paint(_lens(lit, (width * 0.22, size * 0.10), size * 0.155), 0.15),
    )
    stalk = shapes.capsule((0, 0, size * 0.4), (0, 0, size * 0.5 + 0.13), 0.014)
    tip = shapes.ellipsoid((0, 0, size * 0.5 + 0.15), (0.042, 0.042, 0.042), 18, 12)
    ear = shapes.moved(
        shapes.turned(shapes.lathe([(size * 0.2, -0.03), (size * 0.2, 0.02), (size * 0.12, 0.05)], 24), "y", 90),
        (width / 2, 0, 0),
    )
    return [
        part("head", shape, shell),
        part("mouth", mouth, Paint(bars, 0.4)),
        *pair(eye),
        *pair(part("ear", ear, Paint(colors.accent, 0.35, 0.2))),
        part("antenna", stalk, Paint(rgb.CHARCOAL, 0.4, 0.5)),
        part("antenna_tip", tip, Paint(pick(rng, (rgb.RED, lit, colors.accent)), 0.3)),
    ]


def _lens(lit: Rgb, center: tuple[float, float], radius: float) -> pt.Pattern:
    """Build a lamp with a dark rim and pupil."""

    def away(points: Points) -> pt.Floats:
        return np.asarray(np.linalg.norm(points[:, [0, 2]] - center, axis=1) / radius)

    rimmed = pt.blend(pt.solid(lit), rgb.CHARCOAL, lambda p: pt.edge(0.8 - away(p), 0.08))
    return pt.blend(rimmed, rgb.BLACK, lambda p: pt.edge(away(p) - 0.33, 0.08))


def _arms(
    rng: np.random.Generator, at: tuple[float, float], shell: Paint, joint: Paint, trim: Paint
) -> list[ObjectPart]:
    """Build arms from the shoulder at (x, z), each at its own angle: one may wave."""
    x, shoulder = at
    parts: list[ObjectPart] = []
    for side in (-1.0, 1.0):
        raised = rng.uniform() < 0.3
        elbow = (side * (x + 0.16), -0.03, shoulder - (0.02 if raised else 0.16))
        hand = (
            (side * (x + 0.24), -0.10, shoulder + 0.22)
            if raised
            else (side * (x + 0.13), -0.17, shoulder - rng.uniform(0.24, 0.36))
        )
        parts += [
            part("shoulder", shapes.ellipsoid((side * (x + 0.035), 0, shoulder), (0.075, 0.075, 0.075), 20, 12), trim),
            part("upper_arm", shapes.capsule((side * (x + 0.03), 0, shoulder), elbow, 0.045), joint),
            part("fore_arm", shapes.capsule(elbow, hand, 0.055, 0.065), shell),
            part("hand", shapes.ellipsoid(hand, (0.085, 0.085, 0.085), 20, 12), trim),
        ]
    return parts


def _chest(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a panel with three lights and a dial, at y = 0 facing the front."""
    parts = [
        part(
            "panel",
            shapes.box((0, 0, 0.03), (0.25, 0.03, 0.22), 0.012),
            Paint(mix(colors.second, rgb.STEEL, 0.5), 0.4, 0.2),
        )
    ]
    for x, color in zip((-0.07, 0.0, 0.07), (rgb.RED, rgb.YELLOW, hsv(0.35, 0.8, 0.8)), strict=True):
        parts.append(
            part("light", shapes.ellipsoid((x, -0.018, 0.09), (0.024, 0.016, 0.024), 16, 10), Paint(color, 0.2))
        )
    dial = shapes.ellipsoid((0, -0.012, -0.005), (0.055, 0.014, 0.055), 24, 12)
    needle = shapes.capsule((0, -0.028, -0.01), (rng.uniform(-0.035, 0.035), -0.028, 0.032), 0.006)
    return [*parts, part("dial", dial, Paint(rgb.WHITE, 0.3)), part("needle", needle, Paint(rgb.RED, 0.4))]


def snowman(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a snowman of two or three balls with a carrot, coal buttons, twig arms, a hat and a striped scarf."""
    colors = palette(rng)
    snow = Paint(vary(rng, (0.93, 0.95, 0.97), 0.02), 0.7)
    low, high = rng.uniform(0.28, 0.36), rng.uniform(0.18, 0.23)
    radii = [low, (low + high) / 2, high] if rng.uniform() < 0.65 else [low, high * 1.1]
    heights = [low * 0.9]
    for below, above in pairwise(radii):
        heights.append(heights[-1] + 0.74 * (below + above))
    parts = [
        part("ball", shapes.ellipsoid((0, 0, z), (r, r, r * 0.95), 36, 22), snow)
        for r, z in zip(radii, heights, strict=True)
    ]
    chest_radius, chest, head = radii[-2], heights[-2], heights[-1]
    for tilt in (-24, 2, 28):
        button = shapes.moved(shapes.ellipsoid((0, 0, 0), (0.033, 0.022, 0.033), 16, 10), (0, -chest_radius, 0))
        parts += shift(
            turn([part("button", button, Paint(pick(rng, (rgb.BLACK, colors.accent)), 0.5))], "x", tilt), (0, 0, chest)
        )
    twig = _twig(chest_radius, chest, rng.uniform(-0.05, 0.3))
    for item in twig:
        parts += pair(item)
    parts += shift(_snow_face(radii[-1]), (0, 0, head))
    parts += shift(_hat(rng, colors, radii[-1]), (0, 0.02, head + radii[-1] * 0.72))
    return parts + (_scarf(rng, colors, radii[-1] * 0.92, head - radii[-1] * 0.72) if rng.uniform() < 0.8 else [])


def _snow_face(radius: float) -> list[ObjectPart]:
    carrot = shapes.turned(shapes.lathe([(0.045, -0.03), (0.042, 0.0), (0.022, 0.12), (0.005, 0.22)], 18), "x", 90)
    parts = [part("carrot", shapes.moved(carrot, (0, -radius * 0.95, -0.01)), Paint(rgb.ORANGE, 0.6))]
    parts += pair(bead_eye((0.38 * radius, -0.84 * radius, 0.32 * radius), 0.030))
    for x in np.linspace(-0.45, 0.45, 5):
        z = -0.42 + 0.5 * x * x
        y = -np.sqrt(max(0.0, 1 - x * x - (z / 0.95) ** 2))
        coal = shapes.ellipsoid((float(x) * radius, float(y) * radius, z * radius), (0.018, 0.014, 0.018), 12, 8)
        parts.append(part("mouth", coal, Paint(rgb.BLACK, 0.6)))
    return parts


def _twig(radius: float, z: float, lift: float) -> list[ObjectPart]:
    hand = (radius + 0.34, -0.06, z + 0.06 + lift)
    arm = shapes.tube(
        shapes.curve(((radius * 0.85, 0, z + 0.05), (radius + 0.15, 0.0, z + 0.02), hand), 8),
        np.linspace(0.024, 0.014, 8),
        10,
    )
    fingers = [
        shapes.capsule(hand, (hand[0] + dx, hand[1], hand[2] + dz), 0.012)
        for dx, dz in ((0.08, 0.02), (0.03, 0.09), (0.06, -0.05))
    ]
    return [part("arm", arm, Paint(rgb.BROWN, 0.8)), *(part("finger", f, Paint(rgb.BROWN, 0.8)) for f in fingers)]


def _hat(rng: np.random.Generator, colors: Palette, radius: float) -> list[ObjectPart]:
    """Build a top hat with a band, a pom-pom hat, or a bucket upside down."""
    match pick(rng, ("top", "bobble", "bucket")):
        case "top":
            felt = pick(rng, (rgb.CHARCOAL, shade(colors.main, 0.5)))
            band = pt.blend(pt.solid(felt), colors.accent, lambda p: pt.edge(np.abs(p[:, 2] - 0.055) - 0.03, 0.008))
            crown = shapes.lathe([(radius * 0.68, 0.0), (radius * 0.66, 0.22), (radius * 0.60, 0.235)], 32)
            brim = shapes.lathe([(radius * 1.1, -0.012), (radius * 1.1, 0.012)], 36)
            return [part("crown", crown, Paint(band, 0.8)), part("brim", brim, Paint(felt, 0.8))]
        case "bobble":
            knit = pt.blend(pt.solid(colors.main), colors.second, pt.stripes(rng, (0, 0, 1), 0.075, 0.5))
            cap = shapes.lathe(
                [(radius * 0.88, -0.06), (radius * 0.82, 0.02), (radius * 0.62, 0.11), (radius * 0.2, 0.18)], 32
            )
            return [
                part("cap", cap, Paint(knit, 0.95)),
                part("bobble", shapes.ellipsoid((0, 0, 0.2), (0.065, 0.065, 0.065), 20, 12), Paint(rgb.WHITE, 0.95)),
            ]
        case _:
            bucket = shapes.lathe(
                [(radius * 0.92, -0.03), (radius * 0.92, 0.0), (radius * 0.84, 0.0), (radius * 0.62, 0.24)], 32
            )
            return [part("bucket", bucket, Paint(colors.main, 0.35, 0.3))]


def _scarf(rng: np.random.Generator, colors: Palette, radius: float, z: float) -> list[ObjectPart]:
    knit = Paint(pt.blend(pt.solid(colors.main), colors.second, pt.stripes(rng, (0.7, 0, 1), 0.11, 0.45)), 0.95)
    loop = shapes.lathe(
        [
            (radius * 0.9, z - 0.06),
            (radius + 0.05, z - 0.04),
            (radius + 0.06, z),
            (radius + 0.04, z + 0.04),
            (radius * 0.9, z + 0.06),
        ],
        36,
    )
    end = shapes.tube(
        shapes.curve(
            ((0.10, -radius - 0.02, z), (0.14, -radius - 0.12, z - 0.06), (0.15, -radius - 0.11, z - 0.27)), 10
        ),
        0.05,
        14,
    )
    return [part("scarf", loop, knit), part("scarf_end", end, knit)]
