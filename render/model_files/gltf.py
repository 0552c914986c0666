"""Validate a glTF file before Blender imports it: its file references, its declared sizes and its values.

Blender's importer follows any file path in a glTF, allocates the memory that an accessor declares, and silently
replaces non-finite positions. This module therefore checks the paths, the declared sizes and the positions. A missing
buffer is an error, but a missing image is not (render.blender.textures).

If Blender cannot read a file, or must not read everything in it, a copy is imported instead. In the copy, compressed
data is decompressed (render.model_files.compression), and unsafe or unsupported data is removed
(render.model_files.gltf_copy).

Layout: the glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4 (GLB).
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from render.model_files.compression.decompress import decode_parts, drop_fallbacks
from render.model_files.errors import ModelError, NonFinitePositions, TooLarge, UnsafeReference
from render.model_files.gltf_accessors import GltfData
from render.model_files.gltf_copy import local_path, simplify, write_copy
from render.model_files.prepared import PreparedModel, Scenes
from render.model_files.windings import reversed_twins

_GLB_MAGIC: Final = b"glTF"
_GLB_HEADER: Final = 12
_BOM: Final = b"\xef\xbb\xbf"
_CHUNK_JSON: Final = 0x4E4F534A
_CHUNK_BIN: Final = 0x004E4942
_DATA_URI: Final = "data:"
_TRANSFORMS: Final = ("matrix", "translation", "rotation", "scale")
_TRIANGLES: Final = 4  # the mode of a primitive
_INSTANCING: Final = "EXT_mesh_gpu_instancing"
# Limits of what a file may declare. The most detailed known objects reach a tenth of them.
MAX_JSON_VALUES: Final = 1 << 23  # values of the JSON text; Python needs about 100 bytes for each
MAX_ABSENT: Final = 1 << 25  # elements of accessors without data, which are allocated as zeros
MAX_CORNERS: Final = 1 << 27  # triangle corners (and morphed vertices) of all meshes; primitives may share data
MAX_INSTANCES: Final = 1 << 17  # instances made by EXT_mesh_gpu_instancing
MAX_DEPTH: Final = 2000  # nodes from a root to a leaf; Blender's importer is recursive


def prepare_gltf(path: Path, root: Path, scratch: Path, animations: bool = True) -> PreparedModel:
    """Check a .gltf or .glb file. Return the file to import: `path` itself, or a simplified copy of it.

    Args:
        path: Path of the glTF file.
        root: Folder that must contain all buffers that the file refers to.
        scratch: Existing folder for the copy.
        animations: Whether the object is imported with its animations. If False, the copy, if any, has none.

    Raises ModelError when the file is malformed, needs files outside of `root` or has non-finite positions.
    """
    document, binary, plain = _read(path)
    try:
        compressed = drop_fallbacks(document)
        for reference, needed in _references(document, path.name):
            _check_reference(reference, needed, path, root)
        decoded = decode_parts(document, binary, path, root, compressed)
        if decoded is not None:
            binary, plain = decoded, False
        data = GltfData(document, binary, path)
        _check_claims(document, path.name)
        _check_transforms(document, path.name)
        depth = _check_nodes(document, path.name)
        _check_positions(document, data, path.name)
        _check_indices(document, data, path.name)
        scenes = Scenes(len(document.get("scenes", [])), int(document.get("scene", 0)), _twins(document, data))
        animated, images = bool(document.get("animations")), _has_images(document)
        changed, flags = simplify(document, path, root, animations)
    except (LookupError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise ModelError(f"{path.name} is malformed glTF ({error!r}); export the file again") from error
    except ModelError:
        raise
    except ValueError as error:  # an invalid number or path
        raise ModelError(f"{path.name} is malformed glTF ({error!r}); export the file again") from error
    imported = path if plain and not changed else write_copy(document, binary, path, scratch)
    return PreparedModel(imported, flags, scenes, animated=animated, depth=depth, images=images)


def _read(path: Path) -> tuple[dict[str, Any], memoryview, bool]:
    """Return the JSON document, the binary chunk (empty if there is none), and whether Blender can read the file.

    Blender cannot read a file that has a byte order mark or bytes after its end.
    """
    data = path.read_bytes()
    if not data:
        raise ModelError(f"{path.name} is empty; export or download the file again")
    plain = not data.startswith(_BOM)
    text, binary = data, memoryview(b"")
    if data[:4] == _GLB_MAGIC:
        text, binary = _split_glb(data, path.name)
        plain = struct.unpack_from("<I", data, 8)[0] == len(data)
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise TooLarge(f"{path.name}: the JSON text has more than {MAX_JSON_VALUES:,} values; simplify the object")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path.name} is not glTF: the JSON text cannot be parsed ({error}); export or download the file again"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise ModelError(f"{path.name} is not glTF: the JSON text has no `asset` object; export the file again")
    if str(document["asset"].get("version", "2")).startswith("1"):
        raise ModelError(f"{path.name} is glTF 1.0; convert the file to glTF 2.0")
    return document, binary, plain


def _has_images(document: dict[str, Any]) -> bool:
    """Return whether there is any image that is not only an occlusion map, which Blender does not draw."""
    maps = [material.get("occlusionTexture", {}).get("index") for material in document.get("materials", [])]
    textures = document.get("textures", [])
    occlusion = {texture.get("source") for index, texture in enumerate(textures) if index in maps}
    return any(index not in occlusion for index in range(len(document.get("images", []))))


def _split_glb(data: bytes, name: str) -> tuple[bytes, memoryview]:
    if len(data) < _GLB_HEADER + 8:
        raise ModelError(f"{name} is truncated: its {len(data)} bytes are less than a GLB header; download it again")
    version, length = struct.unpack_from("<II", data, 4)
    if version == 1:
        raise ModelError(f"{name} is glTF 1.0; convert the file to glTF 2.0")
    if length > len(data):
        raise ModelError(
            f"{name} is truncated: the file has {len(data)} bytes, but its header declares {length} bytes; download "
            "the file again"
        )
    view, chunks, offset = memoryview(data), dict[int, memoryview](), _GLB_HEADER
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise ModelError(
                f"{name} is truncated: a GLB chunk of {size} bytes ends after the end of the file; export or download "
                "the file again"
            )
        chunks.setdefault(kind, view[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if _CHUNK_JSON not in chunks:
        raise ModelError(f"{name} is not glTF: the GLB file has no JSON chunk; export the file again")
    return bytes(chunks[_CHUNK_JSON]), chunks.get(_CHUNK_BIN, memoryview(b""))


def _references(document: dict[str, Any], name: str) -> Iterator[tuple[str, bool]]:
    """Yield each URI of a buffer or image that is not a data URI, and whether the file is required."""
    for key, needed in (("buffers", True), ("images", False)):
        for entry in document.get(key, []):
            uri = entry.get("uri")
            if uri is None:
                continue
            if not str(uri).startswith(_DATA_URI):
                yield str(uri), needed
            elif ";base64," not in uri:  # Blender's importer would read it as a file path
                raise ModelError(f"{name}: a data URI in `{key}` is not base64; export the file again")


def _check_reference(reference: str, needed: bool, path: Path, root: Path) -> None:
    place = local_path(reference, path.parent.resolve(), root)
    if place is None:
        if needed:
            raise UnsafeReference(
                f"{path.name} refers to {reference!r}, outside of the source folder; copy this file into the folder"
            )
        return
    if place.exists() and not place.is_file():
        raise ModelError(f"{path.name} refers to {reference!r}, which is a folder or device, not a file")
    if needed and not place.exists():
        raise ModelError(f"{path.name} needs the file {reference!r}, which does not exist; add this file")


def _check_nodes(document: dict[str, Any], name: str) -> int:
    """Return the number of nodes from a root to the farthest leaf. Raises ModelError for a cycle or a long chain."""
    nodes = document.get("nodes", [])
    parents = [0] * len(nodes)
    for node in nodes:
        for child in node.get("children", []):
            parents[child] += 1
    level, depth, seen = [index for index, count in enumerate(parents) if not count], 0, 0
    while level:
        depth, seen, following = depth + 1, seen + len(level), []
        for child in (child for index in level for child in nodes[index].get("children", [])):
            parents[child] -= 1
            if not parents[child]:
                following.append(child)
        level = following
    if seen < len(nodes):
        raise ModelError(f"{name}: the nodes have a cycle (a node is its own ancestor); export the file again")
    if depth > MAX_DEPTH:
        raise ModelError(
            f"{name}: the nodes are nested {depth} levels deep; the limit is {MAX_DEPTH} levels; simplify the hierarchy"
        )
    return depth


def _primitives(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the primitives that Blender reads: those with positions."""
    for mesh in document.get("meshes", []):
        yield from (primitive for primitive in mesh["primitives"] if "POSITION" in primitive["attributes"])


