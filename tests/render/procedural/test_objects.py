"""Procedural objects: the catalogue, the geometry and patterns against known values, and the GLB of every kind."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dataset.errors import UserError
from render.procedural import catalog
from render.procedural.primitives import pattern
from render.procedural.primitives.color import to_linear
from render.procedural.primitives.mesh import TEXELS, Mesh, paint_texture, refined, triangulate
from render.procedural.primitives.part import ObjectPart, pair, part, turn
from render.procedural.primitives.style import styled
from render.procedural.primitives.surface import (
    SurfaceGrid,
    box,
    capsule,
    curve,
    ellipsoid,
    lathe,
    mirrored,
    prism,
    tube,
    turned,
)
from tests.support.paths import ROOT

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
from render.blender import procedural_glb

pytestmark = pytest.mark.integration

SEED = 5
KNOWN_UIDS = ["procedural-fish-000000", "procedural-piano-000001", "procedural-pumpkin-000024"]
FLAT_KINDS = {"guitar", "hammer", "scissors"}
INDEX_OF = {catalog.kind_of(index, SEED): index for index in reversed(range(2 * len(catalog.KINDS)))}


def mesh_of(surface: SurfaceGrid) -> Mesh:
    return triangulate(surface, surface)


def volume(surface: SurfaceGrid) -> float:
    """Signed volume by the divergence theorem: positive if the faces point outwards."""
    mesh = mesh_of(surface)
    a, b, c = (mesh.vertices[mesh.triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def edges_match(mesh: Mesh) -> bool:
    """Every directed edge is met by exactly one opposite edge: the surface is closed and consistently oriented."""
    edges = Counter((int(t[i]), int(t[(i + 1) % 3])) for t in mesh.triangles for i in range(3))
    return all(count == edges[second, first] for (first, second), count in edges.items())


# The catalogue


@pytest.mark.parametrize("count", [len(catalog.KINDS), 100])
def test_every_kind_comes_equally_often(count: int) -> None:
    counts = Counter(catalog.kind_of(index, 3) for index in range(count))
    assert set(counts) == set(catalog.KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_kinds_are_shuffled_by_the_seed() -> None:
    count = len(catalog.KINDS)
    orders = [[catalog.kind_of(index, seed) for index in range(2 * count)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert orders[0][:count] != orders[0][count:]


def test_uids_are_unique_and_parse_back() -> None:
    uids = [catalog.uid_of(index, 7) for index in range(200)]
    assert len(set(uids)) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", uid) for uid in uids)
    assert [catalog.parse_uid(uid) for uid in uids] == [(catalog.kind_of(i, 7), i) for i in range(200)]


def test_known_uids_do_not_change() -> None:
    assert [catalog.uid_of(index, 0) for index in (0, 1, 24)] == KNOWN_UIDS


@pytest.mark.parametrize("uid", ["procedural-cat-1", "procedural-unicorn-000001", "cat", "procedural-cat-000001.glb"])
def test_a_foreign_uid_is_refused(uid: str) -> None:
    with pytest.raises(UserError, match=re.escape(uid)):
        catalog.parse_uid(uid)


@pytest.mark.parametrize("index", [-1, 1_000_000])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(UserError, match=str(index)):
        catalog.kind_of(index, 0)


def test_the_catalogue_and_all_shapes_need_no_blender() -> None:
    families = sorted({builder.__module__ for builder in procedural_glb.BUILDERS.values()})
    assert len(families) > 5
    code = f"import sys, render.procedural.catalog, {', '.join(families)}; sys.exit('bpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_each_kind_has_a_builder() -> None:
    assert set(procedural_glb.BUILDERS) == set(catalog.KINDS)


# Geometry


def test_volumes_match_the_formulas() -> None:
    assert volume(ellipsoid((1, 2, 3), (0.5, 0.3, 0.2), 96, 64)) == pytest.approx(4 / 3 * np.pi * 0.03, rel=5e-3)
    assert volume(box((1, 0, 0), (0.4, 0.5, 0.6), 1e-5)) == pytest.approx(0.12, rel=1e-3)
    cylinder_and_ball = np.pi * 0.1**2 * 0.5 + 4 / 3 * np.pi * 0.1**3
    assert volume(capsule((0, 0, 0), (0.3, 0.4, 0.0), 0.1, sides=64)) == pytest.approx(cylinder_and_ball, rel=0.03)
    assert volume(lathe([(1.0, 0.0), (0.001, 1.0)], 256)) == pytest.approx(np.pi / 3, rel=5e-3)
    assert volume(prism(np.array([(0.0, 0), (1, 0), (0, 1)]), 0.3, 1e-6)) == pytest.approx(0.15, rel=1e-4)


def test_moves_keep_volume_and_orientation() -> None:
    shape = tube(curve(((0, 0, 0), (0.5, 0.2, 0.1), (0.3, 0.4, 0.9)), 12), np.linspace(0.1, 0.05, 12))
    for moved in (mirrored(shape), turned(shape, "x", 35, (1, 2, 3)), turned(shape, "y", -80), turned(shape, "z", 170)):
        assert volume(moved) == pytest.approx(volume(shape), rel=1e-3)
    assert turned(np.array([[[1.0, 0.0, 0.0]]]), "z", 90)[0, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert turned(np.array([[[0.0, 0.0, 1.0]]]), "x", 90)[0, 0] == pytest.approx([0, -1, 0], abs=1e-12)


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_all_parts_are_closed_solids_that_face_outwards(kind: str) -> None:
    for seed in range(4):
        for item in procedural_glb.BUILDERS[kind](catalog.generator(kind, seed)):
            for shown in (item, *styled(catalog.generator(seed), [item], "low-polygon")):
                assert np.isfinite(shown.surface).all()
                assert volume(shown.surface) > 0, item.name
                assert edges_match(mesh_of(shown.surface)), item.name


# Patterns and textures


def test_refining_changes_no_shape() -> None:
    shape = box((0, 0, 0), (1.0, 0.5, 0.3), 0.05)
    finer, rest = refined(shape, shape)
    assert volume(finer) == pytest.approx(volume(shape), rel=1e-6)
    assert finer.shape == rest.shape
    assert finer.size > 2 * shape.size


def sampled(texture: NDArray[np.uint8], uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear look-up as a renderer does it: texel centers at half integers, v upwards from row 0."""
    place = uv * TEXELS - 0.5
    low = np.clip(np.floor(place).astype(int), 0, TEXELS - 2)
    (x, y), (fx, fy) = low.T, (place - low).T[..., None]
    rows = texture.astype(np.float64)
    top = rows[y, x] * (1 - fx) + rows[y, x + 1] * fx
    return np.asarray((top * (1 - fy) + (rows[y + 1, x] * (1 - fx) + rows[y + 1, x + 1] * fx) * fy) / 255)


