"""Unusual and invalid model files and images, for the zoo and for tests of single checks."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np

from tests.support.make_models import Gltf

NAN, INF = float("nan"), float("inf")


def png(width: int, height: int, grey: int = 1) -> bytes:
    """A PNG of one bit per pixel, all white (1) or black (0): 16384 x 16384 pixels in 33 kB."""
    row = b"\0" + bytes([255 * grey]) * ((width + 7) // 8)
    squeeze = zlib.compressobj(1)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def textured(image: bytes | dict, slot: str = "baseColorTexture") -> Gltf:
    """A lit square that faces +z with one texture: embedded bytes, or the image's own JSON (a uri)."""
    gltf = Gltf()
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    places = gltf.accessor(corners, "VEC3")
    uvs = gltf.accessor(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32), "VEC2")
    indices = gltf.accessor(np.array([0, 1, 2, 0, 2, 3], np.uint16), "SCALAR")
    if isinstance(image, bytes):
        view = {"buffer": 0, "byteOffset": len(gltf.binary), "byteLength": len(image)}
        gltf.binary += image + bytes(-len(image) % 4)
        image = {"bufferView": gltf.add("bufferViews", view), "mimeType": "image/png"}
    texture = {"index": gltf.add("textures", {"source": gltf.add("images", image)})}
    surface = {"metallicFactor": 0, "roughnessFactor": 1}
    if slot == "baseColorTexture":
        material = {"pbrMetallicRoughness": {**surface, slot: texture}}
    else:
        material = {"pbrMetallicRoughness": surface, slot: texture}
        if slot == "emissiveTexture":
            material["emissiveFactor"] = [1, 1, 1]
    primitive = {
        "attributes": {"POSITION": places, "TEXCOORD_0": uvs},
        "indices": indices,
        "material": gltf.add("materials", {**material, "doubleSided": True}),
    }
    gltf.node(mesh=gltf.add("meshes", {"primitives": [primitive]}))
    return gltf


def boxed(**node) -> Gltf:
    """A document with one colored box; the node's fields are free."""
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)), **node)
    return gltf


def separate(gltf: Gltf, path: Path, uri: str) -> Path:
    """Written as .gltf whose buffer is at `uri`; the buffer itself is not written."""
    gltf.document["buffers"] = [{"byteLength": len(gltf.binary), "uri": uri}]
    path.write_text(json.dumps(gltf.document))
    return path


def animated(times: tuple[float, float] = (0.0, 1.0)) -> Gltf:
    """A box, and one that moves from x = 3 to x = 9."""
    gltf = boxed()
    moving = gltf.node(mesh=gltf.box((1, 1, 1)))
    seconds = gltf.accessor(np.array(times, np.float32), "SCALAR")
    gltf.document["accessors"][seconds] |= {"min": [0.0], "max": [1.0]}
    places = gltf.accessor(np.array([[3, 0, 0], [9, 0, 0]], np.float32), "VEC3")
    channel = {"sampler": 0, "target": {"node": moving, "path": "translation"}}
    gltf.add("animations", {"channels": [channel], "samplers": [{"input": seconds, "output": places}]})
    return gltf


def rigged(spoil: float = 1.0) -> Gltf:
    """A box bound to one of two bones. `spoil` stands in the inverse bind matrix of the first, on its diagonal."""
    gltf = boxed()
    for primitive in gltf.document["meshes"][0]["primitives"]:
        primitive["attributes"]["JOINTS_0"] = gltf.accessor(np.zeros((4, 4), np.uint16), "VEC4")
        primitive["attributes"]["WEIGHTS_0"] = gltf.accessor(np.tile(np.float32([1, 0, 0, 0]), (4, 1)), "VEC4")
    matrices = np.tile(np.eye(4, dtype=np.float32).reshape(16), (2, 1))
    matrices[0, 0] = spoil
    bind = gltf.accessor(matrices, "MAT4")
    gltf.document["accessors"][bind] |= {"min": [0.0] * 16, "max": [1.0] * 16}
    tip = gltf.node(root=False, translation=[0, 1, 0])
    bone = gltf.node(children=[tip])
    skin = gltf.add("skins", {"joints": [bone, tip], "inverseBindMatrices": bind})
    gltf.document["nodes"][0]["skin"] = skin
    return gltf


TRIANGLE = "v 0 0 0\nv 2 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"


def obj(folder: Path, name: str, library: str, material: str | None = None) -> Path:
    (folder / f"{name}.obj").write_text(f"mtllib {library}\n{TRIANGLE}")
    if material is not None:
        (folder / f"{name}.mtl").write_text(f"newmtl a\nKd 1 0 0\n{material}\n")
    return folder / f"{name}.obj"


FBX = """; FBX 7.4.0 project file
FBXHeaderExtension:  {
    FBXHeaderVersion: 1003
    FBXVersion: 7400
}
Objects:  {
    Geometry: 10, "Geometry::a", "Mesh" {
        Vertices: *9 {
            a: 0,0,0,2,0,0,0,1,0
        }
        PolygonVertexIndex: *3 {
            a: 0,1,-3
        }
    }
    Model: 20, "Model::a", "Mesh" {
        Properties70:  {
            P: "Visibility", "Visibility", "", "A",VISIBLE
            P: "Show", "bool", "", "",VISIBLE
        }
    }
    Material: 30, "Material::a", "" {
        ShadingModel: "phong"
    }
    Texture: 40, "Texture::a", "" {
        FileName: "PICTURE"
        RelativeFilename: "PICTURE"
    }
}
Connections:  {
    C: "OO",20,0
    C: "OO",10,20
    C: "OO",30,20
    C: "OP",40,30, "DiffuseColor"
}
"""


def fbx(folder: Path, name: str, picture: str, visible: bool = True) -> Path:
    """A triangle with one texture, in FBX's text form."""
    (folder / f"{name}.fbx").write_text(FBX.replace("VISIBLE", str(int(visible))).replace("PICTURE", picture))
    return folder / f"{name}.fbx"
