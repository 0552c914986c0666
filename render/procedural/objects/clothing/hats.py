"""Build hats."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives import surface as shapes
from render.procedural.primitives.color import Palette, palette, pick, shade, usual
from render.procedural.primitives.part import ObjectPart, Paint, part


def hat(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a fedora, top hat, bowler, baseball cap, sombrero or straw hat, cowboy hat, or knitted cap."""
    colors = palette(rng)
    match pick(rng, ("fedora", "top", "bowler", "cap", "cap", "straw", "cowboy", "knit")):
        case "cap":
            return _baseball_cap(rng, colors)
        case "knit":
            return _knit_cap(rng, colors)
        case style:
            return _brimmed_hat(rng, style, colors)


def _brimmed_hat(rng: np.random.Generator, style: str, colors: Palette) -> list[ObjectPart]:
    felt = usual(
        rng, ((0.12, 0.11, 0.11), (0.35, 0.22, 0.13), (0.45, 0.44, 0.43), (0.62, 0.47, 0.30)), colors.main, 0.65
    )
    if style == "straw":
        felt = usual(rng, ((0.88, 0.74, 0.45), (0.93, 0.84, 0.62)), colors.main, 0.85)
    elif style == "top":
        felt = usual(rng, (rgb.BLACK, rgb.BLACK, rgb.CHARCOAL), colors.main, 0.8)
    radius = rng.uniform(0.21, 0.25)
    height = {"fedora": 0.24, "top": 0.42, "bowler": 0.24, "straw": 0.24, "cowboy": 0.28}[style] * rng.uniform(
        0.85, 1.15
    )
    brim = radius * {"fedora": 1.55, "top": 1.45, "bowler": 1.35, "straw": rng.uniform(1.7, 2.5), "cowboy": 1.75}[style]
    profile = {
        "top": [(0.98, 0.0), (0.93, 0.4), (0.97, 0.8), (1.03, 0.98), (1.0, 1.0)],
        "bowler": [(1.0, 0.0), (1.0, 0.35), (0.93, 0.62), (0.74, 0.84), (0.42, 0.96), (0.05, 1.0)],
        "straw": [(1.0, 0.0), (0.95, 0.4), (0.84, 0.75), (0.6, 0.95), (0.1, 1.0)],
    }.get(style, [(1.0, 0.0), (0.95, 0.4), (0.86, 0.75), (0.74, 0.93), (0.6, 1.0)])
    crown = shapes.lathe([(r * radius, z * height) for r, z in profile], 36) * (0.9, 1.08, 1.0)
    if style in ("fedora", "cowboy"):
        crown[..., 2] -= np.exp(-((crown[..., 0] / 0.05) ** 2)) * 0.06 * (crown[..., 2] > height * 0.85)
        crown[..., 0] *= 1 - 0.28 * np.clip(crown[..., 2] / height - 0.4, 0, 1) * (crown[..., 1] < 0)
    parts_of_brim = np.linspace(radius * 0.8, brim, 6)
    profile = [(float(r), -0.012) for r in parts_of_brim] + [(float(r), 0.012) for r in parts_of_brim[::-1]]
    plate = shapes.lathe(profile, 48) * (0.93, 1.08, 1.0)
    share = np.clip((np.hypot(plate[..., 0], plate[..., 1]) - radius) / (brim - radius), 0, 1)
    if style == "fedora":
        plate[..., 2] += 0.06 * share * np.sin(np.arctan2(plate[..., 1], plate[..., 0]))
    else:
        lift = {"cowboy": rng.uniform(0.15, 0.22), "top": 0.06, "bowler": 0.05, "straw": 0.03}[style]
        plate[..., 2] += lift * share**2 * (plate[..., 0] / brim) ** 2 - (0.04 * share if style == "cowboy" else 0)
    ribbon = pick(rng, (rgb.BLACK, colors.accent, shade(felt, 0.5), rgb.RED))
    band = pt.blend(pt.solid(felt), ribbon, lambda p: pt.edge(np.abs(p[:, 2] - 0.045) - 0.032, 0.006))
    weave = pt.blend(
        pt.solid(felt), shade(felt, 0.82), lambda p: pt.edge(np.sin(np.hypot(p[:, 0], p[:, 1]) * 170), 0.8)
    )
    return [
        part("crown", crown, Paint(band, 0.85)),
        part("brim", plate, Paint(weave if style == "straw" else felt, 0.85)),
    ]


