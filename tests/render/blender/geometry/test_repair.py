"""Render small defective files in this process and check the repairs. See tests/golden/faces."""

from pathlib import Path

import numpy as np
import pytest

from render.rigs.cameras import Light, Pose
from render.rigs.rig import poses
from render.settings import Settings, environment_maps
from tests.support.paths import ROOT

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402
from render.blender.geometry import repair, sides  # noqa: E402
from render.blender.geometry.repair import pieces  # noqa: E402
from render.blender.geometry.repair_all import repair_all  # noqa: E402
from render.blender.geometry.sides import hide_back_faces  # noqa: E402

pytestmark = pytest.mark.integration

CASES = ROOT / "tests" / "golden" / "faces"
CAMERAS = np.array([pose.c2w()[:3, 3] for views in poses(0, "x").values() for pose in views])


def picture(name: str, tmp_path: Path, hide: bool = True) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return an image [32, 32, 4] of a file, and its flags."""
    flags = scene.prepare(CASES / name)
    scene.normalize("longest")
    if hide:
        hide_back_faces(pieces(), CAMERAS)
    map_name, path = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(map_name, 40.0), path)
    cycles.configure(Settings(resolution=32, samples=64, noise_threshold=0.0), threads=1)
    return cycles.render_view(Pose(25.0, 30.0), 1, tmp_path).astype(float), flags


@pytest.mark.parametrize(
    ("name", "like", "flag"),
    [
        ("d2_reversed_shared_vertices.glb", "d1_single.glb", "doubled-faces"),
        ("d3_reversed_own_vertices.glb", "d1_single.glb", "doubled-faces"),
        ("d4_same_own_vertices.glb", "d1_single.glb", "doubled-faces"),
        ("d5_two_meshes_in_one_place.glb", "d1_single.glb", "doubled-faces"),
        ("d6_other_diagonal.glb", "d1_single.glb", "doubled-faces"),
        ("d8_smooth_ball_both_sides.obj", "d9_smooth_ball_one_side.obj", "doubled-faces"),
        ("n3_ball_winding_out_normals_in.glb", "n2_ball_out_out.glb", "contradicting-normals"),
        ("n4_ball_winding_in_normals_out.glb", "n2_ball_out_out.glb", "contradicting-normals"),
        ("g30_stray_triangle.glb", "d1_single.glb", "faces-left-out"),
        ("g71_invisible_box_around.glb", "d1_single.glb", "faces-left-out"),
    ],
)
def test_a_repaired_object_looks_like_the_sound_one(name: str, like: str, flag: str, tmp_path: Path) -> None:
    repaired, flags = picture(name, tmp_path)
    sound, none = picture(like, tmp_path)
    assert (flags, none) == ((flag,), ())
    assert np.abs(repaired[..., 3] - sound[..., 3]).mean() < 1
    assert np.abs(repaired - sound)[..., :3].mean() < 4  # of 255: noise


def test_an_outline_hull_does_not_hide_the_figure(tmp_path: Path) -> None:
    hidden, _ = picture("c1_outline_hull.glb", tmp_path)
    box, _ = picture("d1_single.glb", tmp_path)
    middle = (slice(12, 20), slice(12, 20))
    assert np.abs(hidden - box)[middle].mean() < 8
    drawn, _ = picture("c1_outline_hull.glb", tmp_path, hide=False)
    assert drawn[middle][..., :3].max() < 60  # as Cycles draws it


def test_a_room_shows_and_lights_what_is_in_it(tmp_path: Path) -> None:
    room, _ = picture("c2_room.glb", tmp_path)
    red, green, blue = room[14:18, 14:18, :3].mean((0, 1))
    assert green > 80
    assert green > 2 * max(red, blue)


@pytest.mark.parametrize(("hooks", "hidden"), [(0.05, False), (0.6, True)])
def test_a_banner_is_drawn_from_both_sides_unless_much_else_is_seen(hooks: float, hidden: bool) -> None:
    """A single-sided wall of height 1 and a two-sided one of height `hooks`: from behind, only the latter remains."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for name, low, high, culled in (("banner", 0.0, 1.0, True), ("hooks", 1.0, 1.0 + hooks, False)):
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata([(0, 0, low), (1, 0, low), (1, 0, high), (0, 0, high)], [], [(0, 1, 2, 3)])
        mesh.materials.append(bpy.data.materials.new(name))
        mesh.materials[0].use_backface_culling = culled
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, mesh))
    bpy.context.view_layer.update()
    share = hide_back_faces(pieces(), CAMERAS)
    assert share == pytest.approx(1 / (1 + hooks) if hidden else 0.0)
    assert (len(bpy.data.meshes["banner"].materials) > 1) == hidden


