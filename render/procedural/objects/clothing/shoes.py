"""Build shoes and boots."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, shift
from render.procedural.primitives.surface import Points, SurfaceGrid

LEATHERS: tuple[Rgb, ...] = ((0.10, 0.09, 0.09), (0.42, 0.24, 0.13), (0.62, 0.40, 0.22), (0.30, 0.14, 0.10))
SPORTS: tuple[Rgb, ...] = (
    (0.93, 0.93, 0.93),
    (0.10, 0.10, 0.12),
    (0.80, 0.12, 0.12),
    (0.14, 0.30, 0.65),
    (0.5, 0.5, 0.52),
)


def shoe(rng: np.random.Generator) -> list[ObjectPart]:
    """Build one or two sneakers, canvas high-tops, leather shoes or boots, with the toes to the front."""
    colors = palette(rng)
    style = pick(rng, ("sneaker", "sneaker", "hightop", "leather", "boot"))
    parts = _one_shoe(rng, style, colors)
    if rng.uniform() < 0.3:
        slide = rng.uniform(-0.08, 0.08)
        return [copy for p in shift(parts, (0.22, slide, 0)) for copy in pair(p)]
    return parts


def _one_shoe(rng: np.random.Generator, style: str, colors: Palette) -> list[ObjectPart]:
    leather = style in ("leather", "boot")
    color = usual(rng, LEATHERS if leather else SPORTS, colors.main, 0.85 if leather else 0.65)
    width = rng.uniform(0.17, 0.2)
    sole = {"sneaker": 0.11, "hightop": 0.09, "leather": 0.04, "boot": 0.07}[style] * rng.uniform(0.9, 1.2)
    top = {"sneaker": 0.40, "hightop": 0.58, "leather": 0.36, "boot": rng.uniform(0.65, 0.95)}[style]
    white = rng.uniform() < 0.75 and not leather
    tread = Paint(rgb.WHITE if white else shade(color, 0.45), 0.6)
    outline = _foot(width)
    flat = [(0.95, 0.0), (1.02, 0.02), (1.02, sole * 0.8), (0.99, sole)]
    under = shapes.loft([shapes.at_height(outline * s, z) for s, z in flat])
    upper = _upper(outline, sole * 0.7, top, 0.13 if style != "boot" else 0.18)
    parts = [part("upper", upper, Paint(_upper_paint(rng, style, color, colors, sole), 0.5 if leather else 0.75))]
    parts.append(part("sole", under, tread))
    if leather:
        heel = shapes.loft([shapes.at_height(outline * (0.93, 0.27) + (0, 0.36), z) for z in (-0.06, sole)])
        parts.append(part("heel", heel, tread))
    inner = shapes.ellipsoid((0, 0.27, top - 0.005), (width * 0.56, 0.165, 0.02), 24, 8)
    inner[..., 2] += _collar(inner[..., 1])
    parts.append(
        part("inside", inner, Paint(pick(rng, (rgb.CHARCOAL, rgb.BROWN)) if leather else shade(color, 0.35), 0.9))
    )
    if not (style == "boot" and rng.uniform() < 0.4):
        parts += _laces(style, width, top, sole, Paint(rgb.WHITE if not leather else shade(color, 0.4), 0.8))
    return parts


def _foot(width: float) -> Points:
    """Return the outline of a sole of length 1, toe at y = -0.5."""
    y = np.linspace(-1, 1, 26)
    half = np.interp(
        y, [-1, -0.93, -0.75, -0.45, 0.1, 0.6, 0.85, 0.96, 1], [0.28, 0.62, 0.9, 1.0, 0.76, 0.78, 0.68, 0.42, 0.15]
    )
    return np.concatenate([np.stack([half * width, y / 2], axis=1), np.stack([-half * width, y / 2], axis=1)[::-1]])


def _upper(outline: Points, low: float, top: float, toe: float) -> SurfaceGrid:
    """Build the upper as level slices: the front end moves back along the instep as the height grows."""
    rings = []
    for share in np.linspace(0, 1, 22):
        z = low + (top - low) * share
        front = np.interp(
            z,
            [low, low + toe * 0.5, low + toe, low + toe + 0.1, min(0.38, top), top + 0.2],
            [-0.5, -0.505, -0.43, -0.22, 0.06, 0.14],
        )
        back = np.interp(z, [low, low + 0.1, 0.3, 1.0], [0.5, 0.5, 0.455, 0.46])
        wide = np.interp(z, [low, low + 0.08, 0.3, 0.45, 1.0], [0.98, 1.0, 0.8, 0.66, 0.78])
        length = back - front
        round_off = np.clip(length, 0.0, 1.0)
        angle = np.arctan2(outline[:, 1], outline[:, 0])
        oval = np.stack([np.cos(angle) * np.abs(outline[:, 0]).max() * 0.9, np.sin(angle) * 0.5], axis=1)
        shape = outline * round_off + oval * (1 - round_off)
        y = (shape[:, 1] / np.ptp(shape[:, 1]) + 0.5) * length + front
        rings.append(np.stack([shape[:, 0] * wide, y, np.full(len(y), z)], axis=1))
    upper = shapes.loft(rings)
    share = np.clip((upper[..., 2] - top + 0.1) / 0.1, 0, 1)
    upper[..., 2] += share * _collar(upper[..., 1])
    return upper


def _collar(along: pt.Floats) -> pt.Floats:
    """Return how much the edge of the opening rises above its mean height: at the tongue and at the heel."""
    return np.asarray(np.clip(1.3 * (along - 0.27) ** 2 - 0.025, -0.025, 0.02) * np.clip((along + 0.02) / 0.08, 0, 1))


def _upper_paint(rng: np.random.Generator, style: str, color: Rgb, colors: Palette, sole: float) -> pt.Pattern:
    """Return the paint of the upper: toe cap, side stripes, heel and collar in other colors."""
    paint = pt.solid(color)
    if style in ("leather", "boot"):
        seam = pt.blend(paint, shade(color, 0.6), lambda p: pt.edge(np.abs(p[:, 1] + 0.27) - 0.012, 0.01))
        return seam if rng.uniform() < 0.6 else paint
    options = (rgb.WHITE, rgb.BLACK, colors.accent, colors.second)
    second = pick(rng, [c for c in options if np.abs(np.subtract(c, color)).sum() > 0.7])
    if style == "hightop":
        paint = pt.blend(paint, rgb.WHITE, pt.beyond((0, -1, -0.5), 0.36))
        return (
            pt.blend(paint, rgb.WHITE, pt.inside((0.14, 0.27, 0.42), (0.1, 0.065, 0.065)))
            if rng.uniform() < 0.5
            else paint
        )
    match pick(rng, ("stripes", "swoosh", "toe", "plain")):
        case "stripes":

            def stripe(p: Points) -> pt.Floats:
                lean = p[:, 1] - 0.5 * (p[:, 2] - 0.2)
                bands = pt.edge(np.abs((lean + 0.03) / 0.11 % 1.0 - 0.5) - 0.25, 0.1)
                return np.where((np.abs(lean - 0.03) < 0.165) & (np.abs(p[:, 0]) > 0.05), bands, 0.0)

            paint = pt.blend(paint, second, stripe)
        case "swoosh":
            paint = pt.blend(paint, second, _swoosh)
        case "toe":
            paint = pt.blend(paint, second, pt.beyond((0, -1, 0), 0.28))
        case _:
            pass
    return (
        pt.blend(paint, pick(rng, (second, shade(color, 0.7))), pt.beyond((0, 1, 0.25), 0.44))
        if rng.uniform() < 0.6
        else paint
    )


def _swoosh(points: Points) -> pt.Floats:
    """Return the coverage [n] of a curved band on both sides that gets thinner to the back."""
    along = points[:, 1]
    away = np.abs(points[:, 2] - 0.17 - 0.35 * (along + 0.05) ** 2 - 0.22 * along)
    band = pt.edge(away - 0.05 * np.clip(0.35 - along, 0, 0.6), 0.015)
    return np.where((np.abs(points[:, 0]) > 0.06) & (np.abs(along - 0.06) < 0.3), band, 0.0)


def _laces(style: str, width: float, top: float, sole: float, paint: Paint) -> list[ObjectPart]:
    """Build a tongue and crossing laces on the instep."""
    toe = (0.13 if style != "boot" else 0.18) + sole * 0.7
    low = np.array([-0.19, toe + 0.10])
    high = np.array([0.05, min(0.38, top)])
    count, parts = 4, []
    spots = [low + (high - low) * t for t in np.linspace(0.0, 0.92, count)]
    if top > 0.5:
        spots += [high + (np.array([0.08, top - 0.04]) - high) * t for t in (0.35, 0.75)]
    for y, z in spots:
        half = width * 0.36
        bow = shapes.curve(((-half, y + 0.05, z - 0.035), (0, y - 0.06, z + 0.05), (half, y + 0.05, z - 0.035)), 8)
        parts.append(part("lace", shapes.tube(bow, 0.017, 8), paint))
    return parts