@pytest.mark.parametrize(
    "shape", [box((0.5, 0.5, 0.5), (0.9, 0.6, 0.8), 0.05), ellipsoid((0.5, 0.5, 0.5), (0.4, 0.3, 0.45))]
)
def test_a_texture_shows_at_each_point_the_color_of_that_point(shape: SurfaceGrid) -> None:
    surface, rest = refined(shape, shape)
    mesh = triangulate(surface, rest)
    seen = sampled(paint_texture(rest, lambda points: points), mesh.corners_uv.mean(axis=1))
    true = mesh.vertices[mesh.triangles].mean(axis=1)
    error = np.linalg.norm(seen - true, axis=1)
    area = np.linalg.norm(
        np.cross(*(mesh.vertices[mesh.triangles[:, i]] - mesh.vertices[mesh.triangles[:, 0]] for i in (1, 2))), axis=1
    )
    assert (error * area).sum() / area.sum() < 0.01
    assert error.max() < 0.06


def test_masks_cover_what_they_say() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    rng = np.random.default_rng(1)
    assert pattern.stripes(rng, (0, 0, 2), 0.3, 0.25)(points).mean() == pytest.approx(0.25, abs=0.02)
    assert pattern.checker(0.2)(points).mean() == pytest.approx(0.5, abs=0.02)
    assert pattern.beyond((1, 0, 0), 0.5)(points).mean() == pytest.approx(0.25, abs=0.02)
    assert pattern.inside((0, 0, 0), (0.8, 0.6, 0.9))(points).mean() == pytest.approx(
        np.pi / 6 * 0.8 * 0.6 * 0.9, abs=0.02
    )
    assert pattern.patches(rng, 0.2, 0.5)(points).mean() == pytest.approx(0.5, abs=0.1)
    assert 0.02 < pattern.spots(rng, 0.4, 0.12)(points).mean() < 0.3


