"""The results of a run: a video of three panels, a sheet of three rows, metrics that are reproducible."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.errors import UserError
from distill.nerf.field import load_field
from distill.output import results
from distill.output.summary import final_losses
from distill.sds.checkpoint import new_distillation
from distill.sds.loop import distill
from distill.sds.loss_log import Losses
from tests.support.distill_toy import SETTINGS, make_guidance
from tests.support.toy_run import MESH, finished
from tests.support.video import read


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("results") / "run")


def test_the_video_shows_colors_normals_and_shape_side_by_side(run: Path) -> None:
    described, frames = read(run / "turntable.mp4", 24, 72)
    assert "Video: h264" in described
    assert frames.shape == (60, 24, 72, 3)
    colors, normals, shape = (frames[:, :, at : at + 24].astype(int) for at in (0, 24, 48))
    for panel in (colors, normals, shape):
        assert panel[:, 0].min() > 235  # white around
        assert panel[:, 12, 12].min() < 235  # something in the middle
    assert np.ptp(shape, axis=-1).max() < 12  # gray, but for the codec
    assert np.ptp(normals[:, 12, 12], axis=-1).max() > 60


def test_the_sheet_has_their_rows(run: Path) -> None:
    with Image.open(run / "views.png") as image:
        assert image.size == (8 * 26 + 2, 3 * (24 + 14 + 2) + 2)
        rows = np.asarray(image.convert("RGB")).astype(int)[2:].reshape(3, 40, -1, 3)[:, 16:]
    assert np.ptp(rows[2], axis=-1).max() == 0
    assert min(np.ptp(rows[0], axis=-1).max(), np.ptp(rows[1], axis=-1).max()) > 8
    assert all(row.min() < 200 for row in rows)


def test_metrics_are_the_runs(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert metrics["views"] == 24
    assert metrics["losses"].keys() == {"sds", "orient"}
    assert 0.01 < metrics["field"]["occupied_share"] < 1
    assert metrics["field"]["highest_density"] > 1
    turn = metrics["turntable"]
    assert 0.02 < turn["coverage_lowest"] <= turn["coverage"] <= turn["coverage_highest"] < 0.9
    assert 100 < metrics["mesh"]["faces"] <= MESH.faces
    assert metrics["took"]["seconds"].keys() == {"distill", "pictures", "mesh"}
    assert 100 < metrics["took"]["peak_rss_mib"] < 100_000
    assert metrics["took"]["peak_gpu_mib"] is None


def test_a_repeated_run_has_the_same_metrics_but_for_what_it_took(run: Path, tmp_path: Path) -> None:
    again = finished(tmp_path / "again")
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (run, again))
    assert one.pop("took") != other.pop("took")
    assert one == other


def test_where_there_is_nothing_to_mesh_the_metrics_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "VIEW_RESOLUTION", 16)
    settings = replace(SETTINGS, nerf=replace(SETTINGS.nerf, blob_density=-100.0, blob_radius=10.0))
    state = new_distillation(settings, "cpu")
    with pytest.raises(UserError):
        results.write_results(state, settings, MESH, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mesh"] is None
    assert metrics["field"]["highest_density"] < 0.1
    assert metrics["turntable"]["coverage"] < 0.2
    assert metrics["losses"] == {}


def test_final_losses_average_the_last_tenth() -> None:
    rows = tuple({"step": step, "sds": float(step)} | ({"late": 7.0} if step == 100 else {}) for step in range(1, 101))
    losses = Losses(("step", "seconds", "views_per_s", "sds", "late", "never"), rows)
    assert final_losses(losses, 100) == {"sds": pytest.approx(np.mean(range(91, 101))), "late": 7.0}


def test_looking_changes_nothing(run: Path, tmp_path: Path) -> None:
    """The results are made from the final state of the loop."""
    state = distill(SETTINGS, make_guidance(), tmp_path, request=asdict(SETTINGS))
    saved = load_field(run / "field.safetensors").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in state.field.state_dict().items())
