"""Reject PLY files with non-finite positions, which Blender would replace silently, or with false element counts.

Layout: Greg Turk's PLY 1.0: a text header, then the elements in its order, as text or as packed binary.
"""

from pathlib import Path
from typing import Final

import numpy as np

from render.model_files.errors import ModelError, NonFinitePositions

_TYPES: Final = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_HEADER_END: Final = b"end_header"


def check_ply(path: Path) -> None:
    """Raise ModelError unless the file is a PLY whose first element is vertices with finite positions."""
    data = path.read_bytes()
    header, end, body = data.partition(_HEADER_END)
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    if not end or not lines or lines[0] != ["ply"]:
        raise ModelError(f"{path.name} is not a PLY file")
    try:
        order = next(line[1] for line in lines if line[:1] == ["format"])
        counts = [int(line[2]) for line in lines if line[:1] == ["element"]]
        if min(counts) < 0 or sum(counts) > len(body):  # Blender would allocate memory for all of them
            raise ValueError(f"{sum(counts):,} elements in {len(body):,} bytes")
        count, names = _vertex_element(lines)
        values = _values(body[body.index(b"\n") + 1 :], order, count, names)
    except (StopIteration, KeyError, IndexError, ValueError) as error:
        raise ModelError(f"{path.name}: its PLY vertices cannot be read ({error!r})") from error
    if not np.isfinite(values).all():
        raise NonFinitePositions(f"{path.name} has vertices that are NaN or infinite")


def _vertex_element(lines: list[list[str]]) -> tuple[int, list[tuple[str, str]]]:
    """(number of vertices, their properties as (name, numpy type without byte order)) of the first element."""
    starts = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    first, following = starts[0], [*starts[1:], len(lines)][0]
    if lines[first][1] != "vertex":
        raise ValueError(f"the first element is {lines[first][1]!r}")
    properties = [line for line in lines[first:following] if line[:1] == ["property"]]
    return int(lines[first][2]), [(line[2], _TYPES[line[1]]) for line in properties]


def _values(
    body: bytes, order: str, count: int, names: list[tuple[str, str]]
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Positions [count, 3]."""
    if order == "ascii":
        words = body.split(maxsplit=count * len(names))[: count * len(names)]
        table = np.array(words, np.float64).reshape(count, len(names))
        return np.stack([table[:, [n for n, _ in names].index(axis)] for axis in "xyz"], 1)
    byte_order = {"binary_little_endian": "<", "binary_big_endian": ">"}[order]
    rows = np.frombuffer(body, np.dtype([(name, byte_order + kind) for name, kind in names]), count)
    return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], 1)
