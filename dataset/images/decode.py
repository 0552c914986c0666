"""Read an image file of any format that Pillow supports, as upright 8-bit RGBA of bounded size.

Errors are raised as UserError with a message of one line that names the file and the remedy. A large image is reduced
strip by strip while it is read. Reading therefore needs little more memory than the decoder alone, which needs at most
4 bytes per pixel (less for JPEG). Images of more than LARGEST_PIXELS pixels are refused as soon as their header has
been read.
"""

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset.errors import UserError

LARGEST_PIXELS: Final = 500_000_000  # 22,360 per side; the decoder may need 2 GB
WORKING_SIDE: Final = 4096  # pixels; larger images are reduced to this while they are read
MIN_SIDE: Final = 8  # pixels
BROKEN: Final = (OSError, SyntaxError, ValueError, EOFError)  # raised by Pillow's decoders for damaged files
_BROKEN_ODDLY: Final = (struct.error, IndexError, KeyError, RuntimeError)  # for some of them
_ENDINGS: Final = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))  # read from folders
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])", re.IGNORECASE)  # `Path` merges the slashes
_ORIENTATION: Final = 0x0112  # EXIF
_STRIP_PIXELS: Final = 1 << 22


def read_image(source: Path | Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """Read an image as upright RGBA, reduced so that the longest side has at most WORKING_SIDE pixels.

    Args:
        source: Path of the image file, or an image that is already open.
        name: Name of the image for messages, such as its path.

    Returns:
        The image, and a list of sentences that tell the user what was changed, such as a reduction of its size.

    Raises:
        UserError: The file is missing, too large, or not a readable image, or a side is shorter than MIN_SIDE pixels.
    """
    notices: list[str] = []
    with _explained(name):
        if isinstance(source, Path):
            _check_path(source, name)
        with (
            _warnings_noted(notices, name),
            nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image,
        ):
            rgba = _read(image, name, notices)
    if min(rgba.size) < MIN_SIDE:
        raise UserError(
            f"{name} has only {rgba.width}x{rgba.height} pixels, but both sides must have at least {MIN_SIDE}; give a "
            "larger image"
        )
    return rgba, notices


def image_size(path: Path, name: str) -> tuple[int, int]:
    """Return width and height of an image file in pixels, as stored. Only the header of the file is read.

    Args:
        path: Path of the image file.
        name: Name of the image for messages, such as its path.

    Raises:
        UserError: The file is missing, too large, or not an image.
    """
    with _explained(name):
        _check_path(path, name)
        with _warnings_noted([], name), Image.open(path) as image:
            return image.size


def image_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Replace each folder in `paths` by the image files directly in that folder, sorted by name. Keep all other paths.

    Raises:
        UserError: A folder contains no image file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(each for each in path.iterdir() if _is_image_file(each))
        if not found:
            raise UserError(
                f"{path} is a folder without image files ({', '.join(sorted(_ENDINGS))}); give the path of an image or "
                "of a folder with images"
            )
        files += found
    return tuple(files)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Convert the errors that Pillow raises in the `with` block to UserError. `name` is the name of the image."""
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_too_large(name)) from error
    except MemoryError as error:
        raise UserError(f"not enough memory to decode the image {name}; first scale the image down") from error
    except (*BROKEN, *_BROKEN_ODDLY) as error:
        known = not isinstance(error, UnidentifiedImageError)
        reason = " ".join(str(error).split()) if known else "unknown format"
        raise UserError(
            f"{name} cannot be read as an image ({reason}); save the image again, or give another PNG, JPEG or WebP"
        ) from error


def _is_image_file(path: Path) -> bool:
    return path.suffix.casefold() in _ENDINGS and not path.name.startswith(".") and path.is_file()


def _check_path(path: Path, name: str) -> None:
    if path.is_dir():
        raise UserError(f"{name} is a folder; give the paths of images in this folder")
    if not path.exists() and (url := _URL.match(name)):
        address = f"{url[1]}://{name[url.end() :]}"
        raise UserError(f"{address} is a URL; download the image and give the path of the downloaded file")
    if not path.exists():
        raise UserError(f"{name} does not exist; give the path of an image")
    if not path.is_file():
        raise UserError(f"{name} is not a regular file; give the path of an image")
    if path.stat().st_size == 0:
        raise UserError(f"the image {name} is an empty file (0 bytes); save the image again")


@contextmanager
def _warnings_noted(notices: list[str], name: str) -> Iterator[None]:
    """Append Pillow's warnings to `notices`, and let Pillow check the limit LARGEST_PIXELS before it decodes."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
    texts = dict.fromkeys(" ".join(str(w.message).split()) for w in seen if issubclass(w.category, UserWarning))
    notices += [f"{name}: {text}" for text in texts]


def _too_large(name: str) -> str:
    side = int(LARGEST_PIXELS**0.5)
    return f"{name} has more than {LARGEST_PIXELS:,} pixels ({side:,} per side); first scale the image down"


def _read(image: Image.Image, name: str, notices: list[str]) -> Image.Image:
    """Convert an open image to upright RGBA of bounded size, and append sentences for the user to `notices`."""
    if image.width * image.height > LARGEST_PIXELS:
        raise UserError(_too_large(name))
    if getattr(image, "is_animated", False):
        notices.append(f"{name} is animated or has several images; the first one is used")
    orientation, (width, height) = image.getexif().get(_ORIENTATION, 1), image.size
    rgba = _bounded_rgba(image, name)
    if rgba.size != (width, height):
        notices.append(f"{name} is large, {width}x{height}; it was reduced to {rgba.width}x{rgba.height}")
    rgba.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgba)


def _bounded_rgba(image: Image.Image, name: str) -> Image.Image:
    """Convert an image to RGBA. If a side exceeds WORKING_SIDE, average blocks of pixels, weighted by alpha."""
    shrink = max(image.size) // WORKING_SIDE
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))  # decodes a JPEG at a lower resolution
    factor = -(-max(image.size) // WORKING_SIDE)
    if factor == 1:
        return _to_rgba(image, name)
    small = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, _STRIP_PIXELS // (factor * image.width))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_to_rgba(strip, name).reduce(factor), (0, top // factor))
    return small


def _to_rgba(image: Image.Image, name: str) -> Image.Image:
    """Convert an image of any Pillow mode to 8-bit RGBA. Pillow would clip 16-bit gray instead of scaling it."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UserError(
                f"the pixels of {name} have the format {image.mode!r}, whose range of values is unknown; save the "
                "image as an 8-bit PNG"
            )
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        image = image.convert("RGB")
    return image.convert("RGBA")
