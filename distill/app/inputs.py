"""Read an uploaded image, crop it, prepare it as a run will, and store it for the run."""

import hashlib
import io
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from dataset.errors import UserError
from dataset.images.background import USES_THRESHOLD, Background
from dataset.images.decode import read_image
from dataset.images.prepare import Prepared, prepare_image
from dataset.io.files import write_file_atomic

LARGEST_UPLOAD: Final = 256 * 1024 * 1024  # bytes of an uploaded file
_SVG: Final = re.compile(rb"<(\?xml|!doctype svg|svg)[\s>]", re.IGNORECASE)
_HEIF: Final = re.compile(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_STEM: Final = 40


@dataclass(frozen=True)
class Crop:
    """How much of an image to cut off on each side, in percent of its width or height."""

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the kept part of an image as left, top, right and bottom in pixels.

        Raises:
            UserError: nothing is kept.
        """
        left, right = round(width * self.left / 100), round(width * (1 - self.right / 100))
        top, bottom = round(height * self.top / 100), round(height * (1 - self.bottom / 100))
        if left >= right or top >= bottom:
            raise UserError("the crop leaves nothing of the image; reduce the values of opposite sides")
        return left, top, right, bottom


@dataclass(frozen=True)
class CutOut:
    """An image as a run will see it."""

    stem: str
    """Name for files and runs: letters, digits, `_` and `-`."""
    source: Image.Image
    """The cropped image, RGBA, with its background."""
    background: Background
    prepared: Prepared
    notices: tuple[str, ...]
    """Sentences for the user."""
    background_threshold: float | None = None

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that depend on the pixels and the background options."""
        threshold = "" if self.background_threshold is None else f"{self.background_threshold:g}"
        pixels = f"{self.source.size}{self.background}{threshold}".encode() + self.source.tobytes()
        return hashlib.sha256(pixels).hexdigest()[:8]


def cut_out(
    path: Path, size: int, *, crop: Crop, background: Background, background_threshold: float | None = None
) -> CutOut:
    """Read an image file, crop it, and prepare it for a model.

    Args:
        path: The image file.
        size: Edge of the model's images in pixels.
        crop: What to cut off.
        background: How to remove the background (`dataset.images.background`).
        background_threshold: Threshold of the background; None: from its noise. Without effect on other backgrounds
            than `auto` and `uniform`.

    Raises:
        UserError: the file is not a readable image, is too large, or shows no object, or nothing is left of it.
    """
    name = path.name
    source, notices = _read(path, name)
    pixels = np.asarray(source.crop(crop.box(*source.size)))
    cropped = Image.fromarray(pixels)  # without metadata, as it will be stored
    threshold = background_threshold if background in USES_THRESHOLD else None
    prepared = prepare_image(cropped, size, background=background, background_threshold=threshold)
    sentences = (*notices, *prepared.notices, prepared.framing)
    return CutOut(_stem(name), cropped, background, prepared, sentences, threshold)


def store(cut: CutOut, folder: Path) -> Path:
    """Write the cropped image as a PNG file into `folder`, unless it is there, and return its path.

    The name of the file contains a hash of the pixels, so equal images have equal names. A run with this file and the
    background option of `cut` sees the pixels of `cut.prepared`.

    Raises:
        UserError: the file cannot be written.
    """
    path = folder / f"{cut.stem}-{cut.digest}.png"
    if path.is_file():
        return path
    buffer = io.BytesIO()
    cut.source.save(buffer, "PNG")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(
            f"the image cannot be stored in {folder} ({error.strerror or error}); check the free disk space and the "
            "permissions of the folder"
        ) from error
    return path


def _read(path: Path, name: str) -> tuple[Image.Image, list[str]]:
    with path.open("rb") as file:
        start = file.read(512)
    if _SVG.match(start.lstrip()):
        raise UserError(f"{name} is an SVG drawing, which has no pixels; export it as a PNG and drop the PNG here")
    if _HEIF.match(start):
        with suppress(ImportError):
            from pillow_heif import register_heif_opener

            register_heif_opener()
            return read_image(path, name)
        raise UserError(
            f"{name} is a HEIC photograph, which needs a package that is not installed; run `.venv/bin/pip install "
            "pillow-heif` and start the app again, or save the photograph as JPEG"
        )
    return read_image(path, name)


def _stem(name: str) -> str:
    """Return the name of an image file without its ending, reduced to harmless characters."""
    return _UNSAFE.sub("-", Path(name).stem)[:_LONGEST_STEM].strip("-") or "image"
