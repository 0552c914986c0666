"""Build chairs, tables, lamps and beds."""

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Palette, mix, palette, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, pair, part, ring_of, shift, turn
from render.procedural.primitives.surface import Points, box, capsule, circle, ellipsoid, lathe, moved, prism, tube


def wood(rng: np.random.Generator, along: tuple[float, float, float] = (0, 1, 0)) -> Paint:
    """Return a wood texture with its grain in the direction `along`.

    With a probability of 1/4, return a plain color instead.
    """
    if rng.uniform() < 0.25:
        return Paint(palette(rng).main, 0.4)
    color = vary(rng, pick(rng, rgb.WOODS), 0.04)
    return Paint(pt.blend(pt.solid(color), shade(color, 0.62), pt.grain(rng, along, 0.05)), 0.5)


def cloth(rng: np.random.Generator, colors: Palette, size: float) -> Paint:
    """Return plain, striped, checked or dotted fabric in two of the `colors`; `size` is the period of the pattern."""
    base = pt.solid(colors.main)
    match pick(rng, ("plain", "stripes", "checks", "dots")):
        case "stripes":
            return Paint(pt.blend(base, colors.second, pt.stripes(rng, (1, 0, 0), size, 0.5)), 0.9)
        case "checks":
            return Paint(pt.blend(base, colors.second, pt.checker(size * 0.8)), 0.9)
        case "dots":
            return Paint(pt.blend(base, colors.second, pt.spots(rng, size, size * 0.26)), 0.9)
        case _:
            return Paint(colors.main, 0.9)


