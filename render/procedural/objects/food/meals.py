"""Build burgers and pizzas."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, mix, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, part, shift, turn
from render.procedural.primitives.surface import (
    Points,
    SurfaceGrid,
    at_height,
    box,
    circle,
    ellipsoid,
    lathe,
    loft,
    moved,
    prism,
)

BUNS: tuple[Rgb, ...] = ((0.80, 0.52, 0.22), (0.72, 0.43, 0.18), (0.86, 0.60, 0.30))
TOMATO: Rgb = (0.82, 0.16, 0.10)


def burger(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a burger: a bun, most with sesame, with a random pile of patties, cheese, lettuce, tomato and onion."""
    crust = vary(rng, pick(rng, BUNS), 0.03)
    wide = rng.uniform(0.42, 0.48)
    bottom = lathe([(0.85 * wide, 0.0), (0.97 * wide, 0.03), (wide, 0.09), (0.97 * wide, 0.13)], 40)
    pale = mix(crust, (0.95, 0.85, 0.62), 0.6)
    parts = [part("bun_bottom", bottom, Paint(pt.blend(pt.solid(crust), pale, pt.beyond((0, 0, 1), 0.10, 0.03)), 0.7))]
    z = 0.125
    for layer in _pile(rng):
        shapes, thickness = _layer(rng, layer, wide)
        parts += shift(shapes, (0, 0, z))
        z += thickness
    tall = rng.uniform(0.22, 0.32)
    angle = np.linspace(0, np.pi / 2, 12)[:-1]
    dome = [(1.02 * wide * float(np.cos(a)) ** 0.75, z + 0.05 + tall * float(np.sin(a)) ** 1.1) for a in angle]
    top = lathe([(0.93 * wide, z - 0.005), (1.0 * wide, z + 0.02), *dome, (0.02, z + 0.05 + tall)], 44)
    glow = pt.blend(pt.solid(crust), shade(crust, 0.78), pt.beyond((0, 0, 1), z + 0.5 * tall, 0.25))
    parts.append(part("bun_top", top, Paint(pt.blend(glow, pale, pt.beyond((0, 0, -1), -z - 0.02, 0.02)), 0.45)))
    if rng.uniform() < 0.75:
        parts += _sesame(rng, wide, z + 0.05, tall)
    return parts


def _pile(rng: np.random.Generator) -> list[str]:
    """Draw the layers from the bottom up: one or two patties with cheese, lettuce and tomato around them."""
    layers = ["lettuce"] if rng.uniform() < 0.35 else []
    for _ in range(int(pick(rng, (1, 1, 1, 2)))):
        layers.append("patty")
        if rng.uniform() < 0.75:
            layers.append("cheese")
    for extra, probability in (("tomato", 0.65), ("onion", 0.25), ("lettuce", 0.75)):
        if rng.uniform() < probability:
            layers.append(extra)
    return layers


