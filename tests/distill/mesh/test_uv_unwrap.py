"""UV charts by xatlas in a child process, and the fallback if it takes too long or crashes."""

import logging
import time

import numpy as np
import pytest
import trimesh

from distill.mesh import bake, uv_unwrap, xatlas_worker
from distill.mesh.isosurface import TriangleMesh


def sphere(subdivisions: int) -> TriangleMesh:
    made = trimesh.creation.icosphere(subdivisions=subdivisions)
    return TriangleMesh(np.asarray(made.vertices), np.asarray(made.faces))


def test_charts_are_xatlas_own_and_cover_the_surface():
    surface = sphere(3)
    found = uv_unwrap.unwrap(surface, 128, 60.0)
    assert (found.method, found.texture_size) == ("xatlas", 128)
    np.testing.assert_array_equal(found.source[found.faces], surface.faces)
    assert found.charted.all()
    assert (found.uv >= 0).all()
    assert (found.uv <= 1).all()


def test_what_takes_too_long_ends_and_is_announced(caplog: pytest.LogCaptureFixture):
    surface = sphere(6)
    noise = np.random.default_rng(0).normal(0, 1e-4, surface.vertices.shape)
    surface = TriangleMesh(surface.vertices + noise, surface.faces)  # xatlas needs ten seconds or more
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "distill.mesh.uv_unwrap"):
        found = uv_unwrap.unwrap(surface, 512, 1.0)
    assert time.monotonic() - started < 10
    assert found.method == "faces"
    assert "did not finish in 1 s for 81920 faces" in caplog.text
    assert found.texture_size > 512
    assert f"{found.texture_size} texels instead of 512" in caplog.text


def test_a_process_that_dies_is_announced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(uv_unwrap, "to_npz", lambda *_: b"no archive")
    with caplog.at_level(logging.WARNING, "distill.mesh.uv_unwrap"):
        assert uv_unwrap.unwrap(sphere(1), 64, 60.0).method == "faces"
    assert "ended with status 1 (" in caplog.text


@pytest.mark.parametrize(("subdivisions", "size"), [(0, 16), (1, 64), (3, 128), (3, 333)])
def test_cells_of_faces_never_touch(subdivisions: int, size: int):
    """Bilinear filtering of a face reads no texel that is nearer to another face."""
    surface = sphere(subdivisions)
    found = uv_unwrap.face_charts(surface, size)
    np.testing.assert_array_equal(found.source[found.faces], surface.faces)
    size = found.texture_size
    owner, _ = bake.rasterize(found.uv, found.faces, size)
    padded = bake.pad(owner[..., None].astype(np.float64), owner >= 0)[..., 0]
    rng = np.random.default_rng(0)
    face = np.repeat(np.arange(len(surface.faces)), 20)
    weight = rng.dirichlet(np.full(3, 0.3), len(face))  # many near the edges and corners
    places = bake.texel_coordinates((weight[:, :, None] * found.uv[found.faces[face]]).sum(1), size)
    assert (places > 0).all()
    assert (places < size).all()
    column, row = np.floor(places).astype(int).T
    assert (padded[row, column] == face).mean() > 0.999
    assert set(owner[owner >= 0]) == set(range(len(surface.faces)))


def test_arrays_survive_the_way_between_processes():
    sent = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.uint32), np.array(7))
    for back, array in zip(xatlas_worker.from_npz(xatlas_worker.to_npz(*sent)), sent, strict=True):
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype
