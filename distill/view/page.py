"""Make a self-contained HTML page of text, images, a video and a 3D model from the template `page.html`.

The page also works when it is opened from disk. All media are embedded, and the content security policy of the page
forbids network access.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.html.parts import KeyNumber
from dataset.html.templates import render_page
from dataset.io.files import write_file_atomic
from distill.view.curves import CURVE_HEIGHT, CURVE_WIDTH, Curve
from distill.view.media import embed_image, embed_model, embed_video

Rows = Sequence[tuple[str, str]]
"""Rows of a table: names with their values."""


@dataclass(frozen=True)
class Card:
    """One of several boxes side by side on an overview page, with a link to the page that it summarizes."""

    title: str
    href: str
    text: str = ""
    figures: Rows = ()
    """Rows of a table."""
    images: Sequence[Path] = ()
    """Thumbnails."""
    video: Path | None = None


@dataclass(frozen=True)
class Section:
    """One part of a page.

    An empty line in `text` starts a paragraph. The caption of an image is also its alternative text.
    """

    title: str
    text: str = ""
    numbers: Rows = ()
    """The most important numbers, shown large."""
    figures: Rows = ()
    """Rows of a table."""
    tables: Sequence[tuple[str, Rows]] = ()
    """Several tables side by side, each with a title."""
    folded: tuple[str, Rows] | None = None
    """A title and a table that is shown after a click on the title."""
    cards: Sequence[Card] = ()
    images: Sequence[tuple[Path, str]] = ()
    """Images with their captions."""
    charts: Sequence[Curve] = ()
    series: Sequence[tuple[Path, str]] = ()
    """Images of one size with their names. A slider selects the image to show, the last one at first."""
    video: tuple[Path, str] | None = None
    """An mp4 with its caption."""
    glb: tuple[Path, str] | None = None
    """A model with its caption."""
    links: Rows = ()
    """Names and addresses of links."""


def write_page(out: Path, title: str, sections: Sequence[Section], *, lead: str = "") -> None:
    """Write a page as an HTML file, atomically.

    Args:
        out: The HTML file.
        title: Heading of the page.
        sections: Parts of the page, in order.
        lead: Text below the heading.

    Raises:
        UserError: an image, video or model of a section is missing or has the wrong file type, or `out` cannot be
            written.
    """
    write_file_atomic(out, make_page(title, sections, lead=lead).encode())


def make_page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    back: tuple[str, str] | None = None,
    reload_s: float | None = None,
) -> str:
    """Return a page as HTML text.

    Args:
        title: Heading of the page.
        sections: Parts of the page, in order. A page with several sections has a table of contents.
        lead: Text below the heading.
        back: Name and address of a page to link to at the top, such as the overview; None: no such link.
        reload_s: Seconds after which the page reloads itself; None: never.

    Raises:
        UserError: an image, video or model of a section is missing or has the wrong file type.
    """
    values = {
        "title": title,
        "lead": lead,
        "back": back,
        "reload_s": reload_s,
        "sections": [_embedded(section) for section in sections],
        "has_script": bool(reload_s) or any(section.series for section in sections),
        "has_model": any(section.glb for section in sections),
        "curve_width": CURVE_WIDTH,
        "curve_height": CURVE_HEIGHT,
    }
    return render_page("distill/view/page.html", values)


def _embedded(section: Section) -> dict[str, Any]:
    """Return the values of a section for the template, with its files embedded."""
    return {
        "title": section.title,
        "text": section.text,
        "numbers": [KeyNumber(name, value) for name, value in section.numbers],
        "figures": section.figures,
        "tables": section.tables,
        "folded": section.folded,
        "cards": [_embedded_card(card) for card in section.cards],
        "images": [embed_image(path, caption) for path, caption in section.images],
        "charts": section.charts,
        "series": [embed_image(path, name) for path, name in section.series],
        "video": embed_video(*section.video) if section.video else None,
        "model": embed_model(*section.glb) if section.glb else None,
        "links": section.links,
    }


def _embedded_card(card: Card) -> dict[str, Any]:
    return {
        "title": card.title,
        "href": card.href,
        "text": card.text,
        "figures": card.figures,
        "images": [embed_image(path) for path in card.images],
        "video": embed_video(card.video, "", card.title) if card.video else None,
    }