def test_spots_and_waves_have_the_bits_of_the_plain_formulas() -> None:
    points = np.random.default_rng(3).uniform(-1, 1, (500, 3))
    spacing, radius, softness = 0.3, 0.1, 0.06
    rng = np.random.default_rng(4)
    jitter, sizes = rng.uniform(0.15, 0.85, (8, 8, 8, 3)), rng.uniform(0.6, 1.2, (8, 8, 8)) * radius
    grid = points / spacing
    nearest = np.full(len(points), np.inf)
    for step in np.ndindex(3, 3, 3):
        cell = np.floor(grid).astype(np.int64) + step - 1
        x, y, z = (cell % 8).T
        gap = np.linalg.norm(grid - cell - jitter[x, y, z], axis=1) * spacing - sizes[x, y, z]
        nearest = np.minimum(nearest, gap)
    spots = pattern.spots(np.random.default_rng(4), spacing, radius, softness)
    np.testing.assert_array_equal(spots(points), pattern.edge(nearest, softness * spacing))
    rng = np.random.default_rng(5)
    direction = rng.normal(size=(6, 3))
    direction *= (np.pi / 0.2) * rng.uniform(0.6, 1.4, (6, 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
    expected = np.sin(points @ direction.T + rng.uniform(0, 2 * np.pi, 6)).sum(axis=1) * np.sqrt(2 / 6) * 0.7
    np.testing.assert_array_equal(pattern.waves(np.random.default_rng(5), 0.2)(points), expected)


def test_stripes_repeat_along_their_direction_only() -> None:
    mask = pattern.stripes(np.random.default_rng(2), (0, 1, 0), 0.4)
    points = np.random.default_rng(3).uniform(-1, 1, (500, 3))
    assert mask(points) == pytest.approx(mask(points + np.array([0.7, 0.4, -0.3])), abs=1e-9)
    assert np.abs(mask(points) - mask(points + np.array([0, 0.2, 0]))).mean() > 0.5


def test_the_pattern_of_a_reflected_or_turned_part_goes_with_it() -> None:
    original = part("x", ellipsoid((0.5, 0.4, 0.3), (0.2, 0.1, 0.3)), lambda points: points)
    left, right = pair(original)
    assert np.array_equal(paint_texture(right.rest, lambda p: p), paint_texture(left.rest, lambda p: p)[:, ::-1])
    turned_part = turn([original], "z", 90)[0]
    assert np.array_equal(turned_part.rest, original.surface)
    assert not np.allclose(turned_part.surface, original.surface)


def test_srgb_to_linear() -> None:
    assert to_linear((0.0, 0.5, 1.0)) == pytest.approx((0.0, 0.21404, 1.0), abs=1e-5)


# The files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One GLB of every kind, named by kind."""
    path = tmp_path_factory.mktemp("procedural")
    for kind, index in INDEX_OF.items():
        procedural_glb.export(index, SEED, path / f"{kind}.glb")
    return path


@pytest.mark.integration
def test_only_finished_files_are_left(folder: Path) -> None:
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(f"{kind}.glb" for kind in catalog.KINDS)


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_the_file_holds_a_painted_object_of_sane_shape(kind: str, folder: Path) -> None:
    scene = trimesh.load_scene(folder / f"{kind}.glb")
    meshes = list(scene.geometry.values())
    assert sum(len(mesh.faces) for mesh in meshes) > 150
    assert all(np.isfinite(mesh.vertices).all() for mesh in meshes)
    width, height, depth = scene.extents
    assert max(width, height, depth) / min(width, height, depth) < (12 if kind in FLAT_KINDS else 5)
    assert abs(scene.bounds[0][1]) < 0.25, "stands on the ground"
    materials = [mesh.visual.material for mesh in meshes]
    assert all(m.baseColorTexture is not None or m.baseColorFactor is not None for m in materials)
    flat = {tuple(m.baseColorFactor) for m in materials if m.baseColorFactor is not None}
    textured = sum(m.baseColorTexture is not None for m in materials)
    assert len(flat) + textured >= 2, "more than one color"


def test_nearly_every_kind_carries_textures(folder: Path) -> None:
    """Not every one: a plain painted object is a variant too."""
    textured = [
        kind
        for kind in catalog.KINDS
        for mesh in trimesh.load_scene(folder / f"{kind}.glb").geometry.values()
        if (texture := mesh.visual.material.baseColorTexture) is not None and texture.size == (TEXELS, TEXELS)
    ]
    assert len(set(textured)) >= 0.8 * len(catalog.KINDS)


def test_the_front_is_plus_z_in_the_file_and_y_is_up(folder: Path) -> None:
    scene = trimesh.load_scene(folder / "cat.glb")
    center = scene.bounds.mean(axis=0)
    nose = next(mesh for name, mesh in scene.geometry.items() if "nose" in name).vertices.mean(axis=0)
    paws = np.concatenate([mesh.vertices for name, mesh in scene.geometry.items() if "paw" in name])
    assert nose[2] > center[2] + 0.1
    assert nose[1] > center[1]
    assert paws[:, 1].max() < 0.2


def test_the_same_object_is_the_same_bytes_whatever_came_before(folder: Path, tmp_path: Path) -> None:
    for kind in ("cat", "house"):
        procedural_glb.export(INDEX_OF[kind], SEED, tmp_path / "again.glb")
        assert (tmp_path / "again.glb").read_bytes() == (folder / f"{kind}.glb").read_bytes()


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_seeds_differ_in_shape_and_color(kind: str) -> None:
    def looks(seed: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
        parts: list[ObjectPart] = procedural_glb.BUILDERS[kind](catalog.generator(kind, seed))
        points = np.concatenate([p.surface.reshape(-1, 3) for p in parts])
        colors = [
            (p.paint.base if callable(p.paint.base) else pattern.solid(p.paint.base))(p.rest.reshape(-1, 3)).mean(
                axis=0
            )
            for p in parts[:12]
        ]
        return tuple(np.round(np.ptp(points, axis=0), 3)), tuple((255 * np.mean(colors, axis=0)).astype(int))

    shapes, colors = zip(*(looks(seed) for seed in range(8)), strict=True)
    assert len(set(shapes)) == 8
    assert len(set(colors)) >= 4
