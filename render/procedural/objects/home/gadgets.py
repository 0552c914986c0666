"""Build cameras and telephones."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Rgb, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn
from render.procedural.primitives.surface import SurfaceGrid, Vector
from render.procedural.primitives.wheels import CHROME

BLACK = Paint((0.08, 0.08, 0.09), 0.45)


def to_front(profile: list[tuple[float, float]], center: Vector, sides: int = 36) -> SurfaceGrid:
    """Revolve a profile of (radius, distance) pairs about an axis through `center` that points to the front (-y).

    The distances are measured from `center` toward the front.
    """
    return shapes.moved(shapes.turned(shapes.lathe(profile, sides), "x", 90), center)


def camera(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a reflex camera, a compact camera or an instant camera. The lens is in front.

    The top and bottom of a compact camera often have another color than the middle.
    """
    style = pick(rng, ("reflex", "reflex", "compact", "compact", "instant"))
    colors = palette(rng)
    body = usual(
        rng,
        {
            "reflex": (rgb.BLACK, rgb.CHARCOAL),
            "compact": (rgb.BLACK, (0.45, 0.27, 0.15), rgb.CHARCOAL),
            "instant": (rgb.WHITE, (0.55, 0.80, 0.85), (0.95, 0.65, 0.7)),
        }[style],
        colors.main,
        0.8,
    )
    width, high, depth = rng.uniform(0.74, 0.86), rng.uniform(0.44, 0.52), rng.uniform(0.24, 0.30)
    if style == "instant":
        return _instant_camera(rng, Paint(body, 0.4), colors.accent)
    plate_color = pick(rng, (rgb.STEEL, rgb.STEEL, body, rgb.CREAM)) if style == "compact" else body
    plate = Paint(plate_color, 0.3, 0.4 if plate_color != body else 0.0)
    leather = pt.blend(pt.solid(body), shade(body, 1.5), pt.spots(rng, 0.03, 0.008))
    middle = high * 0.5
    parts = [
        part("body", shapes.box((0, 0, middle * 0.92), (width, depth, high * 0.78), 0.05), Paint(leather, 0.7)),
        part("top", shapes.box((0, 0, high * 0.86), (width * 0.99, depth * 0.97, high * 0.2), 0.035), plate),
        part("bottom", shapes.box((0, 0, high * 0.09), (width * 0.99, depth * 0.97, high * 0.1), 0.025), plate),
    ]
    lens = rng.uniform(0.20, 0.25) * high / 0.5
    reach = rng.uniform(0.2, 0.42) if style == "reflex" else rng.uniform(0.12, 0.2)
    parts += _lens(
        rng,
        (rng.uniform(-0.02, 0.06) * (style == "reflex"), -depth / 2, middle * 0.95),
        lens,
        reach,
        style=style,
        accent=colors.accent,
    )
    if style == "reflex":
        hump = shapes.box((0, -0.02, high * 1.06), (width * 0.34, depth * 0.9, high * 0.32), 0.045, 0.62)
        grip = shapes.capsule(
            (-width * 0.42, -depth * 0.42, high * 0.2), (-width * 0.42, -depth * 0.42, high * 0.8), 0.085
        )
        name = shapes.box((0, -depth * 0.42, high * 1.06), (width * 0.2, 0.03, 0.035), 0.008)
        parts += [
            part("hump", hump, plate),
            part("grip", grip, Paint(leather, 0.8)),
            part("name", name, Paint(rgb.WHITE, 0.5)),
        ]
    else:
        finder = shapes.box((width * 0.26, -depth * 0.49, high * 0.86), (width * 0.17, 0.02, high * 0.13), 0.008)
        flash = shapes.box((-width * 0.02, -depth * 0.49, high * 0.86), (width * 0.14, 0.02, high * 0.12), 0.008)
        parts += [part("finder", finder, Paint((0.2, 0.28, 0.35), 0.1)), part("flash", flash, Paint(rgb.WHITE, 0.2))]
        if rng.uniform() < 0.4:
            parts.append(part("hot_shoe", shapes.box((0, 0, high * 1.0), (0.14, 0.12, 0.05), 0.01), BLACK))
    for x, radius, tall in ((-width * 0.34, 0.05, 0.05), (width * 0.34, 0.075, 0.06), (-width * 0.2, 0.06, 0.05)):
        knob = shapes.lathe([(radius, 0.0), (radius, tall * 0.8), (radius * 0.9, tall)], 24)
        parts.append(part("dial", shapes.moved(knob, (x, 0.02, high * 0.94)), pick(rng, (CHROME, BLACK))))
    if rng.uniform() < 0.4:
        drop = rng.uniform(0.2, 0.5)
        strap = shapes.curve(
            (
                (width * 0.5, 0, high * 0.8),
                (width * 0.8, 0.1, high * 0.8 + drop),
                (-width * 0.8, 0.1, high * 0.8 + drop),
                (-width * 0.5, 0, high * 0.8),
            ),
            24,
        )
        band = shapes.tube(strap - (0, 0, high), 0.018, 10) * (1, 2.0, 1) + (0, 0, high)
        parts.append(part("strap", band, Paint(pick(rng, (rgb.BLACK, rgb.BROWN, colors.accent)), 0.8)))
    return parts


