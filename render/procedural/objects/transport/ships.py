"""Build ships: liners, container ships, tugboats and tall ships."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, hsv, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.surface import SurfaceGrid

GLASS = Paint((0.16, 0.22, 0.28), 0.12, 0.1)
WHITE_PAINT = Paint(rgb.WHITE, 0.4)
HULLS: tuple[Rgb, ...] = (
    (0.12, 0.13, 0.16),
    (0.14, 0.22, 0.42),
    (0.93, 0.93, 0.92),
    (0.65, 0.12, 0.10),
    (0.15, 0.38, 0.3),
)
CARGO: tuple[Rgb, ...] = (
    (0.75, 0.20, 0.15),
    (0.15, 0.35, 0.65),
    (0.85, 0.55, 0.15),
    (0.25, 0.5, 0.3),
    (0.8, 0.8, 0.78),
    (0.4, 0.25, 0.2),
)


def ship(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a passenger liner, a container ship, a tugboat or a tall ship with square sails; the bow is in front."""
    colors = palette(rng)
    match pick(rng, ("liner", "liner", "cargo", "tug", "tall")):
        case "liner":
            return _liner(rng, colors)
        case "cargo":
            return _cargo_ship(rng, colors)
        case "tug":
            return _tug(rng, colors)
        case _:
            return _tall_ship(rng, colors)


def hull(length: float, beam: float, height: float, sheer: float, stern: float = 0.75) -> SurfaceGrid:
    """Build the hull of a ship with its keel at z = 0.

    `length` is half the length of the hull, and `beam` half its width. The hull is `height` high in the middle and
    `height` + `sheer` at the bow. `stern` is the width of the stern as a fraction of the width of the hull.
    """
    y = np.linspace(-1, 1, 30)
    half = np.minimum(((y + 1) / 0.75) ** 0.6, 1.0) * (1 - (1 - stern) * np.clip((y - 0.3) / 0.7, 0, 1) ** 2)
    rise = sheer * (np.clip(-y, 0, 1) ** 2 + 0.35 * np.clip(y, 0, 1) ** 2)
    rings = []
    for share in (0.0, 0.12, 0.35, 0.7, 1.0):
        wide, rake = beam * half * (0.55 + 0.45 * share**0.5), length * (0.90 + 0.10 * share)
        level = share * (height + rise)
        right = np.stack([wide, y * rake, level], axis=1)
        rings.append(np.concatenate([right, (right * (-1, 1, 1))[::-1]]))
    return shapes.loft(rings)


def _hull_paint(color: Rgb, bottom: Rgb, line: float, stripe: Rgb) -> Paint:
    paint = pt.blend(pt.solid(color), bottom, pt.beyond((0, 0, -1), -line, 0.01))
    return Paint(pt.blend(paint, stripe, lambda p: pt.edge(np.abs(p[:, 2] - line - 0.01) - 0.01, 0.008)), 0.4)


def _house(size: tuple[float, float, float], at: tuple[float, float], rows: int, pitch: float) -> list[ObjectPart]:
    """Build a white superstructure with rows of windows painted around it; `at` is its middle y and its bottom z."""
    (width, length, height), (y, z) = size, at

    def windows(points: pt.Floats) -> pt.Floats:
        level = ((points[:, 2] - z) / (height / rows)) % 1.0
        along = ((points[:, 1] + (np.abs(points[:, 0]) < width * 0.47) * points[:, 0]) / pitch) % 1.0
        return (
            pt.edge(np.abs(level - 0.55) - 0.2, 0.1)
            * pt.edge(np.abs(along - 0.5) - 0.3, 0.15)
            * (points[:, 2] < z + height * 0.97)
        )

    paint = pt.blend(pt.solid(rgb.WHITE), GLASS.base, windows)
    return [part("house", shapes.box((0, y, z + height / 2), (width, length, height), 0.015), Paint(paint, 0.4))]


def _funnel(at: tuple[float, float], radius: float, height: float, color: Rgb, band: Rgb) -> ObjectPart:
    y, z = at
    profile = [(radius, 0.0), (radius, height), (radius * 0.8, height), (radius * 0.78, height * 0.9)]
    shape = shapes.lathe(profile, 28) * (0.8, 1.15, 1.0)
    lean = shape + np.stack([0 * shape[..., 2], 0.15 * shape[..., 2], 0 * shape[..., 2]], axis=-1)
    top = z + height * 0.78
    paint = pt.blend(pt.solid(color), rgb.BLACK, pt.beyond((0, 0, 1), top))
    paint = pt.blend(paint, band, lambda p: pt.edge(np.abs(p[:, 2] - z - height * 0.5) - height * 0.1, 0.01))
    return part("funnel", shapes.moved(lean, (0, y, z)), Paint(paint, 0.4))


