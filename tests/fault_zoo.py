"""A zoo of bad and odd model files: each with the one outcome it must have. See `zoo`."""

import base64
import gzip
import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.make_models import Gltf, bad_models, box_glb

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Specimen:
    """A file, the error class it must be recorded with ("" when it must render), and the flags it must then have."""

    path: Path
    error: str = ""
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.stem


def png(width: int, height: int, grey: int = 1) -> bytes:
    """A PNG of one bit a pixel, all white (1) or black (0): 16384 x 16384 pixels in 33 kB."""
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
    """A document with one coloured box; the node's fields are free."""
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)), **node)
    return gltf


def separate(gltf: Gltf, path: Path, uri: str) -> Path:
    """Written as .gltf whose buffer is at `uri`; the buffer itself is not written."""
    gltf.document["buffers"] = [{"byteLength": len(gltf.binary), "uri": uri}]
    path.write_text(json.dumps(gltf.document))
    return path


def zoo(folder: Path) -> list[Specimen]:
    """Write all specimens into `folder`, and what they must not read beside it."""
    folder.mkdir(parents=True)
    (folder.parent / "outside.bin").write_bytes(boxed().binary)
    (folder.parent / "outside.png").write_bytes(png(8, 8))
    specimens = [Specimen(folder / f"{uid}.glb", kind) for uid, kind in bad_models(folder).items()]
    for add in (_broken, _claims, _not_numbers, _nothing_to_see, _pictures, _unsafe, _odd, _other_formats):
        specimens += add(folder)
    return specimens


def _broken(folder: Path) -> list[Specimen]:
    """Files that are not what their name says, or contradict themselves."""
    (folder / "gzipped.glb").write_bytes(gzip.compress(box_glb(folder / "tmp.glb").read_bytes()))
    (folder / "tmp.glb").unlink()
    (folder / "deep_json.gltf").write_text('{"asset":' + "[" * 200_000)
    separate(boxed(), folder / "buffer_missing.gltf", "gone.bin")
    index = boxed()
    index.document["accessors"][1]["bufferView"] = index.document["accessors"][3]["bufferView"] = len(
        index.document["bufferViews"]
    )
    index.accessor(np.array([0, 1, 2, 0, 2, 9], np.uint16), "SCALAR")
    index.write(folder / "index_outside.glb")
    chain = boxed()
    for i in range(3000):
        chain.node(root=False, children=[i])
    chain.document["scenes"][0]["nodes"] = [3000]
    chain.write(folder / "deep_nodes.glb")
    cycle = boxed(children=[1])
    cycle.node(root=False, children=[0])
    cycle.write(folder / "cycle.glb")
    draco = boxed()
    draco.document["extensionsUsed"] = draco.document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    for primitive in draco.document["meshes"][0]["primitives"]:
        primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    for accessor in draco.document["accessors"]:
        del accessor["bufferView"]
    draco.write(folder / "draco_garbage.glb")
    unknown = boxed()
    unknown.document["extensionsUsed"] = unknown.document["extensionsRequired"] = ["ACME_everything"]
    unknown.write(folder / "extension_unknown.glb")
    return [
        Specimen(folder / "gzipped.glb", "ModelError"),
        Specimen(folder / "deep_json.gltf", "ModelError"),
        Specimen(folder / "buffer_missing.gltf", "ModelError"),
        Specimen(folder / "index_outside.glb", "ModelError"),
        Specimen(folder / "deep_nodes.glb", "ImportFailed"),
        Specimen(folder / "cycle.glb", "ImportFailed"),
        Specimen(folder / "draco_garbage.glb", "ModelError"),
        Specimen(folder / "extension_unknown.glb", "ImportFailed"),
    ]


