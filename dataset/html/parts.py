"""Define the elements that the HTML pages of all packages share: key numbers, histograms and bar tables.

The Jinja macros in `parts.html` turn these elements into HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dataset.html.formats import format_object_count

_COLUMNS: Final = 24  # of a histogram


@dataclass(frozen=True)
class KeyNumber:
    """A number in large type, with its name and, below it, a remark. `bad` displays the number as an error."""

    name: str
    value: str
    remark: str = ""
    bad: bool = False


@dataclass(frozen=True)
class HistogramColumn:
    """One column of a histogram. `height` is a percentage of the tallest column; `description` is shown on hover."""

    height: float
    description: str


@dataclass(frozen=True)
class Histogram:
    """A histogram with columns of equal width, from 0 to a largest value. `axis_end` is the text for this value."""

    title: str
    summary: str
    axis_end: str
    columns: Sequence[HistogramColumn]


@dataclass(frozen=True)
class BarRow:
    """One row of a bar table. `width` is the length of the row's bar as a percentage of the longest bar."""

    name: str
    count: int
    width: float


@dataclass(frozen=True)
class BarTable:
    """A table of names with their counts as bars, largest count first.

    If `filter_name` is set, each name is a button that filters the objects on the page. A click on the name N shows
    only objects with the value N of the property `filter_name`.
    """

    title: str
    rows: Sequence[BarRow]
    filter_name: str = ""


def make_histogram(title: str, values: Sequence[float], unit: str) -> Histogram | None:
    """Return a histogram of `values` whose axis starts at zero, or None if there are no values.

    If the largest value is more than twice the 95th percentile, the axis ends before the largest value. The last column
    then also counts the values beyond the end of the axis.

    Args:
        title: Title of the histogram.
        values: Values that are not negative.
        unit: Unit of the values, as shown after each number, such as "s". Empty: the values have no unit.
    """

    def with_unit(value: float) -> str:
        return f"{_number(value)} {unit}".rstrip()

    if not len(values):
        return None
    data = np.asarray(values)
    largest, high = float(data.max()), float(np.percentile(data, 95))
    end = round_up(largest if largest <= 2 * high else 1.5 * high) or 1.0
    more = " and more" if largest > end else ""
    counts, edges = np.histogram(np.minimum(data, end), _COLUMNS, (0.0, end))
    columns = [
        HistogramColumn(
            height=100 * count / int(counts.max()),
            description=f"{_number(edges[i])} to {with_unit(edges[i + 1])}{more if i == _COLUMNS - 1 else ''}: "
            f"{format_object_count(int(count))}",
        )
        for i, count in enumerate(counts)
    ]
    summary = f"median {with_unit(float(np.median(data)))}, largest {with_unit(largest)}"
    return Histogram(title, summary, f"{with_unit(end)}{more}", columns)


def make_bar_table(title: str, counts: Mapping[str, int], filter_name: str = "") -> BarTable | None:
    """Return a bar table of `counts` (name -> count), largest count first, or None if there are no counts.

    Args:
        title: Title of the table.
        counts: Count of each name.
        filter_name: Property by which a click on a name filters the objects (see `BarTable`). Empty: no filter.
    """
    if not counts:
        return None
    most = max(counts.values())
    rows = [
        BarRow(name, count, 100 * count / most)
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return BarTable(title, rows, filter_name)


def round_up(value: float) -> float:
    """Round `value` up to the next number that is 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten.

    Return zero if `value` is zero or negative.
    """
    if value <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * step >= value * (1 - 1e-9)))


def _number(value: float) -> str:
    """Format a number with three significant digits, never with an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
