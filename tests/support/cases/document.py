"""Shapes, images and glTF documents as plain lists, to make small files like those of public bug reports."""

import base64
import io
import json
import struct
from pathlib import Path

from PIL import Image

FLOAT, USHORT, UBYTE = 5126, 5123, 5121
CODES = {FLOAT: "f", USHORT: "H", UBYTE: "B"}
RED, GREEN, BLUE = (0.8, 0.05, 0.05), (0.05, 0.6, 0.1), (0.05, 0.1, 0.8)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def cube(size=1.0, at=(0, 0, 0), flip=False):
    """24 positions, 24 texture coordinates, 36 indices. With `flip`, the faces point inward."""
    half = size / 2
    positions, coordinates, indices = [], [], []
    for axis in range(3):
        for sign in (1, -1):
            first = len(positions)
            u, v = (axis + 1) % 3, (axis + 2) % 3
            for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = [0.0, 0.0, 0.0]
                point[axis], point[u], point[v] = sign * half, s * half * sign, t * half
                positions.append([point[i] + at[i] for i in range(3)])
                coordinates.append([(s + 1) / 2, (1 - t) / 2])
            order = [0, 1, 2, 0, 2, 3]
            indices += [first + i for i in (order[::-1] if flip else order)]
    return positions, coordinates, indices


def arrow(at=(0, 0, 0), scale=1.0):
    """A tall thin pyramid with its top at +y and a small foot at +z."""
    points = [[-0.2, 0, -0.2], [0.2, 0, -0.2], [0.2, 0, 0.2], [-0.2, 0, 0.2], [0, 1, 0], [0, 0, 0.5]]
    indices = [0, 1, 2, 0, 2, 3, 0, 4, 1, 1, 4, 2, 2, 4, 3, 3, 4, 0, 2, 4, 5, 3, 5, 4, 2, 5, 3]
    return [[(a + b) * scale for a, b in zip(point, at, strict=True)] for point in points], None, indices


def checker(a=(220, 30, 30), b=(30, 60, 220), *, n=4, size=32, mode="RGB", fmt="PNG"):
    """An image file of red and blue squares."""
    image = Image.new(mode, (size, size))
    image.putdata([tuple(a if (x * n // size + y * n // size) % 2 else b) for y in range(size) for x in range(size)])
    return encoded(image, fmt)


def encoded(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


class Document:
    """A glTF document under construction."""

    def __init__(self):
        self.json = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}]}
        self.binary = bytearray()

    def add(self, key, value):
        self.json.setdefault(key, []).append(value)
        return len(self.json[key]) - 1

    def view(self, data):
        self.binary += bytes(-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data
        return self.add("bufferViews", view)

    def accessor(self, rows, kind, component=FLOAT):
        flat = list(rows) if kind == "SCALAR" else [value for row in rows for value in row]
        view = self.view(struct.pack(f"<{len(flat)}{CODES[component]}", *flat))
        entry = {"bufferView": view, "componentType": component, "count": len(rows), "type": kind}
        if kind == "VEC3" and component == FLOAT:
            entry |= {"min": list(map(min, zip(*rows, strict=True))), "max": list(map(max, zip(*rows, strict=True)))}
        return self.add("accessors", entry)

    def mesh(self, shape, material=None, mode=None, color=None):
        positions, coordinates, indices = shape
        primitive = {"attributes": {"POSITION": self.accessor(positions, "VEC3")}}
        if coordinates:
            primitive["attributes"]["TEXCOORD_0"] = self.accessor(coordinates, "VEC2")
        if color:
            primitive["attributes"]["COLOR_0"] = self.accessor(color, f"VEC{len(color[0])}")
        if indices:
            primitive["indices"] = self.accessor(indices, "SCALAR", USHORT)
        primitive |= {key: value for key, value in (("material", material), ("mode", mode)) if value is not None}
        return self.add("meshes", {"primitives": [primitive]})

    def node(self, root=True, **fields):
        index = self.add("nodes", fields)
        if root:
            self.json["scenes"][0]["nodes"].append(index)
        return index

    def texture(self, data, mime="image/png"):
        image = self.add("images", {"bufferView": self.view(data), "mimeType": mime})
        return self.add("textures", {"source": image})

    def plain(self, r, g, b, a=1.0, **fields):
        surface = {"baseColorFactor": [r, g, b, a], "metallicFactor": 0}
        return self.add("materials", {"pbrMetallicRoughness": surface, **fields})

    def textured(self, texture, **fields):
        surface = {"baseColorTexture": {"index": texture}, "metallicFactor": 0}
        return self.add("materials", {"pbrMetallicRoughness": surface, **fields})

    def animate(self, node, path, keys, times=(0.0, 1.0), **fields):
        sampler = {"input": self.accessor(times, "SCALAR"), "output": self.accessor(keys, "VEC3")}
        channel = {"sampler": 0, "target": {"node": node, "path": path}}
        self.add("animations", {"samplers": [sampler], "channels": [channel], **fields})

    def glb(self, path, trailing=b""):
        text = json.dumps({**self.json, "buffers": [{"byteLength": len(self.binary)}]}).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + bytes(-len(self.binary) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text
        body += struct.pack("<II", len(binary), 0x004E4942) + binary if binary else b""
        put(path, b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body + trailing)

    def gltf(self, path, uri=None, file=None, bom=False):
        """Without `uri` the buffer is embedded; else it is written to `file`, which `uri` names."""
        data = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        document = {**self.json, "buffers": [{"byteLength": len(self.binary), "uri": uri or data}]}
        put(path, (b"\xef\xbb\xbf" if bom else b"") + json.dumps(document).encode())
        if uri:
            put(path.parent / file, bytes(self.binary))


def simple(shape, *color, **node):
    """A document with one plain object."""
    document = Document()
    document.node(mesh=document.mesh(shape, document.plain(*color)), **node)
    return document
