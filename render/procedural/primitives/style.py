"""Draw the style of an object and apply it to its finished parts: smooth, low-polygon, toy or realistic.

The style changes the colors, finish, texture and tessellation of an object. The class of the object, such as cat or
chair, and its pose stay the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb
from render.procedural.primitives.part import ObjectPart, Paint, bounds
from render.procedural.primitives.pattern import Floats, Pattern
from render.procedural.primitives.surface import Points, SurfaceGrid

STYLES = ("smooth", "low-polygon", "toy", "realistic")
SHARES = (0.28, 0.18, 0.22, 0.32)
FINEST, COARSEST = 0.01, 0.05  # of a part's longest side, see _kept
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Tone = Callable[[Floats], Floats]


def style_of(rng: np.random.Generator) -> str:
    """Draw the name of a style from STYLES. The probabilities of the styles are SHARES."""
    return STYLES[int(rng.choice(len(STYLES), p=SHARES))]


def styled(rng: np.random.Generator, parts: Sequence[ObjectPart], style: str | None = None) -> list[ObjectPart]:
    """Return the parts of an object in the given style, one of STYLES. The smooth style changes nothing.

    If `style` is None, the style is drawn with `style_of`.
    """
    match style or style_of(rng):
        case "low-polygon":
            return _low_polygon(rng, parts)
        case "toy":
            return _toy(rng, parts)
        case "realistic":
            return _realistic(rng, parts)
        case _:
            return list(parts)


def _low_polygon(rng: np.random.Generator, parts: Sequence[ObjectPart]) -> list[ObjectPart]:
    """Return flat-shaded parts with at most about `sides` x `rows` faces each; small parts get fewer."""
    sides, rows = int(rng.choice((8, 10, 12, 14))), int(rng.integers(8, 14))
    tone, size = _tone(rng.uniform(0.9, 1.2), rng.uniform(0.95, 1.08)), _size(parts)
    result = []
    for item in parts:
        share = min(1.0, 0.45 + float(np.ptp(item.surface.reshape(-1, 3), axis=0).max()) / size)
        kept_rows, kept_columns = (_kept(item.surface, axis, round(share * n)) for axis, n in enumerate((rows, sides)))
        paint = replace(item.paint, base=_toned(item.paint.base, tone), roughness=max(item.paint.roughness, 0.5))
        surface, rest = (grid[kept_rows][:, kept_columns] for grid in (item.surface, item.rest))
        result.append(replace(item, surface=surface, rest=rest, paint=paint, flat=True))
    return result


def _kept(surface: SurfaceGrid, axis: int, count: int) -> NDArray[np.int64]:
    """Return the indices of rows (axis 0) or columns (axis 1) that remain, about `count` of them.

    The row or column whose removal moves the surface least is removed first (Visvalingam and Whyatt 1993); the first
    and the last one stay. To keep sharp edges, a removal that moves the surface by more than COARSEST of its size is
    not made. A removal that moves the surface by less than FINEST is made even when only `count` lines are left.
    """
    lines = surface if axis == 0 else surface.swapaxes(0, 1)
    size = float(np.ptp(surface.reshape(-1, 3), axis=0).max())
    kept = list(range(len(lines)))
    while len(kept) > 4:
        before, middle, after = lines[kept[:-2]], lines[kept[1:-1]], lines[kept[2:]]
        change = np.linalg.norm(middle - (before + after) / 2, axis=-1).mean(axis=1) / size
        least = int(change.argmin())
        if change[least] > (COARSEST if len(kept) > count + 1 else FINEST):
            break
        del kept[least + 1]
    return np.asarray(kept)


def _toy(rng: np.random.Generator, parts: Sequence[ObjectPart]) -> list[ObjectPart]:
    """Return parts of glossy plastic in saturated, bright colors."""
    tone = _tone(rng.uniform(1.25, 1.7), rng.uniform(1.0, 1.15))
    roughness = rng.uniform(0.08, 0.32)
    return [
        replace(
            item,
            paint=Paint(_toned(item.paint.base, tone), min(item.paint.roughness, roughness), item.paint.metallic * 0.5),
        )
        for item in parts
    ]


def _realistic(rng: np.random.Generator, parts: Sequence[ObjectPart]) -> list[ObjectPart]:
    """Return parts in muted colors with noise in their texture, and a rough finish unless it was glossy."""
    tone = _tone(rng.uniform(0.62, 0.92), rng.uniform(0.78, 1.02), rng.uniform(-0.03, 0.03))
    size, rough = _size(parts), rng.uniform(0.1, 0.7)
    noise = _mottle(rng, size)
    result = []
    for item in parts:
        base, roughness = _toned(item.paint.base, tone), item.paint.roughness
        large = np.ptp(item.surface.reshape(-1, 3), axis=0).max() > 0.08 * size
        if large and not item.name.startswith("eye"):
            base = _with_noise(base, noise)
        if roughness > 0.25:
            roughness += (0.95 - roughness) * rough
        result.append(replace(item, paint=replace(item.paint, base=base, roughness=roughness)))
    return result


def _mottle(rng: np.random.Generator, size: float) -> Callable[[Points], Floats]:
    """Return smooth noise [n] in about [-0.15, 0.15]; for half of the objects, it is stretched along one axis."""
    scales = size * np.array([0.25, 0.08, 0.03]) * rng.uniform(0.7, 1.3)
    octaves = [pt.waves(rng, float(scale), 8) for scale in scales]
    weights = rng.uniform(0.015, 0.075, 3)
    stretch = np.ones(3)
    if rng.uniform() < 0.5:
        stretch[int(rng.integers(3))] = 0.25
    return lambda points: sum(
        (w * n(points * stretch) for w, n in zip(weights, octaves, strict=True)), np.zeros(len(points))
    )


def _with_noise(base: Rgb | Pattern, noise: Callable[[Points], Floats]) -> Pattern:
    """Return the pattern with its brightness multiplied by 1 + `noise`."""
    under = base if callable(base) else pt.solid(base)
    return lambda points: np.clip(under(points) * (1 + noise(points))[:, None], 0.0, 1.0)


def _tone(saturation: float, gain: float, warmth: float = 0.0) -> Tone:
    """Return a function that changes the saturation, the brightness and the warmth of sRGB colors [n, 3]."""
    scale = gain * np.array([1 + warmth, 1.0, 1 - warmth])

    def tone(colors: Floats) -> Floats:
        gray = (colors @ LUMA)[:, None]
        return np.asarray(np.clip((gray + (colors - gray) * saturation) * scale, 0.02, 0.98))

    return tone


def _toned(base: Rgb | Pattern, tone: Tone) -> Rgb | Pattern:
    if callable(base):
        pattern = base
        return lambda points: tone(pattern(points))
    red, green, blue = tone(np.asarray([base]))[0]
    return float(red), float(green), float(blue)


def _size(parts: Sequence[ObjectPart]) -> float:
    """Return the longest side of the bounding box of all parts."""
    low, high = bounds(parts)
    return float((high - low).max())
