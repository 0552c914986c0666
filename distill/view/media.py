"""The media of a page as markup, embedded as data: pictures, a slider over pictures, a video, a model to turn.

The 3D viewer is the three.js that trimesh bundles for its own viewer, with the few lines of `model.js`.
"""

import base64
import html
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trimesh.resources
from PIL import Image, UnidentifiedImageError

from dataset.errors import UserError

_HERE: Final = Path(__file__).resolve().parent
_SMALL: Final = 160  # pictures up to this width are shown enlarged, their pixels sharp
_WIDE: Final = 800  # from which a picture is no longer shrunk to a narrow window
_PICTURES: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}
_VIEWER_STARTS: Final = "var camera,controls,scene,renderer,tracklight;"  # in trimesh's page, after its libraries


def image(path: Path, caption: str) -> str:
    """A picture with its caption, small ones enlarged, wide ones to be scrolled where the window is narrow."""
    width, height, source = _picture(path)
    scale = max(1, 2 * _SMALL // width) if width <= _SMALL else 1
    pixelated = ' class="pixelated"' if scale > 1 else ""
    shown = f'<img{pixelated} src="{source}" alt="{text(caption)}" width="{width * scale}" height="{height * scale}">'
    if width >= _WIDE and width > height:
        shown = f'<div class="scrolls" tabindex="0">{shown}</div>'
    return f"<figure>{shown}{_caption(caption)}</figure>\n"


def thumbnail(path: Path) -> str:
    """A picture whose size the page decides; what it shows is said beside it."""
    width, height, source = _picture(path)
    return f'<img src="{source}" alt="" width="{width}" height="{height}">\n'


def series(name: str, pictures: Sequence[tuple[Path, str]]) -> str:
    """A slider over pictures; without JavaScript the last one. `name` is unique on the page."""
    frames = []
    for number, (path, caption) in enumerate(pictures):
        width, height, source = _picture(path)
        hidden = "" if number == len(pictures) - 1 else " hidden"
        frames.append(
            f'<img class="pixelated" src="{source}" alt="{text(caption)}" width="{width}" height="{height}"{hidden}>\n'
        )
    last = len(pictures) - 1
    slider = (
        f'<label><output>{text(pictures[-1][1])}</output><input type="range" min="0" max="{last}" value="{last}" '
        f'step="1" aria-label="Which picture"></label>'
    )
    return f'<figure class="series" id="{text(name)}">\n{slider if last else ""}{"".join(frames)}</figure>\n'


def _picture(path: Path) -> tuple[int, int, str]:
    """Width, height and data URL of a picture file."""
    kind = _PICTURES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} is no picture for a page; give one of {', '.join(_PICTURES)}")
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture; make it again") from error
    return width, height, f"data:image/{kind};base64,{_base64(data)}"


def video(path: Path, caption: str, label: str = "") -> str:
    """An mp4 that plays in a loop, silently. `label` stands for a caption that is not shown."""
    source = f"data:video/mp4;base64,{_base64(_read(path))}"
    return (
        f'<figure class="film"><video controls loop autoplay muted playsinline aria-label="{text(label or caption)}" '
        f'src="{source}"></video>{_caption(caption)}</figure>\n'
    )


def model(name: str, path: Path, caption: str) -> str:
    """A GLB to turn; the page needs `model_viewer` too. `name` is unique on the page."""
    data = _read(path)
    if not data.startswith(b"glTF"):
        raise UserError(f"{path} is not a GLB; export it again")
    return (
        f'<figure class="model" data-glb="{name}" data-name="{text(path.name)}" data-label="{text(caption)}">'
        f'<div class="stage"><p>The model appears here; it needs JavaScript and WebGL.</p></div>'
        f"<figcaption>{text(caption)} Drag to turn; click, then scroll to zoom. "
        f'<button type="button">Download the GLB</button> ({len(data) / 1e6:.1f} MB)</figcaption></figure>\n'
        f'<script type="text/plain" id="{name}">{_base64(data)}</script>\n'
    )


def model_viewer() -> str:
    """The scripts that show every `model` of a page; after them in the document."""
    return f"<script>{_three_js()}</script>\n<script>\n{asset('model.js')}</script>\n"


def _three_js() -> str:
    """three.js with its GLTFLoader (MIT licence, in its header), out of the page trimesh bundles for its viewer."""
    archive = trimesh.resources.get_bytes("templates/viewer.zip")
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        page = files.read("viewer.html.template").decode()
    before, found, _ = page.partition(_VIEWER_STARTS)
    if not found:
        raise RuntimeError(f"trimesh {trimesh.__version__} bundles another viewer; install the pinned version")
    return before.partition("<script>")[2]


def text(plain: str) -> str:
    """For an element or a quoted attribute; all text from files passes here."""
    return html.escape(plain, quote=True)


def asset(name: str) -> str:
    """A file of this folder, to be put into a page."""
    return (_HERE / name).read_text(encoding="utf-8")


def _caption(caption: str) -> str:
    return f"<figcaption>{text(caption)}</figcaption>" if caption else ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} for the page: {error.strerror}") from error
