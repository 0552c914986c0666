"""Whether images are drawn, and opacity maps, in this process."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.fault_models import png, textured
from tests.support.make_models import Gltf
from tests.support.paths import ROOT

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import scene  # noqa: E402  (they import bpy)
from render.blender.textures import sanitize_textures  # noqa: E402

FILES = ROOT / "tests" / "golden" / "files"


def without_coordinates() -> Gltf:
    gltf = textured(png(8, 8))
    del gltf.document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    return gltf


def unused() -> Gltf:
    gltf = textured(png(8, 8))
    del gltf.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    return gltf


@pytest.mark.parametrize(
    ("gltf", "flags"),
    [
        (textured(png(8, 8)), ()),
        (textured(png(8, 8), "normalTexture"), ()),
        (textured(png(8, 8), "occlusionTexture"), ()),  # does not matter here
        (without_coordinates(), ("untextured",)),
        (unused(), ("untextured",)),
    ],
)
def test_an_object_is_untextured_if_none_of_its_images_is_drawn(
    gltf: Gltf, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert scene.prepare(gltf.write(tmp_path / "a.glb")) == flags


def test_images_of_other_formats_that_are_not_drawn_are_flagged(tmp_path: Path) -> None:
    text = (FILES / "f10_sibling" / "meshes" / "f10.fbx").read_text()
    (tmp_path / "a.fbx").write_text(text.replace('C: "OP",5,4, "DiffuseColor"', ""))
    assert scene.prepare(tmp_path / "a.fbx") == ("untextured",)
    (tmp_path / "a.png").write_bytes(png(8, 8))
    (tmp_path / "a.mtl").write_text("newmtl a\nmap_Kd a.png\nnewmtl b\nKd 1 0 0\n")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl b\nf 1/1 2/1 3/1\n")
    assert scene.prepare(tmp_path / "a.obj") == ("untextured",)
    text = (FILES / "y11_texture" / "y11_texture.ply").read_text()
    (tmp_path / "a.ply").write_text(text.replace("float s", "float other").replace("wood.png", "a.png"))
    assert scene.prepare(tmp_path / "a.ply") == ("untextured",)


@pytest.mark.parametrize(
    ("mode", "statements", "socket"),
    [
        ("RGB", "map_Kd b.png\nmap_d a.png\n", "Color"),
        ("L", "map_d a.png\n", "Color"),
        ("RGBA", "map_d a.png\n", "Alpha"),
        ("RGB", "map_Kd a.png\nmap_d a.png\n", "Alpha"),  # the base color, not a mask
    ],
)
def test_an_opacity_map_without_alpha_acts_by_its_color(
    mode: str, statements: str, socket: str, tmp_path: Path
) -> None:
    Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).convert(mode).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "a.mtl").write_text("newmtl a\n" + statements)
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl a\nf 1/1 2/1 3/1\n")
    scene.prepare(tmp_path / "a.obj")
    assert not sanitize_textures(tmp_path, masks=True)
    surface = bpy.context.scene.objects[0].material_slots[0].material.node_tree.nodes["Principled BSDF"]
    link = surface.inputs["Alpha"].links[0]
    assert link.from_socket.name == socket
    assert link.from_node.image.colorspace_settings.is_data == (socket == "Color")
