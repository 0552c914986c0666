"""Check an STL file before Blender imports it, and write a normalized copy if Blender would not read it.

Layout of a binary file: 80 bytes of arbitrary text, the number of triangles in 4 bytes, and 50 bytes per triangle.
"""

from pathlib import Path
from typing import Final

from dataset.format.outcomes import Flag
from render.model_files.errors import ModelError
from render.model_files.prepared import PreparedModel

_HEADER: Final = 84
_COUNT: Final = 80  # offset of the number of triangles
_TRIANGLE: Final = 50
_WORDS: Final = (b"solid", b"facet")  # in the beginning of a text file
_HEAD: Final = 1024
_COLORED: Final = b"COLOR="  # in the header of a file with colors, which Blender does not read


def prepare_stl(path: Path, scratch: Path) -> PreparedModel:
    """Return the file to import: the .stl file itself, or a copy of it in the folder `scratch`.

    Blender reads only lower-case keywords, and only binary files whose size matches the header exactly. If a binary
    file declares 0 triangles, all triangles up to its end are read. Raises ModelError when a file has fewer triangles
    than it declares.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    size, count = path.stat().st_size, int.from_bytes(head[_COUNT:_HEADER], "little")
    colored: tuple[Flag, ...] = ("missing-material",) if _COLORED in head[:_COUNT] else ()
    if len(head) >= _HEADER and size == _HEADER + count * _TRIANGLE:
        return PreparedModel(path, colored)
    first = head.lstrip()[: len(_WORDS[0])]
    if first.lower() == _WORDS[0]:
        upper = first != _WORDS[0] and _WORDS[1] in head.lower()
        return PreparedModel(_copy(path, scratch, path.read_bytes().lower()) if upper else path)
    if len(head) < _HEADER:
        raise ModelError(f"{path.name} is not an STL file")
    present = (size - _HEADER) // _TRIANGLE
    if count > present:
        raise ModelError(
            f"{path.name} is truncated or not STL: it declares {count:,} triangles but contains {present:,}"
        )
    data, count = path.read_bytes(), count or present
    data = data[:_COUNT] + count.to_bytes(4, "little") + data[_HEADER : _HEADER + count * _TRIANGLE]
    return PreparedModel(_copy(path, scratch, data), colored)


def _copy(path: Path, scratch: Path, data: bytes) -> Path:
    copy = scratch / path.name
    copy.write_bytes(data)
    return copy
