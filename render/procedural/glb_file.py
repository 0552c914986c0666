"""Write painted meshes to a GLB file. Uses only numpy.

The files have the bytes that Blender's glTF exporter, add-on version 4.5.51, writes for the same meshes. Per object,
this takes 47 ms of CPU time; materials and export in Blender took 112 ms (docs/LOG.md). Shards contain the sha256 of
these files, so the bytes must stay the same.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GENERATOR: Final = "Khronos glTF Blender I/O v4.5.51"  # as in the files that this project wrote with the add-on
_ARRAY_BUFFER: Final = 34962
_ELEMENT_ARRAY_BUFFER: Final = 34963
_FLOAT: Final = 5126
_UNSIGNED_SHORT: Final = 5123
_UNSIGNED_INT: Final = 5125
_LINEAR: Final = 9729
_LINEAR_MIPMAP_LINEAR: Final = 9987
_MOST_SHORT: Final = 65535  # as a 16-bit index, this value is reserved
_DECIMALS: Final = 4  # of normals

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class GlbPart:
    """A triangle mesh with one material: v vertices and t triangles. Axes and texture coordinates are Blender's.

    Attributes:
        name: Name of the node, the mesh, the material and the image.
        positions: Positions of the vertices [v, 3].
        corners: Vertex of every corner [3 * t].
        normals: Normal at every corner [3 * t, 3].
        uv: Texture coordinates of every corner [3 * t, 2].
        color: Linear base color, with alpha; it is not used if there is an image.
        png: The base color image as the bytes of a PNG file; None: a plain color.
        metallic: Metallic factor, from 0 to 1.
        roughness: Roughness factor, from 0 to 1.
    """

    name: str
    positions: Float32
    corners: NDArray[np.int32]
    normals: Float32
    uv: Float32
    color: tuple[float, float, float, float]
    png: bytes | None
    metallic: float
    roughness: float


def glb_bytes(parts: Sequence[GlbPart]) -> bytes:
    """Return the bytes of a GLB file of the parts. In the file, y points up, and Blender's -y axis becomes +z."""
    writer = _Writer()
    for part in parts:
        writer.add(part)
    return writer.glb()


