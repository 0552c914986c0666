"""Export fields of known shape and color, and compare each step with a simple reference."""

import importlib.util
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from dataset.errors import UserError
from distill.mesh import bake, export, formats, isosurface, uv_unwrap
from distill.mesh.export import MeshReport, MeshSettings, export_mesh
from distill.mesh.isosurface import TriangleMesh

SETTINGS = MeshSettings(threshold=10.0, resolution=64, faces=6_000, texture_size=256)
BOX_CENTRE, BOX_HALF = (0.45, 0.0, 0.0), (0.25, 0.3, 0.35)
BALL_CENTRE, BALL_RADIUS = (-0.35, 0.0, 0.0), 0.4
VOLUME = 4 / 3 * np.pi * BALL_RADIUS**3 + 8 * float(np.prod(BOX_HALF))


def distance(x: Tensor) -> Tensor:
    """Signed distance of the ball and the box, which do not touch."""
    ball = (x - torch.tensor(BALL_CENTRE)).norm(dim=-1) - BALL_RADIUS
    box = ((x - torch.tensor(BOX_CENTRE)).abs() - torch.tensor(BOX_HALF)).amax(-1)
    return torch.minimum(ball, box)


def density(x: Tensor) -> Tensor:
    """Density: SETTINGS.threshold on the surface, a hundred times that deep inside."""
    return 10.0 * torch.exp(-60 * distance(x)).clamp(max=100.0)


def albedo(x: Tensor) -> Tensor:
    """Red at the front (-y), blue at the back, greener towards the top."""
    behind = torch.sigmoid(10 * x[:, 1])
    return torch.stack([0.9 - 0.8 * behind, 0.5 + 0.4 * x[:, 2], 0.1 + 0.8 * behind], -1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeshReport]:
    out = tmp_path_factory.mktemp("mesh") / "mesh.glb"
    return out, export_mesh(density, albedo, 1.0, out, SETTINGS)


def load(path: Path) -> Any:
    loaded = trimesh.load(path, process=False)
    assert isinstance(loaded, trimesh.Scene)
    (only,) = loaded.geometry.values()
    assert isinstance(only, trimesh.Trimesh)
    return only


def as_trimesh(shape: TriangleMesh) -> Any:
    return trimesh.Trimesh(shape.vertices, shape.faces, process=False)


def test_volume_closed_and_wound_outwards(exported: tuple[Path, MeshReport]) -> None:
    path, report = exported
    loaded = load(path)
    assert loaded.volume == pytest.approx(VOLUME, rel=0.02)  # positive: counter-clockwise seen from outside
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight
    assert loaded.is_winding_consistent
    assert report.watertight
    assert report.components_removed == 0
    assert report.threshold == SETTINGS.threshold
    assert len(loaded.faces) == report.faces <= SETTINGS.faces
    assert len(loaded.vertices) == report.vertices


def test_axes_are_gltfs_and_the_front_faces_plus_z(exported: tuple[Path, MeshReport]) -> None:
    loaded = load(exported[0])
    np.testing.assert_allclose(loaded.bounds, [[-0.75, -0.4, -0.4], [0.7, 0.4, 0.4]], atol=0.03)
    picture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
    colors = sample(picture, loaded.visual.uv) / 255
    front, back = loaded.vertices[:, 2] > 0.25, loaded.vertices[:, 2] < -0.25
    assert colors[front, 0].min() > 0.75
    assert colors[front, 2].max() < 0.25
    assert colors[back, 0].max() < 0.25
    assert colors[back, 2].min() > 0.75


def test_texture_at_random_surface_points_is_the_albedo(exported: tuple[Path, MeshReport]) -> None:
    loaded = load(exported[0])
    rng = np.random.default_rng(0)
    face = rng.choice(len(loaded.faces), 20_000, p=loaded.area_faces / loaded.area)
    weight = rng.dirichlet(np.ones(3), len(face))[:, :, None]
    points = (weight * loaded.vertices[loaded.faces[face]]).sum(1)
    uv = (weight * loaded.visual.uv[loaded.faces[face]]).sum(1)
    picture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
    error = np.abs(sample(picture, uv) / 255 - albedo(torch.from_numpy(to_world(points))).numpy())
    assert np.quantile(error, 0.99) < 0.02
    assert error.max() < 0.1


