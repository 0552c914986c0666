"""Colors as sRGB triples in [0, 1], and random palettes."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Rgb = tuple[float, float, float]
Option = TypeVar("Option")

WHITE: Rgb = (0.95, 0.95, 0.94)
CREAM: Rgb = (0.95, 0.89, 0.76)
BLACK: Rgb = (0.06, 0.06, 0.07)
CHARCOAL: Rgb = (0.18, 0.18, 0.20)
GRAY: Rgb = (0.55, 0.56, 0.58)
STEEL: Rgb = (0.72, 0.74, 0.77)
PINK: Rgb = (0.95, 0.60, 0.62)
RED: Rgb = (0.83, 0.14, 0.13)
ORANGE: Rgb = (0.95, 0.55, 0.12)
YELLOW: Rgb = (0.98, 0.82, 0.20)
BROWN: Rgb = (0.42, 0.26, 0.15)
GLASS: Rgb = (0.30, 0.44, 0.55)
LEAF: Rgb = (0.25, 0.55, 0.20)
GRASS: Rgb = (0.42, 0.60, 0.26)
WOODS: tuple[Rgb, ...] = (
    (0.72, 0.50, 0.30),
    (0.50, 0.31, 0.18),
    (0.84, 0.68, 0.47),
    (0.36, 0.22, 0.14),
    (0.62, 0.36, 0.20),
)


@dataclass(frozen=True)
class Palette:
    """Three matching colors: the main one, a second one, and an accent for small details."""

    main: Rgb
    second: Rgb
    accent: Rgb


def hsv(hue: float, saturation: float, value: float) -> Rgb:
    """Convert HSV to RGB. The saturation and value are in [0, 1]; the integer part of the hue is ignored."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def palette(rng: np.random.Generator) -> Palette:
    """Draw a vivid main color, a second one that is pale, dark or of another hue, and an accent of a third hue."""
    hue, value = rng.uniform(), rng.uniform(0.62, 0.95)
    main = hsv(hue, rng.uniform(0.55, 0.92), value)
    other = hsv(hue + rng.uniform(0.35, 0.65), rng.uniform(0.5, 0.85), rng.uniform(0.6, 0.95))
    second = pick(rng, (WHITE, CREAM, shade(main, 0.35), other))
    return Palette(main, second, hsv(hue + pick(rng, (0.15, 0.33, 0.5)), 0.8, 0.9))


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """Draw one of `options` uniformly."""
    return options[int(rng.integers(len(options)))]


def shade(color: Rgb, factor: float) -> Rgb:
    """Multiply each channel of a color by `factor`, up to 1. A factor below 1 makes the color darker."""
    red, green, blue = (min(1.0, channel * factor) for channel in color)
    return red, green, blue


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Interpolate from `first` (share 0) to `second` (share 1)."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def vary(rng: np.random.Generator, color: Rgb, amount: float = 0.06) -> Rgb:
    """Add a random offset, uniform in [-`amount`, `amount`], to each channel of a color."""
    red, green, blue = (float(np.clip(channel + rng.uniform(-amount, amount), 0.02, 0.98)) for channel in color)
    return red, green, blue


def usual(rng: np.random.Generator, colors: Sequence[Rgb], other: Rgb, share: float = 0.75) -> Rgb:
    """Draw one of `colors` and vary it slightly, with the probability `share`; otherwise return `other`.

    `colors` are the usual colors of an object, `other` is an unusual color.
    """
    color = vary(rng, pick(rng, colors), 0.04)
    return color if rng.uniform() < share else other


def to_linear(color: Rgb) -> Rgb:
    """Convert sRGB (IEC 61966-2-1) to linear RGB, as glTF's base color factor requires."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return red, green, blue
