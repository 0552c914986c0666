"""Build body parts of animals and toys: eyes, whiskers, legs with paws, tails, coats."""

from dataclasses import dataclass

import numpy as np

from render.procedural.primitives import color as rgb
from render.procedural.primitives import pattern as pt
from render.procedural.primitives.color import Rgb, hsv, mix, pick, shade, vary
from render.procedural.primitives.part import ObjectPart, Paint, part
from render.procedural.primitives.pattern import Floats, Pattern
from render.procedural.primitives.surface import Points, Vector, capsule, curve, ellipsoid, tube

FUR = 0.85
FUR_COLORS: tuple[Rgb, ...] = (
    (0.90, 0.55, 0.22),
    (0.62, 0.58, 0.54),
    (0.50, 0.34, 0.21),
    (0.87, 0.72, 0.50),
    (0.93, 0.90, 0.84),
    (0.20, 0.19, 0.20),
    (0.45, 0.49, 0.56),
    (0.74, 0.42, 0.24),
)


@dataclass(frozen=True)
class Coat:
    """The colors and fur style of an animal.

    `body` is the color of most of the animal, `light` that of its belly and muzzle, `dark` that of its markings.
    `fur` adds markings if `style` is striped, spotted or patched. For any other `style`, it adds none.
    """

    body: Rgb
    light: Rgb
    dark: Rgb
    style: str


def coat(rng: np.random.Generator, styles: tuple[str, ...]) -> Coat:
    """Draw the colors of an animal and one of the fur `styles`.

    The colors are natural with a probability of 0.8; otherwise the hue is uniform.
    """
    natural = rng.uniform() < 0.8
    body = vary(rng, pick(rng, FUR_COLORS)) if natural else hsv(rng.uniform(), 0.55, 0.85)
    dark = shade(body, 0.42) if sum(body) > 0.9 else mix(body, rgb.GRAY, 0.55)
    light = pick(rng, (rgb.WHITE, rgb.CREAM, mix(body, rgb.WHITE, 0.65)))
    return Coat(body, light, dark, pick(rng, styles))


def fur(rng: np.random.Generator, colors: Coat, along: Vector, size: float) -> Pattern:
    """Return the fur pattern of a body part.

    `along` is the direction of the spine; stripes run across it. `size` is the diameter of the body part.
    """
    base = pt.solid(colors.body)
    match colors.style:
        case "striped":
            return pt.blend(base, colors.dark, pt.stripes(rng, along, size * 0.36, 0.42, 0.22))
        case "spotted":
            return pt.blend(base, colors.dark, pt.spots(rng, size * 0.40, size * 0.10))
        case "patched":
            orange = pt.blend(pt.solid(colors.light), colors.body, pt.patches(rng, size * 0.7, 0.55))
            return pt.blend(orange, colors.dark, pt.patches(rng, size * 0.6, 0.25))
        case _:
            return base


def eye(
    center: Vector,
    radius: float,
    iris: Rgb,
    gaze: Vector = (0.0, -1.0, 0.1),
    *,
    slit: bool = False,
    iris_deg: float = 52,
) -> ObjectPart:
    """Build an eyeball with an iris, a pupil and a highlight.

    Args:
        center: Center of the eyeball.
        radius: Radius of the eyeball.
        iris: Color of the iris.
        gaze: Direction in which the eye looks.
        slit: Whether the pupil is a vertical slit instead of a circle.
        iris_deg: Angle between the gaze and the border of the iris, seen from the center of the eyeball.
    """
    forward = np.asarray(gaze) / np.linalg.norm(gaze)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    reach = float(np.sin(np.deg2rad(iris_deg)))

    def colors(points: Points) -> Floats:
        local = (points - np.asarray(center)) / radius
        x, z, front = local @ right, local @ up, local @ forward > 0
        away = np.hypot(x, z)
        pupil = np.hypot(x / (0.34 if slit else 0.62), z / (0.92 if slit else 0.62))
        glint = np.hypot(x + 0.22, z - 0.26)
        result = np.broadcast_to(np.asarray(rgb.WHITE), points.shape)
        for distance, color in ((away - reach, iris), (pupil - reach, rgb.BLACK), (glint - 0.13, rgb.WHITE)):
            share = (pt.edge(distance, 0.08) * front)[:, None]
            result = result * (1 - share) + np.asarray(color) * share
        return result

    return part("eye", ellipsoid(center, (radius, radius, radius), 24, 18), Paint(colors, roughness=0.15))


def bead_eye(center: Vector, radius: float, gaze: Vector = (0.0, -1.0, 0.2)) -> ObjectPart:
    """Build a black eye with a highlight, looking in the direction `gaze`."""
    return eye(center, radius, rgb.BLACK, gaze, iris_deg=80)


def whiskers(root: Vector, length: float, radius: float) -> list[ObjectPart]:
    """Build three whiskers that start at `root` on the left side (+x). Use `pair` to add the right side.

    `radius` is the radius of a whisker at its root.
    """
    x, y, z = root
    hairs = []
    for number, rise in enumerate((0.28, 0.02, -0.24)):
        tip = (x + length, y + 0.25 * length, z + rise * length)
        middle = (x + 0.5 * length, y - 0.08 * length, z + (0.75 * rise + 0.1) * length)
        path = curve(((x, y, z + 0.05 * rise * length), middle, tip), 8)
        hairs.append(part(f"whisker_{number}", tube(path, np.linspace(radius, 0.5 * radius, 8), 6), rgb.CHARCOAL))
    return hairs


def tail(path: Points, radii: Floats, paint: Pattern) -> ObjectPart:
    """Build a tube along the points `path` [n, 3], with the radius `radii` [n] at each point.

    The pattern `paint` is evaluated as if the tail were straight and parallel to the z axis. Stripes across z therefore
    become rings around the curved tail.
    """
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    straight = np.stack([np.zeros_like(length), np.zeros_like(length), length], axis=1)
    return ObjectPart("tail", tube(path, radii), Paint(paint, FUR), tube(straight, radii))


def leg(top: Vector, foot: Vector, radius: float, paint: Pattern, paw: Rgb) -> list[ObjectPart]:
    """Build a leg from the point `top` to the point `foot`, with a paw that points to the front.

    `radius` is the radius of the leg, `paint` its pattern and `paw` the color of the paw.
    """
    x, y, z = foot
    limb = capsule(top, (x, y, z + 0.8 * radius), radius, radius * 0.82)
    paw_shape = ellipsoid(
        (x, y - 0.45 * radius, z + 0.55 * radius), (1.05 * radius, 1.45 * radius, 0.7 * radius), 18, 10
    )
    return [part("leg", limb, Paint(paint, FUR)), part("paw", paw_shape, Paint(paw, FUR))]


def natural_brown(rng: np.random.Generator) -> Rgb:
    """Draw an iris color from amber to dark brown."""
    return mix(rgb.ORANGE, rgb.BROWN, rng.uniform(0.2, 1.0))