def to_world(points: NDArray[Any]) -> NDArray[Any]:
    """Convert glTF axes to Blender axes."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], -1)


def sample(picture: NDArray[np.uint8], uv: NDArray[Any]) -> NDArray[np.float64]:
    """Look up a texture bilinearly, as viewers do; v is up."""
    size = len(picture)
    x, y = np.clip(uv[:, 0] * size - 0.5, 0, size - 1), np.clip((1 - uv[:, 1]) * size - 0.5, 0, size - 1)
    x0, y0 = np.minimum(x.astype(int), size - 2), np.minimum(y.astype(int), size - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = picture[y0, x0] * (1 - fx) + picture[y0, x0 + 1] * fx
    bottom = picture[y0 + 1, x0] * (1 - fx) + picture[y0 + 1, x0 + 1] * fx
    mixed: NDArray[np.float64] = top * (1 - fy) + bottom * fy
    return mixed


def test_material_and_smooth_normals(exported: tuple[Path, MeshReport]) -> None:
    loaded = load(exported[0])
    material = loaded.visual.material
    assert material.metallicFactor == 0
    assert material.roughnessFactor == formats.ROUGHNESS
    assert not material.doubleSided
    assert material.baseColorTexture.size == (256, 256)
    assert material.baseColorTexture.format == "PNG"
    ball = loaded.vertices[:, 0] < 0
    outwards = loaded.vertices[ball] - [BALL_CENTRE[0], BALL_CENTRE[2], -BALL_CENTRE[1]]
    cosine = np.einsum("vi,vi->v", loaded.vertex_normals[ball], outwards / np.linalg.norm(outwards, axis=1)[:, None])
    assert np.quantile(cosine, 0.01) > 0.98


def test_the_same_field_gives_the_same_bytes(exported: tuple[Path, MeshReport], tmp_path: Path) -> None:
    export_mesh(density, albedo, 1.0, tmp_path / "again.glb", SETTINGS)
    assert (tmp_path / "again.glb").read_bytes() == exported[0].read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed (it needs Python 3.11)")
def test_blender_opens_it_with_its_texture(exported: tuple[Path, MeshReport]) -> None:
    script = """
import json, sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
(obj,) = [o for o in bpy.data.objects if o.type == "MESH"]
images = [n.image for n in obj.active_material.node_tree.nodes if n.type == "TEX_IMAGE"]
corners = [list(obj.matrix_world @ v.co) for v in obj.data.vertices]
found = {"images": [list(i.size) for i in images], "low": [min(c[k] for c in corners) for k in range(3)],
         "high": [max(c[k] for c in corners) for k in range(3)], "faces": len(obj.data.polygons)}
