"""Read the size of an encoded image from its header, to reject huge images before they are decoded.

Supports PNG, JPEG, WebP, BMP, TGA and KTX2, the formats that models use. For other formats the size is unknown, and the
worker's memory limit applies.
"""

import struct
from typing import Final

from render.model_files.errors import TooLarge

HEADER_BYTES: Final = 1 << 24  # bytes to read: a JPEG may have megabytes of metadata before its size
MAX_PIXELS: Final = 1 << 28  # 16384 x 16384; larger images are not decoded
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_KTX2: Final = b"\xabKTX 20\xbb"
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers, with the size
_JPEG_BARE: Final = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length
_TGA_TYPES: Final = frozenset({1, 2, 3, 9, 10, 11})
_TGA_DEPTHS: Final = frozenset({8, 15, 16, 24, 32})

ImageSize = tuple[int, int]  # width, height in pixels


def image_size(data: bytes) -> ImageSize | None:
    """Return (width, height) of an image in pixels, or None if they are unknown.

    `data` are the bytes of the image file, or at least its first HEADER_BYTES.
    """
    try:
        return _size(data)
    except (struct.error, IndexError):  # the header is truncated, so no decoder can read the image
        return None


def check_image_size(name: str, data: bytes) -> None:
    """Raise TooLarge when the header of an image declares more than MAX_PIXELS pixels.

    Args:
        name: Name of the image, for the error message.
        data: The bytes of the image file, or at least its first HEADER_BYTES.
    """
    width, height = image_size(data) or (0, 0)
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"the image {name!r} has {width} x {height} pixels, more than the limit of {MAX_PIXELS:,} pixels; "
            "scale the image down"
        )


def _size(data: bytes) -> ImageSize | None:
    if data.startswith(_PNG):
        return _two(">II", data, 16)
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(_KTX2):
        return _two("<II", data, 20)
    if data[:2] == b"BM":
        width, height = _two("<ii", data, 18)
        return abs(width), abs(height)
    is_tga = data[1] <= 1 and data[2] in _TGA_TYPES and data[16] in _TGA_DEPTHS  # TGA has no magic number
    return _two("<HH", data, 12) if is_tga else None


def _two(layout: str, data: bytes, offset: int) -> ImageSize:
    first, second = struct.unpack_from(layout, data, offset)
    return int(first), int(second)


def _jpeg(data: bytes) -> ImageSize:
    offset = 2
    while True:
        while data[offset + 1] == 0xFF:  # fill bytes
            offset += 1
        marker = data[offset + 1]
        if marker in _JPEG_FRAMES:
            height, width = _two(">HH", data, offset + 5)
            return width, height
        offset += 2 if marker in _JPEG_BARE else 2 + struct.unpack_from(">H", data, offset + 2)[0]


def _webp(data: bytes) -> ImageSize | None:
    match data[12:16]:
        case b"VP8 ":
            width, height = _two("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            low_x, high_x, low_y, high_y = struct.unpack_from("<HBHB", data, 24)  # 24 bits each, minus 1
            return (high_x << 16 | low_x) + 1, (high_y << 16 | low_y) + 1
    return None
