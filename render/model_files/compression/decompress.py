"""Decompress the data of a glTF document that Blender cannot read, and store all its data in one buffer.

Supports the extensions EXT_meshopt_compression and KHR_meshopt_compression for buffer views, and KHR_texture_basisu for
textures.
"""

from pathlib import Path
from typing import Any, Final

from render.model_files.compression.ktx2 import BASISU, decode_textures, has_compressed_textures
from render.model_files.compression.meshopt import decode
from render.model_files.errors import ModelError, TooLarge
from render.model_files.gltf_accessors import GltfData

MAX_DECODED: Final = 1 << 28  # bytes of all decompressed buffer views, such as ten million vertices
_MESHOPT: Final = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_ALIGNMENT: Final = 8
_KEPT: Final = ("byteStride", "target", "name")  # of a decompressed buffer view

Json = dict[str, Any]


def drop_fallbacks(document: Json) -> bool:
    """Remove the URIs of fallback buffers. Return whether the compressed buffer views must be decompressed.

    A fallback buffer contains the uncompressed data, for readers that do not support the compression extension. It is
    not read after its URI is removed. If no buffer of the document is marked as a fallback and the extension is
    optional, the uncompressed data is used, and nothing must be decompressed.

    Args:
        document: The JSON document of a glTF file. It is changed.
    """
    fallbacks = [buffer for buffer in document.get("buffers", []) if _extension(buffer)]
    for buffer in fallbacks:
        buffer.pop("uri", None)
    return bool(fallbacks) or any(name in document.get("extensionsRequired", []) for name in _MESHOPT)


def decode_parts(document: Json, binary: memoryview, path: Path, root: Path, compressed: bool) -> memoryview | None:
    """Decompress the textures and the buffer views of a glTF document, and join all its buffers.

    Args:
        document: The JSON document. It is changed.
        binary: The binary chunk of the glTF file, empty if there is none.
        path: Path of the glTF file. The document's URIs are relative to the folder of this file.
        root: Folder that must contain all image files; others are not read.
        compressed: Whether buffer views must be decompressed, as `drop_fallbacks` returns it.

    Returns:
        The joined buffer, which is then the only buffer of the document. None if there is nothing to decompress; the
        document is then unchanged.

    Raises ModelError for damaged geometry and TooLarge when the decompressed size exceeds MAX_DECODED. A malformed
    document raises LookupError, TypeError, AttributeError or ValueError.
    """
    textures = has_compressed_textures(document, path.name)
    if not compressed and not textures:
        return None
    data = GltfData(document, binary, path)
    joined, starts = _join_buffers(document, data)
    if compressed:
        _check_sizes(document, path.name)
    for index, view in enumerate(document.get("bufferViews", [])):
        name = _extension(view) if compressed else None
        if name is None:
            view.update(buffer=0, byteOffset=starts[view["buffer"]] + view.get("byteOffset", 0))
        else:
            part = view["extensions"][name]
            if part["buffer"] not in starts:
                raise ModelError(
                    f"{path.name}: buffer view {index} ({name}) refers to buffer {part['buffer']}, which has no data; "
                    "export the file again"
                )
            plain = _decompress(part, data, f"{path.name}: buffer view {index} ({name})")
            kept = {key: view[key] for key in _KEPT if key in view}
            view.clear()
            view.update(kept, **_append(joined, plain))
    if compressed:
        _forget_extensions(document, _MESHOPT)
    if textures:
        for image, png in decode_textures(document, memoryview(bytes(joined)), path, root):
            image.pop("uri", None)
            document.setdefault("bufferViews", []).append(_append(joined, png))
            image.update(bufferView=len(document["bufferViews"]) - 1, mimeType="image/png")
        _forget_extensions(document, (BASISU,))
    document["buffers"] = [{"byteLength": len(joined)}] if joined else []
    return memoryview(joined)


def _append(joined: bytearray, data: bytes | memoryview) -> Json:
    """Append data to the only buffer. Return a buffer view of the appended data."""
    joined += bytes(-len(joined) % _ALIGNMENT)
    joined += data
    return {"buffer": 0, "byteOffset": len(joined) - len(data), "byteLength": len(data)}


def _extension(entry: Json) -> str | None:
    """Return the compression extension that a buffer view uses, or for which a buffer is the fallback."""
    return next((name for name in _MESHOPT if name in entry.get("extensions", {})), None)


def _join_buffers(document: Json, data: GltfData) -> tuple[bytearray, dict[int, int]]:
    """Join the buffers that have data. Return the bytes, and the offset of each buffer in them."""
    joined, starts = bytearray(), dict[int, int]()
    for index, buffer in enumerate(document.get("buffers", [])):
        if "uri" in buffer or (index == 0 and not _extension(buffer)):
            starts[index] = _append(joined, data.buffer(index))["byteOffset"]
    return joined, starts


def _check_sizes(document: Json, name: str) -> None:
    views = document.get("bufferViews", [])
    compressed = [view["extensions"][extension] for view in views if (extension := _extension(view))]
    for each in compressed:
        for key in ("buffer", "byteOffset", "byteLength", "byteStride", "count"):
            value = each.get(key, 0) if key == "byteOffset" else each[key]
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"the {key} of a compressed buffer view is {value!r}, not an integer of at least 0")
    size = sum(each["count"] * each["byteStride"] for each in compressed)
    if size > MAX_DECODED:
        raise TooLarge(
            f"{name}: the compressed data declares a decompressed size of {size:,} bytes, more than the limit of "
            f"{MAX_DECODED:,}; reduce the number of vertices"
        )


def _decompress(compression: Json, data: GltfData, buffer_view: str) -> bytes:
    start, length = compression.get("byteOffset", 0), compression["byteLength"]
    part = bytes(data.buffer(compression["buffer"])[start : start + length])
    if len(part) < length:
        raise ModelError(f"{buffer_view} ends after the end of its buffer; export or download the file again")
    count, stride, kind = compression["count"], compression["byteStride"], compression.get("filter", "NONE")
    try:
        return decode(part, count, stride, compression["mode"], kind).tobytes()
    except (LookupError, ValueError) as error:
        raise ModelError(f"{buffer_view} has damaged data ({error}); export or download the file again") from error


def _forget_extensions(document: Json, names: tuple[str, ...]) -> None:
    for key in ("extensionsUsed", "extensionsRequired"):
        document[key] = [name for name in document.get(key, []) if name not in names]
        if not document[key]:
            del document[key]