print("found " + json.dumps(found))
"""
    command = [sys.executable, "-c", script, str(exported[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("found "))[6:])
    assert found["images"] == [[256, 256]]
    assert found["faces"] == exported[1].faces
    np.testing.assert_allclose([found["low"], found["high"]], [[-0.75, -0.4, -0.4], [0.7, 0.4, 0.4]], atol=0.03)


@pytest.mark.parametrize(("preset", "threshold"), [("paper", 25.0), ("tiny", 10.0)])
def test_the_surface_is_where_the_density_has_the_threshold_of_the_preset(preset: Any, threshold: float) -> None:
    """The density falls linearly from 200 at the center to 0 at radius 1."""
    settings = replace(export.PRESETS[preset], resolution=64, threshold_fraction=0.99)
    assert settings.threshold == threshold
    grid = export.sample_density(lambda x: 200 * (1 - x.norm(dim=-1)).clamp(min=0), 1.0, settings.resolution)
    found = export.surface_threshold(grid, 1.0, settings)
    assert found == threshold
    surface, _ = export.surface_of(grid, found, 1.0, settings)
    radius = np.linalg.norm(surface.vertices, axis=1)
    np.testing.assert_allclose(radius, 1 - threshold / 200, atol=0.01)


def test_thin_field_lowers_the_threshold_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(SETTINGS, resolution=32, faces=1000, texture_size=32)
    with caplog.at_level(logging.WARNING, "distill.mesh.export"):
        report = export_mesh(lambda x: density(x) / 500, albedo, 1.0, tmp_path / "thin.glb", settings)
    assert report.threshold == pytest.approx(0.25 * 2.0, rel=0.01)
    assert "thin" in caplog.text
    inset = np.log(25) / 60  # where density is a quarter of the highest
    expected = 4 / 3 * np.pi * (BALL_RADIUS - inset) ** 3 + 8 * np.prod(np.array(BOX_HALF) - inset)
    assert load(tmp_path / "thin.glb").volume == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda x: torch.zeros(len(x)), "nothing was generated: .*--seed.*--steps"),
        (lambda x: torch.full((len(x),), 1e-3), "nothing was generated"),
        (lambda x: density(x) * torch.nan, "NaN"),
    ],
)
def test_empty_or_broken_fields_raise_and_write_nothing(broken: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        export_mesh(broken, albedo, 1.0, tmp_path / "mesh.glb", replace(SETTINGS, resolution=16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"resolution": 4}, {"threshold": 0.0}, {"faces": 10**6}, {"texture_size": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)


def test_a_failed_export_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(b"old")
    with pytest.raises(UserError, match="NaN"):
        export_mesh(density, lambda x: x * torch.nan, 1.0, tmp_path / "mesh.glb", replace(SETTINGS, resolution=16))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("mesh.glb", b"old")]


def test_grid_is_the_function_at_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_POINTS_PER_CALL", 150)  # several calls, the last one short
    grid = export.sample_density(lambda x: x[:, 0] + 10 * x[:, 1] + 100 * x[:, 2], 2.0, 9)
    axis = np.linspace(-2.0, 2.0, 9)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    np.testing.assert_allclose(grid, x + 10 * y + 100 * z, atol=1e-4)


@pytest.mark.parametrize("inside", [20.0, 1e4])
def test_a_jump_in_density_does_not_inflate_the_surface(inside: float) -> None:
    axis = np.linspace(-1, 1, 48)
    r = np.sqrt(sum(c**2 for c in np.meshgrid(axis, axis, axis, indexing="ij")))
    shape = isosurface.extract((inside * (r < 0.6)).astype(np.float32), 10.0, 1.0)
    assert as_trimesh(shape).volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.05)


def test_matter_at_the_walls_is_closed() -> None:
    shape = isosurface.extract(np.full((8, 8, 8), 100.0, np.float32), 10.0, 1.0)
    assert isosurface.is_watertight(shape)
    assert as_trimesh(shape).extents == pytest.approx([2 + 2 / 7] * 3, rel=0.01)  # half a cell beyond each wall


def test_floaters_and_cavities_go() -> None:
    body, cavity = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((1, 1, 1))
    cavity.invert()
    kept, floater = trimesh.creation.icosphere(radius=0.6), trimesh.creation.icosphere(radius=0.2)
    kept.apply_translation((3, 0, 0))
    floater.apply_translation((0, 4, 0))
    parts: Any = trimesh.util.concatenate([floater, cavity, kept, body])
    found, removed = isosurface.keep_components(TriangleMesh(parts.vertices, parts.faces), 0.05)
    assert removed == 2
    assert as_trimesh(found).volume == pytest.approx(body.volume + kept.volume)
    assert len(found.vertices) == len(body.vertices) + len(kept.vertices)
    assert (
        isosurface.keep_components(TriangleMesh(parts.vertices, parts.faces), 0.0)[1] == 1
    )  # the cavity goes all the same


TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def test_bodies_that_share_an_edge_are_cut_apart() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0], [0, 0, -1]], float)
    other = np.array([0, 1, 4, 5])[TETRAHEDRON]
    if as_trimesh(TriangleMesh(vertices, other)).volume < 0:
        other = other[:, ::-1]
    together = TriangleMesh(vertices, np.concatenate([TETRAHEDRON, other]))
    assert not isosurface.is_watertight(together)
    apart = isosurface.clean(together)
    assert isosurface.is_watertight(apart)
    assert (len(apart.vertices), len(apart.faces)) == (8, 8)
    assert as_trimesh(apart).volume == pytest.approx(as_trimesh(together).volume)


def test_coincident_neighbors_are_welded() -> None:
    vertices = np.concatenate([np.eye(4)[:, :3], [[1e-9, 0, 0]]])  # vertex 4 beside vertex 3, the origin
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 4], [1, 4, 3], [2, 0, 4], [0, 3, 4]])
    assert isosurface.is_watertight(TriangleMesh(vertices, faces))
    cleaned = isosurface.clean(TriangleMesh(vertices, faces))
    assert isosurface.is_watertight(cleaned)
    assert (len(cleaned.vertices), len(cleaned.faces)) == (4, 4)


def test_every_vertex_has_a_place_in_the_texture(tmp_path: Path) -> None:
    sliver = trimesh.creation.box((1, 1, 1)).subdivide()
    vertices, faces = np.asarray(sliver.vertices), np.asarray(sliver.faces)
    middle = len(vertices)  # splits an edge of face 0 in two without moving it: one face has no area
    a, b, c = faces[0]
    vertices = np.concatenate([vertices, vertices[[a, b]].mean(0, keepdims=True)])
    faces = np.concatenate([[[a, middle, c], [middle, b, c], [a, b, middle]], faces[1:]])
    charts = uv_unwrap.unwrap(TriangleMesh(vertices, faces), 128, 60.0)
    np.testing.assert_array_equal(charts.source[charts.faces], faces)
    np.testing.assert_array_equal(np.flatnonzero(~charts.charted), [2])
    path = tmp_path / "sliver.glb"
    settings = replace(SETTINGS, texture_size=128)
    textured = export.texture_of(
        TriangleMesh(vertices, faces), lambda rows: rows[:, :3].astype(np.float32) + 0.5, settings
    )
    path.write_bytes(formats.glb(textured))
    loaded = load(path)
    picture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_allclose(sample(picture, loaded.visual.uv) / 255, to_world(loaded.vertices) + 0.5, atol=0.02)


def test_fins_folds_and_slivers_are_dropped() -> None:
    vertices = np.concatenate([np.eye(4)[:, :3], [[5.0, 5, 5]]])
    fold, sliver = [[2, 3, 4], [2, 4, 3]], [[0, 0, 1]]
    cleaned = isosurface.clean(TriangleMesh(vertices, np.concatenate([TETRAHEDRON, fold, sliver])))
    assert isosurface.is_watertight(cleaned)
    assert (len(cleaned.vertices), len(cleaned.faces)) == (4, 4)


def test_simplified_noise_is_manifold_within_the_budget() -> None:
    rng = np.random.default_rng(3)
    axis = np.linspace(-1, 1, 40)
    r = np.sqrt(sum(c**2 for c in np.meshgrid(axis, axis, axis, indexing="ij")))
    rough = (20.0 / (1 + np.exp(20 * (r - 0.7))) * rng.uniform(0.2, 1.8, r.shape)).astype(np.float32)
    body, removed = isosurface.keep_components(isosurface.extract(rough, 10.0, 1.0), 0.05)
    cleaned = isosurface.clean(isosurface.simplify(body, 2000))
    edges = np.sort(as_trimesh(cleaned).edges, axis=1)
    _, faces_on_edge = np.unique(edges, axis=0, return_counts=True)
    assert removed > 0
    assert 1500 < len(cleaned.faces) <= 2000
    assert faces_on_edge.max() == 2


def test_rasterize_agrees_with_a_loop_over_texels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bake, "_CANDIDATES", 50)
    rng = np.random.default_rng(1)
    uv, size = rng.uniform(-0.2, 1.2, (12, 2)), 16
    faces = rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1)[:, :3]
    faces[4] = [3, 3, 7]  # no area
    owner, weights = bake.rasterize(uv, faces, size)
    for i in range(size):
        for j in range(size):
            center = np.array([(j + 0.5) / size, 1 - (i + 0.5) / size])
            expected, expected_weights = -1, np.zeros(3)
            for index, face in enumerate(faces):
                system = np.concatenate([uv[face].T, np.ones((1, 3))])
                if abs(np.linalg.det(system)) < 1e-12:
                    continue
                solved = np.linalg.solve(system, [*center, 1.0])
                if (solved >= 0).all():
                    expected, expected_weights = index, solved
            assert owner[i, j] == expected
            np.testing.assert_allclose(weights[i, j], expected_weights, atol=1e-9)
    assert -1 in owner
    assert len(np.unique(owner)) > 4


def test_a_quad_fills_the_texture_without_gaps_and_v_points_up() -> None:
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    vertices = np.concatenate([uv, np.zeros((4, 1))], 1)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    assert (bake.rasterize(uv, faces, 32)[0] >= 0).all()
    baked = bake.bake(vertices, uv, faces, 4, lambda points: points.astype(np.float32))
    np.testing.assert_array_equal(baked[:, 0, 1], np.rint(255 * np.array([0.875, 0.625, 0.375, 0.125])))
    np.testing.assert_array_equal(baked[0, :, 0], np.rint(255 * np.array([0.125, 0.375, 0.625, 0.875])))


def test_padding_takes_the_nearest_covered_texel() -> None:
    rng = np.random.default_rng(2)
    covered = rng.uniform(size=(12, 12)) < 0.08
    picture = rng.uniform(size=(12, 12, 3))
    padded = bake.pad(picture, covered)
    places = np.argwhere(covered)
    for place in np.ndindex(12, 12):
        squared = ((places - place) ** 2).sum(1)
        nearest = [picture[tuple(p)] for p in places[squared == squared.min()]]
        assert any(np.array_equal(padded[place], color) for color in nearest)
    np.testing.assert_array_equal(padded[covered], picture[covered])