def _check_claims(document: dict[str, Any], name: str) -> None:
    """Raise TooLarge when a small file declares so much data that Blender would allocate too much memory."""
    counts = [_count(accessor) for accessor in document.get("accessors", [])]
    absent = [n for n, a in zip(counts, document.get("accessors", []), strict=True) if "bufferView" not in a]
    corners = [
        counts[p.get("indices", p["attributes"]["POSITION"])]
        + counts[p["attributes"]["POSITION"]] * len(p.get("targets", []))
        for p in _primitives(document)
    ]
    extensions = [node.get("extensions", {}) for node in document.get("nodes", [])]
    instanced = [e[_INSTANCING]["attributes"] for e in extensions if _INSTANCING in e]
    copies = [max((counts[i] for i in attributes.values()), default=0) for attributes in instanced]
    for declared, most, what in (
        (absent, MAX_ABSENT, "accessor elements without data"),
        (corners, MAX_CORNERS, "triangle corners and morphed vertices"),
        (copies, MAX_INSTANCES, "instances of meshes"),
    ):
        if sum(declared) > most:
            raise TooLarge(f"{name} declares {sum(declared):,} {what}; the limit is {most:,} {what}")


def _count(accessor: dict[str, Any]) -> int:
    count = accessor["count"]
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"the `count` of an accessor is {count!r}, not an integer of at least 0")
    return count