def test_materials_with_long_names_that_begin_alike_keep_their_own_variants() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    first, second = (bpy.data.materials.new("x" * 50 + end) for end in "ab")
    for kind in (1, 2):
        made = sides._variant(first, kind)
        assert sides._variant(first, kind) == made  # one copy for all objects
        assert sides._variant(second, kind) != made
    mesh = bpy.data.meshes.new("two triangles")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    for material in (first, second):
        material.use_backface_culling = True
        mesh.materials.append(material)
    obj = bpy.data.objects.new("object", mesh)
    repair._draw_both_sides(obj, np.array([True]))
    mesh.polygons[0].material_index = 1
    repair._draw_both_sides(obj, np.array([True]))
    assert mesh.materials[0] != mesh.materials[1]
    assert not any(material.use_backface_culling for material in mesh.materials)


def test_objects_that_share_a_mesh_share_it_with_its_variants() -> None:
    scene.build(CASES / "c2_room.glb", "longest")
    before = {obj.data for obj in bpy.context.scene.objects if obj.type == "MESH"}
    for obj in [obj for obj in bpy.context.scene.objects if obj.type == "MESH"]:
        bpy.context.scene.collection.objects.link(obj.copy())
    bpy.context.view_layer.update()
    hide_back_faces(pieces(), CAMERAS)
    users = [obj.data.name for obj in bpy.context.scene.objects if obj.type == "MESH"]
    assert len(users) == 2 * len(set(users)) == 2 * len(before) == 4
    assert sum(len(bpy.data.meshes[name].materials) > 1 for name in set(users)) == 1  # the room


def test_a_scene_of_too_many_faces_is_rendered_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "MOST_FACES", 23)  # the object has 24
    assert scene.prepare(CASES / "d3_reversed_own_vertices.glb") == ("not-repaired",)
    assert pieces() == []


def test_coincident_faces_are_compared_by_the_windings_after_flipping() -> None:
    """A box with inward windings and outward stored normals, and a label of another material on one of its sides.

    The box is flipped. Then the label has the winding of the side below it, so the label is deleted.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    inward = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    for name, faces in (("box", inward), ("label", [(5, 7, 3, 1)])):
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(corners, [], faces)
        mesh.materials.append(bpy.data.materials.new(name))
        bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, mesh))
    box = bpy.data.meshes["box"]
    side_normals = np.array([polygon.normal for polygon in box.polygons])
    middles = np.array([polygon.center for polygon in box.polygons]) - 0.5
    assert (np.einsum("ij,ij->i", side_normals, middles) < 0).all()
    box.normals_split_custom_set(np.repeat(-side_normals, 4, 0).tolist())
    label = bpy.data.meshes["label"]
    assert label.polygons[0].normal.z > 0
    bpy.context.view_layer.update()
    assert repair_all(pieces()) == ("contradicting-normals", "doubled-faces")
    assert (len(box.polygons), len(label.polygons)) == (6, 0)
    assert all(polygon.normal.dot(polygon.center) > polygon.normal.dot((0.5, 0.5, 0.5)) for polygon in box.polygons)
