"""Decode the two index bitstreams of KHR_meshopt_compression: triangles, and sequences of indices.

Bitstreams: the specification of the extension, section "Bitstream", version 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_UNSET: Final = 0xFFFFFFFF


class _Numbers:
    """Reads variable-length integers, which store zigzag-encoded differences to the previous number."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position, self.last = data, position, 0

    def number(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.data[self.position]
            self.position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a compressed vertex index has more than 5 bytes")

    def index(self) -> int:
        value = self.number()
        self.last += value >> 1 ^ -(value & 1)
        return self.last


def decode_triangles(data: bytes, count: int) -> NDArray[np.int64]:
    """Decode the vertex indices [count] of triangles, three per triangle, from the "index" bitstream.

    This bitstream stores triangles as references to recent edges and vertices.

    Raises IndexError or ValueError for some kinds of damaged data. Other damaged data gives indices that may be
    negative or too large; the caller must check them.
    """
    end, position, following = len(data) - 16, count // 3 + 1, 0
    if data[0] != 0xE1 or position > end:
        raise ValueError(f"the triangles do not begin with the byte 0xe1, or are too short for {count} indices")
    numbers, shortcuts, result = _Numbers(data, position), data[end:], list[int]()
    edges, vertices = [(_UNSET, _UNSET)] * 16, [_UNSET] * 16  # the newest is the last one

    def vertex(code: int) -> int:
        nonlocal following
        if code and code < 15:
            return vertices[-code]
        value = following if not code else numbers.index()
        following += not code
        new.append(value)
        return value

    for code in data[1:position]:
        high, low = code >> 4, code & 15
        new: list[int] = []
        if high < 15:
            a, b = edges[-1 - high]
            if 0 < low < 13:
                c = vertices[-1 - low]
            elif low in (13, 14):
                numbers.last += 1 if low == 14 else -1
                c = numbers.last
                new = [c]
            else:
                c = vertex(low)
            edges += (c, b), (a, c)
        else:
            if low < 14:
                pair = shortcuts[low]
            else:
                pair = data[numbers.position]
                numbers.position += 1
                following = following if pair else 0
            a, b, c = vertex(15 if low == 15 else 0), vertex(pair >> 4), vertex(pair & 15)
            edges += (b, a), (c, b), (a, c)
        vertices += new
        result += a, b, c
        del edges[:-16], vertices[:-16]
    if numbers.position != end:
        raise ValueError(f"the {count} triangle indices end at byte {numbers.position}, but should end at byte {end}")
    return np.array(result, np.int64)


def decode_sequence(data: bytes, count: int) -> NDArray[np.int64]:
    """Decode vertex indices [count] from the "index sequence" bitstream, which stores differences between indices.

    Raises IndexError or ValueError for some kinds of damaged data. Other damaged data gives indices that may be
    negative or too large; the caller must check them.
    """
    if data[0] != 0xD1 or len(data) < count + 5:
        raise ValueError(f"the indices do not begin with the byte 0xd1, or are too short for {count} indices")
    numbers, last, result = _Numbers(data, 1), [0, 0], np.empty(count, np.int64)
    for place in range(count):
        value = numbers.number()
        step = value >> 1
        last[value & 1] += step >> 1 ^ -(step & 1)
        result[place] = last[value & 1]
    if numbers.position != len(data) - 4:
        raise ValueError(f"the {count} indices end at byte {numbers.position}, but should end at byte {len(data) - 4}")
    return result