def _layer(rng: np.random.Generator, layer: str, wide: float) -> tuple[list[ObjectPart], float]:
    """Build one layer that starts at z = 0. Returns its parts and its height."""
    match layer:
        case "patty":
            brown = vary(rng, (0.34, 0.19, 0.11), 0.03)
            meat = lathe([(0.92 * wide, 0.0), (1.03 * wide, 0.03), (1.04 * wide, 0.08), (0.94 * wide, 0.115)], 44)
            meat = _rough(rng, meat, 0.015)
            return [
                part(
                    "patty", meat, Paint(pt.blend(pt.solid(brown), shade(brown, 0.6), pt.patches(rng, 0.05, 0.4)), 0.8)
                )
            ], 0.105
        case "cheese":
            yellow = vary(rng, (0.97, 0.70, 0.15), 0.04)
            return [
                turn([part("cheese", _slice(1.52 * wide, 0.13), Paint(yellow, 0.45))], "z", rng.uniform(0, 90))[0]
            ], 0.022
        case "tomato":
            slices = []
            disc = lathe([(0.40 * wide, 0.0), (0.44 * wide, 0.02), (0.40 * wide, 0.045)], 24)
            for number in range(4):
                place = np.deg2rad(90 * number + rng.uniform(0, 40))
                offset = (0.55 * wide * float(np.cos(place)), 0.55 * wide * float(np.sin(place)), 0.006 * number)
                slices += shift([part("tomato", disc, Paint(TOMATO, 0.35))], offset)
            return slices, 0.05
        case "onion":
            ring = lathe([(0.94 * wide, 0.0), (1.0 * wide, 0.018), (0.95 * wide, 0.036)], 36)
            paint = pt.blend(pt.solid((0.94, 0.90, 0.92)), (0.62, 0.25, 0.50), pt.beyond((0, 0, 1), 0.02, 0.01))
            return [part("onion", ring, Paint(paint, 0.4))], 0.034
        case _:
            green = vary(rng, pick(rng, ((0.42, 0.68, 0.20), (0.32, 0.58, 0.18), (0.55, 0.75, 0.28))), 0.03)
            paint = pt.blend(
                pt.solid(green), mix(green, rgb.CREAM, 0.4), pt.inside((0, 0, 0), (0.98 * wide, 0.98 * wide, 0.5))
            )
            return [part("lettuce", _frill(rng, 1.12 * wide), Paint(paint, 0.55))], 0.04


def _rough(rng: np.random.Generator, surface: SurfaceGrid, amount: float) -> SurfaceGrid:
    noise = pt.waves(rng, 0.12)(surface.reshape(-1, 3)).reshape(surface.shape[:2])
    result = surface.copy()
    result[..., :2] *= (1 + amount / 0.45 * noise)[..., None]
    return result


def _slice(size: float, droop: float) -> SurfaceGrid:
    """Build a square slice whose corners hang down."""
    half = size / 2
    angle = np.arange(48) * (2 * np.pi / 48)
    reach = half / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
    outline = np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)
    rings = []
    for z, shares in ((0.0, (0.3, 0.7, 0.9, 1.0)), (0.024, (1.0, 0.9, 0.7, 0.3))):
        for share in shares:
            hang = droop * np.clip((reach * share - 0.62 * size) / (0.09 * size), 0, 1) if droop else 0.0
            rings.append(np.stack([*(outline * share).T, z - hang], 1))
    return loft(rings)


def _frill(rng: np.random.Generator, wide: float) -> SurfaceGrid:
    """Build a lettuce leaf with a wavy border."""
    sides, waves = 90, int(rng.integers(9, 14))
    unit = circle(sides)
    phase = np.arange(sides) * (2 * np.pi / sides) * waves
    rings = []
    for share, rise, thick in (
        (0.5, 0.01, 0.0),
        (0.85, 0.012, 0.0),
        (1.0, 0.015, 0.0),
        (1.0, 0.015, 0.016),
        (0.85, 0.012, 0.02),
        (0.5, 0.01, 0.02),
    ):
        ripple = (share - 0.5) / 0.5
        ring = at_height(unit * (wide * share * (1 + 0.045 * ripple * np.cos(0.5 * phase + 1))[:, None]), rise + thick)
        ring[:, 2] += ripple * (0.035 * np.sin(phase) - 0.02)
        rings.append(ring)
    return loft(rings)


