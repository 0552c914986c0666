"""Build airplanes and rockets."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, Rgb, palette, pick, shade
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.surface import Points, SurfaceGrid


def wing(root: tuple[float, float], tip: tuple[float, float], span: float, thick: float = 0.05) -> SurfaceGrid:
    """Build a wing from x = 0 to x = `span`. The cross-sections of the wing are ellipses.

    `root` holds the y coordinates of the front edge and the back edge at x = 0, `tip` those at x = `span`. `thick` is
    the thickness at x = 0.
    """
    rings = []
    for share in (0.0, 0.5, 0.9, 1.0):
        front, back = (root[i] + (tip[i] - root[i]) * share for i in (0, 1))
        angle = np.arange(24) * (2 * np.pi / 24)
        chord = (back - front) / 2 * (1.0 if share < 1 else 0.75)
        height = thick / 2 * (1 - 0.5 * share) * (1.0 if share < 1 else 0.5)
        rings.append(
            np.stack(
                [np.full(24, span * share), (front + back) / 2 + chord * np.cos(angle), height * np.sin(angle)], axis=1
            )
        )
    return shapes.loft(rings)


def aeroplane(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an airliner with jets under the wings, or a propeller plane; its nose points to the front."""
    colors = palette(rng)
    body = pick(rng, (rgb.WHITE, colors.main, colors.main))
    trim = colors.main if body == rgb.WHITE else colors.second
    propeller = rng.uniform() < 0.5
    girth, span, sweep = rng.uniform(0.13, 0.19), rng.uniform(0.75, 1.0), 0.05 if propeller else rng.uniform(0.25, 0.4)
    place = np.linspace(-0.85, 0.95, 24)
    shape = np.interp(place, [-0.85, -0.78, -0.62, -0.45, 0.3, 0.95], [0.35, 0.62, 0.9, 1.0, 1.0, 0.28])
    hull = shapes.tube(np.stack([0 * place, place, 0.10 * np.clip(place - 0.3, 0, 1)], axis=1), shape * girth, 32)
    parts = [part("fuselage", hull, Paint(_fuselage(rng, body, trim, girth, propeller), 0.3, 0.1))]
    parts += pair(
        part(
            "wing",
            shapes.moved(wing((-0.22, 0.18), (-0.12 + sweep, 0.05 + sweep), span), (0.05, 0, -0.02)),
            Paint(trim, 0.35),
        )
    )
    parts += pair(
        part(
            "tailplane", shapes.moved(wing((0.0, 0.2), (0.12, 0.22), 0.34, 0.035), (0.0, 0.70, 0.07)), Paint(trim, 0.35)
        )
    )
    fin = np.array([(0.58, 0.08), (0.92, 0.08), (1.0, 0.44), (0.84, 0.44)])
    parts.append(part("fin", shapes.facing_side(shapes.prism(fin, 0.04, 0.015)), Paint(colors.accent, 0.35)))
    parts += _propeller(colors, girth) if propeller else _jets(colors, girth, sweep, span)
    return shift(parts, (0, 0, girth + 0.2))


def _fuselage(rng: np.random.Generator, body: Rgb, trim: Rgb, girth: float, small: bool) -> pt.Pattern:
    """Build a fuselage with a cheat line or a colored belly, windows along the sides and a cockpit window in front."""
    paint = pt.solid(body)
    if rng.uniform() < 0.6:
        paint = pt.blend(paint, trim, lambda p: pt.edge(np.abs(p[:, 2] + 0.2 * girth) - 0.13 * girth, 0.01))
    else:
        paint = pt.blend(paint, trim, pt.beyond((0, 0, -1), 0.25 * girth))
    pitch, size, last = (0.22, 0.055, 0.1) if small else (0.105, 0.026, 0.6)

    def windows(points: Points) -> pt.Floats:
        along = (points[:, 1] / pitch - np.floor(points[:, 1] / pitch) - 0.5) * pitch
        row = np.hypot(along, points[:, 2] - 0.35 * girth) - size
        in_cabin = (np.abs(points[:, 0]) > 0.5 * girth) & (np.abs(points[:, 1] - (last - 0.45) / 2) < (last + 0.45) / 2)
        return np.where(in_cabin, pt.edge(row, 0.012), 0.0)

    paint = pt.blend(paint, rgb.GLASS, windows)
    return pt.blend(
        paint,
        shade(rgb.GLASS, 0.6),
        lambda p: pt.edge(np.abs(p[:, 1] + 0.66) - 0.075, 0.015) * (p[:, 2] > 0.32 * girth),
    )


def _jets(colors: Palette, girth: float, sweep: float, span: float) -> list[ObjectPart]:
    radius, length = 0.075, 0.26
    shell = shapes.lathe(
        [
            (radius * 0.6, -length / 2),
            (radius, -0.05),
            (radius, length / 2),
            (radius * 0.8, length / 2),
            (radius * 0.7, 0.04),
        ],
        26,
    )
    engine = shapes.moved(shapes.turned(shell, "x", 90), (span * 0.38, sweep * 0.38 - 0.15, -0.10))
    intake = shapes.ellipsoid((span * 0.38, sweep * 0.38 - 0.20, -0.10), (radius * 0.72, 0.05, radius * 0.72), 20, 12)
    return pair(part("engine", engine, Paint(colors.accent, 0.3, 0.2))) + pair(
        part("intake", intake, Paint(rgb.CHARCOAL, 0.4))
    )