def _liner(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    length, beam, deck = rng.uniform(0.85, 1.0), rng.uniform(0.2, 0.24), rng.uniform(0.22, 0.28)
    color = usual(rng, HULLS[:3], colors.main, 0.8)
    band = usual(rng, (rgb.RED, rgb.YELLOW), colors.accent)
    parts = [part("hull", hull(length, beam, deck, 0.09), _hull_paint(color, (0.55, 0.12, 0.10), 0.08, rgb.WHITE))]
    floors = int(rng.integers(2, 5))
    top = deck
    for floor in range(floors):
        share = 1 - 0.13 * floor
        parts += _house((beam * 1.75 * (1 - 0.06 * floor), length * 1.35 * share, 0.09), (0.05 * length, top), 1, 0.055)
        top += 0.09
    parts += _house((beam * 1.5, 0.2, 0.1), (-length * 0.42, top - 0.01), 1, 0.06)
    funnels = int(rng.integers(1, 5))
    for y in np.linspace(-0.18, 0.36, funnels) * length if funnels > 1 else (0.15,):
        parts.append(
            _funnel((float(y), top - 0.02), 0.075, rng.uniform(0.2, 0.24), band, rgb.WHITE if funnels < 3 else band)
        )
    for y in (-length * 0.72, length * 0.7):
        parts.append(part("mast", shapes.capsule((0, y, deck), (0, y, top + 0.25), 0.013), rgb.GRAY))
    boat = shapes.ellipsoid((0, 0, 0), (0.035, 0.08, 0.03), 18, 10)
    for y in np.linspace(-0.3, 0.4, 4) * length:
        parts += pair(part("boat", shapes.moved(boat, (beam * 0.93, float(y), deck + 0.13)), rgb.ORANGE))
    return parts


def _cargo_ship(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    length, beam, deck = rng.uniform(0.9, 1.0), rng.uniform(0.21, 0.25), rng.uniform(0.24, 0.28)
    color = usual(rng, HULLS, colors.main, 0.8)
    parts = [part("hull", hull(length, beam, deck, 0.08, 0.9), _hull_paint(color, (0.55, 0.15, 0.12), 0.1, rgb.WHITE))]
    back = 0.68 * length
    parts += _house((beam * 1.6, 0.24, 0.36), (back, deck), 4, 0.06)
    parts += [
        part("bridge", shapes.box((0, back - 0.02, deck + 0.38), (beam * 1.95, 0.18, 0.08), 0.015), WHITE_PAINT),
        part("bridge_glass", shapes.box((0, back - 0.02, deck + 0.39), (beam * 1.97, 0.19, 0.035), 0.008), GLASS),
        _funnel((back + 0.16, deck + 0.1), 0.06, 0.36, color, colors.accent),
        part("mast", shapes.capsule((0, -0.85 * length, deck), (0, -0.85 * length, deck + 0.3), 0.014), rgb.GRAY),
    ]
    rows = int(rng.integers(5, 8))
    size = (beam * 0.58, (back - 0.16 + 0.72 * length) / rows, 0.1)
    for row in range(rows):
        y = -0.72 * length + size[1] * (row + 0.5)
        for lane in (-1, 0, 1):
            for level in range(int(rng.integers(1, 4))):
                center = (lane * size[0] * 1.02, y, deck + 0.03 + 0.1 * level + 0.05)
                crate = shapes.box(center, (size[0] * 0.98, size[1] * 0.94, 0.096), 0.006)
                parts.append(part("container", crate, Paint(pick(rng, CARGO), 0.6)))
    return parts


def _tug(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a short working boat with a wheelhouse, a tall funnel and tires along its sides."""
    length, beam, deck = rng.uniform(0.6, 0.7), rng.uniform(0.23, 0.27), rng.uniform(0.24, 0.28)
    color = usual(rng, HULLS, colors.main, 0.7)
    second = usual(rng, (rgb.RED, rgb.WHITE, rgb.YELLOW), colors.accent)
    paint = _hull_paint(color, (0.55, 0.12, 0.10), 0.08, rgb.WHITE)
    parts = [
        part("hull", hull(length, beam, deck, 0.16, 0.85), paint),
        part("cabin", shapes.box((0, 0.02, deck + 0.09), (beam * 1.2, length * 0.85, 0.2), 0.02), WHITE_PAINT),
        part(
            "wheelhouse",
            shapes.box((0, -length * 0.2, deck + 0.29), (beam * 1.05, 0.26, 0.22), 0.02),
            Paint(usual(rng, (rgb.WHITE, rgb.WHITE, (0.6, 0.4, 0.25)), second), 0.45),
        ),
        part("window", shapes.box((0, -length * 0.2, deck + 0.32), (beam * 1.07, 0.27, 0.085), 0.008), GLASS),
        part(
            "roof", shapes.box((0, -length * 0.2, deck + 0.41), (beam * 1.25, 0.33, 0.035), 0.012), Paint(second, 0.4)
        ),
        _funnel((length * 0.22, deck + 0.15), 0.085, 0.38, second, pick(rng, (rgb.WHITE, color))),
        part("mast", shapes.capsule((0, -0.05, deck + 0.3), (0, -0.05, deck + 0.68), 0.014), rgb.GRAY),
    ]
    for y in np.linspace(-0.45, 0.7, 5) * length:
        tire = shapes.moved(shapes.turned(torus(0.05, 0.022, 24, 8), "y", 90), (beam * 0.98, float(y), deck * 0.72))
        parts += pair(part("tire", tire, rgb.BLACK))
    for y in (-0.05, 0.14):
        parts += pair(
            part("porthole", shapes.ellipsoid((beam * 0.6, y, deck + 0.1), (0.015, 0.035, 0.035), 18, 12), GLASS)
        )
    return parts


def _tall_ship(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    """Build a wooden ship with two or three masts of square sails and a bowsprit."""
    length, beam, deck = rng.uniform(0.75, 0.85), rng.uniform(0.19, 0.23), rng.uniform(0.24, 0.30)
    wood = pick(rng, (*rgb.WOODS, rgb.BLACK))
    stripe = pick(rng, (rgb.WHITE, (0.8, 0.6, 0.25), colors.accent))
    planks = pt.blend(pt.solid(wood), shade(wood, 0.7), lambda p: pt.edge(np.sin(p[:, 2] * 130) - 0.2, 0.8))
    planks = pt.blend(planks, stripe, lambda p: pt.edge(np.abs(p[:, 2] - deck * 0.75) - 0.025, 0.01))
    cloth = usual(rng, (rgb.WHITE, rgb.CREAM, rgb.CREAM), pick(rng, (rgb.CHARCOAL, colors.main, hsv(0.0, 0.7, 0.7))))
    spar = Paint(shade(pick(rng, rgb.WOODS), 0.8), 0.6)
    parts = [
        part("hull", hull(length, beam, deck, 0.16, 0.8), Paint(planks, 0.6)),
        part(
            "stern",
            shapes.box((0, length * 0.72, deck + 0.1), (beam * 1.5, length * 0.5, 0.18), 0.02),
            Paint(planks, 0.6),
        ),
        part("bowsprit", shapes.capsule((0, -length * 0.85, deck + 0.1), (0, -length * 1.38, deck + 0.34), 0.02), spar),
    ]
    places = (-0.5, 0.02, 0.52) if rng.uniform() < 0.7 else (-0.35, 0.3)
    for number, place in enumerate(places):
        high = (1.05, 1.2, 0.95)[number]
        y = place * length
        parts.append(part("mast", shapes.capsule((0, y, 0.2), (0, y, deck + high), 0.02, 0.012), spar))
        for low, tall, wide in ((0.14, 0.40, 0.36), (0.56, 0.30, 0.29), (0.88, 0.18, 0.2)):
            if low + tall > high:
                continue
            top = deck + low + tall
            parts.append(
                part("yard", shapes.capsule((-wide - 0.03, y - 0.02, top), (wide + 0.03, y - 0.02, top), 0.014), spar)
            )
            sail = _square_sail(wide, tall, deck + low, 0.10)
            parts.append(part("sail", shapes.moved(sail, (0, y - 0.03, 0)), Paint(cloth, 0.9)))
        flag = shapes.facing_side(shapes.prism(np.array([(0, 0), (0.14, 0.0), (0.14, 0.08), (0, 0.08)]), 0.012, 0.004))
        parts.append(part("flag", shapes.moved(flag, (0, y, deck + high - 0.06)), Paint(colors.accent, 0.8)))
    swing = float(rng.uniform(-30, 30))
    turned = [turn([p], "z", swing, _middle(p))[0] if p.name in ("sail", "yard") else p for p in parts]
    return turned


def _middle(item: ObjectPart) -> tuple[float, float, float]:
    low, high = item.surface.min(axis=(0, 1)), item.surface.max(axis=(0, 1))
    return 0.0, float(high[1]) if item.name == "sail" else float(low[1] + high[1]) / 2, 0.0


def _square_sail(wide: float, tall: float, low: float, billow: float) -> SurfaceGrid:
    """Build a sail across the ship that swells to the front; `wide` is half its width below."""
    section, rings = shapes.circle(28), []
    for rise in np.linspace(0, 1, 12):
        half = wide * (1.0 - 0.12 * rise)
        x = section[:, 0] * half
        swell = billow * np.sin(np.pi * (0.15 + 0.8 * rise)) * (1 - 0.6 * section[:, 0] ** 2)
        y = -swell + 0.010 * section[:, 1]
        rings.append(np.stack([x, y, np.full(28, low + tall * rise)], axis=1))
    return shapes.loft(rings)
