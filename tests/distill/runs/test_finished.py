"""A finished run is recognized by its marker, and without one by config.json as older releases wrote it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.config import DistillRequest
from distill.runs.finished import CONFIG, DONE, RESULTS, finished_faces, remove_marker, write_marker
from tests.support.distill_micro import SETTINGS

REQUEST = DistillRequest("image", "model", "tiny", 15.0, 3.0, SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files of a run but the marker, with config.json as at the start of a run."""
    for name in RESULTS:
        (tmp_path / name).touch()
    (tmp_path / CONFIG).write_text(json.dumps({"image": "a.png", **REQUEST.as_json()}))
    return tmp_path


def test_the_marker_decides(folder: Path) -> None:
    assert finished_faces(folder, REQUEST, ("glb",)) is None
    write_marker(folder, REQUEST, 12, ("glb", "ply"))
    assert finished_faces(folder, REQUEST, ("glb",)) == 12
    assert finished_faces(folder, REQUEST, ("ply",)) == 12
    assert finished_faces(folder, REQUEST, ("obj",)) is None
    assert finished_faces(folder, replace(REQUEST, elevation_deg=16.0), ("glb",)) is None
    assert finished_faces(folder, replace(REQUEST, reference_azimuth_deg=0.0), ("glb",)) is None
    more_previews = replace(REQUEST, settings=replace(SETTINGS, preview_every=7, checkpoint_every=3))
    assert finished_faces(folder, more_previews, ("glb",)) == 12
    remove_marker(folder)
    remove_marker(folder)
    assert finished_faces(folder, REQUEST, ("glb",)) is None


@pytest.mark.parametrize("name", RESULTS)
def test_a_missing_file_means_unfinished(folder: Path, name: str) -> None:
    write_marker(folder, REQUEST, 12, ("glb",))
    (folder / name).unlink()
    assert finished_faces(folder, REQUEST, ("glb",)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"faces": 12}', '{"faces": null, "formats": []}'])
def test_a_damaged_marker_means_unfinished(folder: Path, content: str) -> None:
    (folder / DONE).write_text(content)
    assert finished_faces(folder, REQUEST, ("glb",)) is None


@pytest.mark.parametrize(
    ("changes", "faces"),
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
def test_folders_without_a_marker(folder: Path, changes: dict[str, Any], faces: int | None) -> None:
    config = {"image": "a.png", **REQUEST.as_json(), "mesh": {"faces": 12, "formats": ["glb"]}, **changes}
    (folder / CONFIG).write_text(json.dumps(config))
    assert finished_faces(folder, REQUEST, ("glb",)) == faces
