"""Encode PNG files with 8 or 16 bits, and decode those of the passes of a view.

Pillow neither writes nor reads PNG files of three channels with 16 bits, so these are encoded here. OpenCV, Blender and
other readers open all of them.
"""

import io
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import UserError
from dataset.images.decode import BROKEN

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RGB: Final = 2  # color type of the PNG format
_UP: Final = 2  # filter type of the PNG format: each row is stored as its difference to the row above
_LEVEL: Final = 6  # of zlib

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def encode_png(pixels: Pixels) -> bytes:
    """Encode an image uint8 or uint16, [h, w] or [h, w, 3], or uint8 [h, w, 4] with straight alpha, as PNG.

    Equal images give equal bytes.

    Raises:
        ValueError: `pixels` has another shape or dtype.
    """
    channels = ((), (3,), (4,)) if pixels.dtype == np.uint8 else ((), (3,))
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or pixels.shape[2:] not in channels:
        raise ValueError(
            f"cannot encode an array of {pixels.dtype} with the shape {pixels.shape} as PNG; give uint8 or uint16, "
            "[h, w] or [h, w, 3], or uint8 [h, w, 4]"
        )
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return _encode_rgb16(pixels)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=_LEVEL)
    return buffer.getvalue()


def decode_png(data: bytes, where: str) -> Any:
    """Decode a PNG file of one or three channels that `encode_png` wrote: uint8 or uint16, [h, w] or [h, w, 3].

    Args:
        data: Contents of the file.
        where: Path of the file, with which error messages begin.

    Raises:
        UserError: The file is damaged, or has other channels.
    """
    try:
        if _is_rgb16(data):
            return _decode_rgb16(data)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in ("L", "RGB", "I;16"):
                raise ValueError(f"it has the channels {image.mode}")
            return np.array(image)
    except (*BROKEN, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{where}: not a readable PNG file ({error}); write the file again or restore it") from error


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encode_rgb16(pixels: Pixels) -> bytes:
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, width * 6)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), _UP, np.uint8), rows - above], 1)
    header = struct.pack(">IIBBBBB", width, height, 16, _RGB, 0, 0, 0)
    compressed = zlib.compress(filtered.tobytes(), _LEVEL)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", compressed) + _chunk(b"IEND", b"")


def _is_rgb16(data: bytes) -> bool:
    return data[:8] == _SIGNATURE and data[24:26] == bytes([16, _RGB])


def _decode_rgb16(data: bytes) -> NDArray[np.uint16]:
    chunks: dict[bytes, bytes] = {}
    place = len(_SIGNATURE)
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + size)
        if zlib.crc32(kind + body) != checksum:
            raise ValueError(f"the checksum of its chunk {kind.decode('ascii', 'replace')} is wrong")
        chunks[kind] = chunks.get(kind, b"") + body
        place += size + 12
    if not {b"IHDR", b"IDAT", b"IEND"} <= set(chunks):
        raise ValueError("it is truncated")
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    expected = height * (1 + width * 6)
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(chunks[b"IDAT"], expected + 1)
    if len(raw) != expected:
        raise ValueError(f"it has {len(raw)} bytes of pixels, expected {expected}")
    filtered = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * 6)
    if (filtered[:, 0] != _UP).any():
        raise ValueError("its rows are filtered in a way that this program does not write")
    rows = np.add.accumulate(filtered[:, 1:], axis=0, dtype=np.uint8)
    pixels: NDArray[np.uint16] = rows.view(">u2").astype(np.uint16).reshape(height, width, 3)
    return pixels
