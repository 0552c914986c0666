"""The GLB of a known field passes the Khronos validator, and Cycles renders it like the field."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dataset.camera import LENS_MM, SENSOR_MM, spherical_to_c2w
from distill.mesh.export import MeshReport, MeshSettings, export_mesh
from distill.nerf.occupancy import Occupancy
from distill.nerf.render import render_views
from distill.nerf.settings import MarchSettings
from distill.sds.oracle import Ball, Cuboid
from tests.support.gltf_validator import TOOL, validate
from tests.support.paths import ROOT
from tests.support.solid_field import BLUE, BROWN, GREEN, RED, YELLOW, SolidField

# A figure with one face: red and yellow in front (-y), blue and brown behind, a green hand to its left (+x).
FIGURE = (
    Cuboid((-0.22, -0.22, -0.45), (0.22, 0.22, 0.1), RED, BLUE),
    Ball((0.0, 0.0, 0.25), 0.2, YELLOW, BROWN),
    Ball((0.32, 0.0, -0.2), 0.12, GREEN, GREEN),
)
FIELD = SolidField(FIGURE, softness=0.002)  # walls as hard as a mesh's: the outlines of soft ones are none
SETTINGS = MeshSettings(resolution=96, faces=3000, texture_size=256)
VIEWS, RESOLUTION = 8, 64
FOV_DEG = float(np.rad2deg(2 * np.arctan(SENSOR_MM / 2 / LENS_MM)))


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeshReport]:
    out = tmp_path_factory.mktemp("asset") / "figure.glb"
    return out, export_mesh(FIELD.density, FIELD.albedo, 1.0, out, SETTINGS)


def test_the_validator_finds_nothing(figure: tuple[Path, MeshReport]):
    report = validate(figure[0])
    assert report["issues"]["messages"] == []  # neither errors nor warnings, information or hints
    assert report["info"]["totalTriangleCount"] == figure[1].faces


def test_the_validator_finds_nothing_in_a_cell_for_each_face(tmp_path: Path):
    settings = MeshSettings(resolution=32, faces=500, texture_size=128, unwrap_seconds=0.0)
    report = export_mesh(FIELD.density, FIELD.albedo, 1.0, tmp_path / "cells.glb", settings)
    assert report.charts == "faces"
    assert validate(tmp_path / "cells.glb")["issues"]["messages"] == []


def test_the_validator_finds_what_is_wrong(figure: tuple[Path, MeshReport], tmp_path: Path):
    broken = figure[0].read_bytes().replace(b'"VEC3"', b'"VEC9"')
    (tmp_path / "broken.glb").write_bytes(broken)
    assert validate(tmp_path / "broken.glb")["issues"]["numErrors"] > 0


def test_the_validators_lock_has_digests_and_no_hosts():
    packages = json.loads((TOOL / "package-lock.json").read_text())["packages"]
    locked = {name: package for name, package in packages.items() if name}
    assert list(locked) == ["node_modules/gltf-validator"]
    for package in locked.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


@pytest.mark.integration
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed (it needs Python 3.11)")
@pytest.mark.parametrize("charts", ["xatlas", "faces"])
def test_renders_of_the_glb_match_the_albedo_of_the_field(charts: str, tmp_path: Path):
    """Compare Cycles renders, with the base color as emission, with renders of the field."""
    settings = SETTINGS if charts == "xatlas" else replace(SETTINGS, unwrap_seconds=0.0)
    report = export_mesh(FIELD.density, FIELD.albedo, 1.0, tmp_path / "figure.glb", settings)
    assert report.charts == charts
    seen, cameras = unlit_views(tmp_path / "figure.glb", tmp_path)
    truth = albedo_views(FIELD, cameras)
    decibels = -10 * np.log10(np.square(seen - truth).mean((1, 2, 3)))
    print(f"PSNR of the views with charts by {charts}: {decibels.round(1)}")
    assert decibels.min() >= 25, f"PSNR of the views: {decibels.round(1)}"
    turned = -10 * np.log10(np.square(np.roll(seen, 1, 0) - truth).mean((1, 2, 3)))
    assert turned.max() < 20, f"the next view along is as good: {turned.round(1)}"


def unlit_views(glb: Path, folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return images [f, h, w, 3] on white and their cameras [f, 4, 4] in the world of the field."""
    out = folder / "views.npz"
    command = [sys.executable, "-m", "tests.support.unlit_views", str(glb), str(out), str(VIEWS), str(2 * RESOLUTION)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as found:
        pictures, elevations, azimuths = found["pictures"] / 255, found["elevations_deg"], found["azimuths_deg"]
        scale, offset = found["scale"], found["offset"]
    cameras = spherical_to_c2w(elevations, azimuths, 1.5)
    cameras[:, :3, 3] = cameras[:, :3, 3] / scale - offset  # the renderer had put the object's box into the middle
    alpha = pictures[..., 3:]
    return halved(pictures[..., :3] * alpha + 1 - alpha), cameras


def albedo_views(field: SolidField, cameras: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unlit images [f, h, w, 3] of the field on white."""
    march = MarchSettings(samples_per_ray=256, occupancy_resolution=48)
    occupancy = Occupancy(field.radius, march)
    occupancy.update(0, field.density, seed=0)
    with torch.no_grad():
        found = render_views(field, cameras, FOV_DEG, 2 * RESOLUTION, settings=march, occupancy=occupancy)
    return halved(found.rgb.numpy())


def halved(pictures: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average 2 x 2 pixels, since neither renderer antialiases edges."""
    f, h, w, c = pictures.shape
    return pictures.astype(np.float64).reshape(f, h // 2, 2, w // 2, 2, c).mean((2, 4))
