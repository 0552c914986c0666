"""Curves of a run as inline SVG: every value pale, their running mean strong; logarithmic where values span decades."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from distill.view.media import text

_WIDTH: Final = 440
_HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 30  # what the axes' labels need
_POINTS: Final = 600  # of a line, at most: a longer record is averaged
_SMOOTH: Final = 0.05  # share of the steps that a point of the running mean averages
_DECADES: Final = 1.5  # from which the axis is logarithmic

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Mark:
    """Something that changes at a step."""

    step: float
    name: str


def chart(
    title: str,
    steps: Sequence[float],
    values: Sequence[float],
    *,
    last_step: float,
    mark: Mark | None = None,
    linear: bool = False,
) -> str:
    """A figure of `values` over `steps`, its axis from 0 to `last_step`; nothing if there are no values.

    `linear`: from zero, however many decades the values span.
    """
    if not values:
        return ""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    mean = running_mean(y)
    scale = Scale.of(y, linear=linear)
    told = f"{number(mean[0])} at first, {number(mean[-1])} at the end"
    kind = ", logarithmic" if scale.logarithmic else ""
    lines = [
        *(_grid_line(scale.place(tick), number(tick)) for tick in scale.ticks()),
        *(_step_label(step, last_step) for step in _even_ticks(0, last_step, 4)),
        _mark(mark, last_step) if mark and 0 < mark.step < last_step else "",
        f'<path class="pale" d="{_path(*_thinned(x, y), scale, last_step)}"/>',
        f'<path class="strong" d="{_path(*_thinned(x, mean), scale, last_step)}"/>',
    ]
    return (
        f"<figure><figcaption><b>{text(title)}</b> {told}{kind}</figcaption>\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)} by step: {told}">\n'
        f"{''.join(lines)}</svg></figure>\n"
    )


@dataclass(frozen=True)
class Scale:
    """The vertical axis."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, values: Float, *, linear: bool = False) -> "Scale":
        """From zero, or over the decades of the values if they are positive and span more than `_DECADES`."""
        low, high = float(values.min()), float(values.max())
        if not linear and low > 0 and math.log10(high / low) > _DECADES:
            return cls(low, high, True)
        if low >= 0:
            low = 0.0
        return cls(low, high if high > low else low + 1.0, False)

    def place(self, value: float) -> float:
        """The height of a value in the picture."""
        low, high = (math.log10(end) if self.logarithmic else end for end in (self.low, self.high))
        at = math.log10(value) if self.logarithmic else value
        return _HEIGHT - _BOTTOM - (at - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if not self.logarithmic:
            return _even_ticks(self.low, self.high, 4)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = math.ceil(len(powers) / 5)
        found = [10.0**power for power in powers if power % every == 0 and self.low <= 10.0**power <= self.high]
        return found or [self.low, self.high]


def running_mean(values: Float) -> Float:
    """Each value averaged with its neighbours, within `_SMOOTH` of all; fewer at the ends."""
    half = int(len(values) * _SMOOTH / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    mean: Float = (total[last] - total[first]) / (last - first)
    return mean


def number(value: float) -> str:
    """Three digits that count, as short as they come."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _thinned(x: Float, y: Float) -> tuple[Float, Float]:
    """Averages of neighbours where there are more than `_POINTS`."""
    if len(x) <= _POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _path(x: Float, y: Float, scale: Scale, last_step: float) -> str:
    points = [f"{_across(step, last_step):.1f},{scale.place(value):.1f}" for step, value in zip(x, y, strict=True)]
    return "M" + "L".join(points if len(points) > 1 else [points[0], points[0]])


def _across(step: float, last_step: float) -> float:
    return _LEFT + step / last_step * (_WIDTH - _LEFT - _RIGHT)


def _even_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values between `low` and `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= rough * (1 - 1e-9))
    return [size * i for i in range(math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9) + 1)]


def _grid_line(y: float, label: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>\n'
    )


def _step_label(step: float, last_step: float) -> str:
    return f'<text x="{_across(step, last_step):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{step:,.10g}</text>\n'


def _mark(mark: Mark, last_step: float) -> str:
    x = _across(mark.step, last_step)
    return (
        f'<path class="mark" d="M{x:.1f},{_TOP}V{_HEIGHT - _BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle">{text(mark.name)}</text>\n'
    )
