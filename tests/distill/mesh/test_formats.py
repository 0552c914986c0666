"""OBJ, PLY and point clouds are readable by other programs, colored, and in the same pose as the GLB."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dataset.errors import UserError
from distill.mesh.export import MeshReport, MeshSettings, export_mesh

SETTINGS = MeshSettings(threshold=10.0, resolution=32, faces=800, texture_size=128, points=5000)
HALF = (0.5, 0.3, 0.4)  # of an ellipsoid: no two axes can be taken for each other
NAMES = {"mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png", "mesh.ply", "mesh-points.ply"}


def density(x: torch.Tensor) -> torch.Tensor:
    return 10 * torch.exp(10 * (1 - (x / torch.tensor(HALF)).norm(dim=-1)).clamp(max=0.4))


def albedo(x: torch.Tensor) -> torch.Tensor:
    return 0.5 + x * 0.8


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeshReport]:
    folder = tmp_path_factory.mktemp("formats")
    everything = ("glb", "obj", "ply", "points")
    return folder, export_mesh(density, albedo, 1.0, folder / "mesh.glb", SETTINGS, kinds=everything)


def load(path: Path) -> Any:
    return trimesh.load(path, process=False, force=None if path.name.endswith("points.ply") else "mesh")


def to_world(y_up: Any) -> Any:
    return np.stack([y_up[:, 0], -y_up[:, 2], y_up[:, 1]], -1)


def errors(colors: Any, places: Any) -> Any:
    return np.abs(colors[:, :3] / 255 - albedo(torch.as_tensor(places)).numpy())


def test_the_report_names_what_was_written(exported: tuple[Path, MeshReport]):
    folder, report = exported
    assert {path.name for path in folder.iterdir()} == NAMES == set(report.files)


def test_only_requested_formats_are_written(tmp_path: Path):
    report = export_mesh(density, albedo, 1.0, tmp_path / "cat.glb", SETTINGS, kinds=("points",))
    assert {path.name for path in tmp_path.iterdir()} == {"cat-points.ply"} == set(report.files)
    assert (report.charts, report.texture_size) == (None, 0)
    with pytest.raises(UserError, match="stl"):
        export_mesh(density, albedo, 1.0, tmp_path / "cat.glb", SETTINGS, kinds=("stl",))  # type: ignore[arg-type]


def test_obj_has_the_shape_and_the_texture(exported: tuple[Path, MeshReport]):
    folder, report = exported
    loaded = load(folder / "mesh.obj")
    assert len(loaded.faces) == report.faces
    np.testing.assert_allclose(np.abs(to_world(loaded.vertices)).max(0), HALF, atol=0.02)
    picture = np.asarray(loaded.visual.material.image)
    np.testing.assert_array_equal(picture, np.asarray(Image.open(folder / "mesh.png")))
    x, y = np.minimum(loaded.visual.uv * len(picture), len(picture) - 1).astype(int).T
    assert errors(picture[len(picture) - 1 - y, x], to_world(loaded.vertices)).max() < 0.1


def test_obj_and_glb_are_one_shape(exported: tuple[Path, MeshReport]):
    folder, _ = exported
    one, other = (load(folder / name) for name in ("mesh.glb", "mesh.obj"))
    assert one.volume == pytest.approx(other.volume, rel=1e-4)
    np.testing.assert_allclose(one.triangles, other.triangles, atol=1e-5)
    one, other = (np.sort(np.einsum("vi,vi->v", m.vertices, m.vertex_normals)) for m in (one, other))
    assert np.median(one) == pytest.approx(np.median(other), rel=0.01)


def test_ply_has_a_color_and_a_normal_for_each_vertex(exported: tuple[Path, MeshReport]):
    folder, report = exported
    loaded = load(folder / "mesh.ply")
    assert (len(loaded.faces), len(loaded.vertices)) == (report.faces, report.vertices)
    assert loaded.is_watertight
    assert loaded.volume > 0
    np.testing.assert_allclose(np.abs(loaded.vertices).max(0), HALF, atol=0.02)
    assert errors(loaded.visual.vertex_colors, loaded.vertices).max() < 0.05
    raw = loaded.metadata["_ply_raw"]["vertex"]["data"]
    normals = np.stack([raw[name] for name in ("nx", "ny", "nz")], -1)
    gradient = loaded.vertices / np.square(HALF)
    cosine = np.einsum("vi,vi->v", normals, gradient / np.linalg.norm(gradient, axis=1, keepdims=True))
    assert cosine.min() > 0.95


def test_points_lie_evenly_on_the_surface(exported: tuple[Path, MeshReport]):
    loaded = load(exported[0] / "mesh-points.ply")
    assert len(loaded.vertices) == SETTINGS.points
    assert np.abs(np.linalg.norm(loaded.vertices / HALF, axis=1) - 1).max() < 0.06
    assert errors(loaded.colors, loaded.vertices).max() < 0.05
    mesh = load(exported[0] / "mesh.ply")
    in_front = mesh.area_faces[mesh.triangles_center[:, 1] < -0.1].sum() / mesh.area
    assert (loaded.vertices[:, 1] < -0.1).mean() == pytest.approx(in_front, abs=0.03)


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed (it needs Python 3.11)")
def test_blender_opens_all_in_the_same_pose_with_colors(exported: tuple[Path, MeshReport]):
    script = """
import json, sys, bpy
found = {}
for path in sys.argv[1:]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    importer = {"glb": bpy.ops.import_scene.gltf, "obj": bpy.ops.wm.obj_import, "ply": bpy.ops.wm.ply_import}
    importer[path[-3:]](filepath=path)
    (obj,) = [o for o in bpy.data.objects if o.type == "MESH"]
    places = [obj.matrix_world @ v.co for v in obj.data.vertices]
    materials = [m for m in obj.data.materials if m]
    images = [n.image for m in materials for n in m.node_tree.nodes if n.type == "TEX_IMAGE"]
    found[path[-3:]] = {"high": [max(p[k] for p in places) for k in range(3)], "faces": len(obj.data.polygons),
        "pictures": [list(i.size) for i in images], "colors": len(obj.data.color_attributes)}
print("found " + json.dumps(found))
"""
    folder, report = exported
    command = [sys.executable, "-c", script, *(str(folder / f"mesh.{kind}") for kind in ("glb", "obj", "ply"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("found "))[6:])
    for kind, values in found.items():
        np.testing.assert_allclose(values["high"], HALF, atol=0.02, err_msg=kind)
        assert values["faces"] == report.faces
        assert values["pictures"] == ([[128, 128]] if kind != "ply" else [])
    assert found["ply"]["colors"] == 1
