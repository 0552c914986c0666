"""USDZ files follow the specification, and show the same mesh as the GLB."""

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from distill.mesh.export import MAIN_FILES, MeshSettings, export_mesh
from distill.mesh.usdz import ALIGNMENT, package

SETTINGS = MeshSettings(threshold=10.0, resolution=24, faces=300, texture_size=64, points=1000)


def density(x: torch.Tensor) -> torch.Tensor:
    return 10 * torch.exp(10 * (1 - (x / torch.tensor((0.5, 0.3, 0.4))).norm(dim=-1)).clamp(max=0.4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("usdz")
    report = export_mesh(density, lambda x: 0.5 + x * 0.8, 1.0, folder / "mesh.glb", SETTINGS, kinds=("glb", "usdz"))
    assert set(report.files) == {"mesh.glb", "mesh.usdz"}
    return folder


def data_offsets(data: bytes) -> list[int]:
    """Where the data of each file begin, according to the local headers of the ZIP file."""
    offsets = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            signature, *_, name, extra = struct.unpack_from("<4s5H3L2H", data, info.header_offset)
            assert signature == b"PK\3\4"
            offsets.append(info.header_offset + 30 + name + extra)
    return offsets


def numbers(layer: str, name: str) -> Any:
    found = re.search(rf" {re.escape(name)} = \[(.*)\]", layer)
    assert found is not None, name
    return np.array([float(number) for number in re.findall(r"-?[\d.]+", found[1])])


def test_the_package_follows_the_specification(folder: Path) -> None:
    data = (folder / "mesh.usdz").read_bytes()
    assert [offset % ALIGNMENT for offset in data_offsets(data)] == [0, 0]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["mesh.usda", "textures/mesh.png"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.compress_size == info.file_size
            assert not info.flag_bits & 0b1001  # neither encrypted nor with a data descriptor
        layer = archive.read("mesh.usda").decode("ascii")
        with Image.open(io.BytesIO(archive.read("textures/mesh.png"))) as texture:
            assert (texture.format, texture.size) == ("PNG", (64, 64))
    assert layer.startswith("#usda 1.0\n")
    assert "@textures/mesh.png@" in layer
    assert layer.count("{") == layer.count("}")


def test_the_mesh_is_that_of_the_glb(folder: Path) -> None:
    scene: Any = trimesh.load(folder / "mesh.glb", process=False)
    (mesh,) = scene.geometry.values()
    with zipfile.ZipFile(folder / "mesh.usdz") as archive:
        layer = archive.read("mesh.usda").decode()
    assert 100 < len(mesh.faces) <= 300
    np.testing.assert_array_equal(numbers(layer, "faceVertexCounts"), [3] * len(mesh.faces))
    np.testing.assert_array_equal(numbers(layer, "faceVertexIndices").reshape(-1, 3), mesh.faces)
    points = numbers(layer, "points").reshape(-1, 3)
    np.testing.assert_allclose(points, mesh.vertices, atol=1e-6)
    normals = numbers(layer, "normals").reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(normals, mesh.vertex_normals, atol=1e-3)
    np.testing.assert_allclose(numbers(layer, "primvars:st").reshape(-1, 2), mesh.visual.uv, atol=1e-5)
    np.testing.assert_allclose(numbers(layer, "extent").reshape(2, 3), [points.min(0), points.max(0)], atol=1e-6)


def test_equal_meshes_give_equal_files(folder: Path, tmp_path: Path) -> None:
    export_mesh(density, lambda x: 0.5 + x * 0.8, 1.0, tmp_path / "mesh.glb", SETTINGS, kinds=("usdz",))
    assert (tmp_path / "mesh.usdz").read_bytes() == (folder / "mesh.usdz").read_bytes()


@pytest.mark.parametrize("length", range(1, 70))
def test_data_are_aligned_whatever_precedes_them(length: int) -> None:
    data = package({"a" * length: bytes(length), "b": b"b"})
    assert [offset % ALIGNMENT for offset in data_offsets(data)] == [0, 0]


def test_every_format_has_a_file(tmp_path: Path) -> None:
    report = export_mesh(
        density, lambda x: 0.5 + x * 0.8, 1.0, tmp_path / "mesh.glb", SETTINGS, kinds=tuple(MAIN_FILES)
    )
    assert set(MAIN_FILES.values()) == set(report.files) - {"mesh.mtl", "mesh.png"}
