"""Read images, videos and 3D models, and encode them so that an HTML page can contain them."""

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
    """An image for an HTML page. `source` is a data URL; `width` and `height` are those of the image file in pixels."""

    source: str
    width: int
    height: int
    caption: str = ""

    @property
    def scale(self) -> int:
        """Factor by which the page enlarges a small image; 1 for larger images."""
        return max(1, 2 * _SMALL // self.width) if self.width <= _SMALL else 1

    @property
    def scrolls(self) -> bool:
        """Whether the page scrolls the image in a narrow window instead of shrinking it."""
        return self.width >= _WIDE and self.width > self.height


@dataclass(frozen=True)
class EmbeddedVideo:
    """A video for an HTML page. `source` is a data URL.

    `label` describes the video to screen readers; it is the caption, or another text if there is no caption.
    """

    source: str
    caption: str
    label: str


@dataclass(frozen=True)
class EmbeddedModel:
    """A 3D model for an HTML page. `data` is the GLB file in base64.

    `size` is the size of the GLB file in bytes, and `file_name` is its name when it is downloaded from the page.
    """

    data: str
    size: int
    file_name: str
    caption: str


def embed_image(path: Path, caption: str = "") -> EmbeddedImage:
    """Read an image file and encode it for an HTML page.

    Args:
        path: The image file.
        caption: Text below the image; may be empty.

    Raises:
        UserError: the file is missing, or is not an image of a type that browsers show.
    """
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise UserError(
            f"the image {path} cannot be shown on a page; convert it to one of the types {', '.join(_MEDIA_TYPES)}"
        )
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise UserError(f"the image {path} is damaged or not an image; write the file again") from error
    return EmbeddedImage(data_url(media_type, data), width, height, caption)


def embed_video(path: Path, caption: str, label: str = "") -> EmbeddedVideo:
    """Read an mp4 file and encode it for an HTML page.

    Args:
        path: The mp4 file.
        caption: Text below the video; may be empty.
        label: Description for screen readers. By default, it is the caption.

    Raises:
        UserError: the file cannot be read.
    """
    return EmbeddedVideo(data_url("video/mp4", _read(path)), caption, label or caption)


def embed_model(path: Path, caption: str) -> EmbeddedModel:
    """Read a GLB file and encode it for an HTML page.

    Args:
        path: The GLB file.
        caption: Text below the model; may be empty.

    Raises:
        UserError: the file is missing or is not a GLB file.
    """
    data = _read(path)
    if not data.startswith(b"glTF"):
        raise UserError(f"{path} is not a GLB file; export the mesh again")
    return EmbeddedModel(base64.b64encode(data).decode(), len(data), path.name, caption)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the file {path}, which the page shows, cannot be read ({error.strerror}); restore this file"
        ) from error
