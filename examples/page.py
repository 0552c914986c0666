"""One self-contained HTML page of text, pictures, a video and a model to turn: nothing is fetched, it works from disk.

Everything is embedded as data; a content security policy in the page forbids the network. The 3D viewer is the three.js
that trimesh bundles for its own viewer, with the few lines of `page.js`.
"""

import base64
import html
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trimesh.resources
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, UnidentifiedImageError

from dataset.errors import UserError
from dataset.shards import write_bytes_atomic

_HERE: Final = Path(__file__).resolve().parent
_POLICY: Final = (
    "default-src 'none'; img-src data: blob:; media-src data:; connect-src blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_SMALL: Final = 160  # pictures up to this width are shown enlarged, their pixels sharp
_PICTURES: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}
_VIEWER_STARTS: Final = "var camera,controls,scene,renderer,tracklight;"  # in trimesh's page, after its libraries


@dataclass(frozen=True)
class Section:
    """One part of a page. `text` is plain; an empty line starts a paragraph. Captions are the alternative texts too."""

    title: str
    text: str = ""
    figures: Sequence[tuple[str, str]] = ()
    """Rows of a table: what, and its value."""
    images: Sequence[tuple[Path, str]] = ()
    """Pictures with their captions."""
    video: tuple[Path, str] | None = None
    """An mp4 with its caption."""
    glb: tuple[Path, str] | None = None
    """A model with its caption."""


def write_page(out: Path, title: str, sections: Sequence[Section], *, lead: str = "") -> None:
    """Write the page (at once, or not at all). A file that is missing or not what it says is a UserError."""
    bodies = [_section(number, section) for number, section in enumerate(sections)]
    models = any(section.glb for section in sections)
    contents = "".join(f'<li><a href="#s{n}">{_text(s.title)}</a></li>' for n, s in enumerate(sections))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
{_paragraphs(lead, "lead")}
<nav aria-label="Contents"><ol>{contents}</ol></nav>
</header>
<main>
{"".join(bodies)}</main>
{_viewer() if models else ""}</body>
</html>
"""
    write_bytes_atomic(LocalFileSystem(), str(out.absolute()), page.encode())


def _section(number: int, section: Section) -> str:
    media = [_image(path, caption) for path, caption in section.images]
    if section.video:
        media.append(_video(*section.video))
    if section.glb:
        media.append(_model(f"glb{number}", *section.glb))
    shown = f'<div class="media">\n{"".join(media)}</div>\n' if media else ""
    return (
        f'<section id="s{number}">\n<h2>{_text(section.title)}</h2>\n{_paragraphs(section.text)}\n'
        f"{_table(section.figures)}{shown}</section>\n"
    )


def _paragraphs(text: str, style: str = "") -> str:
    start = f'<p class="{style}">' if style else "<p>"
    parts = (part.strip() for part in text.split("\n\n"))
    return "\n".join(f"{start}{_text(part)}</p>" for part in parts if part)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    body = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>\n' for name, value in rows)
    return f'<div class="table"><table>\n{body}</table></div>\n'


def _image(path: Path, caption: str) -> str:
    kind = _PICTURES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} is no picture for a page; give one of {', '.join(_PICTURES)}")
    data = _read(path)
    width, height = _picture_size(data, path)
    scale = max(1, 2 * _SMALL // width) if width <= _SMALL else 1
    pixelated = ' class="pixelated"' if scale > 1 else ""
    return (
        f'<figure><img{pixelated} src="data:image/{kind};base64,{_base64(data)}" alt="{_text(caption)}" '
        f'width="{width * scale}" height="{height * scale}">{_caption(caption)}</figure>\n'
    )


def _picture_size(data: bytes, path: Path) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture; make it again") from error


def _video(path: Path, caption: str) -> str:
    source = f"data:video/mp4;base64,{_base64(_read(path))}"
    return (
        f'<figure><video controls loop autoplay muted playsinline aria-label="{_text(caption)}" src="{source}"></video>'
        f"{_caption(caption)}</figure>\n"
    )


def _model(name: str, path: Path, caption: str) -> str:
    data = _read(path)
    if not data.startswith(b"glTF"):
        raise UserError(f"{path} is not a GLB; export it again")
    return (
        f'<figure class="model" data-glb="{name}" data-name="{_text(path.name)}" data-label="{_text(caption)}">'
        f'<div class="stage"><p>The model appears here; it needs JavaScript and WebGL.</p></div>'
        f"<figcaption>{_text(caption)} Drag to turn; click, then scroll to zoom. "
        f'<button type="button">Download the GLB</button> ({len(data) / 1e6:.1f} MB)</figcaption></figure>\n'
        f'<script type="text/plain" id="{name}">{_base64(data)}</script>\n'
    )


def _viewer() -> str:
    return f"<script>{_three_js()}</script>\n<script>\n{_asset('page.js')}</script>\n"


def _three_js() -> str:
    """three.js with its GLTFLoader (MIT licence, in its header), out of the page trimesh bundles for its viewer."""
    archive = trimesh.resources.get_bytes("templates/viewer.zip")
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        page = files.read("viewer.html.template").decode()
    before, found, _ = page.partition(_VIEWER_STARTS)
    if not found:
        raise RuntimeError(f"trimesh {trimesh.__version__} bundles another viewer; install the pinned version")
    return before.partition("<script>")[2]


def _caption(caption: str) -> str:
    return f"<figcaption>{_text(caption)}</figcaption>" if caption else ""


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} for the page: {error.strerror}") from error
