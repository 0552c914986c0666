"""Build pianos."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, mix, palette, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, turn


def piano(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a grand piano with its lid open, or an upright piano; the keyboard is in front."""
    colors = palette(rng)
    color = usual(
        rng, ((0.06, 0.06, 0.07), (0.06, 0.06, 0.07), (0.35, 0.18, 0.10), (0.93, 0.92, 0.90)), colors.main, 0.9
    )
    gloss = Paint(color, 0.12)
    return _grand(rng, color, gloss) if rng.uniform() < 0.55 else _upright(rng, color, gloss)


def _keyboard(width: float, y: float, z: float) -> list[ObjectPart]:
    """Build the keys, with the front edge at `y`."""
    count = 21
    gaps = pt.blend(
        pt.solid(rgb.WHITE),
        rgb.GRAY,
        lambda p: pt.edge(np.abs((p[:, 0] / width + 0.5) * count % 1.0 - 0.5) * -1 + 0.44, 0.1),
    )
    parts = [part("keys", shapes.box((0, y + 0.075, z), (width, 0.15, 0.03), 0.004), Paint(gaps, 0.3))]
    for key in range(count - 1):
        if key % 7 in (0, 1, 3, 4, 5):
            x = ((key + 1) / count - 0.5) * width
            parts.append(
                part(
                    "black_key",
                    shapes.box((x, y + 0.10, z + 0.02), (width / count * 0.58, 0.09, 0.025), 0.003),
                    Paint(rgb.BLACK, 0.3),
                )
            )
    return parts


def _grand(rng: np.random.Generator, color: Rgb, gloss: Paint) -> list[ObjectPart]:
    width, length = rng.uniform(0.95, 1.05), rng.uniform(0.95, 1.25)
    curve = shapes.curve(
        (
            (width / 2, 0.3, 0),
            (width / 2, length * 0.62, 0),
            (0.06, length * 0.5, 0),
            (0.02, length, 0),
            (-width * 0.28, length * 1.03, 0),
            (-width / 2, length * 1.0, 0),
            (-width / 2, length * 0.75, 0),
        ),
        26,
    )[:, :2]
    outline = np.concatenate([[(-width / 2, 0.16), (0.0, 0.16), (width / 2, 0.16)], curve])
    case = shapes.moved(shapes.prism(outline, 0.2, 0.012), (0, 0, 0.62))
    inner = shapes.moved(shapes.prism((outline - (0, 0.5)) * 0.93 + (0, 0.5), 0.02, 0.004), (0, 0, 0.718))
    lid = shapes.moved(shapes.prism(outline, 0.022, 0.008), (0, 0, 0.735))
    hinge = (-width / 2, 0.0, 0.735)
    parts = [
        part("case", case, gloss),
        part("plate", inner, Paint((0.80, 0.62, 0.28), 0.35, 0.4)),
        part("key_bed", shapes.box((0, 0.08, 0.56), (width, 0.24, 0.08), 0.012), gloss),
        *_keyboard(width * 0.88, -0.03, 0.615),
        part("fall", shapes.box((0, 0.14, 0.68), (width * 0.9, 0.025, 0.1), 0.008), gloss),
        part(
            "stand",
            shapes.turned(shapes.box((0, 0.26, 0.81), (width * 0.5, 0.02, 0.16), 0.006), "x", -18, (0, 0.26, 0.73)),
            gloss,
        ),
    ]
    parts += pair(part("cheek", shapes.box((width * 0.475, 0.07, 0.63), (width * 0.05, 0.22, 0.09), 0.012), gloss))
    if rng.uniform() < 0.8:
        parts += turn([part("lid", lid, gloss)], "y", -rng.uniform(28, 40), hinge)
        parts.append(part("prop", shapes.capsule((width * 0.42, 0.5, 0.7), (width * 0.30, 0.52, 1.17), 0.012), gloss))
    else:
        parts.append(part("lid", lid, gloss))
    leg = shapes.lathe([(0.045, 0.0), (0.03, 0.06), (0.045, 0.3), (0.065, 0.54)], 16)
    for x, y in ((-width * 0.42, 0.2), (width * 0.42, 0.2), (-width * 0.24, length * 0.88)):
        parts.append(part("leg", shapes.moved(leg, (x, y, 0)), gloss))
    parts.append(part("pedals", shapes.box((0, 0.26, 0.28), (0.16, 0.05, 0.5), 0.012), gloss))
    return parts + (_bench(gloss) if rng.uniform() < 0.5 else [])


def _upright(rng: np.random.Generator, color: Rgb, gloss: Paint) -> list[ObjectPart]:
    width, height = rng.uniform(0.98, 1.1), rng.uniform(0.85, 1.0)
    panel = Paint(mix(color, rgb.WHITE, 0.08) if rng.uniform() < 0.5 else shade(color, 0.85), 0.15)
    parts = [
        part("case", shapes.box((0, 0.24, height / 2), (width, 0.28, height), 0.012), gloss),
        part("lid", shapes.box((0, 0.23, height), (width + 0.05, 0.34, 0.03), 0.01), gloss),
        part("key_bed", shapes.box((0, 0.02, 0.47), (width, 0.26, 0.08), 0.012), gloss),
        *_keyboard(width * 0.88, -0.09, 0.525),
        part("panel", shapes.box((0, 0.095, height * 0.77), (width * 0.84, 0.02, height * 0.28), 0.008), panel),
        part("low_panel", shapes.box((0, 0.095, 0.25), (width * 0.84, 0.02, 0.28), 0.008), panel),
        part(
            "music",
            shapes.turned(
                shapes.box((0, 0.07, height * 0.74), (0.26, 0.012, 0.17), 0.004), "x", -10, (0, 0.07, height * 0.66)
            ),
            rgb.CREAM,
        ),
    ]
    leg = shapes.lathe([(0.035, 0.0), (0.025, 0.05), (0.04, 0.3), (0.045, 0.44)], 16)
    for item in (
        part("leg", shapes.moved(leg, (width * 0.46, -0.06, 0)), gloss),
        part("cheek", shapes.box((width * 0.475, 0.0, 0.54), (width * 0.05, 0.22, 0.1), 0.012), gloss),
        part("foot", shapes.box((width * 0.46, 0.06, 0.03), (0.07, 0.36, 0.06), 0.012), gloss),
    ):
        parts += pair(item)
    for x in (-0.05, 0.05):
        parts.append(
            part("pedal", shapes.box((x, 0.07, 0.06), (0.03, 0.1, 0.015), 0.005), Paint((0.85, 0.66, 0.22), 0.3, 0.6))
        )
    return parts + (_bench(gloss) if rng.uniform() < 0.5 else [])


def _bench(gloss: Paint) -> list[ObjectPart]:
    parts = [part("bench", shapes.box((0, -0.42, 0.34), (0.5, 0.24, 0.07), 0.025), Paint(rgb.BLACK, 0.5))]
    for y in (-0.51, -0.33):
        parts += pair(part("bench_leg", shapes.box((0.21, y, 0.16), (0.04, 0.04, 0.32), 0.008), gloss))
    return parts
