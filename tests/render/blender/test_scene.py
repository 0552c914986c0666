"""Blender's side, in this process: import, cleaning, normalization, light, pictures against known geometry."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dataset.camera import intrinsics, project
from render.rigs.cameras import Light, Pose
from render.rigs.rig import poses
from render.settings import Settings, environment_maps
from tests.support.make_models import COLORS, FACES, Gltf, bad_models, box_glb

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from dataset import quality_flags  # noqa: E402
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps  # noqa: E402

pytestmark = pytest.mark.integration

RESOLUTION = 48
CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def normalized_bounds():
    points = scene.visible_points()
    return points.min(0), points.max(0)


def see(pose, tmp_path, threads=1):
    """One picture of the scene that is open, under the first of Blender's environment maps."""
    name, path = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), path)
    cycles.configure(Settings(resolution=RESOLUTION, samples=1), threads)
    return cycles.render_view(pose, 1, tmp_path)


def average_color(image, rows=slice(None)):
    image = image[rows]
    return image[image[..., 3] > 0][:, :3].mean(0) / 255


@pytest.mark.parametrize(("azimuth_deg", "face"), [(0, "front"), (90, "right"), (180, "back"), (270, "left")])
def test_azimuths_see_the_faces_they_should(tmp_path, azimuth_deg, face):
    """glTF's +z front is what azimuth 0 sees, its +x what azimuth 90 sees, and its +y is up in the picture."""
    scene.build(box_glb(tmp_path / "box.glb"), "longest")
    level = see(Pose(0.0, azimuth_deg), tmp_path)
    assert np.abs(average_color(level) - COLORS[face]).max() < 0.1
    above = see(Pose(35.0, azimuth_deg), tmp_path)
    rows = np.flatnonzero(above[..., 3].any(1))
    assert np.abs(average_color(above, slice(rows[0], rows[0] + 4)) - COLORS["top"]).max() < 0.2
    assert np.abs(average_color(above, slice(rows[-1] - 4, rows[-1])) - COLORS[face]).max() < 0.2


