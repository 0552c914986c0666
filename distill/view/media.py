"""Read images, videos and models and embed them in a page as data URLs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from dataset.errors import UserError
from dataset.html.templates import data_url

_SMALL: Final = 160  # images up to this width are enlarged, with sharp pixels
_WIDE: Final = 800  # images of at least this width scroll in a narrow window instead of shrinking
_MEDIA_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}


@dataclass(frozen=True)
class EmbeddedImage:
    """An image with its caption; `width` and `height` are those of the file, in pixels."""

    source: str
    width: int
    height: int
    caption: str = ""

    @property
    def scale(self) -> int:
        """The factor by which a small image is enlarged."""
        return max(1, 2 * _SMALL // self.width) if self.width <= _SMALL else 1

    @property
    def scrolls(self) -> bool:
        """Whether the image keeps its size in a narrow window."""
        return self.width >= _WIDE and self.width > self.height


@dataclass(frozen=True)
class EmbeddedVideo:
    """An mp4 with its caption; `label` describes the video to screen readers if the caption is empty."""

    source: str
    caption: str
    label: str


@dataclass(frozen=True)
class EmbeddedModel:
    """A GLB as base64 with its caption; `size` is in bytes; `file_name` is the name for downloads."""

    data: str
    size: int
    file_name: str
    caption: str


def embed_image(path: Path, caption: str = "") -> EmbeddedImage:
    """Read an image file.

    Raises:
        UserError: the file is missing, or is not an image of a type that browsers show.
    """
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise UserError(f"{path} cannot be shown on a page; use an image of type {', '.join(_MEDIA_TYPES)}")
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a valid image; write it again") from error
    return EmbeddedImage(data_url(media_type, data), width, height, caption)


def embed_video(path: Path, caption: str, label: str = "") -> EmbeddedVideo:
    """Read an mp4. Raises UserError if the file cannot be read."""
    return EmbeddedVideo(data_url("video/mp4", _read(path)), caption, label or caption)


def embed_model(path: Path, caption: str) -> EmbeddedModel:
    """Read a GLB.

    Raises:
        UserError: the file is missing or not a GLB.
    """
    data = _read(path)
    if not data.startswith(b"glTF"):
        raise UserError(f"{path} is not a GLB file; export it again")
    return EmbeddedModel(base64.b64encode(data).decode(), len(data), path.name, caption)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore this file, which the page shows") from error
