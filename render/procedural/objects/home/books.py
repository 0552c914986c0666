"""Build books."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, mix, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn


def book(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a closed book that stands or lies, a stack of books, or an open book."""
    match pick(rng, ("standing", "standing", "lying", "stack", "open", "open")):
        case "standing":
            parts = _closed_book(rng)
            high = float(max(p.surface[..., 2].max() for p in parts))
            upright = shift(turn(shift(parts, (0, 0, -high / 2)), "x", 90), (0, 0, 0))
            low = min(float(p.surface[..., 2].min()) for p in upright)
            return turn(shift(upright, (0, 0, -low)), "z", rng.uniform(-25, 25))
        case "lying":
            return turn(_closed_book(rng), "z", rng.uniform(-40, 40))
        case "stack":
            parts, z = [], 0.0
            for _ in range(int(rng.integers(3, 6))):
                closed = turn(_closed_book(rng), "z", rng.uniform(-18, 18) + float(pick(rng, (0, 90, 180))))
                parts += shift(closed, (0, 0, z))
                z = max(float(p.surface[..., 2].max()) for p in parts)
            return parts
        case _:
            return _open_book(rng)


def _closed_book(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a book that lies with its front cover up, its spine at -x."""
    colors = palette(rng)
    color = usual(
        rng,
        ((0.55, 0.10, 0.12), (0.13, 0.22, 0.42), (0.14, 0.32, 0.22), (0.40, 0.24, 0.14), (0.1, 0.1, 0.11)),
        colors.main,
        0.5,
    )
    width, high, thick = rng.uniform(0.56, 0.7), rng.uniform(0.8, 0.95), rng.uniform(0.18, 0.28)
    gold = pick(rng, ((0.88, 0.70, 0.30), rgb.CREAM, rgb.WHITE, colors.accent))
    pages = pt.blend(pt.solid((0.94, 0.90, 0.80)), (0.80, 0.75, 0.64), lambda p: pt.edge(np.sin(p[:, 2] * 260), 1.2))
    cover = Paint(_cover(rng, color, gold, width, high), 0.5)
    spine = shapes.tube(
        np.array([(0.0, y, 0.0) for y in np.linspace(-high / 2, high / 2, 6)]), thick / 2, 24, round_ends=False
    )
    bands = pt.blend(pt.solid(color), gold, lambda p: pt.edge(np.abs(np.abs(p[:, 1]) - high * 0.33) - 0.015, 0.008))
    return [
        part(
            "pages", shapes.box((0, 0, thick / 2), (width - 0.05, high - 0.05, thick - 0.03), 0.006), Paint(pages, 0.8)
        ),
        part("cover", shapes.box((0, 0, thick - 0.012), (width, high, 0.024), 0.008), cover),
        part("back_cover", shapes.box((0, 0, 0.012), (width, high, 0.024), 0.008), Paint(color, 0.5)),
        part("spine", spine * (0.35, 1, 1) + (-width / 2 + 0.008, 0, thick / 2), Paint(bands, 0.5)),
    ]


def _cover(rng: np.random.Generator, color: Rgb, gold: Rgb, width: float, high: float) -> pt.Pattern:
    """Return the paint of a front cover: a frame, a title block, lines of a title, or a picture."""

    def box_at(points: pt.Floats, y: float, half: tuple[float, float]) -> pt.Floats:
        return np.asarray(np.maximum(np.abs(points[:, 0]) - half[0], np.abs(points[:, 1] - y) - half[1]))

    def title(y: float, wide: float) -> pt.Mask:
        letters = y * 40
        return lambda p: np.where(
            np.sin(p[:, 0] * 95 + letters) > -0.55, pt.edge(box_at(p, y * high, (width * wide, 0.026)), 0.008), 0.0
        )

    paint = pt.solid(color)
    if rng.uniform() < 0.5:
        paint = pt.blend(
            paint, gold, lambda p: pt.edge(np.abs(box_at(p, 0.0, (width * 0.41, high * 0.42))) - 0.012, 0.008)
        )
    if rng.uniform() < 0.5:
        picture = pick(rng, (shade(color, 0.5), mix(color, rgb.WHITE, 0.6)))
        paint = pt.blend(paint, picture, pt.inside((0, -0.1, 0), (width * 0.28, width * 0.28, 9.0)))
    for y, wide in ((0.26, 0.3), (0.17, 0.22)):
        paint = pt.blend(paint, gold, title(y, wide))
    return paint


def _open_book(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a book open in the middle, tilted toward the front, with lines of text."""
    colors = palette(rng)
    width, high, thick = rng.uniform(0.5, 0.6), rng.uniform(0.66, 0.8), rng.uniform(0.07, 0.12)
    place = np.linspace(0, 1, 16)
    top = thick * (0.35 + 0.65 * np.sin(np.pi * np.clip(place * 0.62 + 0.1, 0, 1)) ** 0.7) - 0.03 * place
    outline = np.concatenate(
        [np.stack([place * width, 0.02 + 0 * place], axis=1), np.stack([place * width, 0.03 + top], axis=1)[::-1]]
    )
    pages = shapes.facing_front(shapes.prism(outline, high, 0.004))

    def text(points: pt.Floats) -> pt.Floats:
        line = pt.edge(np.abs(points[:, 1] / 0.055 % 1.0 - 0.5) - 0.2, 0.15)
        inside = (np.abs(points[:, 1]) < high * 0.38) & (np.abs(np.abs(points[:, 0]) - width * 0.5) < width * 0.36)
        return np.where(inside & (points[:, 2] > 0.045), line, 0.0)

    paper = pt.blend(pt.solid((0.95, 0.92, 0.84)), (0.45, 0.44, 0.42), text)
    if rng.uniform() < 0.4:
        paper = pt.blend(paper, colors.accent, pt.inside((width * 0.5, 0.1, 0.1), (width * 0.32, 0.16, 0.2)))
    block = part("pages", pages, Paint(paper, 0.8))
    other = turn([part("pages_left", shapes.moved(pages, (0, 0, 0)), Paint(paper, 0.8))], "z", 180)
    cover = shapes.box((0, 0, 0.012), (2 * width + 0.06, high + 0.05, 0.026), 0.008)
    parts = [block, *other, part("cover", cover, Paint(colors.main, 0.5))]
    if rng.uniform() < 0.4:
        ribbon = shapes.box((0.01, -high * 0.5, thick * 0.6), (0.03, 0.2, 0.012), 0.004)
        parts.append(part("ribbon", ribbon, Paint(rgb.RED, 0.7)))
    tilted = turn(parts, "x", rng.uniform(15, 50))
    low = min(float(p.surface[..., 2].min()) for p in tilted)
    return shift(tilted, (0, 0, -low))