def test_silhouettes_lie_where_the_camera_model_projects_them(tmp_path):
    size = np.array([0.5, 0.2, 0.3])  # Blender's axes
    normalization = scene.build(box_glb(tmp_path / "b.glb", size=(0.5, 0.3, 0.2), center=(3, 5, -2)), "longest")
    corners = normalization.scale * (CORNERS * size + [3, 2, 5] + np.array(normalization.offset))
    for pose in poses(0, "x")["random"][::3]:
        image = see(pose, tmp_path)
        rows, columns = np.flatnonzero(image[..., 3].any(1)), np.flatnonzero(image[..., 3].any(0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        pixels, _ = project(corners, pose.c2w(), intrinsics(RESOLUTION))
        np.testing.assert_allclose(seen, [*pixels.min(0), *pixels.max(0)], atol=1.0)


def test_longest_side_becomes_one_and_the_center_the_origin(tmp_path):
    normalization = scene.build(box_glb(tmp_path / "b.glb", size=(4, 2, 1), center=(10, 0, -5)), "longest")
    assert normalization.scale == pytest.approx(0.25)
    assert normalization.offset == pytest.approx((-10, -5, 0))
    low, high = normalized_bounds()
    np.testing.assert_allclose(high, [0.5, 0.125, 0.25], atol=1e-6)  # glTF's y is Blender's z
    np.testing.assert_allclose(low, -high, atol=1e-6)


@pytest.mark.integration
def test_sphere_mode_never_clips_where_longest_does(tmp_path):
    path = box_glb(tmp_path / "cube.glb")
    poses_of_interest = [pose for pose in poses(0, "x")["random"] if pose.azimuth_deg % 45 == 22.5][:3]
    scene.build(path, "longest")
    clipped = [quality_flags.is_clipped(see(pose, tmp_path)) for pose in [Pose(-10.0, 45.0), Pose(35.0, 45.0)]]
    assert any(clipped)
    scene.build(path, "sphere")
    assert np.linalg.norm(scene.visible_points(), axis=1).max() == pytest.approx(scene.SPHERE_RADIUS, rel=1e-5)
    for pose in [Pose(-10.0, 45.0), Pose(35.0, 45.0), *poses_of_interest]:
        assert not quality_flags.is_clipped(see(pose, tmp_path))


def test_several_roots_keep_their_arrangement_and_loose_parts_do_not_count(tmp_path):
    gltf = Gltf()
    for x in (-2.0, 2.0):
        gltf.node(mesh=gltf.box((1, 1, 1)), translation=[x, 0, 0], scale=[1, 2, 1])
    points = gltf.accessor(np.array([[50, 0, 0], [60, 0, 0]], np.float32), "VEC3")
    gltf.node(mesh=gltf.add("meshes", {"primitives": [{"attributes": {"POSITION": points}, "mode": 0}]}))
    scene.build(gltf.write(tmp_path / "a.glb"), "longest")
    points = scene.visible_points()
    low, high = points.min(0), points.max(0)
    np.testing.assert_allclose(high - low, [1.0, 0.2, 0.4], atol=1e-6)
    assert np.abs(points[:, 0]).min() == pytest.approx(1.5 / 5, abs=1e-6)  # the gap between the two boxes


def test_asset_lights_and_cameras_are_out(tmp_path):
    """The same object with a camera and a lamp in its file gives the same picture."""
    plain = box_glb(tmp_path / "plain.glb")
    gltf = Gltf()
    lamp = {"type": "point", "intensity": 5000.0, "color": [1, 1, 1]}
    gltf.document["extensionsUsed"] = ["KHR_lights_punctual"]
    gltf.document["extensions"] = {"KHR_lights_punctual": {"lights": [lamp]}}
    camera = gltf.add("cameras", {"type": "perspective", "perspective": {"yfov": 0.7, "znear": 0.1}})
    gltf.node(mesh=gltf.box((1, 1, 1)))
    gltf.node(translation=[0, 0, 4], camera=camera)
    gltf.node(translation=[0, 2, 2], extensions={"KHR_lights_punctual": {"light": 0}})
    staged = gltf.write(tmp_path / "staged.glb")
    images = []
    for path in (plain, staged):
        scene.build(path, "longest")
        images.append(see(Pose(20.0, 30.0), tmp_path))
    assert {obj.type for obj in bpy.context.scene.objects if obj.hide_render} == {"LIGHT", "CAMERA"}
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize(
    ("choose_frame", "place"), [(min, 3.0), (max, 9.0), (lambda first, last: (first + last) // 2, 6.0)]
)
def test_animation_stands_at_the_chosen_frame(tmp_path, choose_frame, place):
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    moving = gltf.node(mesh=gltf.box((1, 1, 1)))
    times = gltf.accessor(np.array([0.0, 1.0], np.float32), "SCALAR")
    places = gltf.accessor(np.array([[3, 0, 0], [9, 0, 0]], np.float32), "VEC3")
    channel = {"sampler": 0, "target": {"node": moving, "path": "translation"}}
    gltf.add("animations", {"channels": [channel], "samplers": [{"input": times, "output": places}]})
    scene.prepare(gltf.write(tmp_path / "a.glb"), choose_frame=choose_frame)
    normalization = scene.normalize("longest")
    assert normalization.scale == pytest.approx(1 / (place + 1))
    assert normalization.offset == pytest.approx((-place / 2, 0, 0))


def ply_text(vertex):
    """A triangle of red vertices, the first at `vertex`."""
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    colors = "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n"
    body = f"{vertex} 255 0 0\n1 0 0 255 0 0\n0 0 1 255 0 0\n3 0 1 2\n"
    return f"{header}{colors}property list uchar int vertex_indices\nend_header\n{body}"


def stl_text(vertex):
    corners = "".join(f"vertex {v}\n" for v in (vertex, "2 0 0", "0 0 1"))
    return f"solid a\nfacet normal 0 -1 0\nouter loop\n{corners}endloop\nendfacet\nendsolid a\n"


def obj_text(vertex):
    return f"v {vertex}\nv 2 0 0\nv 0 1 0\nf 1 2 3\n"


@pytest.mark.parametrize(
    ("suffix", "text", "size"), [(".ply", ply_text, 1), (".stl", stl_text, 2), (".obj", obj_text, 2)]
)
def test_other_formats_come_in_upright_and_are_checked_for_nan(tmp_path, suffix, text, size):
    path = tmp_path / f"a{suffix}"
    path.write_text(text("0 0 0"))
    assert scene.build(path, "longest").scale == pytest.approx(1 / size)
    low, high = normalized_bounds()
    np.testing.assert_allclose(high - low, [1, 0, 1 / size], atol=1e-6)
    path.write_text(text("nan 0 0"))
    with pytest.raises(scene.ObjectError) as caught:
        scene.build(path, "longest")
    assert caught.value.failure.error_class == "NonFinitePositions"


@pytest.mark.parametrize(("suffix", "text"), [(".ply", ply_text), (".stl", stl_text), (".obj", obj_text)])
@pytest.mark.parametrize("up", ["y", "z"])
def test_the_axis_that_points_up_can_be_chosen(tmp_path, suffix, text, up):
    """The triangle is flat; with y up, its y and -z become Blender's z and y."""
    path = tmp_path / f"a{suffix}"
    path.write_text(text("0 0 0"))
    scene.prepare(path)
    convention = scene.visible_points()
    scene.prepare(path, up="y" if suffix == ".obj" else "z")
    np.testing.assert_array_equal(scene.visible_points(), convention)
    scene.prepare(path, up=up)
    x, y, z = scene.visible_points().T
    own = np.stack([x, z, -y] if up == "y" else [x, y, z], 1)
    apex = [0, 1, 0] if suffix == ".obj" else [0, 0, 1]
    np.testing.assert_allclose(own[own[:, 1:].any(1)], [apex], atol=1e-6)


def test_vertex_colors_without_a_material_are_shown(tmp_path):
    (tmp_path / "red.ply").write_text(ply_text("0 0 0"))
    scene.build(tmp_path / "red.ply", "longest")
    red, green, blue = average_color(see(Pose(0.0, 0.0), tmp_path))
    assert red > 2 * max(green, blue)


def test_fbx_comes_in(tmp_path):
    code = (
        "import bpy, sys; bpy.ops.wm.read_factory_settings(use_empty=True); bpy.ops.mesh.primitive_cube_add(size=3);"
        "bpy.ops.export_scene.fbx(filepath=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.fbx")], check=True, capture_output=True)
    scene.build(tmp_path / "a.fbx", "longest")
    np.testing.assert_allclose(normalized_bounds(), [[-0.5] * 3, [0.5] * 3], atol=1e-5)


def test_bad_files_are_named_failures(tmp_path):
    for uid, kind in bad_models(tmp_path).items():
        with pytest.raises(scene.ObjectError) as caught:
            scene.build(tmp_path / f"{uid}.glb", "longest")
        assert caught.value.failure.error_class == kind
    with pytest.raises(scene.ObjectError, match="one point"):
        scene.build(box_glb(tmp_path / "dot.glb", size=(0, 0, 0)), "longest")


def test_references_out_of_the_folder_are_not_followed(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.box((1, 1, 1)))
    (tmp_path / "outside.bin").write_bytes(gltf.binary)
    gltf.document["buffers"] = [{"byteLength": len(gltf.binary), "uri": "../outside.bin"}]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.gltf").write_text(json.dumps(gltf.document))
    with pytest.raises(scene.ObjectError) as caught:
        scene.build(tmp_path / "in" / "a.gltf", "longest")
    assert caught.value.failure.error_class == "UnsafeReference"


def test_nothing_is_drawn_where_alpha_is_zero_and_alpha_is_straight(tmp_path):
    """A half transparent white glow: its color stays white, only its alpha is half."""
    gltf = Gltf()
    mesh = gltf.box((1, 1, 0.01))
    for material in gltf.document["materials"]:
        material["emissiveFactor"] = [1, 1, 1]
        material["alphaMode"] = "BLEND"
        material["pbrMetallicRoughness"] = {"baseColorFactor": [0, 0, 0, 0.5], "roughnessFactor": 1.0}
    gltf.node(mesh=mesh)
    scene.build(gltf.write(tmp_path / "glow.glb"), "longest")
    image = see(Pose(0.0, 0.0), tmp_path)
    assert not image[image[..., 3] == 0].any()
    middle = image[RESOLUTION // 2, RESOLUTION // 2]
    assert 100 < middle[3] < 220
    assert middle[:3].min() > 200


def test_threads_change_no_pixel(tmp_path):
    path = box_glb(tmp_path / "b.glb", size=(1, 0.5, 0.7))
    images = []
    for threads in (1, 2, 1):
        scene.build(path, "longest")
        images.append(see(Pose(20.0, 30.0), tmp_path, threads))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_every_map_lights_with_the_same_mean(tmp_path):
    maps = environment_maps(bundled_maps())
    assert len(maps) == 8
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for name in ("night.exr", "city.exr"):
        hdri = lights.light_scene(Light(name, 10.0), maps[name])
        image = bpy.data.images.load(str(maps[name]))
        width, height = image.size
        pixels = np.array(image.pixels[:]).reshape(height, width, 4)[..., :3]
        rows = (pixels @ [0.2126, 0.7152, 0.0722]).mean(1)
        solid_angle = np.cos((np.arange(height) + 0.5) / height * np.pi - np.pi / 2)
        mean = (rows * solid_angle).sum() / solid_angle.sum()
        assert hdri.strength * mean == pytest.approx(lights.MEAN_LUMINANCE, rel=1e-3)


def test_a_map_is_measured_once_per_process(monkeypatch):
    name, path = next(iter(environment_maps(bundled_maps()).items()))
    measured = []
    mean_luminance = lights._mean_luminance

    def counted(image, path):
        measured.append(path)
        return mean_luminance(image, path)

    monkeypatch.setattr(lights, "_maps", {})
    monkeypatch.setattr(lights, "_mean_luminance", counted)
    strengths, widths = set(), set()
    for rotation_deg in (10.0, 20.0):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        strengths.add(lights.light_scene(Light(name, rotation_deg), path).strength)
        widths.add(bpy.context.scene.world.cycles.sample_map_resolution)
    assert measured == [path]
    assert len(strengths) == len(widths) == 1


def test_faces_of_the_test_box_look_outwards():
    for corners in FACES.values():
        a, b, c, _ = np.array(corners)
        assert np.dot(np.cross(b - a, c - b), a + c) > 0
