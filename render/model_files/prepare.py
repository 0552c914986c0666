"""Check a model file of any format before Blender imports it."""

from pathlib import Path
from typing import Final

from dataset.format.outcomes import Flag
from render.model_files.errors import ModelError
from render.model_files.fbx import prepare_fbx
from render.model_files.gltf import prepare_gltf
from render.model_files.obj import prepare_obj
from render.model_files.ply import prepare_ply
from render.model_files.prepared import PreparedModel

_HEAD: Final = 1024  # bytes
_STL_HEADER: Final = 84  # bytes of a binary STL file: any text, then the number of triangles
_STL_COUNT: Final = 80  # offset of that number
_STL_TRIANGLE: Final = 50
_STL_WORDS: Final = (b"solid", b"facet")  # in the beginning of a text file
_STL_COLORED: Final = b"COLOR="  # in the header of a file with colors, which Blender does not read
_LFS: Final = b"version https://git-lfs"
_PAGES: Final = (b"<!doctype html", b"<html")


def prepare_model(path: Path, root: Path, scratch: Path, animations: bool = True) -> PreparedModel:
    """Check a model file. Return the file to import: `path` itself, or a normalized copy of it.

    Args:
        path: The model file.
        root: Folder that must contain all files that the model refers to. Files elsewhere are not read; they count as
            missing.
        scratch: Existing folder for the copy.
        animations: Whether the object is imported with its animations.

    Raises ModelError when the file cannot be used.
    """
    _check_content(path)
    match path.suffix.lower():
        case ".glb" | ".gltf":
            return prepare_gltf(path, root, scratch, animations)
        case ".ply":
            return prepare_ply(path, root, scratch)
        case ".obj":
            return prepare_obj(path, root, scratch)
        case ".fbx":
            return prepare_fbx(path, root, scratch)
        case ".stl":
            return prepare_stl(path, scratch)
    return PreparedModel(path)


def _check_content(path: Path) -> None:
    """Raise ModelError for an empty file, a Git LFS pointer or an HTML page."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ModelError(f"{path.name} is empty; export or download the file again")
    if head.startswith(_LFS):
        raise ModelError(f"{path.name} is a Git LFS pointer, not a model; run `git lfs pull` to download the model")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise ModelError(f"{path.name} is an HTML page, not a model; download the file again")


def prepare_stl(path: Path, scratch: Path) -> PreparedModel:
    """Check an STL file. Return the file to import: `path` itself, or a copy in the existing folder `scratch`.

    Blender reads only text files with lower-case keywords, and only binary files whose size matches the header exactly.
    Other files are therefore copied with lower-case keywords or with the correct size. If the header of a binary file
    declares 0 triangles, the copy contains all triangles up to the end of the file.

    Raises ModelError when the file is not STL or has fewer triangles than its header declares.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    size, count = path.stat().st_size, int.from_bytes(head[_STL_COUNT:_STL_HEADER], "little")
    colored: tuple[Flag, ...] = ("missing-material",) if _STL_COLORED in head[:_STL_COUNT] else ()
    if len(head) >= _STL_HEADER and size == _STL_HEADER + count * _STL_TRIANGLE:
        return PreparedModel(path, colored)
    first = head.lstrip()[: len(_STL_WORDS[0])]
    if first.lower() == _STL_WORDS[0] and b"\0" not in head:  # some binary files begin with this word, too
        upper = first != _STL_WORDS[0] and _STL_WORDS[1] in head.lower()
        return PreparedModel(_copy(path, scratch, path.read_bytes().lower()) if upper else path)
    if len(head) < _STL_HEADER:
        raise ModelError(
            f"{path.name} is not an STL file: it neither begins with `solid` nor has the 84 bytes of a binary header"
        )
    present = (size - _STL_HEADER) // _STL_TRIANGLE
    if count > present:
        raise ModelError(
            f"{path.name} is truncated or not STL: the header declares {count:,} triangles, but the file has "
            f"{present:,}; download the file again"
        )
    data, count = path.read_bytes(), count or present
    data = data[:_STL_COUNT] + count.to_bytes(4, "little") + data[_STL_HEADER : _STL_HEADER + count * _STL_TRIANGLE]
    return PreparedModel(_copy(path, scratch, data), colored)


def _copy(path: Path, scratch: Path, data: bytes) -> Path:
    copy = scratch / path.name
    copy.write_bytes(data)
    return copy