def chair(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a chair with four legs and a back with slats, bars or a panel; sometimes with arms and a cushion."""
    frame, colors = wood(rng, (0, 0, 1)), palette(rng)
    width, depth, seat = rng.uniform(0.46, 0.62), rng.uniform(0.44, 0.56), rng.uniform(0.42, 0.52)
    back, thick = rng.uniform(0.42, 0.70), rng.uniform(0.045, 0.07)
    x, y = width / 2 - thick / 2, depth / 2 - thick / 2
    parts = [part("seat", box((0, 0, seat), (width, depth, 0.05), 0.02), frame)]
    for item in (
        part("front_leg", box((x, -y, seat / 2), (thick, thick, seat), 0.012), frame),
        part("back_leg", box((x, y, (seat + back) / 2), (thick, thick, seat + back), 0.012), frame),
        part("rail", box((x, 0, seat * 0.35), (thick * 0.6, depth - thick, thick * 0.6), 0.01), frame),
    ):
        parts += pair(item)
    if rng.uniform() < 0.35:
        parts += pair(part("arm", box((x, 0, seat + 0.22), (thick, depth, thick * 0.7), 0.015), frame))
        parts += pair(part("arm_post", box((x, -y, seat + 0.11), (thick * 0.8, thick * 0.8, 0.22), 0.01), frame))
    if rng.uniform() < 0.6:
        cushion = box((0, -0.01, seat + 0.05), (width * 0.88, depth * 0.86, 0.07), 0.033)
        parts.append(part("cushion", cushion, cloth(rng, colors, 0.11)))
    return parts + _chair_back(rng, (width - 2 * thick, y, seat + back), back, frame, colors)


def _chair_back(
    rng: np.random.Generator, top: tuple[float, float, float], back: float, frame: Paint, colors: Palette
) -> list[ObjectPart]:
    width, y, z = top
    rail = part("top_rail", box((0, y, z - 0.05), (width + 0.02, 0.04, 0.10), 0.015), frame)
    match pick(rng, ("slats", "bars", "panel")):
        case "slats":
            heights = np.linspace(z - back * 0.45, z - back * 0.75, 2)
            return [
                rail,
                *(part("slat", box((0, y, float(h)), (width + 0.02, 0.03, 0.07), 0.01), frame) for h in heights),
            ]
        case "bars":
            places = np.linspace(-0.38, 0.38, int(rng.integers(3, 6))) * width
            return [
                rail,
                *(part("bar", capsule((float(x), y, z - back), (float(x), y, z - 0.06), 0.017), frame) for x in places),
            ]
        case _:
            panel = box((0, y - 0.02, z - back * 0.42), (width * 0.98, 0.06, back * 0.62), 0.025)
            return [rail, part("panel", panel, cloth(rng, colors, 0.11))]


def table(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a round, oval or square table on four legs or a pedestal, sometimes under a cloth."""
    frame, colors = wood(rng, (1, 0, 0)), palette(rng)
    width, depth, height = rng.uniform(0.9, 1.35), rng.uniform(0.65, 0.95), rng.uniform(0.5, 0.8)
    square, pedestal = rng.uniform() < 0.55, rng.uniform() < 0.35
    outline = circle(48) * (width / 2, depth / 2)
    slab = (
        box((0, 0, height), (width, depth, 0.06), 0.02) if square else moved(prism(outline, 0.06, 0.02), (0, 0, height))
    )
    parts = [part("top", slab, frame)]
    if pedestal:
        profile = [
            (0.26, 0.0),
            (0.25, 0.03),
            (0.07, 0.09),
            (0.05, 0.2),
            (0.075, 0.3),
            (0.05, 0.4),
            (0.05, height - 0.06),
            (0.15, height - 0.02),
        ]
        parts.append(part("pedestal", lathe(profile, 28), frame))
    else:
        reach = 0.44 if square else 0.33
        thick = rng.uniform(0.03, 0.055)
        for y in (-reach * depth, reach * depth):
            limb = capsule(
                (reach * width, y, height - 0.02), (reach * width * rng.uniform(1.0, 1.08), y, 0.02), thick, thick * 0.7
            )
            parts += pair(part("leg", limb, frame))
    return parts + _on_the_table(rng, colors, width, height, square)


def _on_the_table(
    rng: np.random.Generator, colors: Palette, width: float, height: float, square: bool
) -> list[ObjectPart]:
    """Build a runner across the top, a vase of flowers or a bowl of fruit, or nothing."""
    things: list[ObjectPart] = []
    if square and rng.uniform() < 0.5:
        things.append(
            part("runner", box((0, 0, height + 0.034), (width * 0.98, 0.3, 0.012), 0.005), cloth(rng, colors, 0.1))
        )
    match pick(rng, ("vase", "bowl", "nothing")):
        case "vase":
            vase = lathe([(0.05, 0.0), (0.08, 0.06), (0.07, 0.12), (0.035, 0.17), (0.05, 0.2)], 24)
            things += shift([part("vase", vase, Paint(colors.accent, 0.25))], (0, 0, height + 0.03))
            for angle in (20, 140, 260):
                stem = np.array([(0, 0, height + 0.2), (0.05, 0, height + 0.32), (0.09, 0, height + 0.38)])
                bloom = ellipsoid((0.09, 0, height + 0.40), (0.055, 0.055, 0.045), 16, 10)
                stalk = part("stem", tube(stem, 0.01, 8), Paint((0.2, 0.5, 0.2), 0.6))
                things += turn([stalk, part("bloom", bloom, Paint(colors.main, 0.6))], "z", angle)
        case "bowl":
            bowl = lathe([(0.08, 0.0), (0.15, 0.05), (0.18, 0.11), (0.165, 0.11), (0.13, 0.055), (0.05, 0.03)], 28)
            things += shift([part("bowl", bowl, Paint(rgb.WHITE, 0.3))], (0, 0, height + 0.03))
            fruit = part(
                "fruit", ellipsoid((0.075, 0, height + 0.13), (0.068, 0.068, 0.065), 18, 12), Paint(colors.accent, 0.4)
            )
            things += ring_of(fruit, 3, 30)
        case _:
            pass
    return things


def lamp(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a table or floor lamp with a shade, or a jointed desk lamp that faces the front."""
    colors = palette(rng)
    metal = Paint(pick(rng, (rgb.STEEL, rgb.CHARCOAL, (0.80, 0.62, 0.25), colors.accent)), 0.35, 0.7)
    if rng.uniform() < 0.3:
        return _desk_lamp(colors, metal, rng.uniform(0.9, 1.2))
    tall = rng.uniform() < 0.4
    height = rng.uniform(1.0, 1.3) if tall else rng.uniform(0.42, 0.6)
    stem = [(0.17, 0.0), (0.17, 0.025), (0.05, 0.05), (0.02, 0.08), (0.02, height)]
    body = [
        (0.11, 0.0),
        (0.12, 0.03),
        (0.06, 0.07),
        (0.14, 0.2),
        (0.16, 0.28),
        (0.10, 0.38),
        (0.03, 0.42),
        (0.02, height),
    ]
    base = Paint(colors.accent, 0.25) if not tall else metal
    wide, narrow, depth = rng.uniform(0.26, 0.36), rng.uniform(0.14, 0.24), rng.uniform(0.26, 0.36)
    shape = [(wide, 0.0), (narrow, depth), (narrow - 0.02, depth), (wide - 0.02, 0.01)]
    cover = moved(lathe(shape, 40), (0, 0, height - 0.04))
    bulb = ellipsoid((0, 0, height + 0.06), (0.06, 0.06, 0.08), 18, 12)
    fabric = cloth(rng, Palette(mix(colors.main, rgb.CREAM, 0.25), colors.second, colors.accent), 0.12)
    return [
        part("base", lathe(stem if tall else body, 32), base),
        part("shade", cover, fabric),
        part("bulb", bulb, Paint((1.0, 0.96, 0.80), 0.2)),
    ]


def _desk_lamp(colors: Palette, metal: Paint, reach: float) -> list[ObjectPart]:
    elbow, head = (0.0, 0.30 * reach, 0.48 * reach), (0.0, -0.16 * reach, 0.86 * reach)
    hood = lathe([(0.05, 0.10), (0.17, -0.05), (0.19, -0.06), (0.07, 0.12), (0.05, 0.16)], 32)
    hood_parts = [
        part("hood", hood, Paint(colors.main, 0.35)),
        part("bulb", ellipsoid((0, 0, -0.02), (0.075, 0.075, 0.08), 18, 12), Paint((1.0, 0.96, 0.80), 0.2)),
    ]
    return [
        part("base", lathe([(0.22, 0.0), (0.22, 0.03), (0.19, 0.05), (0.03, 0.06)], 36), Paint(colors.main, 0.35)),
        part("lower_arm", capsule((0, 0, 0.04), elbow, 0.022), metal),
        part("upper_arm", capsule(elbow, head, 0.022), metal),
        part("joint", ellipsoid(elbow, (0.045, 0.045, 0.045), 16, 10), Paint(colors.accent, 0.4)),
        *shift(turn(hood_parts, "x", -35), head),
    ]


def bed(rng: np.random.Generator) -> list[ObjectPart]:
    """Build a bed with the foot end to the front and the headboard behind, with pillows and a folded-back blanket."""
    frame, colors = wood(rng, (1, 0, 0)), palette(rng)
    width, length, height = rng.uniform(0.7, 1.15), rng.uniform(1.25, 1.5), rng.uniform(0.24, 0.34)
    head, foot = rng.uniform(0.6, 0.85), rng.uniform(0.36, 0.50)
    parts = [
        part("frame", box((0, 0, height * 0.75), (width, length, 0.12), 0.02), frame),
        part("mattress", box((0, 0, height + 0.06), (width * 0.95, length * 0.96, 0.16), 0.05), Paint(rgb.WHITE, 0.9)),
        part("headboard", _board(rng, width, head, length / 2), frame),
        part("footboard", _board(rng, width, foot, -length / 2), frame),
        part(
            "blanket",
            box((0, -0.16 * length, height + 0.09), (width, length * 0.62, 0.17), 0.06),
            cloth(rng, colors, 0.16),
        ),
        part(
            "fold",
            box((0, 0.14 * length, height + 0.12), (width * 1.005, 0.16, 0.13), 0.05),
            Paint(mix(colors.second, rgb.WHITE, 0.5), 0.9),
        ),
    ]
    for y in (-length / 2, length / 2):
        parts += pair(part("post", capsule((width / 2, y, 0.03), (width / 2, y, foot if y < 0 else head), 0.04), frame))
    pillow = ellipsoid(
        (0, 0.36 * length, height + 0.19), (width * 0.40 if width < 0.85 else width * 0.21, 0.14, 0.07), 26, 14
    )
    paint = Paint(mix(colors.accent, rgb.WHITE, 0.55), 0.9)
    return parts + (
        [part("pillow", pillow, paint)]
        if width < 0.85
        else pair(part("pillow", moved(pillow, (width * 0.23, 0, 0)), paint))
    )


def _board(rng: np.random.Generator, width: float, height: float, y: float) -> Points:
    """Build a board at the end of a bed, straight or arched at random."""
    arch = rng.uniform(0.0, 0.12)
    along = np.linspace(1, -1, 15)
    top = np.stack([along * width / 2, height * 0.85 + arch * (1 - along**2)], axis=1)
    outline = np.concatenate([[(-width / 2, 0.12), (0.0, 0.12), (width / 2, 0.12)], top])
    upright = prism(outline, 0.06, 0.015)
    return np.stack([upright[..., 0], y - upright[..., 2], upright[..., 1]], axis=-1)
