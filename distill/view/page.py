"""One self-contained HTML page of text, pictures, a video and a model to turn: nothing is fetched, it works from disk.

Everything is embedded as data; a content security policy in the page forbids the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.io.files import write_file_atomic
from distill.view.media import asset, image, model, model_viewer, series, text, thumbnail, video

_POLICY: Final = (
    "default-src 'none'; img-src data: blob:; media-src data:; connect-src blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


@dataclass(frozen=True)
class Card:
    """One of several things side by side, with a link to more of it."""

    title: str
    href: str
    text: str = ""
    figures: Sequence[tuple[str, str]] = ()
    images: Sequence[Path] = ()
    """Small pictures in a row."""
    video: Path | None = None


@dataclass(frozen=True)
class Section:
    """One part of a page. `text` is plain; an empty line starts a paragraph. Captions are the alternative texts too."""

    title: str
    text: str = ""
    numbers: Sequence[tuple[str, str]] = ()
    """The few figures that matter most, large: what, and its value."""
    figures: Sequence[tuple[str, str]] = ()
    """Rows of a table: what, and its value."""
    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    """Several such tables side by side, with their names."""
    folded: tuple[str, Sequence[tuple[str, str]]] | None = None
    """A table that opens on a click: its name, its rows."""
    cards: Sequence[Card] = ()
    images: Sequence[tuple[Path, str]] = ()
    """Pictures with their captions."""
    charts: Sequence[str] = ()
    """Markup of `curves.chart`."""
    series: Sequence[tuple[Path, str]] = ()
    """Pictures of one size in their order, behind a slider that starts at the last, with their names."""
    video: tuple[Path, str] | None = None
    """An mp4 with its caption."""
    glb: tuple[Path, str] | None = None
    """A model with its caption."""
    links: Sequence[tuple[str, str]] = ()
    """Names and addresses."""


def write_page(out: Path, title: str, sections: Sequence[Section], *, lead: str = "") -> None:
    """Write the page (at once, or not at all). A file that is missing or not what it says is a UserError."""
    write_file_atomic(out, page(title, sections, lead=lead).encode())


def page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    back: tuple[str, str] | None = None,
    reload_s: float | None = None,
) -> str:
    """The page. `back`: name and address of where it belongs; `reload_s`: it is loaded again after so many seconds."""
    bodies = [_section(number, section) for number, section in enumerate(sections)]
    contents = "".join(f'<li><a href="#s{n}">{text(s.title)}</a></li>' for n, s in enumerate(sections))
    scripts = f"<script>\n{asset('page.js')}</script>\n" if reload_s or any(s.series for s in sections) else ""
    viewer = model_viewer() if any(section.glb for section in sections) else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{asset("page.css")}</style>
</head>
<body{f' data-reload="{reload_s:g}"' if reload_s else ""}>
<header>
{f'<p class="back"><a href="{text(back[1])}">{text(back[0])}</a></p>' if back else ""}
<h1>{text(title)}</h1>
{_paragraphs(lead, "lead")}
{f'<nav aria-label="Contents"><ol>{contents}</ol></nav>' if len(sections) > 1 else ""}
</header>
<main>
{"".join(bodies)}</main>
{scripts}{viewer}</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    media = [video(*section.video)] if section.video else []
    media += [image(path, caption) for path, caption in section.images]
    if section.glb:
        media.append(model(f"glb{number}", *section.glb))
    if section.series:
        media.append(series(f"series{number}", section.series))
    shown = f'<div class="media">\n{"".join(media)}</div>\n' if media else ""
    charts = f'<div class="charts">\n{"".join(section.charts)}</div>\n' if section.charts else ""
    return (
        f'<section id="s{number}">\n<h2>{text(section.title)}</h2>\n{_paragraphs(section.text)}\n'
        f"{_numbers(section.numbers)}{_table(section.figures)}{_tables(section.tables)}{_cards(section.cards)}"
        f"{shown}{charts}{_folded(section.folded)}{_links(section.links)}</section>\n"
    )


def _paragraphs(plain: str, style: str = "") -> str:
    start = f'<p class="{style}">' if style else "<p>"
    parts = (part.strip() for part in plain.split("\n\n"))
    return "\n".join(f"{start}{text(part)}</p>" for part in parts if part)


def _numbers(rows: Sequence[tuple[str, str]]) -> str:
    tiles = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>\n" for name, value in rows)
    return f'<dl class="numbers">\n{tiles}</dl>\n' if rows else ""


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    body = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>\n' for name, value in rows)
    return f'<div class="table"><table>\n{body}</table></div>\n'


def _tables(tables: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    shown = "".join(f"<div><h3>{text(name)}</h3>\n{_table(rows)}</div>\n" for name, rows in tables)
    return f'<div class="tables">\n{shown}</div>\n' if tables else ""


def _folded(folded: tuple[str, Sequence[tuple[str, str]]] | None) -> str:
    return f"<details><summary>{text(folded[0])}</summary>\n{_table(folded[1])}</details>\n" if folded else ""


def _cards(cards: Sequence[Card]) -> str:
    return f'<ul class="cards">\n{"".join(map(_card, cards))}</ul>\n' if cards else ""


def _card(card: Card) -> str:
    film = video(card.video, "", card.title) if card.video else ""
    pictures = "".join(thumbnail(path) for path in card.images)
    return (
        f'<li><h3><a href="{text(card.href)}">{text(card.title)}</a></h3>\n{_paragraphs(card.text)}\n'
        f'{film}<div class="thumbnails">{pictures}</div>{_table(card.figures)}</li>\n'
    )


def _links(links: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="{text(address)}">{text(name)}</a></li>\n' for name, address in links)
    return f'<ul class="links">\n{items}</ul>\n' if links else ""
