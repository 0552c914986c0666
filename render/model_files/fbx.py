"""Check the images that an FBX file refers to or embeds, before Blender's importer decodes them.

The file is searched by pattern rather than parsed, which covers the binary and the text form: a reference is a
printable string that ends in an image suffix; an embedded image follows the word `Content`. A compressed array with a
false size is not detected here; the worker's memory limit covers that case.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from render.model_files.image_header import HEADER_BYTES, check_image_size
from render.model_files.obj import check_inside_folder

_LONGEST_NAME: Final = 4096
_SUFFIX: Final = re.compile(rb"\.(?:png|jpe?g|webp|bmp|tga|tiff?|exr|hdr|dds|psd|gif|jp2|mov|mp4|avi)(?![\w.])", re.I)
_NO_NAME: Final = re.compile(rb"[\x00-\x1f\"*?<>|]")
_EMBEDDED: Final = re.compile(rb"\x07ContentR(?s:....)")  # a raw property: its type, then its length in 4 bytes
_EMBEDDED_TEXT: Final = re.compile(rb"Content:[\s,]*\"([A-Za-z0-9+/=\s]{16,})")
_TEXT_PIECE: Final = 1 << 20  # characters of base64, a multiple of 4


def check_fbx(path: Path) -> None:
    """Raise UnsafeReference or TooLarge for an image outside of the file's folder or with too many pixels."""
    data, folder = path.read_bytes(), path.parent.resolve()
    for name in sorted(set(_names(data))):
        check_inside_folder(folder, name, path.name)
        for place in {folder / name.replace("\\", "/"), folder / re.split(r"[\\/]", name)[-1]}:
            _check_file(place)
    for match in _EMBEDDED.finditer(data):
        check_image_size("embedded image", data[match.end() : match.end() + HEADER_BYTES])
    for match in _EMBEDDED_TEXT.finditer(data):
        check_image_size("embedded image", _decoded(match[1][:_TEXT_PIECE]))


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
    except OSError:  # not a valid file name, or not readable for Blender either
        return


def _decoded(text: bytes) -> bytes:
    letters = b"".join(text.split())
    try:
        return base64.b64decode(letters[: len(letters) // 4 * 4])
    except ValueError:  # no importer can decode it either
        return b""
