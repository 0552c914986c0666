"""Lay out the curves of a run as inline SVG: all values and their running mean.

The vertical axis is logarithmic if all values are positive and the highest is more than 30 times the lowest, otherwise
linear. Coordinates are in SVG units; y points down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CURVE_WIDTH: Final = 440
CURVE_HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 30  # margins for the labels of the axes
_POINTS: Final = 600  # maximum number per line; longer records are averaged
_SMOOTH: Final = 0.05  # window of the running mean, as a fraction of all values
_DECADES: Final = 1.5  # smallest range with a logarithmic axis

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Mark:
    """A vertical line at a step, with a name: it marks a change during the run, such as the start of the fine part."""

    step: float
    name: str


@dataclass(frozen=True)
class Label:
    """Text at a position x, y in SVG units."""

    x: str
    y: str
    text: str


@dataclass(frozen=True)
class LabeledLine:
    """A straight line, as the `d` attribute of an SVG path, with its label."""

    path: str
    label: Label


@dataclass(frozen=True)
class Curve:
    """The laid-out parts of a plot. `values_path` and `mean_path` are the `d` attributes of SVG paths."""

    title: str
    summary: str
    logarithmic: bool
    grid: Sequence[LabeledLine]
    steps: Sequence[Label]
    mark: LabeledLine | None
    values_path: str
    mean_path: str


def make_curve(
    title: str,
    steps: Sequence[float],
    values: Sequence[float],
    *,
    last_step: float,
    mark: Mark | None = None,
    linear: bool = False,
) -> Curve | None:
    """Lay out a plot of values over steps, with their running mean.

    Args:
        title: Title of the plot.
        steps: The step of each value, [n].
        values: The values, [n].
        last_step: End of the horizontal axis, which starts at 0.
        mark: A change during the run to mark in the plot.
        linear: Use a linear vertical axis from 0 (or the lowest value if negative), even if the values span decades.

    Returns:
        The plot, or None if n is 0.
    """
    if not values:
        return None
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    mean = running_mean(y)
    scale = CurveScale.of(y, linear=linear)
    return Curve(
        title=title,
        summary=f"{format_number(mean[0])} at first, {format_number(mean[-1])} at the end",
        logarithmic=scale.logarithmic,
        grid=[_grid_line(scale.place(tick), format_number(tick)) for tick in scale.ticks()],
        steps=[_step_label(step, last_step) for step in _even_ticks(0, last_step, 4)],
        mark=_mark_line(mark, last_step) if mark and 0 < mark.step < last_step else None,
        values_path=_path(*_thinned(x, y), scale, last_step),
        mean_path=_path(*_thinned(x, mean), scale, last_step),
    )


@dataclass(frozen=True)
class CurveScale:
    """The vertical axis of a plot: its lowest and highest value, and whether it is logarithmic."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, values: Values, *, linear: bool = False) -> "CurveScale":
        """Return the vertical axis for some values.

        Args:
            values: The values, [n].
            linear: Use a linear axis. By default, the axis is logarithmic if all values are positive and span decades.
        """
        low, high = float(values.min()), float(values.max())
        if not linear and low > 0 and math.log10(high / low) > _DECADES:
            return cls(low, high, True)
        if low >= 0:
            low = 0.0
        return cls(low, high if high > low else low + 1.0, False)

    def place(self, value: float) -> float:
        """Return the y coordinate, in SVG units, of a value on the axis."""
        low, high = (math.log10(end) if self.logarithmic else end for end in (self.low, self.high))
        at = math.log10(value) if self.logarithmic else value
        return CURVE_HEIGHT - _BOTTOM - (at - low) / (high - low) * (CURVE_HEIGHT - _BOTTOM - _TOP)

    def ticks(self) -> list[float]:
        """Return the values at which the axis has ticks."""
        if not self.logarithmic:
            return _even_ticks(self.low, self.high, 4)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = math.ceil(len(powers) / 5)
        found = [10.0**power for power in powers if power % every == 0 and self.low <= 10.0**power <= self.high]
        return found or [self.low, self.high]


def running_mean(values: Values) -> Values:
    """Return the mean of each value and its neighbors.

    Args:
        values: The values, [n]. The mean of a value is taken over a window centered at this value. The window contains
            about 5 % of all values, and fewer at the two ends.

    Returns:
        The means, [n].
    """
    half = int(len(values) * _SMOOTH / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    mean: Values = (total[last] - total[first]) / (last - first)
    return mean


def format_number(value: float) -> str:
    """Return a number as short text.

    Numbers from 1,000 to 100,000 are rounded to integers. Others have three significant digits, such as 0.123 or
    1.23e6.
    """
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _thinned(x: Values, y: Values) -> tuple[Values, Values]:
    """Average neighbors if there are more than `_POINTS` values."""
    if len(x) <= _POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _path(x: Values, y: Values, scale: CurveScale, last_step: float) -> str:
    points = [f"{_across(step, last_step):.1f},{scale.place(value):.1f}" for step, value in zip(x, y, strict=True)]
    return "M" + "L".join(points if len(points) > 1 else [points[0], points[0]])


def _across(step: float, last_step: float) -> float:
    """Return the x coordinate of a step."""
    return _LEFT + step / last_step * (CURVE_WIDTH - _LEFT - _RIGHT)


def _even_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round values between `low` and `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= rough * (1 - 1e-9))
    return [size * i for i in range(math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9) + 1)]


def _grid_line(y: float, text: str) -> LabeledLine:
    return LabeledLine(f"M{_LEFT},{y:.1f}H{CURVE_WIDTH - _RIGHT}", Label(f"{_LEFT - 6}", f"{y + 4:.1f}", text))


def _step_label(step: float, last_step: float) -> Label:
    return Label(f"{_across(step, last_step):.1f}", f"{CURVE_HEIGHT - 8}", f"{step:,.10g}")


def _mark_line(mark: Mark, last_step: float) -> LabeledLine:
    x = f"{_across(mark.step, last_step):.1f}"
    return LabeledLine(f"M{x},{_TOP}V{CURVE_HEIGHT - _BOTTOM}", Label(x, f"{_TOP - 8}", mark.name))