class _Writer:
    """The glTF document and its buffer, to which one part after the other is added."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lists: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("nodes", "materials", "meshes", "textures", "images", "accessors", "bufferViews")
        }
        self._index_accessors: dict[tuple[int, bytes], int] = {}

    def add(self, part: GlbPart) -> None:
        """Add a part as a node, a mesh and a material."""
        vertices, indices = _merged(part)
        positions = _y_up(part.positions)[vertices["vertex"]]
        lowest, highest = positions.min(0).tolist(), positions.max(0).tolist()
        attributes = {
            "POSITION": self._accessor(positions, "VEC3", max=_numbers(highest), min=_numbers(lowest)),
            "NORMAL": self._accessor(np.stack([vertices[name] for name in ("x", "y", "z")], 1), "VEC3"),
            "TEXCOORD_0": self._accessor(np.stack([vertices[name] for name in ("u", "v")], 1), "VEC2"),
        }
        primitive = {"attributes": attributes, "indices": self._indices(indices), "material": self._count("materials")}
        self._lists["nodes"].append({"mesh": self._count("meshes"), "name": part.name})
        self._lists["meshes"].append({"name": part.name, "primitives": [primitive]})
        self._lists["materials"].append(self._material(part))

    def glb(self) -> bytes:
        """Return the bytes of the GLB file."""
        document: dict[str, Any] = {
            "asset": {"generator": GENERATOR, "version": "2.0"},
            "scene": 0,
            "scenes": [{"name": "Scene", "nodes": list(range(self._count("nodes")))}],
            **{name: entries for name, entries in self._lists.items() if entries},
        }
        if self._lists["textures"]:
            document["samplers"] = [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR}]
        document["buffers"] = [{"byteLength": len(self._buffer)}]
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self._buffer), b"BIN\0") + self._buffer
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def _count(self, name: str) -> int:
        return len(self._lists[name])

    def _view(self, data: bytes, **target: int) -> int:
        """Append data to the buffer. Return the index of its buffer view."""
        view = {"buffer": 0, "byteLength": len(data), "byteOffset": len(self._buffer), **target}
        self._lists["bufferViews"].append(view)
        self._buffer += data + bytes(-len(data) % 4)
        return self._count("bufferViews") - 1

    def _accessor(self, values: Float32, kind: str, **bounds: list[float]) -> int:
        view = self._view(values.tobytes(), target=_ARRAY_BUFFER)
        entry = {"bufferView": view, "componentType": _FLOAT, "count": len(values), **bounds, "type": kind}
        self._lists["accessors"].append(entry)
        return self._count("accessors") - 1

    def _indices(self, indices: NDArray[np.int64]) -> int:
        """Return the accessor of the indices. Equal indices share an accessor."""
        component = _UNSIGNED_SHORT if indices.max() < _MOST_SHORT else _UNSIGNED_INT
        data = indices.astype(np.uint16 if component == _UNSIGNED_SHORT else np.uint32).tobytes()
        if (component, data) not in self._index_accessors:
            view = self._view(data, target=_ELEMENT_ARRAY_BUFFER)
            entry = {"bufferView": view, "componentType": component, "count": len(indices), "type": "SCALAR"}
            self._lists["accessors"].append(entry)
            self._index_accessors[component, data] = self._count("accessors") - 1
        return self._index_accessors[component, data]

    def _material(self, part: GlbPart) -> dict[str, Any]:
        """Return the material of a part. Values that are glTF's default are left out."""
        surface: dict[str, Any] = {}
        if part.png is not None:
            image = {"bufferView": self._view(part.png), "mimeType": "image/png", "name": part.name}
            self._lists["images"].append(image)
            self._lists["textures"].append({"sampler": 0, "source": self._count("images") - 1})
            surface["baseColorTexture"] = {"index": self._count("textures") - 1}
        elif part.color != (1, 1, 1, 1):
            surface["baseColorFactor"] = _numbers(part.color)
        factors = {"metallicFactor": part.metallic, "roughnessFactor": part.roughness}
        surface |= {name: _number(value) for name, value in factors.items() if value != 1}
        return {"doubleSided": True, "name": part.name, **({"pbrMetallicRoughness": surface} if surface else {})}


def _merged(part: GlbPart) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Merge equal corners of a part.

    Returns:
        A pair: the distinct corners [n], a structured array of vertex, normal and texture coordinates in the axes of
        glTF, and the index of the distinct corner of every corner [3 * t].
    """
    normals = np.round(part.normals, _DECIMALS)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    np.divide(normals, lengths, out=normals, where=lengths != 0)
    normals[~normals.any(axis=1), 2] = 1
    normals = _y_up(normals)
    fields = [("vertex", np.uint32), *((name, np.float32) for name in "xyzuv")]
    corners = np.zeros(len(part.corners), fields)
    columns = (*normals.T, part.uv[:, 0], part.uv[:, 1] * np.float32(-1) + np.float32(1))
    corners["vertex"] = part.corners
    for name, column in zip("xyzuv", columns, strict=True):
        corners[name] = column + np.float32(0)  # -0 becomes 0
    words = corners.view(np.dtype((np.str_, corners.itemsize // 4)))  # compared word by word, in one sort
    distinct, indices = np.unique(words, return_inverse=True)
    return distinct.view(fields), indices


def _y_up(vectors: Float32) -> Float32:
    """Convert vectors [n, 3] from Blender's axes to glTF's: x, z, -y."""
    return np.stack([vectors[:, 0], vectors[:, 2], vectors[:, 1] * np.float32(-1)], 1)


def _numbers(values: Sequence[float]) -> list[float]:
    return [_number(value) for value in values]


def _number(value: float) -> float:
    """Return the value as an int if it has no fraction, which JSON writes without a point."""
    return int(value) if value == int(value) else value
