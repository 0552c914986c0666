"""A finished run gets another mesh from its field, without another step and without the model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dataset.errors import UserError
from dataset.images.prepare import Prepared
from distill.config import DistillRequest
from distill.mesh import export
from distill.runs import job as module
from distill.runs import remesh
from distill.runs.finished import write_marker
from distill.runs.job import Job, run_job
from distill.runs.sequential import attempt
from distill.runs.unknown_images import with_unknown_warnings
from tests.support.distill_toy import SETTINGS
from tests.support.toy_run import MESH, finished

REQUEST = DistillRequest("image", "model", "tiny", 15.0, 3.0, SETTINGS)
CPU = torch.device("cpu")
PREPARED = Prepared(np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8), (), "framing")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finished(tmp_path_factory.mktemp("remesh") / "run")
    config = {**json.loads((folder / "config.json").read_text()), "mesh": {"faces": 1}, "extra": "kept"}
    (folder / "config.json").write_text(json.dumps(config))
    write_marker(folder, REQUEST, 1, ("glb",), MESH)
    return folder


@pytest.fixture
def job(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of the finished run, whose model must not be loaded."""
    monkeypatch.setattr(module.export, "PRESETS", {"tiny": MESH})
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("the model is not needed"))
    shutil.copytree(original, tmp_path / "run")
    return Job("run", tmp_path / "a.png", PREPARED, tmp_path / "run", tmp_path, "model", REQUEST)


def run(job: Job) -> int:
    return run_job(job, lambda: module.load_run_model(job.model, CPU), CPU)


def stored(job: Job, name: str) -> dict[str, Any]:
    values = json.loads((job.out / name).read_text())
    assert isinstance(values, dict)
    return values


def others(folder: Path) -> dict[str, bytes]:
    """The files that do not depend on the mesh."""
    names = ("field.safetensors", "views.png", "turntable.mp4", "losses.csv", "input.png")
    return {name: (folder / name).read_bytes() for name in names}


def test_other_settings_make_another_mesh_of_the_same_field(job: Job, original: Path) -> None:
    assert job.finished_faces == 1
    other = replace(job, faces=120, texture_size=32)
    assert other.finished_faces is None
    assert not other.needs_model
    faces = run(other)
    assert faces == other.finished_faces
    assert 20 < faces <= 120
    mesh = trimesh.load(job.out / "mesh.glb", force="mesh")
    assert len(mesh.faces) == faces
    assert mesh.visual.material.baseColorTexture.size == (32, 32)
    assert others(job.out) == others(original)
    config, metrics = stored(job, "config.json"), stored(job, "metrics.json")
    assert config["mesh_settings"] == {"faces": 120, "texture_size": 32}
    assert config["extra"] == "kept"
    assert config["mesh"]["faces"] == metrics["mesh"]["faces"] == faces
    before = json.loads((original / "metrics.json").read_text())
    assert {**metrics, "mesh": 0, "took": 0} == {**before, "mesh": 0, "took": 0}
    assert {**metrics["took"]["seconds"], "mesh": 0} == {**before["took"]["seconds"], "mesh": 0}
    assert attempt(other, lambda: pytest.fail("no model"), CPU).status == "skipped"


def test_the_same_settings_give_the_first_mesh_again(job: Job, original: Path) -> None:
    run(replace(job, faces=120))
    run(job)
    assert (job.out / "mesh.glb").read_bytes() == (original / "mesh.glb").read_bytes()
    assert "mesh_settings" not in stored(job, "config.json")
    assert "seconds" not in stored(job, "metrics.json")["mesh"]


def test_more_formats_are_added_and_all_files_show_the_same_mesh(job: Job) -> None:
    run(replace(job, formats=("glb", "ply", "usdz")))
    assert stored(job, "done.json")["formats"] == ["glb", "ply", "usdz"]
    faces = run(replace(job, faces=120))
    assert stored(job, "done.json")["formats"] == ["glb", "ply", "usdz"]
    assert len(trimesh.load(job.out / "mesh.ply").faces) == faces
    assert replace(job, faces=120, formats=("glb", "ply")).finished_faces == faces


def test_an_interrupted_replacement_is_repeated(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remesh, "replace_mesh", stop)
        with pytest.raises(KeyboardInterrupt):
            run(replace(job, faces=120))
    assert job.finished_faces is None  # perhaps some files show the new mesh
    assert not job.needs_model
    assert run(job) == job.finished_faces


def test_a_missing_field_is_an_error(job: Job) -> None:
    (job.out / "field.safetensors").unlink()
    before = (job.out / "mesh.glb").read_bytes()
    with pytest.raises(UserError, match=r"run failed: it is finished, but field\.safetensors, .* is gone; .*mesh\.glb"):
        run(replace(job, faces=120))
    assert (job.out / "mesh.glb").read_bytes() == before
    assert job.needs_model  # without other settings, the run is repeated as before


def test_damaged_files_are_named(job: Job) -> None:
    (job.out / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        run(replace(job, faces=120))
    (job.out / "metrics.json").unlink()
    assert run(replace(job, faces=120)) <= 120
    config, mesh = (job.out / "config.json").read_bytes(), (job.out / "mesh.glb").read_bytes()
    for damaged in (b"{", b"[]", b"\xff"):
        (job.out / "config.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"config\.json is damaged"):
            run(replace(job, faces=130))
        assert (job.out / "mesh.glb").read_bytes() == mesh
    (job.out / "config.json").write_bytes(config)
    (job.out / "field.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"field\.safetensors"):
        run(job)


def test_no_warning_about_the_image_is_looked_for(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(job, faces=120)
    assert with_unknown_warnings([other]) == [other]


def test_mesh_settings_are_not_part_of_the_request(job: Job) -> None:
    other = replace(job, faces=120, texture_size=32, formats=export.FORMATS)
    assert other.request.sha256 == job.request.sha256
    assert "mesh_settings" not in job.config
