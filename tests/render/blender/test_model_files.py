"""Status, flags and colors of small files that were rendered gray or failed. See tests/golden/files."""

from pathlib import Path

import numpy as np
import pytest

from render.rigs.cameras import Light, Pose
from render.settings import Settings, environment_maps
from tests.support.make_models import Gltf
from tests.support.paths import ROOT

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.textures import sanitize_textures  # noqa: E402

pytestmark = pytest.mark.integration

CASES = ROOT / "tests" / "golden" / "files"
GONE = ("missing-texture",)


def colors(path: Path, tmp_path: Path) -> tuple[set[str], tuple[str, ...]]:
    """Return the colors of at least a tenth of an object's visible pixels, and its flags; the source is CASES."""
    flags = scene.prepare(path, CASES)
    scene.normalize("longest")
    if sanitize_textures(path.parent, CASES):
        flags = (*flags, "missing-texture")
    name, environment = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), environment)
    cycles.configure(Settings(resolution=32, samples=16, noise_threshold=0.0), threads=1)
    image = cycles.render_view(Pose(20.0, 30.0), 1, tmp_path)
    red, green, blue = image[image[..., 3] > 127][:, :3].astype(float).T
    shares = {
        "red": (red > 1.4 * np.maximum(green, blue)).mean(),
        "blue": (blue > 1.4 * np.maximum(red, green)).mean(),
        "gray": (np.maximum(np.maximum(red, green), blue) < 1.2 * np.minimum(np.minimum(red, green), blue)).mean(),
    }
    return {color for color, share in shares.items() if share > 0.1}, flags


@pytest.mark.parametrize(
    ("name", "expected", "flags"),
    [
        ("f02_absolute_both_beside/f02_absolute_both_beside.fbx", {"red", "blue"}, ()),
        ("f10_sibling/meshes/f10.fbx", {"red", "blue"}, ()),
        ("f12_vertex_colours.fbx", {"red", "blue"}, ()),
        ("g06_scale_from_zero.glb", {"red", "blue"}, ("rest-pose",)),
        ("g35_sibling/scene/model.gltf", {"red", "blue"}, ()),
        ("g36_sibling_bin/scene/model.gltf", {"red", "blue"}, ()),
        ("g38_windows_path/model.gltf", {"gray"}, GONE),
        ("g40_http_url/model.gltf", {"gray"}, GONE),
        ("g46_trailing_bytes.glb", {"red"}, ()),
        ("g66_part_parked_far_away.glb", {"red"}, ("doubled-faces", "rest-pose")),
        ("g70_two_own_attributes.glb", {"red"}, ()),
        ("m04_unknown_required.glb", {"red"}, ("unsupported-extension",)),
        ("o01_missing_mtl/o01_missing_mtl.obj", {"gray"}, ("missing-material",)),
        ("o10_vertex_colours_and_mtl/o10_vertex_colours_and_mtl.obj", {"red", "blue"}, ()),
        ("o20_bom/o20_bom.obj", {"red"}, ()),
        ("o22_cr_only/o22_cr_only.obj", {"red"}, ()),
        ("o30_two_mtl/o30_two_mtl.obj", {"red"}, ()),
        ("o40_shapenet/models/model_normalized.obj", {"red", "blue"}, ()),
        ("o42_mtl_above/meshes/model.obj", {"red"}, ()),
        ("o44_mtllib_backslash/o44_mtllib_backslash.obj", {"red"}, ()),
        ("o47_usemtl_unknown/o47_usemtl_unknown.obj", {"red"}, ()),  # it differs in case only
        ("s08_ascii_upper.stl", {"gray"}, ()),
        ("y09_face_colours.ply", {"red", "blue"}, ()),
        ("y11_texture/y11_texture.ply", {"red", "blue"}, ()),
        ("y13_face_first.ply", {"red", "blue"}, ()),
        ("y18_vertex_list_property.ply", {"gray"}, ()),
        ("y19_diffuse_names.ply", {"red", "blue"}, ()),
    ],
)
def test_a_file_has_its_colors_and_flags(name: str, expected: set[str], flags: tuple[str, ...], tmp_path: Path) -> None:
    assert colors(CASES / name, tmp_path) == (expected, flags)


def failure(path: Path) -> tuple[str, str]:
    with pytest.raises(scene.ObjectError) as caught:
        scene.build(path, "longest")
    return caught.value.failure.error_class, caught.value.failure.message


def only(folder: Path, mode: int) -> Path:
    """A glTF file of points (mode 0) or lines (1)."""
    gltf = Gltf()
    points = gltf.accessor(np.eye(4, 3, dtype=np.float32), "VEC3")
    gltf.node(mesh=gltf.add("meshes", {"primitives": [{"attributes": {"POSITION": points}, "mode": mode}]}))
    return gltf.write(folder / "a.glb")


def test_files_without_faces_say_what_they_hold(tmp_path: Path) -> None:
    start, end = "nothing can be rendered: the file contains only", "no faces with an area"
    assert failure(only(tmp_path, 0)) == ("NoMesh", f"{start} points, {end}")
    assert failure(only(tmp_path, 1)) == ("NoMesh", f"{start} lines, {end}")
    assert failure(CASES / "o12_lines.obj") == ("NoMesh", f"{start} lines, {end}")


def test_a_failed_import_shows_the_last_line_and_the_name_of_the_file(tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)), extensions={"ACME": {}})
    gltf.document["extensionsUsed"] = gltf.document["extensionsRequired"] = ["ACME"]
    name, message = failure(gltf.write(tmp_path / "a.glb"))
    assert (name, message.count("\n")) == ("ImportFailed", 0)
    assert "ACME" in message
    traceback = "Error: Python: Traceback (most recent call last):\n  File x\nValueError: odd\nLocation: /a/b.py:109\n"
    assert scene._last_line(traceback) == "ValueError: odd"
    (tmp_path / "a.fbx").write_bytes(b"?")
    assert str(tmp_path) not in failure(tmp_path / "a.fbx")[1]


def test_a_chain_of_1500_nodes_is_read(tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    for i in range(1499):
        gltf.node(root=False, children=[i], translation=[0.001, 0, 0])
    gltf.document["scenes"][0]["nodes"] = [1499]
    normalization = scene.build(gltf.write(tmp_path / "a.glb"), "longest")
    assert normalization.offset == pytest.approx((-1.499, 0, 0), abs=1e-3)


def test_vertex_colors_give_way_to_a_colored_material(tmp_path: Path) -> None:
    folder = CASES / "o10_vertex_colours_and_mtl"
    text = (folder / "o10_vertex_colours_and_mtl.obj").read_text()
    (tmp_path / "a.obj").write_text(text)
    (tmp_path / "m.mtl").write_text("newmtl paint\nKd 0.1 0.1 0.9\n")
    scene.prepare(tmp_path / "a.obj")
    surface = bpy.context.scene.objects[0].material_slots[0].material.node_tree.nodes["Principled BSDF"]
    assert not surface.inputs["Base Color"].is_linked