def _baseball_cap(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    color = usual(
        rng, ((0.12, 0.2, 0.45), (0.75, 0.10, 0.12), rgb.BLACK, rgb.WHITE, (0.2, 0.42, 0.25)), colors.main, 0.6
    )
    second = pick(rng, (color, color, colors.second, rgb.WHITE))
    profile = [(0.97, -0.02), (1.0, 0.1), (0.98, 0.3), (0.88, 0.56), (0.66, 0.80), (0.36, 0.94), (0.02, 1.0)]
    dome = shapes.lathe([(0.25 * r, 0.26 * z) for r, z in profile], 40) * (0.95, 1.06, 1.0)
    seam = pt.blend(
        pt.solid(color),
        shade(color, 0.6),
        lambda p: pt.edge(np.abs(np.sin(3 * np.arctan2(p[:, 1], p[:, 0]))) - 0.045, 0.05),
    )
    front = pt.blend(seam, second, lambda p: pt.edge(p[:, 1] + 0.02, 0.01))
    logo = shapes.ellipsoid((0, -0.242, 0.115), (0.06, 0.02, 0.055), 20, 12)
    reach = rng.uniform(0.2, 0.26)
    angle = np.linspace(np.pi, 2 * np.pi, 21)
    outer = np.stack([0.235 * np.cos(angle), -0.12 + (0.13 + reach) * np.sin(angle)], axis=1)
    back = np.stack([np.linspace(0.2, -0.2, 5), np.full(5, -0.1)], axis=1)
    bill = shapes.prism(np.concatenate([outer, back]), 0.018, 0.006)
    bill[..., 2] += -0.9 * bill[..., 0] ** 2 + 0.15 * (bill[..., 1] + 0.2) + 0.02
    paint = Paint(pick(rng, (color, second, colors.accent)), 0.8)
    return [
        part("dome", dome, Paint(front, 0.85)),
        part("bill", bill, paint),
        part("button", shapes.ellipsoid((0, 0, 0.262), (0.022, 0.022, 0.012), 14, 8), paint),
        part("logo", logo, Paint(colors.accent, 0.8)),
    ]


def _knit_cap(rng: np.random.Generator, colors: Palette) -> list[ObjectPart]:
    knit = pt.blend(pt.solid(colors.main), colors.second, pt.stripes(rng, (0, 0, 1), 0.11, rng.uniform(0.25, 0.55)))
    cap = shapes.lathe([(0.25, 0.02), (0.25, 0.12), (0.22, 0.24), (0.15, 0.34), (0.06, 0.40), (0.01, 0.41)], 36)
    angle = np.arctan2(cap[..., 1], cap[..., 0])
    cap *= np.stack([1 + 0.02 * np.cos(24 * angle)] * 2 + [np.ones_like(angle)], axis=-1)
    cuff = shapes.lathe([(0.24, 0.0), (0.275, 0.01), (0.28, 0.07), (0.265, 0.115), (0.24, 0.12)], 36)
    ball = shapes.ellipsoid((0, 0, 0.44), (0.085, 0.085, 0.08), 22, 14)
    return [
        part("cap", cap, Paint(knit, 0.95)),
        part("cuff", cuff, Paint(pick(rng, (colors.main, colors.second)), 0.95)),
        part("ball", ball, Paint(pick(rng, (rgb.WHITE, colors.accent, colors.second)), 0.95)),
    ]
