"""Read a glTF file's own words before Blender does: what it refers to, and whether its positions are numbers.

Blender's importer follows any file path in a glTF and silently replaces non-finite positions, so both are checked here.
Layout: the glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4 (GLB).
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

_GLB_MAGIC: Final = b"glTF"
_GLB_HEADER: Final = 12
_CHUNK_JSON: Final = 0x4E4F534A
_CHUNK_BIN: Final = 0x004E4942
_FLOAT: Final = 5126
_VEC3_BYTES: Final = 12


class ModelError(ValueError):
    """The file is not usable; the message says why."""


class UnsafeReference(ModelError):
    """The file refers to something outside of its own folder."""


class NonFinitePositions(ModelError):
    """A vertex position is NaN or infinite."""


def check_gltf(path: Path) -> None:
    """Raise a ModelError unless the .gltf or .glb file is well formed, stays in its folder and has finite positions."""
    document, binary = _read(path)
    try:
        for reference in _references(document):
            _check_reference(reference, path)
        for index in _position_accessors(document):
            if not np.isfinite(_positions(document, index, binary, path)).all():
                raise NonFinitePositions(f"{path.name}: accessor {index} holds positions that are NaN or infinite")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} is malformed glTF ({error!r})") from error


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary chunk (empty when there is none)."""
    data = path.read_bytes()
    if not data:
        raise ModelError(f"{path.name} is empty")
    text, binary = _split_glb(data, path.name) if data[:4] == _GLB_MAGIC else (data, b"")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path.name} is not glTF: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise ModelError(f"{path.name} is not glTF: it has no `asset` object")
    return document, binary


def _split_glb(data: bytes, name: str) -> tuple[bytes, bytes]:
    if len(data) < _GLB_HEADER + 8:
        raise ModelError(f"{name} is truncated: {len(data)} bytes do not hold a GLB header")
    length = struct.unpack_from("<I", data, 8)[0]
    if length > len(data):
        raise ModelError(f"{name} is truncated: {len(data)} bytes of {length}")
    chunks: dict[int, bytes] = {}
    offset = _GLB_HEADER
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise ModelError(f"{name} is truncated: a chunk of {size} bytes passes the end of the file")
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if _CHUNK_JSON not in chunks:
        raise ModelError(f"{name} is not glTF: it has no JSON chunk")
    return chunks[_CHUNK_JSON], chunks.get(_CHUNK_BIN, b"")


def _references(document: dict[str, Any]) -> list[str]:
    """Every URI of buffers and images that is not embedded data."""
    entries = [entry for key in ("buffers", "images") for entry in document.get(key, []) if isinstance(entry, dict)]
    return [entry["uri"] for entry in entries if "uri" in entry and not str(entry["uri"]).startswith("data:")]


def _check_reference(reference: str, path: Path) -> None:
    target = unquote(str(reference)).replace("\\", "/")
    folder = path.parent.resolve()
    absolute = bool(urlsplit(target).scheme) or target.startswith("/")
    if absolute or not (folder / target).resolve().is_relative_to(folder):
        raise UnsafeReference(f"{path.name} refers to {reference!r}, outside of its own folder")
    if not (folder / target).is_file():
        raise ModelError(f"{path.name} refers to {reference!r}, which does not exist")


def _position_accessors(document: dict[str, Any]) -> list[int]:
    found = set()
    for mesh in document.get("meshes", []):
        for primitive in mesh.get("primitives", []):
            index = primitive.get("attributes", {}).get("POSITION")
            if index is not None:
                found.add(int(index))
    return sorted(found)


def _positions(document: dict[str, Any], index: int, binary: bytes, path: Path) -> NDArray[np.float32]:
    """Positions [n, 3] of a float accessor; empty when it is quantised or compressed (those cannot hold NaN here)."""
    accessor = document["accessors"][index]
    if accessor["componentType"] != _FLOAT or "bufferView" not in accessor:
        return np.empty((0, 3), np.float32)
    view = document["bufferViews"][accessor["bufferView"]]
    buffer = _buffer(document, view["buffer"], binary, path)
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    shape, strides = (accessor["count"], 3), (view.get("byteStride", _VEC3_BYTES), 4)
    try:
        return np.ndarray(shape, np.dtype("<f4"), buffer, start, strides)
    except ValueError as error:
        raise ModelError(f"{path.name}: accessor {index} does not fit its buffer ({error})") from error


def _buffer(document: dict[str, Any], index: int, binary: bytes, path: Path) -> bytes:
    uri = document["buffers"][index].get("uri")
    if uri is None:
        return binary
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    return (path.parent / unquote(uri)).read_bytes()
