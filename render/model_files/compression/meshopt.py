"""Decode the buffer views of EXT_meshopt_compression and KHR_meshopt_compression, with numpy.

The specification of KHR_meshopt_compression defines the data, in its sections "Bitstream" and "Filters". This module
supports the attribute bitstream in versions 0 and 1, and the index bitstreams in version 1. The decoded bytes equal
those of meshoptimizer 1.3.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from render.model_files.compression.meshopt_indices import decode_sequence, decode_triangles

_BLOCK_BYTES: Final = 8192
_BLOCK_ELEMENTS: Final = 256
_GROUP: Final = 16  # elements that share a width of their deltas
_WIDTHS: Final = ((0, 2, 4, 8), (0, 1, 2, 4), (1, 2, 4, 8))  # bits of a delta: version 0, then controls 0 and 1
_ZEROS, _LITERAL = 2, 3  # controls of a byte that has no groups
_MAX_INDEX: Final = 0xFFFFFFFF

Bytes = NDArray[np.uint8]


def decode(data: bytes, count: int, stride: int, mode: str, filter_name: str) -> Bytes:
    """Return the decompressed bytes [count, stride] of a buffer view.

    Args:
        data: The compressed bytes.
        count: Number of elements. The caller must check that the result fits into memory.
        stride: Number of bytes per element.
        mode: ATTRIBUTES, TRIANGLES or INDICES.
        filter_name: NONE, OCTAHEDRAL, QUATERNION, EXPONENTIAL or COLOR.

    Raises LookupError or ValueError when the arguments are invalid or the data is damaged.
    """
    if mode == "ATTRIBUTES":
        if stride % 4 or not 4 <= stride <= 256:
            raise ValueError(f"the attributes of a vertex have {stride} bytes, not a multiple of 4 from 4 to 256")
        with np.errstate(all="ignore"):  # damaged data may divide by zero
            return _FILTERS[filter_name](_attributes(data, count, stride))
    if stride not in (2, 4) or filter_name != "NONE" or (mode == "TRIANGLES" and count % 3):
        raise ValueError(
            f"the buffer view declares {count} {mode} of {stride} bytes with filter {filter_name}; indices must have 2 "
            "or 4 bytes and no filter, and triangles a multiple of 3 indices"
        )
    indices = {"TRIANGLES": decode_triangles, "INDICES": decode_sequence}[mode](data, count)
    return (indices & _MAX_INDEX).astype(f"<u{stride}").view(np.uint8).reshape(count, stride)


def _attributes(data: bytes, count: int, stride: int) -> Bytes:
    """Decode vertex attributes [count, stride] from the "vertex" bitstream."""
    version = data[0] - 0xA0
    if version not in (0, 1):
        raise ValueError(f"the vertex attributes begin with the byte {data[0]:#x}; only 0xa0 and 0xa1 are supported")
    end = len(data) - max(stride + version * stride // 4, 24 if version else 32)
    tail = np.frombuffer(data, np.uint8, offset=len(data) - stride - version * stride // 4)
    rows = min(_BLOCK_BYTES // stride // _GROUP * _GROUP, _BLOCK_ELEMENTS)
    blocks = -(-count // rows)
    deltas = np.zeros((blocks, stride, rows), np.uint8)
    _read_deltas(data, end, version, count, deltas)
    result = np.ascontiguousarray(deltas.transpose(0, 2, 1).reshape(blocks * rows, stride)[:count])
    channels = tail[stride:] if version else np.zeros(stride // 4, np.uint8)
    for index, channel in enumerate(channels):
        columns = slice(4 * index, 4 * index + 4)
        result[:, columns] = _integrate(result[:, columns].copy(), tail[:stride][columns].copy(), int(channel))
    return result


def _integrate(deltas: Bytes, base: Bytes, channel: int) -> Bytes:
    """Return the values [n, 4] whose differences are `deltas`; the first difference is relative to `base` [4]."""
    if channel & 3 == 3:
        raise ValueError("the vertex attributes use the unknown encoding 3; only 0, 1 and 2 are supported")
    if channel & 3 == 2:  # exclusive or of rotated 32-bit words
        words, turn = deltas.view("<u4"), channel >> 4
        words = words >> turn | words << 32 - turn if turn else words
        sums: NDArray[Any] = np.bitwise_xor.accumulate(words, axis=0) ^ base.view("<u4")
        return sums.view(np.uint8)
    kind = "<u2" if channel & 3 else "u1"
    zigzag = deltas.view(kind)
    steps = zigzag >> 1 ^ -(zigzag & 1)
    sums = np.cumsum(steps, axis=0, dtype=kind) + base.view(kind)
    return sums.view(np.uint8)


def _read_deltas(data: bytes, end: int, version: int, count: int, deltas: Bytes) -> None:
    """Fill `deltas` [blocks, stride, rows] from the blocks of data[1:end]."""
    blocks, stride, rows = deltas.shape
    flat, position = deltas.reshape(-1), 1
    packed: dict[int, list[bytes]] = {1: [], 2: [], 4: [], 8: []}  # per width: the deltas of groups
    escaped: dict[int, list[bytes]] = {1: [], 2: [], 4: [], 8: []}  # whole bytes in place of the largest delta
    places: dict[int, list[int]] = {1: [], 2: [], 4: [], 8: []}  # of the groups in `flat`, by _GROUP
    for block in range(blocks):
        elements = min(rows, count - block * rows)
        groups = -(-elements // _GROUP)
        controls, position = data[position : position + stride // 4 * version], position + stride // 4 * version
        for byte in range(stride):
            if position > end:
                raise ValueError(f"the compressed vertex attributes are too short for {count} vertices")
            control = controls[byte // 4] >> byte % 4 * 2 & 3 if version else -1
            start = (block * stride + byte) * rows
            if control == _LITERAL:
                flat[start : start + elements] = np.frombuffer(data, np.uint8, elements, position)
                position += elements
            if control in (_ZEROS, _LITERAL):
                continue
            header, position = position, position + -(-groups // 4)
            widths = _WIDTHS[control + 1]
            for group in range(groups):
                width = widths[data[header + group // 4] >> group % 4 * 2 & 3]
                if width:
                    values = data[position : position + 2 * width]
                    escapes = sum(values.translate(_ESCAPES[width]))
                    position += 2 * width + escapes
                    packed[width].append(values)
                    escaped[width].append(data[position - escapes : position])
                    places[width].append(start // _GROUP + group)
    if position != end:
        raise ValueError(f"the attributes of {count} vertices end at byte {position}, but should end at byte {end}")
    for width, parts in packed.items():
        whole = _UNPACK[width][np.frombuffer(b"".join(parts), np.uint8)].reshape(-1, _GROUP)
        if width < 8:
            whole[whole == (1 << width) - 1] = np.frombuffer(b"".join(escaped[width]), np.uint8)
        flat.reshape(-1, _GROUP)[places[width]] = whole


def _unpacking(width: int) -> Bytes:
    """Return the deltas [256, 8 / width] that each byte packs, the highest bits first unless `width` is 1."""
    shifts = np.arange(0, 8, width) if width == 1 else np.arange(8 - width, -1, -width)
    return (np.arange(256)[:, None] >> shifts & (1 << width) - 1).astype(np.uint8)


_UNPACK: Final = {width: _unpacking(width) for width in (1, 2, 4, 8)}
_ESCAPES: Final = {w: ((_UNPACK[w] == (1 << w) - 1).sum(1) * (w < 8)).astype(np.uint8).tobytes() for w in _UNPACK}


def _octahedral(values: Bytes) -> Bytes:
    """Convert octahedral x and y, relative to the third component, to unit vectors. The fourth is unchanged."""
    parts = _parts(values, "<i1", "<i2")
    x, y, one = parts[:, :3].astype(np.float32).T
    x, y = x / one, y / one
    z = 1 - abs(x) - abs(y)
    fold = np.maximum(-z, 0)
    vector = np.stack([x - np.where(x >= 0, fold, -fold), y - np.where(y >= 0, fold, -fold), z])
    scale = np.iinfo(parts.dtype).max / np.sqrt((vector**2).sum(0))
    parts[:, :3] = _rounded((vector * scale).T, parts.dtype)
    return parts.view(np.uint8)


def _quaternion(values: Bytes) -> Bytes:
    """Restore unit quaternions from three components; the last 16 bits store the scale and the omitted component."""
    parts = values.view("<i2").reshape(-1, 4)
    largest, scale = parts[:, 3] & 3, np.float32(np.sqrt(0.5)) / (parts[:, 3] | 3).astype(np.float32)
    xyz = parts[:, :3] * scale[:, None]
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1)))
    result, rows = np.empty_like(parts), np.arange(len(parts))
    for offset, component in enumerate((w, *xyz.T)):
        result[rows, (largest + offset) % 4] = _rounded(component * 32767, parts.dtype)
    return result.view(np.uint8)


def _exponential(values: Bytes) -> Bytes:
    """Convert 8 bits of exponent and 24 bits of mantissa to float32 values."""
    words = values.view("<i4")
    return np.ldexp((words << 8 >> 8).astype(np.float32), words >> 24).astype("<f4").view(np.uint8)


def _color(values: Bytes) -> Bytes:
    """Convert YCoCg colors with alpha, whose highest bit gives the scale, to RGBA."""
    parts = _parts(values, "<u1", "<u2")
    y, _, _, alpha = parts.astype(np.int32).T
    _, co, cg, _ = _parts(values, "<i1", "<i2").astype(np.int32).T
    most = (1 << np.frexp(alpha)[1]) - 1
    alpha = alpha & most >> 1
    rgba = np.stack([y + co - cg, y + cg, y - co - cg, alpha << 1 | alpha & 1], 1).astype(np.float32)
    scale = np.float32(np.iinfo(parts.dtype).max) / most.astype(np.float32)
    return _rounded(rgba * scale[:, None], parts.dtype).view(np.uint8)


def _parts(values: Bytes, small: str, large: str) -> NDArray[Any]:
    """Split each element into its four components of one or two bytes each."""
    return values.view({4: small, 8: large}[values.shape[1]])


def _rounded(values: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Round values half away from zero and convert them to integers. Damaged data may contain NaN or any value."""
    limits = np.iinfo(kind)
    result: NDArray[Any] = np.nan_to_num(np.trunc(values + np.copysign(0.5, values)))
    return result.clip(limits.min, limits.max).astype(kind)


_FILTERS: Final[dict[str, Callable[[Bytes], Bytes]]] = {
    "NONE": lambda values: values,
    "OCTAHEDRAL": _octahedral,
    "QUATERNION": _quaternion,
    "EXPONENTIAL": _exponential,
    "COLOR": _color,
}
