"""Decode the textures of KHR_texture_basisu: KTX2 files in the two codecs of Basis Universal, ETC1S and UASTC.

Uses the package `opengl-basisu`, which the optional dependency `ktx2` installs; there is no wheel for Linux on ARM.
Without the package, these textures count as missing.
"""

import base64
import importlib.util
import io
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from render.model_files.gltf_copy import local_path
from render.model_files.image_header import check_image_size

BASISU: Final = "KHR_texture_basisu"
_KTX2: Final = b"\xabKTX 20\xbb\r\n\x1a\n"
_HEADER: Final = struct.Struct("<12s9I4I2Q")  # identifier, format and sizes, then places of further data
_LEVEL: Final = struct.Struct("<3Q")  # offset, length and decompressed length of a level
_BLOCK: Final = 16  # bytes of 4 x 4 pixels in UASTC, the larger of the two codecs
_LOG: Final = logging.getLogger(__name__)

Json = dict[str, Any]


def has_compressed_textures(document: Json, name: str) -> bool:
    """Return whether a glTF document has textures to decode: those with a KTX2 image and no image in another format.

    If there are such textures but the package `opengl-basisu` is not installed, log a warning and return False. `name`
    is the name of the glTF file, for this warning.
    """
    if not any(_source(texture) is not None for texture in document.get("textures", [])):
        return False
    if importlib.util.find_spec("opengl_basisu") is None:
        _LOG.warning("%s: its KTX2 textures are not decoded; install the optional dependency `ktx2`", name)
        return False
    return True


def decode_textures(document: Json, binary: memoryview, path: Path, root: Path) -> Iterator[tuple[Json, bytes]]:
    """Decode the KTX2 images of textures that have no other image. Yield pairs (entry of `images`, PNG bytes).

    The KTX2 image becomes the regular `source` of each such texture. An image that cannot be read or decoded is left
    out. After the import, its texture counts as missing.

    Args:
        document: A glTF document whose only buffer is `binary`. Its textures are changed.
        binary: The bytes of the buffer.
        path: Path of the glTF file. URIs of images are relative to the folder of this file.
        root: Folder that must contain all image files; others are not read.

    Raises TooLarge for an image with more than MAX_PIXELS.
    """
    sources = set()
    for texture in document["textures"]:
        source = _source(texture)
        if source is not None:
            texture["source"] = source
            sources.add(source)
        texture.get("extensions", {}).pop(BASISU, None)
    for source in sorted(sources):
        image = document["images"][source]
        data = _read(image, document, binary, path, root)
        png = decode_ktx2(data, f"{path.name}, image {source}") if data else None
        if png is not None:
            yield image, png


def decode_ktx2(data: bytes, name: str) -> bytes | None:
    """Convert the largest mipmap level of a KTX2 file to PNG.

    Args:
        data: The bytes of the KTX2 file.
        name: Name of the image, for messages.

    Returns:
        The bytes of a PNG file, or None if the KTX2 file is damaged or uses a codec other than ETC1S and UASTC.

    Raises TooLarge for an image with more than MAX_PIXELS.
    """
    check_image_size(name, data)
    if not _is_plausible(data):
        return None
    import opengl_basisu

    try:
        texture = opengl_basisu.open(data)
        pixels = texture.transcode("rgba8").data
    except (opengl_basisu.BasisuError, MemoryError) as error:
        _LOG.warning("%s cannot be decoded: %s", name, error)
        return None
    file = io.BytesIO()
    rgba = np.ascontiguousarray(pixels if texture.has_alpha else pixels[..., :3])
    Image.fromarray(rgba).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _source(texture: Json) -> int | None:
    """Return the index of a texture's KTX2 image if it has no other image."""
    source: int | None = texture.get("extensions", {}).get(BASISU, {}).get("source")
    return source if "source" not in texture else None


def _read(image: Json, document: Json, binary: memoryview, path: Path, root: Path) -> bytes | None:
    """Return the bytes of an image's file; None if there is no such file inside `root`."""
    if "bufferView" in image:
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        return bytes(binary[start : start + view["byteLength"]])
    uri = image["uri"]
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(";base64,")[2])
    place = local_path(uri, path.parent.resolve(), root)
    return place.read_bytes() if place is not None and place.is_file() else None


def _is_plausible(data: bytes) -> bool:
    """Return whether the header describes a 2D image whose levels decompress to at most the size of their blocks."""
    if len(data) < _HEADER.size or not data.startswith(_KTX2):
        return False
    _, _, _, width, height, depth, layers, faces, levels, *_ = _HEADER.unpack_from(data)
    if not (width and height) or depth or layers > 1 or faces != 1 or not 0 < levels <= max(width, height).bit_length():
        return False
    if len(data) < _HEADER.size + levels * _LEVEL.size:
        return False
    sizes = [_LEVEL.unpack_from(data, _HEADER.size + level * _LEVEL.size) for level in range(levels)]
    most = -(-width // 4) * -(-height // 4) * _BLOCK
    return all(start + length <= len(data) and plain <= most for start, length, plain in sizes)
