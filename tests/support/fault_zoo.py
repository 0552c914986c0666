"""A zoo of invalid and unusual model files, each with its expected outcome. See `zoo`."""

import base64
import gzip
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.fault_models import animated, boxed, fbx, obj, png, rigged, separate, textured
from tests.support.make_models import bad_models, box_glb

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


def zoo(folder: Path) -> list[Specimen]:
    """Write all specimens into `folder`, and files that they must not read next to it."""
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
        Specimen(folder / "deep_nodes.glb", "ModelError"),
        Specimen(folder / "cycle.glb", "ModelError"),
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
        Specimen(folder / "buffer_of_4_gb.glb"),  # a false size, but all data that is read exists
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
    """glTF files with references to buffers and images outside of their folder."""
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
            specimens.append(
                Specimen(path, "UnsafeReference") if kind == "bin" else Specimen(path, flags=("missing-texture",))
            )
    disguised = separate(boxed(), folder / "unsafe_data_uri.gltf", "data:,/../../outside.bin")
    os.mkfifo(folder / "pipe.png")
    textured({"uri": "pipe.png"}).write(folder / "texture_is_a_pipe.glb")
    return [*specimens, Specimen(disguised, "ModelError"), Specimen(folder / "texture_is_a_pipe.glb", "ModelError")]


def _odd(folder: Path) -> list[Specimen]:
    """Unusual files that are valid."""
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
        Specimen(obj(folder, "obj_library_outside", "../outside.mtl"), flags=("missing-material",)),
        Specimen(obj(folder, "obj_library_absolute", str(outside.with_suffix(".mtl"))), flags=("missing-material",)),
        Specimen(obj(folder, "obj_map_outside", "obj_map_outside.mtl", "map_Kd ../outside.png"), flags=missing),
        Specimen(obj(folder, "obj_map_absolute", "other.mtl", "map_Kd /etc/passwd"), flags=missing),
        Specimen(obj(folder, "obj_map_options", "obj_map_options.mtl", f"map_Bump -bm 0.5 {outside}"), flags=missing),
        Specimen(obj(folder, "obj_map_missing", "obj_map_missing.mtl", "map_Kd gone.png"), flags=missing),
        Specimen(obj(folder, "obj_map_stale", "obj_map_stale.mtl", "map_Kd C:\\art\\inside.png")),
        Specimen(obj(folder, "obj_map_bomb", "obj_map_bomb.mtl", "map_Kd inside_bomb.png"), "TooLarge"),
        Specimen(obj(folder, "obj_library_missing", "gone.mtl"), flags=("missing-material",)),
        Specimen(folder / "obj_index_outside.obj"),
        Specimen(fbx(folder, "fbx_sound", "inside.png"), flags=("untextured",)),  # it has no texture coordinates
        Specimen(fbx(folder, "fbx_hidden", "inside.png", visible=False), "NoMesh"),
        Specimen(fbx(folder, "fbx_map_missing", "gone.png"), flags=(*missing, "untextured")),
        Specimen(fbx(folder, "fbx_map_outside", "../outside.png"), flags=(*missing, "untextured")),
        Specimen(fbx(folder, "fbx_map_absolute", str(outside)), flags=(*missing, "untextured")),
        Specimen(fbx(folder, "fbx_map_bomb", "inside_bomb.png"), "TooLarge"),
        Specimen(folder / "garbage_obj.obj", "NoMesh"),
        Specimen(folder / "garbage_fbx.fbx", "ImportFailed"),
        Specimen(folder / "garbage_stl.stl", "ModelError"),
        Specimen(folder / "garbage_ply.ply", "ModelError"),
        Specimen(folder / "nothing_obj.obj", "ModelError"),
        Specimen(folder / "nothing_fbx.fbx", "ModelError"),
        Specimen(folder / "nothing_stl.stl", "ModelError"),
        Specimen(folder / "nothing_ply.ply", "ModelError"),
        Specimen(folder / "fbx_cut.fbx", "NoMesh"),
        Specimen(folder / "stl_claims.stl", "ModelError"),
        Specimen(folder / "ply_claims.ply", "ModelError"),
    ]