def _check_transforms(document: dict[str, Any], name: str) -> None:
    for index, node in enumerate(document.get("nodes", [])):
        for key in _TRANSFORMS:
            if key in node and not np.isfinite(np.asarray(node[key], np.float32)).all():
                raise NonFinitePositions(f"{name}: the {key} of node {index} has a value that is NaN or infinite")


def _check_positions(document: dict[str, Any], data: GltfData, name: str) -> None:
    accessors = set()
    for primitive in _primitives(document):
        accessors |= {
            s["POSITION"] for s in (primitive["attributes"], *primitive.get("targets", [])) if "POSITION" in s
        }
    for index in sorted(accessors):
        if not all(np.isfinite(values).all() for values in data.float_arrays(index)):
            raise NonFinitePositions(f"{name}: accessor {index} has vertex positions that are NaN or infinite")


def _twins(document: dict[str, Any], data: GltfData) -> frozenset[str]:
    """Return Blender's names of meshes with a triangle in both windings, of which its importer keeps only one."""
    found = set()
    for number, mesh in enumerate(document.get("meshes", [])):
        for primitive in mesh["primitives"]:
            indices = data.array(primitive["indices"]) if "indices" in primitive else None
            if indices is None or primitive.get("mode", _TRIANGLES) != _TRIANGLES or len(indices) % 3:
                continue
            if reversed_twins(indices.reshape(-1).astype(np.int64), np.arange(0, len(indices), 3)).any():
                found.add(str(mesh.get("name") or f"Mesh_{number}"))
    return frozenset(found)


def _check_indices(document: dict[str, Any], data: GltfData, name: str) -> None:
    for primitive in _primitives(document):
        indices = data.array(primitive["indices"]) if "indices" in primitive else None
        vertices = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
        if indices is not None and indices.size and int(indices.max()) >= vertices:
            raise ModelError(
                f"{name}: a mesh primitive refers to vertex {int(indices.max())}, but has only {vertices} vertices"
            )