def _claims(folder: Path) -> list[Specimen]:
    """Small files that ask for much memory."""
    count = boxed()
    count.document["accessors"][0]["count"] = 1 << 31
    count.write(folder / "count_of_2_31.glb")
    absent = boxed()
    absent.document["accessors"][0] = {"componentType": 5126, "type": "VEC3", "count": 1 << 31}
    absent.write(folder / "zeros_of_2_31.glb")
    shared = boxed()
    mesh = shared.document["meshes"][0]
    many = shared.accessor(np.zeros(60_000, np.uint16), "SCALAR")
    mesh["primitives"] = [{**mesh["primitives"][0], "indices": many}] * 4000
    shared.write(folder / "shared_240m_corners.glb")
    instanced = boxed()
    places = instanced.add("accessors", {"componentType": 5126, "type": "VEC3", "count": 1_000_000})
    instanced.document["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": places}}}
    instanced.write(folder / "million_instances.glb")
    values = boxed()
    values.document["extras"] = [0] * 9_000_000
    values.write(folder / "nine_million_values.glb")
    buffer = boxed()
    buffer.write(folder / "buffer_of_4_gb.glb")
    data = (folder / "buffer_of_4_gb.glb").read_bytes()
    old = f'"byteLength": {len(buffer.binary)}}}]}}'.encode()
    new = old.replace(str(len(buffer.binary)).encode(), b"4294967292")
    assert data.count(old) == 1
    padded = new + b" " * ((len(old) - len(new)) % 4)
    grown = len(padded) - len(old)
    sizes = struct.unpack_from("<III", data, 8)
    body = data[20:].replace(old, padded)
    (folder / "buffer_of_4_gb.glb").write_bytes(
        data[:8] + struct.pack("<III", sizes[0] + grown, sizes[1] + grown, sizes[2]) + body
    )
    return [
        Specimen(folder / "count_of_2_31.glb", "ModelError"),
        Specimen(folder / "zeros_of_2_31.glb", "TooLarge"),
        Specimen(folder / "shared_240m_corners.glb", "TooLarge"),
        Specimen(folder / "million_instances.glb", "TooLarge"),
        Specimen(folder / "nine_million_values.glb", "TooLarge"),
        Specimen(folder / "buffer_of_4_gb.glb"),  # a lie that harms nobody: all that is read is there
    ]


def _not_numbers(folder: Path) -> list[Specimen]:
    box_glb(folder / "infinite.glb", spoil=INF)
    boxed(scale=[1, NAN, 1]).write(folder / "scale_nan.glb")
    boxed(translation=[1e999, 0, 0]).write(folder / "translation_infinite.glb")
    boxed(matrix=[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, NAN, 0, 1]).write(folder / "matrix_nan.glb")
    grown = boxed(scale=[1e30] * 3)
    grown.document["scenes"][0]["nodes"] = [grown.node(root=False, children=[0], scale=[1e30] * 3)]
    grown.write(folder / "scale_overflows.glb")
    for kind, width in (("NORMAL", "VEC3"), ("TEXCOORD_0", "VEC2")):
        gltf = boxed()
        values = gltf.accessor(np.full((4, int(width[-1])), NAN, np.float32), width)
        gltf.document["accessors"][values] |= {"min": [0.0] * int(width[-1]), "max": [1.0] * int(width[-1])}
        for primitive in gltf.document["meshes"][0]["primitives"]:
            primitive["attributes"][kind] = values
        gltf.write(folder / f"{kind.lower()}_nan.glb")
    morph = boxed()
    for primitive in morph.document["meshes"][0]["primitives"]:
        primitive["targets"] = [{"POSITION": morph.accessor(np.full((4, 3), NAN, np.float32), "VEC3")}]
    morph.write(folder / "morph_nan.glb")
    animated((NAN, 1.0)).write(folder / "animation_nan.glb")
    animated((1e30, 2e30)).write(folder / "animation_far.glb")
    rigged(NAN).write(folder / "rig_nan.glb")
    return [
        Specimen(folder / "infinite.glb", "NonFinitePositions"),
        Specimen(folder / "scale_nan.glb", "NonFinitePositions"),
        Specimen(folder / "translation_infinite.glb", "NonFinitePositions"),
        Specimen(folder / "matrix_nan.glb", "NonFinitePositions"),
        Specimen(folder / "scale_overflows.glb", "NonFinitePositions"),
        Specimen(folder / "normal_nan.glb"),
        Specimen(folder / "texcoord_0_nan.glb"),
        Specimen(folder / "morph_nan.glb", "NonFinitePositions"),
        Specimen(folder / "animation_nan.glb", "NonFinitePositions"),
        Specimen(folder / "animation_far.glb"),
        Specimen(folder / "rig_nan.glb", "NonFinitePositions"),
    ]


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


def _nothing_to_see(folder: Path) -> list[Specimen]:
    box_glb(folder / "zero_size.glb", size=(0, 0, 0))
    boxed(scale=[0, 0, 0]).write(folder / "zero_scale.glb")
    hidden = boxed()
    hidden.document["scenes"] = [{"nodes": []}, {"nodes": [0]}]
    hidden.write(folder / "in_the_other_scene.glb")
    orphan = boxed()
    orphan.document["scenes"] = [{"nodes": []}]
    orphan.write(folder / "in_no_scene.glb")
    clear = boxed()
    for material in clear.document["materials"]:
        material |= {"alphaMode": "BLEND", "emissiveFactor": [0, 0, 0]}
        material["pbrMetallicRoughness"] = {"baseColorFactor": [0, 0, 0, 0]}
    clear.write(folder / "transparent.glb")
    return [
        Specimen(folder / "zero_size.glb", "ZeroSize"),
        Specimen(folder / "zero_scale.glb", "ZeroSize"),
        Specimen(folder / "in_the_other_scene.glb", "NoMesh"),
        Specimen(folder / "in_no_scene.glb", "NoMesh"),
        Specimen(folder / "transparent.glb", "Empty"),
    ]


