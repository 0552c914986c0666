"""Check the images that an FBX file refers to or embeds, before Blender's importer opens them.

The file is not parsed but searched with regular expressions, so that binary and text files are treated alike. A file
name is a printable string that ends in an image suffix, and an embedded image follows the word `Content`. A compressed
array that declares a false size is not detected here; only the worker's memory limit applies.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from render.model_files.image_header import HEADER_BYTES, check_image_size
from render.model_files.prepared import PreparedModel
from render.model_files.references import is_inside

_LONGEST_NAME: Final = 4096
_SUFFIX: Final = re.compile(rb"\.(?:png|jpe?g|webp|bmp|tga|tiff?|exr|hdr|dds|psd|gif|jp2|mov|mp4|avi)(?![\w.])", re.I)
_NO_NAME: Final = re.compile(rb"[\x00-\x1f\"*?<>|]")
_EMBEDDED: Final = re.compile(rb"\x07ContentR(?s:....)")  # a raw property: its type, then its length in 4 bytes
_EMBEDDED_TEXT: Final = re.compile(rb"Content:[\s,]*\"([A-Za-z0-9+/=\s]{16,})")
_TEXT_PIECE: Final = 1 << 20  # characters of base64, a multiple of 4


def prepare_fbx(path: Path, root: Path, scratch: Path) -> PreparedModel:
    """Check the images of an FBX file. Return the file to import: `path` itself, or a copy of it.

    In the copy, the name of each image file outside of `root` is replaced by underscores, so that it names no file.

    Args:
        path: Path of the FBX file.
        root: Folder that must contain all image files.
        scratch: Existing folder for the copy.

    Raises TooLarge for an image with too many pixels.
    """
    data, folder = path.read_bytes(), path.parent.resolve()
    names, outside = set(_names(data)), set()
    for name in names:
        slashed = name.replace("\\", "/")
        places = {folder / each for each in (name, slashed, slashed.lstrip("/"), slashed.rpartition("/")[2])}
        if not all(_allowed(place, root) for place in places):
            outside.add(name.encode("utf-8", "surrogateescape"))
        else:
            for place in places:
                _check_file(place)
    for match in _EMBEDDED.finditer(data):
        check_image_size("embedded image", data[match.end() : match.end() + HEADER_BYTES])
    for match in _EMBEDDED_TEXT.finditer(data):
        check_image_size("embedded image", _decoded(match[1][:_TEXT_PIECE]))
    if not outside:
        return PreparedModel(path, images=bool(names))
    for encoded in sorted(outside, key=len, reverse=True):
        data = data.replace(encoded, b"_" * len(encoded))
    copy = scratch / path.name
    copy.write_bytes(data)
    return PreparedModel(copy, images=bool(names))


def _allowed(place: Path, root: Path) -> bool:
    """Return whether a path is inside the folder `root` or does not exist."""
    try:
        return is_inside(place, root) or not place.exists()
    except (OSError, ValueError):  # the path is too long or unreadable, for Blender as well
        return True


def _names(data: bytes) -> Iterator[str]:
    for match in _SUFFIX.finditer(data):
        run = data[max(0, match.start() - _LONGEST_NAME) : match.end()]
        name = _NO_NAME.split(run)[-1].strip()
        yield name.decode("utf-8", "surrogateescape")


def _check_file(path: Path) -> None:
    try:
        if path.is_file():
            with path.open("rb") as file:
                check_image_size(path.name, file.read(HEADER_BYTES))
    except OSError:  # an invalid file name, or unreadable for Blender as well
        return


def _decoded(text: bytes) -> bytes:
    letters = b"".join(text.split())
    try:
        return base64.b64decode(letters[: len(letters) // 4 * 4])
    except ValueError:  # no importer can decode it either
        return b""
