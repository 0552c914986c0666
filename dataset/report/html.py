"""Small parts of the report's page: histograms, tables of bars, numbers and the one way to escape."""

import html
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_COLUMNS: Final = 24  # of a histogram


def escape(text: str) -> str:
    """For an element or a quoted attribute; all text from files passes here."""
    return html.escape(text, quote=True)


def objects(count: int) -> str:
    return f"{count:,} object{'' if count == 1 else 's'}"


def size(count: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count / 1e6:.1f} MB"


def histogram(title: str, values: Sequence[float], unit: str) -> str:
    """Columns from zero; a long tail is gathered in the last column, which says so."""
    if not len(values):
        return ""
    data = np.asarray(values)
    largest, high = float(data.max()), float(np.percentile(data, 95))
    top = round_up(largest if largest <= 2 * high else 1.5 * high) or 1.0
    counts, edges = np.histogram(np.minimum(data, top), _COLUMNS, (0.0, top))
    tall = int(counts.max())
    columns = "".join(
        f'<i style="height:{100 * count / tall:.1f}%" title="{_number(edges[i])} to {_number(edges[i + 1])} {unit}'
        f'{" and more" if i == _COLUMNS - 1 and largest > top else ""}: {objects(int(count))}"></i>'
        for i, count in enumerate(counts)
    )
    more = " and more" if largest > top else ""
    told = f"median {_number(float(np.median(data)))} {unit}, largest {_number(largest)} {unit}"
    return (
        f'<figure><figcaption>{escape(title)} <small>{told}</small></figcaption>\n<div class="columns" role="img" '
        f'aria-label="{escape(title)}: {told}">{columns}</div>\n'
        f'<div class="axis"><span>0</span><span>{_number(top)} {unit}{more}</span></div></figure>\n'
    )


def _number(value: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * step >= value * (1 - 1e-9)))


def bars(title: str, counts: Mapping[str, int], filters: str = "") -> str:
    """Rows by frequency. With `filters` (the name of a filter) a row's name is a button that filters the grid by it."""
    if not counts:
        return ""
    most = max(counts.values())
    rows = "".join(
        f'<tr><th scope="row">{_name(name, filters)}</th><td>{count:,}</td>'
        f'<td class="bar"><i style="width:{100 * count / most:.1f}%"></i></td></tr>\n'
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>\n"
        f'<div class="scrolls"><table class="bars">\n{rows}</table></div></figure>\n'
    )


def _name(name: str, filters: str) -> str:
    shown = escape(name)
    return f'<button type="button" data-{filters}="{shown}">{shown}</button>' if filters else shown
