"""Passes against closed forms: boxes, spheres and planes with known depth, normals and base colors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.camera import intrinsics
from dataset.format.manifest import Asset
from dataset.format.passes import DEPTH_STEP, PASSES, decode_pass, to_srgb, unproject
from dataset.format.schema import ALL_VIEWS, member_names, meta_name, parse_meta, pass_name, validate_sample
from dataset.images.prepare import decode_webp
from render.blender.timing import PartTimer
from render.rigs.cameras import Light, Pose
from render.rigs.lamps import PlacedLamp
from render.rigs.rig import parse_rig
from render.settings import Settings, environment_maps
from render.workers.protocol import RenderJob
from tests.support.make_models import FACES, Gltf, box_glb

bpy = pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import cycles, lights, scene  # noqa: E402  (they import bpy)
from render.blender.__main__ import bundled_maps, render_sample  # noqa: E402
from render.blender.passes import surface  # noqa: E402

pytestmark = pytest.mark.integration

SIDE = 64
K = intrinsics(SIDE)
POSE = Pose(25.0, 40.0)
RED, GRAY = [0.6, 0.1, 0.2], [0.5, 0.5, 0.5]


def surface_of(path: Path, tmp_path: Path, pose: Pose = POSE):
    scene.build(path, "longest")
    name, environment = next(iter(environment_maps(bundled_maps()).items()))
    lights.light_scene(Light(name, 40.0), environment)
    cycles.configure(Settings(resolution=SIDE, samples=1), 1)
    surface.begin_passes(tmp_path)
    return surface.render_surface(pose, tmp_path, None, PartTimer())


def panel(gltf: Gltf, face: str, size: tuple[float, float, float], center=(0, 0, 0), **material) -> None:
    """Add one face of a box, with the given material of the glTF file."""
    positions = (np.array(FACES[face]) * np.array(size) / 2 + center).astype(np.float32)
    primitive = {
        "attributes": {"POSITION": gltf.accessor(positions, "VEC3")},
        "indices": gltf.accessor(np.array([0, 1, 2, 0, 2, 3], np.uint16), "SCALAR"),
        "material": gltf.add("materials", {"doubleSided": True, **material}),
    }
    gltf.node(mesh=gltf.add("meshes", {"primitives": [primitive]}))


def pbr(color, alpha=1.0, **values):
    return {"pbrMetallicRoughness": {"baseColorFactor": [*color, alpha], **values}}


def rays(pose: Pose) -> np.ndarray:
    """Directions [h, w, 3] of the camera rays, of length 1 along the view axis."""
    return unproject(np.ones((SIDE, SIDE)), pose.c2w(), K) - pose.c2w()[:3, 3]


def box_hits(pose: Pose, half: np.ndarray):
    """Depth [h, w] (0: none) and normal [h, w, 3] where the camera rays meet a box around the origin."""
    origin, direction = pose.c2w()[:3, 3], rays(pose)
    near = (-np.sign(direction) * half - origin) / direction
    axis = near.argmax(-1)
    depth = near.max(-1)
    far = ((np.sign(direction) * half - origin) / direction).min(-1)
    normal = -np.sign(np.take_along_axis(direction, axis[..., None], -1)) * np.eye(3)[axis]
    return np.where(depth < far, depth, 0.0), normal


def test_a_box_has_the_depth_and_normals_of_a_ray_cast(tmp_path):
    found = surface_of(box_glb(tmp_path / "box.glb", size=(1, 0.5, 0.8)), tmp_path)
    depth, normal = box_hits(POSE, np.array([1, 0.8, 0.5]) / 2)  # glTF's y is Blender's z
    same = (found.depth > 0) == (depth > 0)
    assert (~same).sum() <= 4  # rays through an edge
    both = same & (depth > 0)
    assert both.mean() > 0.2
    agrees = np.abs(found.normal - normal)[both].max(-1) < 1e-4
    assert agrees.mean() > 0.99
    np.testing.assert_allclose(found.depth[both][agrees], depth[both][agrees], atol=2e-4)


def test_a_smooth_sphere_has_radial_normals(tmp_path):
    path = sphere_glb(tmp_path / "sphere.glb")
    found = surface_of(path, tmp_path)
    covered = found.depth > 0
    points = unproject(found.depth, POSE.c2w(), K)[covered]
    radius = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(radius, 0.5, atol=1e-3)
    np.testing.assert_allclose(found.normal[covered], points / radius[:, None], atol=0.03)
    # the outline is the circle that a sphere has in perspective
    distance = np.linalg.norm(np.cross(rays(POSE), POSE.c2w()[:3, 3]), axis=-1) / np.linalg.norm(rays(POSE), axis=-1)
    assert ((distance < 0.5) != covered).sum() <= 0.01 * covered.sum()


def sphere_glb(path: Path) -> Path:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=5)
    mesh.vertex_normals  # noqa: B018  (computed, so that they are exported)
    path.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh), include_normals=True))
    return path


def test_normals_agree_with_differences_of_positions(tmp_path):
    found = surface_of(sphere_glb(tmp_path / "sphere.glb"), tmp_path)
    points = unproject(found.depth, POSE.c2w(), K)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    computed = np.cross(down, across)
    computed /= np.maximum(np.linalg.norm(computed, axis=-1, keepdims=True), 1e-12)
    facing = (found.normal * -rays(POSE)).sum(-1) / np.linalg.norm(rays(POSE), axis=-1)
    covered = found.depth > 0
    beside = covered[1:-1, 2:] & covered[1:-1, :-2] & covered[2:, 1:-1] & covered[:-2, 1:-1]
    inner = (facing > 0.5)[1:-1, 1:-1] & covered[1:-1, 1:-1] & beside
    cosine = (computed * found.normal[1:-1, 1:-1]).sum(-1)[inner]
    assert inner.sum() > 200
    assert cosine.min() > np.cos(np.deg2rad(4))


def test_base_colors_are_those_of_the_file_whatever_the_light(tmp_path):
    gltf = Gltf()
    panel(gltf, "front", (1, 1, 0), **pbr(RED, roughnessFactor=0.25, metallicFactor=0.75))
    found = surface_of(gltf.write(tmp_path / "a.glb"), tmp_path, Pose(0.0, 0.0))
    covered = found.depth > 0
    np.testing.assert_allclose(found.albedo[covered], np.broadcast_to(RED, (covered.sum(), 3)), atol=1e-5)
    np.testing.assert_allclose(found.roughness[covered], 0.25, atol=1e-6)
    np.testing.assert_allclose(found.metallic[covered], 0.75, atol=1e-6)
    np.testing.assert_allclose(found.depth[covered], 1.5, atol=1e-5)


@pytest.mark.parametrize(("alpha", "seen"), [(0.7, RED), (0.3, GRAY)])
def test_the_first_surface_of_at_least_half_opacity_is_seen(tmp_path, alpha, seen):
    gltf = Gltf()
    panel(gltf, "front", (1, 1, 0), (0, 0, 0.25), alphaMode="BLEND", **pbr(RED, alpha))
    panel(gltf, "front", (1, 1, 0), (0, 0, -0.25), **pbr(GRAY))
    found = surface_of(gltf.write(tmp_path / "a.glb"), tmp_path, Pose(0.0, 0.0))
    middle = found.depth[24:40, 24:40]
    np.testing.assert_allclose(middle, 1.25 if seen is RED else 1.75, atol=1e-5)
    np.testing.assert_allclose(found.albedo[24:40, 24:40], np.broadcast_to(seen, (16, 16, 3)), atol=1e-5)


def test_an_unlit_material_has_its_color(tmp_path):
    gltf = Gltf()
    panel(gltf, "front", (1, 1, 0), extensions={"KHR_materials_unlit": {}}, **pbr(RED))
    gltf.document["extensionsUsed"] = ["KHR_materials_unlit"]
    found = surface_of(gltf.write(tmp_path / "a.glb"), tmp_path, Pose(0.0, 0.0))
    covered = found.depth > 0
    assert covered.mean() > 0.4
    np.testing.assert_allclose(found.albedo[covered], np.broadcast_to(RED, (covered.sum(), 3)), atol=1e-5)


def sample_of(tmp_path: Path, path: Path, **settings):
    asset = Asset(uid="u", source="folder", file=path.name)
    job = RenderJob(asset, str(path), "0" * 64, 0, Settings(resolution=48, samples=2, **settings), "", "")
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return render_sample(job, 1, scratch, PartTimer())[0]


def test_images_are_the_same_with_passes_and_passes_repeat_byte_by_byte(tmp_path):
    path = box_glb(tmp_path / "box.glb", size=(1, 0.5, 0.8))
    plain = sample_of(tmp_path, path)
    full = sample_of(tmp_path, path, passes=PASSES)
    assert {name: full[name] for name in plain if name.endswith(".webp")} == {
        name: data for name, data in plain.items() if name.endswith(".webp")
    }
    meta = validate_sample(full, "s")
    before = parse_meta(plain[meta_name("u")], "s")
    assert replace(meta, passes=(), schema_version=1) == before
    assert sample_of(tmp_path, path, passes=PASSES) == full
    assert json.loads(full[meta_name("u")])["passes"] == list(PASSES)


def test_the_passes_of_every_view_belong_to_its_camera(tmp_path):
    members = sample_of(tmp_path, box_glb(tmp_path / "box.glb", size=(1, 0.5, 0.8)), passes=PASSES)
    meta = validate_sample(members, "s")
    half = np.array([1, 0.8, 0.5]) / 2
    for view_set, index in ALL_VIEWS:
        view = meta.views[view_set][index]
        read = {name: decode_pass(name, members[pass_name("u", view_set, index, name)], name) for name in PASSES}
        mask = read["mask"]
        assert mask.mean() == pytest.approx(view.alpha_coverage, abs=0.01)
        position = read["position"][mask]
        outside = np.abs(np.abs(position) - half).min(-1)  # distance to the nearest face's plane
        assert outside.max() < 5e-4
        assert (np.abs(position) <= half + 5e-4).all()
        by_depth = unproject(read["depth"], np.array(view.c2w), np.array(view.K))[mask]
        np.testing.assert_allclose(by_depth, position, atol=2 * DEPTH_STEP)
        rotation = np.array(view.c2w)[:3, :3]
        np.testing.assert_allclose(read["normal"][mask] @ rotation, read["camera-normal"][mask], atol=0.02)
        assert (read["camera-normal"][mask][:, 2] > 0).all()


@pytest.mark.parametrize("pose", [Pose(20.0, 60.0, 2.0, width=1.3), Pose(20.0, 60.0, 2.5, fov_deg=30.0)])
def test_other_projections_show_the_same_box(tmp_path, pose):
    found = surface_of(box_glb(tmp_path / "box.glb", size=(1, 0.5, 0.8)), tmp_path, pose)
    points = unproject(found.depth, pose.c2w(), pose.K(SIDE), orthographic=pose.width is not None)
    covered = found.depth > 0
    half = np.array([1, 0.8, 0.5]) / 2
    assert np.abs(np.abs(points[covered]) - half).min(-1).max() < 1e-3
    assert (np.abs(points[covered]) <= half + 1e-3).all()
    # the area of the outline: of a box in parallel projection, the sum of its faces' areas times their cosines
    if pose.width is not None:
        toward = np.abs(pose.c2w()[:3, 2])
        area = (toward * np.array([0.8 * 0.5, 1 * 0.5, 1 * 0.8])).sum()
        assert covered.mean() * pose.width**2 == pytest.approx(area, rel=0.02)


def test_a_sample_of_another_rig_has_its_views_and_its_light(tmp_path):
    path = box_glb(tmp_path / "box.glb", size=(1, 0.5, 0.8))
    views = [
        {"set": "random", "count": 1, "elevation_deg": 10, "azimuth_deg": {"uniform": [0, 360]}, "distance": 2},
        {"set": "fixed", "count": 3, "elevation_deg": 0, "azimuth_deg": {"relative": [0, 90, 180]}, "distance": 2},
    ]
    for view in views:
        view["width"] = 1.2
    raw = {"name": "r", "version": 3, "projection": "orthographic", "light": {"kind": "white"}, "views": views}
    members = sample_of(tmp_path, path, rig=parse_rig(raw, "r"), passes=("depth",))
    meta = validate_sample(members, "s")
    assert (meta.rig, meta.projection, meta.hdri.name, meta.schema_version) == ("r v3", "orthographic", "white", 2)
    assert list(members) == member_names("u", meta.view_keys, meta.passes)
    start = meta.views["random"][0].azimuth_deg
    assert [view.azimuth_deg - start for view in meta.views["fixed"]] == [0, 90, 180]
    assert meta.views["fixed"][0].K[0][0] == pytest.approx(48 / 1.2)
    image = decode_webp(members["u.fixed_00.webp"], "x")
    assert (image[..., 3] > 0).mean() == pytest.approx(meta.views["fixed"][0].alpha_coverage, abs=0.02)


def test_lamps_light_the_side_that_they_stand_on(tmp_path):
    """A white box, lit from +x (azimuth 90) only: its right side is brighter than its front, its left side is black."""
    gltf = Gltf()
    for face in FACES:
        panel(gltf, face, (1, 1, 1), **pbr([0.8, 0.8, 0.8], roughnessFactor=1.0, metallicFactor=0.0))
    scene.build(gltf.write(tmp_path / "a.glb"), "longest")
    lamp = PlacedLamp("area", 200.0, (4.0, 0.0, 0.0), 0.5, True)
    assert lights.light_lamps([lamp], 0.0).name == "lamps"
    cycles.configure(Settings(resolution=SIDE, samples=16), 1)
    right, left = (
        cycles.render_view(Pose(0.0, azimuth), 1, tmp_path)[24:40, 24:40, :3].mean() for azimuth in (90.0, 270.0)
    )
    assert right > 60
    assert left < 2


def test_albedo_times_white_light_is_the_color(tmp_path):
    """A diffuse plane under a white world of radiance 1 reflects its base color."""
    gltf = Gltf()
    panel(gltf, "front", (1, 1, 0), **pbr(RED, roughnessFactor=1.0, metallicFactor=0.0))
    path = gltf.write(tmp_path / "a.glb")
    scene.build(path, "longest")
    world = bpy.data.worlds.new("white")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    bpy.context.scene.world = world
    for material in bpy.data.materials:
        if material.node_tree and "Principled BSDF" in material.node_tree.nodes:
            material.node_tree.nodes["Principled BSDF"].inputs["Specular IOR Level"].default_value = 0.0
    cycles.configure(Settings(resolution=SIDE, samples=64), 1)
    pose = Pose(0.0, 0.0)
    color = cycles.render_view(pose, 1, tmp_path)[24:40, 24:40, :3].mean((0, 1)) / 255
    surface.begin_passes(tmp_path)
    albedo = to_srgb(surface.render_surface(pose, tmp_path, None, PartTimer()).albedo[24:40, 24:40].mean((0, 1)))
    np.testing.assert_allclose(color, albedo, atol=0.02)