def _lens(
    rng: np.random.Generator, center: Vector, radius: float, reach: float, *, style: str, accent: Rgb
) -> list[ObjectPart]:
    """Build a barrel of `reach`, with rings, and the glass in it."""
    barrel = [
        (radius * 1.08, 0.0),
        (radius * 1.08, reach * 0.25),
        (radius * 0.97, reach * 0.3),
        (radius * 0.97, reach * 0.6),
        (radius * 1.02, reach * 0.62),
        (radius * 1.02, reach),
        (radius * 0.86, reach),
        (radius * 0.78, reach * 0.86),
    ]
    metal = Paint(pick(rng, (rgb.STEEL, rgb.BLACK)), 0.35, 0.4) if style == "compact" else BLACK
    x, y, z = center
    ring_paint = pick(rng, (accent, rgb.RED, rgb.STEEL, rgb.CHARCOAL))
    glass = pt.blend(
        pt.solid((0.04, 0.05, 0.09)),
        (0.25, 0.30, 0.55),
        pt.inside((x + radius * 0.15, y - reach, z + radius * 0.2), (radius * 0.45, 0.2, radius * 0.4), 0.6),
    )
    glass = pt.blend(
        glass,
        rgb.WHITE,
        pt.inside((x + radius * 0.28, y - reach, z + radius * 0.32), (radius * 0.14, 0.2, radius * 0.11), 0.3),
    )
    front = shapes.ellipsoid((x, y - reach * 0.88, z), (radius * 0.72, 0.035, radius * 0.72), 32, 14)
    ring = to_front([(radius * 1.035, reach * 0.86), (radius * 1.035, reach * 0.93)], center)
    return [
        part("barrel", to_front(barrel, center), metal),
        part("glass", front, Paint(glass, 0.05)),
        part("ring", ring, Paint(ring_paint, 0.3)),
    ]


def _instant_camera(rng: np.random.Generator, body: Paint, accent: Rgb) -> list[ObjectPart]:
    width, high, depth = rng.uniform(0.66, 0.76), rng.uniform(0.58, 0.66), rng.uniform(0.34, 0.42)
    stripes = pt.solid(rgb.WHITE)
    for number, hue in enumerate((0.0, 0.08, 0.15, 0.36, 0.58)):
        stripes = pt.blend(
            stripes,
            rgb.hsv(hue, 0.8, 0.9),
            _band((number - 2) * 0.018),
        )
    parts = [
        part("body", shapes.box((0, 0, high * 0.5), (width, depth, high), 0.09, 0.94), body),
        part("slot", shapes.box((0, -depth * 0.49, high * 0.13), (width * 0.7, 0.03, 0.035), 0.01), BLACK),
        *_lens(rng, (0, -depth * 0.46, high * 0.48), 0.17, 0.13, style="instant", accent=accent),
        part(
            "flash",
            shapes.box((-width * 0.26, -depth * 0.47, high * 0.84), (0.16, 0.03, 0.1), 0.015),
            Paint((0.9, 0.93, 0.95), 0.15),
        ),
        part(
            "finder",
            shapes.box((width * 0.26, -depth * 0.47, high * 0.84), (0.1, 0.03, 0.09), 0.015),
            Paint((0.12, 0.15, 0.18), 0.1),
        ),
        part(
            "button",
            to_front([(0.045, 0.0), (0.04, 0.03)], (width * 0.34, -depth * 0.47, high * 0.55)),
            Paint(pick(rng, (rgb.RED, accent)), 0.3),
        ),
    ]
    if rng.uniform() < 0.6:
        parts.append(
            part("stripes", shapes.box((0, -depth * 0.5, high * 0.26), (0.09, 0.025, 0.14), 0.004), Paint(stripes, 0.5))
        )
    return parts


