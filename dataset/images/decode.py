"""A person's picture file, whatever it is, as upright 8-bit RGBA of bounded size.

What cannot be used is a UserError of one line that names the file and the remedy. A large picture is read a strip of
rows at a time into a smaller one: beside what the decoder itself holds (4 bytes a pixel at most, less where a JPEG's
decoder shrinks) there is nothing large in memory. What is larger than LARGEST_PIXELS is refused by its header.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset.errors import UserError

LARGEST_PIXELS: Final = 500_000_000  # 22,360 a side; its decoder may take 2 GB
WORKING_SIDE: Final = 4096  # pixels; larger pictures are reduced below this as they are read
MIN_SIDE: Final = 8  # pixels; below this there is no picture to speak of
BROKEN: Final = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow's decoders raise on damaged files
_BROKEN_ODDLY: Final = (struct.error, IndexError, KeyError, RuntimeError)  # and on some of them
_ORIENTATION: Final = 0x0112  # EXIF
_STRIP_PIXELS: Final = 1 << 22


def read_picture(source: Path | Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """Return the upright RGBA image, its longest side at most WORKING_SIDE, and notices for the user.

    Raises UserError when the file is missing, too large or not a readable image.
    """
    notices: list[str] = []
    try:
        if isinstance(source, Path):
            _check_path(source, name)
        with (
            _warnings_noted(notices, name),
            nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image,
        ):
            rgba = _read(image, name, notices)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_too_large(name)) from error
    except MemoryError as error:
        raise UserError(f"{name}: not enough memory to decode it; scale it down first") from error
    except (*BROKEN, *_BROKEN_ODDLY) as error:
        known = not isinstance(error, UnidentifiedImageError)
        reason = " ".join(str(error).split()) if known else "no known format"
        raise UserError(
            f"{name}: not a readable picture ({reason}); copy or save it again, or give another PNG, JPEG or WebP"
        ) from error
    if min(rgba.size) < MIN_SIDE:
        raise UserError(
            f"{name}: {rgba.width}x{rgba.height} pixels; both sides must have at least {MIN_SIDE}; give a larger one"
        )
    return rgba, notices


def _check_path(path: Path, name: str) -> None:
    if path.is_dir():
        raise UserError(f"{name}: a folder; give the path of one picture in it, or of several")
    if not path.exists():
        raise UserError(f"{name}: no such file; give the path of a picture")
    if not path.is_file():
        raise UserError(f"{name}: not a file; give the path of a picture")
    if path.stat().st_size == 0:
        raise UserError(f"{name}: empty (0 bytes); copy or save it again")


@contextmanager
def _warnings_noted(notices: list[str], name: str) -> Iterator[None]:
    """Pillow's warnings become notices, and its limit of pixels ours, which it checks before it decodes."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
    told = dict.fromkeys(" ".join(str(w.message).split()) for w in seen if issubclass(w.category, UserWarning))
    notices += [f"{name}: {text}" for text in told]


def _too_large(name: str) -> str:
    side = int(LARGEST_PIXELS**0.5)
    return f"{name}: more than {LARGEST_PIXELS:,} pixels ({side:,} a side); scale it down first"


def _read(image: Image.Image, name: str, notices: list[str]) -> Image.Image:
    """An open picture as upright RGBA; adds what a person should know to `notices`."""
    if image.width * image.height > LARGEST_PIXELS:
        raise UserError(_too_large(name))
    if getattr(image, "is_animated", False):
        notices.append(f"{name} is animated, or several pictures in one file: its first frame is used")
    orientation, (width, height) = image.getexif().get(_ORIENTATION, 1), image.size
    rgba = _bounded_rgba(image, name)
    if rgba.size != (width, height):
        notices.append(f"{name} is large, {width}x{height}: reduced to {rgba.width}x{rgba.height} as it was read")
    rgba.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgba)


def _bounded_rgba(image: Image.Image, name: str) -> Image.Image:
    """RGBA whose longest side is WORKING_SIDE at most: boxes of pixels averaged, weighted by their alpha."""
    shrink = max(image.size) // WORKING_SIDE
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))  # of a JPEG: decoded smaller
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
    """Any Pillow mode as 8-bit RGBA. Pillow itself would clip 16-bit gray to white instead of scaling it."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UserError(f"{name}: pixel format {image.mode!r} has no known range; save it as an 8-bit PNG")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        image = image.convert("RGB")
    return image.convert("RGBA")