def _propeller(colors: Palette, girth: float) -> list[ObjectPart]:
    spinner = shapes.ellipsoid((0, -0.93, 0), (0.055, 0.10, 0.055), 20, 12)
    blade = part("blade", shapes.ellipsoid((0, -0.94, 0.16), (0.035, 0.012, 0.16), 18, 12), Paint(rgb.CHARCOAL, 0.4))
    blades = [p for angle in (20, 140, 260) for p in turn([blade], "y", angle)]
    wheel = shapes.ellipsoid((0.17, -0.35, -girth - 0.12), (0.035, 0.08, 0.08), 22, 14)
    strut = shapes.capsule((0.07, -0.33, -0.6 * girth), (0.16, -0.35, -girth - 0.12), 0.018)
    gear = pair(part("wheel", wheel, Paint(rgb.BLACK, 0.7))) + pair(part("strut", strut, Paint(rgb.STEEL, 0.4, 0.6)))
    return [part("spinner", spinner, Paint(colors.accent, 0.3)), *blades, *gear]


def rocket(rng: np.random.Generator) -> list[ObjectPart]:
    """Build an upright rocket with fins, a nose cone, a flame and a round window at the front."""
    colors = palette(rng)
    body = pick(rng, (rgb.WHITE, rgb.CREAM, colors.second, rgb.STEEL))
    height, girth = rng.uniform(0.95, 1.35), rng.uniform(0.19, 0.27)
    shape = [
        (0.55, 0.0),
        (0.80, 0.12),
        (0.96, 0.32),
        (1.0, 0.5),
        (0.93, 0.68),
        (0.72, 0.84),
        (0.42, 0.95),
        (0.05, 1.02),
    ]
    place = np.linspace(0, 1.02, 24)
    radii = np.interp(place, [z for _, z in shape], [r for r, _ in shape])
    hull = shapes.lathe([(float(r) * girth, float(z) * height) for r, z in zip(radii, place, strict=True)], 40)
    nose_level = height * rng.uniform(0.68, 0.78)
    paint = pt.blend(pt.solid(body), colors.main, pt.beyond((0, 0, 1), nose_level))
    match pick(rng, ("bands", "checks", "spiral", "plain")):
        case "bands":
            paint = pt.blend(paint, colors.main, lambda p: pt.edge(np.abs(p[:, 2] - height * 0.2) - 0.05, 0.01))
        case "checks":
            check = pt.checker(girth * 0.5)
            paint = pt.blend(paint, colors.accent, lambda p: check(p) * pt.edge(p[:, 2] - height * 0.25, 0.01))
        case "spiral":
            paint = pt.blend(paint, colors.accent, _spiral(height * 0.32, nose_level))
        case _:
            pass
    fin = np.array(
        [
            (0.55 * girth, 0.32 * height),
            (0.75 * girth, 0.0),
            (1.55 * girth, -0.16),
            (1.75 * girth, -0.16),
            (1.65 * girth, 0.12 * height),
        ]
    )
    blade = shapes.facing_side(shapes.prism(fin, 0.05, 0.02))
    nozzle = shapes.lathe([(girth * 0.58, -0.09), (girth * 0.42, 0.02)], 28)
    flame = shapes.lathe([(0.01, -0.30), (girth * 0.28, -0.18), (girth * 0.38, -0.07), (girth * 0.2, 0.0)], 24)
    window = part(
        "window", shapes.ellipsoid((0, 0, 0), (girth * 0.42, 0.03, girth * 0.42), 28, 14), Paint(rgb.GLASS, 0.1, 0.2)
    )
    rim = part(
        "rim",
        shapes.ellipsoid((0, 0.012, 0), (girth * 0.54, 0.03, girth * 0.54), 28, 14),
        Paint(colors.accent, 0.3, 0.3),
    )
    parts = [
        part("hull", hull, Paint(paint, 0.3, 0.1)),
        *ring_of(part("fin", blade, Paint(colors.main, 0.35)), int(rng.integers(3, 5)), 45),
        part("nozzle", nozzle, Paint(rgb.CHARCOAL, 0.4, 0.5)),
        part(
            "flame",
            flame,
            Paint(pt.blend(pt.solid(rgb.YELLOW), (0.95, 0.35, 0.05), pt.beyond((0, 0, -1), 0.14, 0.1)), 0.8),
        ),
        *shift([rim, window], (0, -girth * 0.99, height * 0.55)),
    ]
    return shift(parts, (0, 0, 0.3))


def _spiral(pitch: float, top: float) -> pt.Mask:
    """Return a mask of a band that winds up around the z axis, below `top`."""

    def mask(points: Points) -> pt.Floats:
        turns = points[:, 2] / pitch + np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi)
        return pt.edge(np.abs(turns - np.floor(turns) - 0.5) - 0.15, 0.06) * (points[:, 2] < top)

    return mask
