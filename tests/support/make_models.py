"""Small model files with known geometry, for tests of the renderer: written without a library."""

import json
import struct
from pathlib import Path

import numpy as np

# corners of a box, glTF axes (y up): face -> four corners as signs, counter-clockwise seen from outside
FACES = {
    "front": [(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)],
    "back": [(1, -1, -1), (-1, -1, -1), (-1, 1, -1), (1, 1, -1)],
    "right": [(1, -1, 1), (1, -1, -1), (1, 1, -1), (1, 1, 1)],
    "left": [(-1, -1, -1), (-1, -1, 1), (-1, 1, 1), (-1, 1, -1)],
    "top": [(-1, 1, 1), (1, 1, 1), (1, 1, -1), (-1, 1, -1)],
    "bottom": [(-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)],
}
COLORS = {
    "front": (1.0, 0.0, 0.0),
    "back": (0.0, 0.0, 1.0),
    "right": (0.0, 1.0, 0.0),
    "left": (1.0, 1.0, 0.0),
    "top": (1.0, 0.0, 1.0),
    "bottom": (0.0, 1.0, 1.0),
}


class Gltf:
    """A glTF document under construction; `write` makes a GLB of it."""

    def __init__(self):
        self.binary = b""
        self.document = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}]}

    def add(self, key, entry):
        self.document.setdefault(key, []).append(entry)
        return len(self.document[key]) - 1

    def accessor(self, array, kind):
        array = np.ascontiguousarray(array)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": array.nbytes}
        self.binary += array.tobytes() + bytes(-array.nbytes % 4)
        code = {np.dtype("float32"): 5126, np.dtype("uint16"): 5123}[array.dtype]
        entry = {"bufferView": self.add("bufferViews", view), "componentType": code, "count": len(array), "type": kind}
        if kind != "SCALAR" or array.dtype.kind == "f":
            entry |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        if not np.isfinite(array).all():
            entry |= {"min": [0.0] * 3, "max": [1.0] * 3}
        return self.add("accessors", entry)

    def box(self, size, center=(0, 0, 0), spoil=None):
        """A mesh with one emissive color per side. `spoil` replaces one coordinate (NaN, infinity)."""
        primitives = []
        for face, corners in FACES.items():
            positions = (np.array(corners) * np.array(size) / 2 + center).astype(np.float32)
            if spoil is not None and face == "front":
                positions[1, 1] = spoil
            material = {"emissiveFactor": COLORS[face], "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
            primitives.append(
                {
                    "attributes": {"POSITION": self.accessor(positions, "VEC3")},
                    "indices": self.accessor(np.array([0, 1, 2, 0, 2, 3], np.uint16), "SCALAR"),
                    "material": self.add("materials", material),
                }
            )
        return self.add("meshes", {"primitives": primitives})

    def node(self, root=True, **fields):
        index = self.add("nodes", fields)
        if root:
            self.document["scenes"][0]["nodes"].append(index)
        return index

    def write(self, path: Path) -> Path:
        if self.binary:
            self.document["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        if self.binary:
            chunks += struct.pack("<II", len(self.binary), 0x004E4942) + self.binary
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
        return path


def box_glb(path: Path, size=(1, 1, 1), center=(0, 0, 0), spoil=None) -> Path:
    gltf = Gltf()
    gltf.node(mesh=gltf.box(size, center, spoil))
    return gltf.write(path)


def bad_models(folder: Path) -> dict[str, str]:
    """Files that cannot be rendered, as uid -> the error class that each must be recorded with."""
    whole = box_glb(folder / "whole.glb").read_bytes()
    (folder / "whole.glb").unlink()
    (folder / "bad_truncated.glb").write_bytes(whole[: len(whole) // 2])
    (folder / "bad_empty.glb").write_bytes(b"")
    (folder / "bad_text.glb").write_text("this is a letter to a friend, not a model\n")
    meshless = Gltf()
    meshless.node(name="nothing here")
    meshless.write(folder / "bad_meshless.glb")
    box_glb(folder / "bad_nan.glb", spoil=float("nan"))
    return {
        "bad_truncated": "ModelError",
        "bad_empty": "ModelError",
        "bad_text": "ModelError",
        "bad_meshless": "NoMesh",
        "bad_nan": "NonFinitePositions",
    }