def _pictures(folder: Path) -> list[Specimen]:
    """Textures that are missing, broken or bombs."""
    missing = ("missing-texture",)
    textured({"uri": "gone.png"}).write(folder / "texture_missing.glb")
    textured(b"no picture at all").write(folder / "texture_garbage.glb")
    textured(png(64, 64)[:60]).write(folder / "texture_truncated.glb")
    data = "data:image/png;base64," + base64.b64encode(bytes(6_000_000)).decode()
    textured({"uri": data}).write(folder / "texture_huge_data_uri.glb")
    textured({"uri": "data:image/png;base64," + base64.b64encode(png(8, 8)).decode()}).write(folder / "texture_uri.glb")
    compressed = textured({"uri": "a.ktx2"})
    compressed.document["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    compressed.write(folder / "texture_ktx2.glb")
    textured(png(30_000, 30_000)).write(folder / "texture_bomb.glb")
    textured(png(5000, 40)).write(folder / "texture_wide.glb")
    return [
        Specimen(folder / "texture_missing.glb", flags=missing),
        Specimen(folder / "texture_garbage.glb", flags=missing),
        Specimen(folder / "texture_truncated.glb", flags=missing),
        Specimen(folder / "texture_huge_data_uri.glb", flags=missing),
        Specimen(folder / "texture_uri.glb"),
        Specimen(folder / "texture_ktx2.glb", flags=missing),
        Specimen(folder / "texture_bomb.glb", "TooLarge"),
        Specimen(folder / "texture_wide.glb"),
    ]


def _unsafe(folder: Path) -> list[Specimen]:
    """glTF files that refer to what lies outside: buffers and pictures, in every spelling."""
    outside = folder.parent / "outside"
    (folder / "link.bin").symlink_to(outside.with_suffix(".bin"))
    (folder / "link.png").symlink_to(outside.with_suffix(".png"))
    (folder / "up").symlink_to(folder.parent)
    specimens = []
    for kind in ("bin", "png"):
        spellings = {
            "dots": f"../outside.{kind}",
            "encoded": f"%2e%2e/outside.{kind}",
            "encoded_slash": f"..%2Foutside.{kind}",
            "backslash": f"..\\outside.{kind}",
            "absolute": f"{outside}.{kind}",
            "file_url": f"file://{outside}.{kind}",
            "link": f"link.{kind}",
            "linked_folder": f"up/outside.{kind}",
        }
        for spelling, uri in spellings.items():
            path = folder / f"unsafe_{kind}_{spelling}.gltf"
            if kind == "bin":
                separate(boxed(), path, uri)
            else:
                textured({"uri": uri}).write(path.with_suffix(".glb"))
                path = path.with_suffix(".glb")
            specimens.append(Specimen(path, "UnsafeReference"))
    disguised = separate(boxed(), folder / "unsafe_data_uri.gltf", "data:,/../../outside.bin")
    os.mkfifo(folder / "pipe.png")
    textured({"uri": "pipe.png"}).write(folder / "texture_is_a_pipe.glb")
    return [*specimens, Specimen(disguised, "ModelError"), Specimen(folder / "texture_is_a_pipe.glb", "ModelError")]


def _odd(folder: Path) -> list[Specimen]:
    """Files that are unusual and right."""
    animated().write(folder / "animated.glb")
    rigged().write(folder / "rigged.glb")
    scenes = boxed()
    scenes.document["scenes"] += [{"nodes": [scenes.node(root=False, mesh=0, translation=[5, 0, 0])]}]
    scenes.node(root=False, mesh=0, translation=[9, 0, 0])
    scenes.write(folder / "two_scenes.glb")
    del scenes.document["scene"]
    scenes.write(folder / "two_scenes_none_chosen.glb")
    boxed(scale=[1e6] * 3).write(folder / "scale_1e6.glb")
    boxed(scale=[1e-6] * 3).write(folder / "scale_1e-6.glb")
    staged = boxed(extras={"cycles": {"is_holdout": True}, "hide_render": True})
    staged.document["scenes"][0]["extras"] = {"cycles": {"samples": 4096}}
    staged.document["extensionsUsed"] = ["KHR_lights_punctual"]
    staged.document["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "point", "intensity": 5000.0}]}}
    staged.node(translation=[0, 2, 2], extensions={"KHR_lights_punctual": {"light": 0}})
    camera = staged.add("cameras", {"type": "perspective", "perspective": {"yfov": 0.7, "znear": 0.1}})
    staged.node(translation=[0, 0, 4], camera=camera)
    staged.write(folder / "lights_and_cameras.glb")
    names = ("animated", "rigged", "two_scenes", "two_scenes_none_chosen", "scale_1e6", "scale_1e-6")
    return [Specimen(folder / f"{name}.glb") for name in (*names, "lights_and_cameras")]


TRIANGLE = "v 0 0 0\nv 2 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"


def _obj(folder: Path, name: str, library: str, material: str | None = None) -> Path:
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


def _fbx(folder: Path, name: str, picture: str, visible: bool = True) -> Path:
    """A triangle with one texture, in FBX's text form."""
    (folder / f"{name}.fbx").write_text(FBX.replace("VISIBLE", str(int(visible))).replace("PICTURE", picture))
    return folder / f"{name}.fbx"


def _other_formats(folder: Path) -> list[Specimen]:
    outside, missing = folder.parent / "outside.png", ("missing-texture",)
    (folder.parent / "outside.mtl").write_text("newmtl a\nKd 1 0 0\n")
    (folder / "inside.png").write_bytes(png(8, 8))
    (folder / "inside_bomb.png").write_bytes(png(30_000, 30_000))
    rng = np.random.default_rng(0)
    for suffix in ("obj", "fbx", "stl", "ply"):
        (folder / f"garbage_{suffix}.{suffix}").write_bytes(rng.bytes(3000))
        (folder / f"nothing_{suffix}.{suffix}").write_bytes(b"")
    (folder / "fbx_cut.fbx").write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", 7400) + bytes(40))
    (folder / "stl_claims.stl").write_bytes(bytes(80) + struct.pack("<I", 0xFFFFFFFF) + bytes(50))
    faces = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    faces += "element face 2147483647\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n"
    (folder / "ply_claims.ply").write_text(faces)
    (folder / "obj_index_outside.obj").write_text("v 0 0 0\nv 2 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 99\nf -9 1 2\n")
    return [
        Specimen(_obj(folder, "obj_library_outside", "../outside.mtl"), "UnsafeReference"),
        Specimen(_obj(folder, "obj_library_absolute", str(outside.with_suffix(".mtl"))), "UnsafeReference"),
        Specimen(_obj(folder, "obj_map_outside", "obj_map_outside.mtl", "map_Kd ../outside.png"), "UnsafeReference"),
        Specimen(_obj(folder, "obj_map_absolute", "other.mtl", "map_Kd /etc/passwd"), "UnsafeReference"),
        Specimen(
            _obj(folder, "obj_map_options", "obj_map_options.mtl", f"map_Bump -bm 0.5 {outside}"), "UnsafeReference"
        ),
        Specimen(_obj(folder, "obj_map_missing", "obj_map_missing.mtl", "map_Kd gone.png"), flags=missing),
        Specimen(_obj(folder, "obj_map_stale", "obj_map_stale.mtl", "map_Kd C:\\art\\inside.png")),
        Specimen(_obj(folder, "obj_map_bomb", "obj_map_bomb.mtl", "map_Kd inside_bomb.png"), "TooLarge"),
        Specimen(_obj(folder, "obj_library_missing", "gone.mtl")),
        Specimen(folder / "obj_index_outside.obj"),
        Specimen(_fbx(folder, "fbx_sound", "inside.png")),
        Specimen(_fbx(folder, "fbx_hidden", "inside.png", visible=False), "NoMesh"),
        Specimen(_fbx(folder, "fbx_map_missing", "gone.png"), flags=missing),
        Specimen(_fbx(folder, "fbx_map_outside", "../outside.png"), "UnsafeReference"),
        Specimen(_fbx(folder, "fbx_map_absolute", str(outside)), "UnsafeReference"),
        Specimen(_fbx(folder, "fbx_map_bomb", "inside_bomb.png"), "TooLarge"),
        Specimen(folder / "garbage_obj.obj", "NoMesh"),
        Specimen(folder / "garbage_fbx.fbx", "ImportFailed"),
        Specimen(folder / "garbage_stl.stl", "NoMesh"),
        Specimen(folder / "garbage_ply.ply", "ModelError"),
        Specimen(folder / "nothing_obj.obj", "NoMesh"),
        Specimen(folder / "nothing_fbx.fbx", "ImportFailed"),
        Specimen(folder / "nothing_stl.stl", "ImportFailed"),
        Specimen(folder / "nothing_ply.ply", "ModelError"),
        Specimen(folder / "fbx_cut.fbx", "NoMesh"),
        Specimen(folder / "stl_claims.stl", "NoMesh"),
        Specimen(folder / "ply_claims.ply", "ModelError"),
    ]
