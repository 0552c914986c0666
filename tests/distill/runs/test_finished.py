"""A finished run is recognized by its marker, and without one by config.json as older releases wrote it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.config import DistillRequest
from distill.mesh.export import PRESETS
from distill.runs.finished import CONFIG, DONE, FIELD, RESULTS, finished_run, remove_marker, write_marker
from tests.support.distill_micro import SETTINGS

MESH = PRESETS["tiny"]
REQUEST = DistillRequest("image", "model", "tiny", 15.0, 3.0, SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files of a run but the marker, with config.json as at the start of a run."""
    for name in RESULTS:
        (tmp_path / name).touch()
    (tmp_path / CONFIG).write_text(json.dumps({"image": "a.png", **REQUEST.as_json()}))
    return tmp_path


def faces(folder: Path, request: DistillRequest = REQUEST) -> int | None:
    run = finished_run(folder, request)
    return run.faces if run else None


def test_the_marker_decides(folder: Path) -> None:
    assert faces(folder) is None
    write_marker(folder, REQUEST, 12, ("glb", "ply"), MESH)
    assert faces(folder) == 12
    assert faces(folder, replace(REQUEST, elevation_deg=16.0)) is None
    assert faces(folder, replace(REQUEST, reference_azimuth_deg=0.0)) is None
    assert faces(folder, replace(REQUEST, settings=replace(SETTINGS, preview_every=7, checkpoint_every=3))) == 12
    remove_marker(folder)
    remove_marker(folder)
    assert faces(folder) is None


def test_the_mesh_has_settings_and_formats(folder: Path) -> None:
    write_marker(folder, REQUEST, 12, ("glb", "ply"), MESH)
    run = finished_run(folder, REQUEST)
    assert run is not None
    assert run.has_mesh(MESH, ("glb",))
    assert run.has_mesh(MESH, ("ply",))
    assert not run.has_mesh(MESH, ("obj",))
    assert not run.has_mesh(replace(MESH, faces=MESH.faces + 1), ("glb",))
    assert not run.has_mesh(replace(MESH, texture_size=64), ("glb",))
    write_marker(folder, REQUEST, 12, ("glb", "ply"), None)  # its files are being replaced
    run = finished_run(folder, REQUEST)
    assert run is not None
    assert not run.has_mesh(MESH, ("glb",))


def test_the_marker_of_an_older_run_stands_for_the_mesh_of_the_preset(folder: Path) -> None:
    marker = {"request_sha256": REQUEST.sha256, "faces": 12, "formats": ["glb"]}
    (folder / DONE).write_text(json.dumps(marker))
    run = finished_run(folder, REQUEST)
    assert run is not None
    assert run.has_mesh(PRESETS["tiny"], ("glb",))
    assert not run.has_mesh(PRESETS["paper"], ("glb",))


@pytest.mark.parametrize("name", [name for name in RESULTS if name != FIELD])
def test_a_missing_file_means_unfinished(folder: Path, name: str) -> None:
    write_marker(folder, REQUEST, 12, ("glb",), MESH)
    (folder / name).unlink()
    assert finished_run(folder, REQUEST) is None


def test_a_missing_field_is_reported(folder: Path) -> None:
    write_marker(folder, REQUEST, 12, ("glb",), MESH)
    run = finished_run(folder, REQUEST)
    assert run is not None
    assert run.has_field
    (folder / FIELD).unlink()
    run = finished_run(folder, REQUEST)
    assert run is not None
    assert not run.has_field


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"faces": 12}', '{"faces": null, "formats": []}'])
def test_a_damaged_marker_means_unfinished(folder: Path, content: str) -> None:
    (folder / DONE).write_text(content)
    assert finished_run(folder, REQUEST) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 12),
        ({"mesh": {"faces": 12}}, 12),  # written before there were formats
        ({"mesh": {"faces": 12, "formats": ["ply"]}}, 12),
        ({"mesh": None}, None),
        ({"elevation_deg": 16.0}, None),
        ({"shown_from_deg": 0.0}, None),
        ({"settings": {**REQUEST.as_json()["settings"], "preview_every": 7}}, 12),
        ({"settings": {**REQUEST.as_json()["settings"], "steps": 7}}, None),
    ],
)
def test_folders_without_a_marker(folder: Path, changes: dict[str, Any], expected: int | None) -> None:
    config = {"image": "a.png", **REQUEST.as_json(), "mesh": {"faces": 12, "formats": ["glb"]}, **changes}
    (folder / CONFIG).write_text(json.dumps(config))
    assert faces(folder) == expected