def _sesame(rng: np.random.Generator, wide: float, z: float, tall: float) -> list[ObjectPart]:
    seeds: list[ObjectPart] = []
    for number in range(int(rng.integers(24, 40))):
        steep = np.sqrt((number + 0.5) / 40) * 0.95
        around = number * 2.39996 + rng.uniform(-0.2, 0.2)
        rise = np.arccos(min(1.0, steep))
        radius, height = 1.02 * wide * np.cos(rise) ** 0.75, z + tall * np.sin(rise) ** 1.1
        seed = part("sesame", ellipsoid((0, 0, 0), (0.017, 0.011, 0.007), 10, 6), Paint((0.96, 0.89, 0.70), 0.5))
        tilted = turn(turn([seed], "z", rng.uniform(0, 180)), "y", float(np.rad2deg(np.pi / 2 - rise)) * 0.75)
        seeds += shift(
            turn(tilted, "z", float(np.rad2deg(around))),
            (radius * float(np.cos(around)), radius * float(np.sin(around)), float(height)),
        )
    return seeds


def pizza(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a whole pizza, a pizza with a slice missing, or one slice of a pizza.

    It has one or more toppings and is tilted to the front.
    """
    crust = vary(rng, pick(rng, ((0.82, 0.58, 0.30), (0.76, 0.50, 0.24), (0.88, 0.68, 0.40))), 0.03)
    cheese = vary(rng, pick(rng, ((0.97, 0.80, 0.36), (0.95, 0.84, 0.52), (0.96, 0.74, 0.28))), 0.03)
    sauce: Rgb = (0.78, 0.22, 0.10)
    kind = pick(rng, ("whole", "whole", "missing", "slice", "slice"))
    span = {"whole": (0.0, 360.0), "missing": (-60.0, 255.0), "slice": (-112.0, -68.0)}[kind]
    melted = pt.blend(pt.solid(cheese), sauce, pt.patches(rng, 0.14, rng.uniform(0.12, 0.35)))
    melted = pt.blend(melted, mix(cheese, (0.70, 0.38, 0.12), 0.6), pt.patches(rng, 0.07, 0.10))
    melted = pt.blend(melted, sauce, lambda p: pt.edge(0.435 - np.hypot(p[:, 0], p[:, 1]), 0.015))
    dough = pt.blend(pt.solid(crust), mix(crust, (0.35, 0.20, 0.10), 0.6), pt.patches(rng, 0.10, 0.25))
    parts = [
        part("base", _sector(0.50, 0.05, span), Paint(dough, 0.8)),
        part("cheese", moved(_sector(0.455, 0.035, span), (0, 0, 0.035)), Paint(melted, 0.5)),
        part("crust", _crust(rng, 0.475, 0.05, span), Paint(dough, 0.75)),
    ]
    parts += _toppings(rng, span)
    if kind == "slice":
        parts = shift(parts, (0, 0.3, 0))
    facing = turn(turn(parts, "z", rng.uniform(-20, 20)), "x", rng.uniform(38, 82))
    low = min(float(p.surface[..., 2].min()) for p in facing)
    return shift(facing, (0, 0, -low))


def _sector(radius: float, thick: float, span: tuple[float, float]) -> SurfaceGrid:
    """Build a flat disc, or the sector between two angles, as a stack of columns from the center."""
    start, end = np.deg2rad(span)
    if end - start > 6.28:
        return lathe([(0.97 * radius, 0.0), (radius, 0.3 * thick), (radius, 0.7 * thick), (0.97 * radius, thick)], 60)
    angle = np.linspace(start, end, max(8, int((end - start) / 0.08)))
    outline = np.concatenate([[(0.0, 0.0)], radius * np.stack([np.cos(angle), np.sin(angle)], 1)])
    inner = outline * 0.995
    return loft_about(
        [
            at_height(inner, 0.0),
            at_height(outline, 0.15 * thick),
            at_height(outline, 0.85 * thick),
            at_height(inner, thick),
        ]
    )


def loft_about(rings: list[Points]) -> SurfaceGrid:
    """Return a closed surface through rings of n points, each [n, 3].

    Triangles to the first point of the first ring close one end. Triangles to the first point of the last ring close
    the other end.
    """
    first, last = (np.broadcast_to(ring[0], ring.shape) for ring in (rings[0], rings[-1]))
    rows = np.stack([first, *rings, last])
    return np.concatenate([rows, rows[:, :1]], axis=1)


def _crust(rng: np.random.Generator, radius: float, thick: float, span: tuple[float, float]) -> SurfaceGrid:
    """Build the raised, uneven border."""
    start, end = np.deg2rad(span)
    angle = np.linspace(start, end, max(12, int((end - start) / 0.07)))
    bumps = pt.waves(rng, 0.2)(np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), 0 * angle], 1))
    section = circle(14)
    rings = []
    for a, bump in zip(angle, bumps, strict=True):
        size = thick * (1 + 0.16 * bump)
        out, up = radius + size * section[:, 0], 0.04 + 0.9 * size * section[:, 1]
        rings.append(np.stack([out * np.cos(a), out * np.sin(a), up], 1)[::-1])
    return loft(rings)


def _toppings(rng: np.random.Generator, span: tuple[float, float]) -> list[ObjectPart]:
    """Build salami, olive rings, mushrooms, pepper strips and basil leaves on the sector."""
    top, parts = 0.072, []
    salami: Rgb = vary(rng, (0.70, 0.18, 0.12), 0.03)
    fat = pt.blend(pt.solid(salami), mix(salami, rgb.CREAM, 0.5), pt.spots(rng, 0.03, 0.004))
    disc = lathe([(0.066, 0.0), (0.072, 0.008), (0.066, 0.016)], 26)
    olive = lathe([(0.026, 0.0), (0.030, 0.012), (0.026, 0.024)], 18)
    hole = lathe([(0.012, 0.0), (0.012, 0.027)], 12)
    kinds = [
        name
        for name, chance in (("salami", 0.8), ("olive", 0.5), ("basil", 0.5), ("mushroom", 0.3), ("pepper", 0.35))
        if rng.uniform() < chance
    ]
    kinds = kinds or ["salami"]
    start, end = np.deg2rad((span[0] + 9, span[1] - 9)) if span[1] - span[0] < 359 else np.deg2rad(span)
    count, inner = (26, 0.0) if end - start > 2 else (5, 0.2)
    for number in range(count):
        radius = float(np.sqrt(inner**2 + (0.40**2 - inner**2) * (number + 0.6) / count))
        turn_share = (number * 0.618034 + rng.uniform(-0.04, 0.04)) % 1.0
        angle = start + turn_share * (end - start)
        place = (radius * float(np.cos(angle)), radius * float(np.sin(angle)), top)
        match kinds[number % len(kinds)]:
            case "salami":
                items = [part("salami", disc, Paint(fat, 0.45))]
            case "olive":
                items = [
                    part("olive", olive, Paint((0.13, 0.11, 0.14), 0.3)),
                    part("hole", hole, Paint((0.55, 0.45, 0.20), 0.6)),
                ]
            case "basil":
                items = [
                    part("basil", ellipsoid((0, 0, 0.012), (0.06, 0.032, 0.014), 18, 8), Paint((0.20, 0.48, 0.15), 0.5))
                ]
            case "mushroom":
                cap = prism(
                    np.array(
                        [
                            (-0.05, 0.0),
                            (-0.015, 0.0),
                            (-0.015, -0.045),
                            (0.015, -0.045),
                            (0.015, 0.0),
                            (0.05, 0.0),
                            (0.03, 0.04),
                            (0.0, 0.052),
                            (-0.03, 0.04),
                        ]
                    ),
                    0.02,
                    0.004,
                )
                items = [part("mushroom", moved(cap, (0, 0, 0.01)), Paint((0.86, 0.79, 0.66), 0.6))]
            case _:
                strip = box((0, 0, 0.01), (0.10, 0.025, 0.02), 0.008)
                items = [part("pepper", strip, Paint(pick(rng, ((0.25, 0.58, 0.18), (0.90, 0.25, 0.12))), 0.4))]
        parts += shift(turn(items, "z", rng.uniform(0, 360)), place)
    return parts
