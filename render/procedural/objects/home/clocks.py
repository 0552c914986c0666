"""Build clocks."""

import numpy as np

from render.procedural.objects.home.furniture import wood
from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, palette, pick, usual
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn
from render.procedural.primitives.rings import torus
from render.procedural.primitives.wheels import CHROME

BRASS = Paint((0.82, 0.62, 0.24), 0.3, 0.6)


def clock(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an alarm clock with bells, a wall clock, a mantel clock or a grandfather clock; its face is in front."""
    colors = palette(rng)
    match pick(rng, ("alarm", "alarm", "wall", "wall", "mantel", "grandfather")):
        case "alarm":
            return _alarm_clock(rng, colors)
        case "wall":
            radius, depth = rng.uniform(0.42, 0.5), rng.uniform(0.2, 0.26)
            frame = usual(rng, (rgb.BLACK, rgb.WHITE, rgb.STEEL, (0.5, 0.3, 0.16), rgb.RED), colors.main, 0.75)
            case = shapes.turned(
                shapes.lathe(
                    [
                        (radius * 0.95, -depth / 2),
                        (radius, -depth / 2 + 0.03),
                        (radius, depth / 2 - 0.03),
                        (radius * 0.95, depth / 2),
                        (radius * 0.86, depth / 2),
                        (radius * 0.85, depth / 2 - 0.03),
                    ],
                    48,
                ),
                "x",
                90,
            )
            return shift(
                [
                    part("case", case, Paint(frame, 0.3)),
                    *shift(_dial(rng, colors, radius * 0.87), (0, -depth / 2 + 0.025, 0)),
                ],
                (0, 0, radius),
            )
        case style:
            return _case_clock(rng, colors, style)


def _dial(rng: np.random.Generator, colors: Palette, radius: float) -> list[ObjectPart]:
    """Build a face at y = 0 with marks, two or three hands and a boss."""
    face = usual(rng, (rgb.WHITE, rgb.WHITE, rgb.CREAM), pick(rng, (colors.second, rgb.CHARCOAL)), 0.85)
    ink = rgb.BLACK if sum(face) > 1.2 else rgb.WHITE
    hours = rng.uniform() < 0.7

    def marks(points: pt.Floats) -> pt.Floats:
        away, angle = np.hypot(points[:, 0], points[:, 2]) / radius, np.arctan2(points[:, 0], points[:, 2])
        step = angle / (2 * np.pi) * 12
        near = np.abs(step - np.round(step)) * 2 * np.pi / 12 * away
        wide = np.where(np.round(step) % 3 == 0, 0.05, 0.032) if hours else 0.03
        return pt.edge(np.maximum(np.abs(away - 0.82) - (0.10 if hours else 0.06), near - wide), 0.025)

    disc = shapes.turned(
        shapes.lathe([(radius * 0.3, 0.0), (radius, 0.0), (radius, 0.01), (radius * 0.5, 0.012)], 48), "x", 90
    )
    parts = [part("face", disc, Paint(pt.blend(pt.solid(face), ink, marks), 0.5))]
    minute, hour = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    if rng.uniform() < 0.4:
        minute, hour = np.deg2rad(60 + rng.normal() * 4), np.deg2rad(305)
    for angle, reach, wide, y in ((hour, 0.5, 0.045, -0.026), (minute, 0.76, 0.034, -0.034)):
        x, z = float(np.sin(angle)) * radius, float(np.cos(angle)) * radius
        hand = shapes.capsule((-0.12 * x, y, -0.12 * z), (reach * x, y, reach * z), wide * radius, 0.55 * wide * radius)
        parts.append(part("hand", (hand - (0, y, 0)) * (1, 0.3, 1) + (0, y, 0), Paint(ink, 0.4)))
    if rng.uniform() < 0.4:
        second = shapes.turned(
            shapes.capsule((0, -0.04, -0.2 * radius), (0, -0.04, 0.8 * radius), 0.012 * radius),
            "y",
            float(rng.uniform(0, 360)),
        )
        parts.append(part("second_hand", second, Paint(rgb.RED, 0.4)))
    return [
        *parts,
        part("boss", shapes.ellipsoid((0, -0.036, 0), (0.06 * radius, 0.02, 0.06 * radius), 18, 10), Paint(ink, 0.4)),
    ]


def _alarm_clock(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    radius, depth = rng.uniform(0.33, 0.38), rng.uniform(0.22, 0.30)
    body = Paint(
        usual(rng, ((0.80, 0.12, 0.12), (0.2, 0.45, 0.6), rgb.BLACK, rgb.STEEL, (0.45, 0.75, 0.65)), colors.main, 0.7),
        0.25,
        0.1,
    )
    metal = pick(rng, (CHROME, CHROME, BRASS, body))
    case = shapes.turned(
        shapes.lathe(
            [
                (radius * 0.8, -depth / 2),
                (radius * 0.98, -depth / 2 + 0.04),
                (radius, 0),
                (radius, depth / 2),
                (radius * 0.88, depth / 2 + 0.015),
                (radius * 0.86, depth / 2 - 0.02),
            ],
            44,
        ),
        "x",
        90,
    )
    parts = [part("case", case, body), *shift(_dial(rng, colors, radius * 0.88), (0, -depth / 2 + 0.012, 0))]
    bell = shapes.lathe([(0.16, 0.0), (0.155, 0.05), (0.12, 0.1), (0.06, 0.13), (0.01, 0.135)], 28)
    top = [
        part("bell", bell, metal),
        part("knob", shapes.ellipsoid((0, 0, 0.14), (0.025,) * 3, 14, 10), metal),
        part("stem", shapes.capsule((0, 0, -0.1), (0, 0, 0.02), 0.02), metal),
    ]
    foot = part("foot", shapes.capsule((0, 0, -radius * 0.9), (0, 0, -radius * 1.22), 0.035, 0.028), metal)
    for side in (-1, 1):
        parts += turn(shift(top, (0, 0, radius + 0.05)), "y", side * 33)
        parts += turn([foot], "y", -side * 33)
    hammer = shapes.capsule((0, 0, radius), (0, 0, radius + 0.14), 0.016)
    parts += [
        part("hammer", hammer, metal),
        part("hammer_head", shapes.ellipsoid((0, 0, radius + 0.15), (0.05, 0.03, 0.03), 16, 10), metal),
    ]
    if rng.uniform() < 0.5:
        grip = shapes.curve(
            ((-0.15, 0, radius + 0.14), (-0.13, 0, radius + 0.36), (0.13, 0, radius + 0.36), (0.15, 0, radius + 0.14)),
            14,
        )
        parts.append(part("handle", shapes.tube(grip, 0.018, 10), metal))
    return shift(parts, (0, 0, radius * 1.13))


def _case_clock(rng: np.random.Generator, colors: Palette, style: str) -> list[ObjectPart]:
    timber = wood(rng, (0, 0, 1))
    if style == "mantel":
        width, high, depth = rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.6), rng.uniform(0.2, 0.26)
        place = np.linspace(0, np.pi, 21)
        arch = np.stack(
            [width / 2 * np.cos(place), high * 0.35 + high * 0.6 * np.sin(place) ** rng.uniform(0.6, 1.6)], axis=1
        )
        outline = np.concatenate([[(-width / 2, 0.05), (0, 0.05), (width / 2, 0.05)], arch])
        case = shapes.facing_front(shapes.prism(outline, depth, 0.015))
        base = shapes.box((0, 0, 0.03), (width + 0.1, depth + 0.06, 0.06), 0.012)
        face = high * 0.33
        bezel = shapes.turned(torus(face, 0.022, 36, 10), "x", 90)
        front = shift([part("bezel", bezel, BRASS), *_dial(rng, colors, face)], (0, -depth / 2 - 0.006, high * 0.52))
        return [part("case", case, timber), part("base", base, timber), *front]
    width, high, depth = rng.uniform(0.38, 0.44), rng.uniform(1.35, 1.6), rng.uniform(0.32, 0.36)
    face = width * 0.36
    bezel = shapes.turned(torus(face, 0.016, 36, 10), "x", 90)
    glass = shapes.box((0, -depth * 0.42, high * 0.45), (width * 0.5, 0.02, high * 0.4), 0.008)
    bob = shapes.ellipsoid((0, -depth * 0.42 - 0.015, high * 0.32), (0.065, 0.012, 0.065), 24, 12)
    place = np.linspace(0, np.pi, 15)
    crown = np.concatenate(
        [
            [(-width * 0.56, 0.0), (0, 0.0), (width * 0.56, 0.0)],
            np.stack([width * 0.56 * np.cos(place), 0.04 + 0.09 * np.sin(place)], axis=1),
        ]
    )
    return [
        part("trunk", shapes.box((0, 0, high * 0.45), (width * 0.82, depth * 0.84, high * 0.6), 0.01), timber),
        part("plinth", shapes.box((0, 0, high * 0.09), (width, depth, high * 0.18), 0.012), timber),
        part("hood", shapes.box((0, 0, high * 0.85), (width * 1.04, depth, high * 0.24), 0.012), timber),
        part(
            "crown", shapes.moved(shapes.facing_front(shapes.prism(crown, depth, 0.012)), (0, 0, high * 0.97)), timber
        ),
        part("glass", glass, Paint((0.22, 0.16, 0.12), 0.15)),
        part(
            "pendulum",
            shapes.capsule((0, -depth * 0.42 - 0.012, high * 0.32), (0, -depth * 0.42 - 0.012, high * 0.62), 0.008),
            BRASS,
        ),
        part("bob", bob, BRASS),
        part("bezel", shapes.moved(bezel, (0, -depth / 2 - 0.006, high * 0.86)), BRASS),
        *shift(_dial(rng, colors, face), (0, -depth / 2 - 0.004, high * 0.86)),
    ]