def _band(x: float) -> pt.Mask:
    """Return a mask of an upright stripe at `x`."""
    return lambda points: pt.edge(np.abs(points[:, 0] - x) - 0.009, 0.004)


def telephone(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a desk telephone with a dial or keys, its handset on top."""
    colors = palette(rng)
    color = usual(
        rng,
        (rgb.BLACK, rgb.BLACK, (0.80, 0.10, 0.10), rgb.CREAM, (0.2, 0.4, 0.3), (0.35, 0.65, 0.75)),
        colors.main,
        0.8,
    )
    body, width, depth, high = (
        Paint(color, 0.2),
        rng.uniform(0.58, 0.66),
        rng.uniform(0.56, 0.66),
        rng.uniform(0.28, 0.36),
    )
    rings = []
    for share in np.linspace(0, 1, 16):
        front = -depth / 2 + depth * 0.62 * share**1.1
        back = depth / 2 - 0.08 * share
        wide = width * (1 - 0.35 * share**1.2)
        outline = shapes.rounded_rectangle(wide, back - front, min(0.09, 0.4 * (back - front)), 6)
        rings.append(shapes.at_height(outline, high * share) + np.array((0, (front + back) / 2, 0)))
    parts = [part("body", shapes.loft(rings), body)]
    slope = float(np.rad2deg(np.arctan2(high, depth * 0.62)))
    face = _dial_plate(rng, color, colors.accent) if rng.uniform() < 0.65 else _keys(color)
    parts += shift(turn(face, "x", slope), (0, -depth * 0.21, high * 0.48))
    grip = depth * 0.26
    for x in (-0.16, 0.16):
        parts.append(part("cradle", shapes.box((x, grip, high + 0.04), (0.07, 0.2, 0.1), 0.025), body))
    handle = shapes.tube(
        shapes.curve(
            (
                (-0.36, grip, high + 0.10),
                (-0.2, grip, high + 0.24),
                (0.2, grip, high + 0.24),
                (0.36, grip, high + 0.10),
            ),
            18,
        ),
        0.05,
        18,
    )
    parts.append(part("handset", handle, body))
    for x in (-0.37, 0.37):
        cup = shapes.lathe([(0.085, 0.0), (0.10, 0.03), (0.085, 0.09), (0.05, 0.13)], 24)
        parts.append(part("cup", shapes.moved(cup, (x, grip, high + 0.0)), body))
    turns = np.linspace(0, 1, 120)
    coil = np.stack(
        [
            -0.36 - 0.05 * np.sin(turns * 60) - 0.02,
            -0.1 + 0.3 * turns + 0 * turns,
            0.04 + 0.03 * np.cos(turns * 60) + high * turns**3,
        ],
        axis=1,
    )
    if rng.uniform() < 0.6:
        parts.append(part("cord", shapes.tube(coil, 0.013, 6), Paint(shade(color, 0.8), 0.4)))
    return parts


def _dial_plate(rng: np.random.Generator, color: Rgb, accent: Rgb) -> list[ObjectPart]:
    """Build a dial with ten holes about the origin, its face up."""
    plate = Paint(pick(rng, (rgb.CREAM, rgb.WHITE, rgb.STEEL)), 0.4)
    wheel = pick(rng, (CHROME, Paint(shade(color, 0.8), 0.25), Paint(rgb.BLACK, 0.25)))
    hole = part("hole", shapes.moved(shapes.lathe([(0.026, 0.0), (0.026, 0.035)], 18), (0.125, 0, 0.012)), plate)
    holes = [p for k in range(10) for p in turn([hole], "z", -50 + 29 * k)]
    return [
        part("plate", shapes.lathe([(0.19, -0.02), (0.19, 0.012), (0.17, 0.02)], 36), plate),
        part("wheel", shapes.lathe([(0.165, 0.0), (0.165, 0.03), (0.15, 0.04)], 36), wheel),
        *holes,
        part("center", shapes.lathe([(0.065, 0.0), (0.06, 0.05)], 24), Paint(pick(rng, (rgb.WHITE, accent)), 0.4)),
        part("stop", shapes.capsule((0.12, -0.12, 0.03), (0.16, -0.15, 0.03), 0.012), CHROME),
    ]


def _keys(color: Rgb) -> list[ObjectPart]:
    key = Paint(rgb.WHITE if sum(color) < 2.2 else rgb.CHARCOAL, 0.4)
    return [
        part("key", shapes.box((x * 0.1, y * 0.085 - 0.04, 0.02), (0.07, 0.055, 0.05), 0.014), key)
        for x in (-1, 0, 1)
        for y in (-1, 0, 1, 2)
    ]
