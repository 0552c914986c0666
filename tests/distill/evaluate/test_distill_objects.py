"""`python -m distill.evaluate --model`: objects of a set are distilled by each model, then measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.reading.rendered_object import read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.distill_objects import ObjectDistillation, distill_all
from distill.evaluate.evaluate import evaluate_assets
from distill.mesh import export
from distill.output import results
from distill.runs.plan import SharedOptions
from tests.support.distill_micro import SETTINGS
from train.evaluate.novel_views import read_evaluation_object
from train.evaluate.results import Record
from train.model.multiview import load_model, save_model
from train.model.reference import start_channel_concat

pytestmark = [pytest.mark.usefixtures("one_thread", "coarse_metrics"), pytest.mark.integration]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distillations of four small steps with small results."""
    monkeypatch.setattr("distill.runs.plan.PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(results, "VIEW_RESOLUTION", 16)
    monkeypatch.setattr(export, "PRESETS", {"tiny": export.MeshSettings(resolution=24, faces=300, texture_size=64)})


@pytest.mark.usefixtures("quick")
def test_objects_are_distilled_and_measured_and_the_same_command_goes_on(
    box_shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    args = AssetEvaluationArgs(
        str(box_shards), model=(base,), split="all", max_objects=2, out=tmp_path / "out", device="cpu"
    )
    plain = Record.add
    monkeypatch.setattr(Record, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        evaluate_assets(args)
    monkeypatch.setattr(Record, "add", plain)
    monkeypatch.setattr("distill.evaluate.distill_objects.load_run_model", lambda *_: pytest.fail("all are distilled"))
    capsys.readouterr()
    assert evaluate_assets(args) == 0
    assert capsys.readouterr().err.count("is finished") == 2
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["objects"] == ["synthetic-0000", "synthetic-0003"]
    whole = ShardSet(box_shards)
    for asset, place in zip(summary["assets"], ((0, 0), (0, 3)), strict=True):
        reference = read_evaluation_object(whole, place)
        config = json.loads((Path(asset["run"]) / "config.json").read_text())
        assert config["elevation_deg"] == reference.reference_angles_deg[0]
        assert asset["turned_deg"] == reference.reference_angles_deg[1]
        truth = read_object(whole, place)
        number = 16 + int(asset["view"].removeprefix("random_"))
        assert np.array_equal(truth.images[number], reference.reference)
    assert "may have been trained on" in (tmp_path / "out" / "evaluation.md").read_text()
    with pytest.raises(UserError, match="steps was None, is now 5"):
        evaluate_assets(replace(args, steps=5))


@pytest.mark.usefixtures("quick")
def test_parts_distill_and_the_whole_command_measures(
    box_shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = AssetEvaluationArgs(
        str(box_shards), model=(base,), split="all", max_objects=2, out=tmp_path / "out", device="cpu"
    )
    assert evaluate_assets(replace(args, part="2/2")) == 0
    assert [path.name for path in (tmp_path / "out" / "runs" / base.name).iterdir()] == ["synthetic-0003"]
    assert evaluate_assets(replace(args, part="3/3")) == 0
    assert evaluate_assets(replace(args, part="1/2")) == 0
    assert not (tmp_path / "out" / "evaluation.json").exists()
    monkeypatch.setattr("distill.evaluate.distill_objects.load_run_model", lambda *_: pytest.fail("all are distilled"))
    assert evaluate_assets(args) == 0
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text())["assets"]) == 2


@pytest.mark.usefixtures("quick")
def test_a_failed_part_is_said(box_shards: Path, base: Path, tmp_path: Path) -> None:
    args = AssetEvaluationArgs(
        str(box_shards), model=(base,), split="all", max_objects=2, part="1/2", out=tmp_path / "out", device="cpu"
    )
    (tmp_path / "out" / "runs" / base.name).mkdir(parents=True)
    (tmp_path / "out" / "runs" / base.name / "synthetic-0000").write_text("in the way")
    assert evaluate_assets(args) == 1


@pytest.mark.usefixtures("quick")
def test_with_and_without_the_reference_are_two_rows(
    box_shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both rows have the same objects; only the one with the reference stores its azimuth and samples with it."""
    sampled_with: list[bool] = []
    monkeypatch.setattr(
        "distill.evaluate.consistency.draw_rings",
        lambda _, truths, seed, **how: sampled_with.append(how["with_reference"]) or [truths[0].ring_on_white],
    )
    monkeypatch.setattr("distill.evaluate.consistency._FIT_STEPS", 2)
    args = AssetEvaluationArgs(
        str(box_shards),
        model=(base,),
        split="all",
        max_objects=1,
        compare_reference="both",
        consistency=True,
        ddim_steps=2,
        out=tmp_path / "out",
        device="cpu",
    )
    assert evaluate_assets(args) == 0
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [asset["method"] for asset in summary["assets"]] == ["model", "model.reference"]
    configs = [json.loads((Path(asset["run"]) / "config.json").read_text()) for asset in summary["assets"]]
    assert "shown_from_deg" not in configs[0]
    assert configs[1]["shown_from_deg"] == read_evaluation_object(ShardSet(box_shards), (0, 0)).reference_angles_deg[1]
    assert sampled_with == [False, True]


@pytest.mark.usefixtures("quick")
def test_a_failed_distillation_is_left_out_of_all_models_and_said(box_shards: Path, base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    spec = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**spec, "cameras": "absolute"}))
    args = AssetEvaluationArgs(
        str(box_shards),
        model=(base, other),
        split="all",
        max_objects=2,
        view=("random_04",),
        out=tmp_path / "out",
        device="cpu",
    )
    (tmp_path / "out" / "runs" / base.name).mkdir(parents=True)
    (tmp_path / "out" / "runs" / base.name / "synthetic-0000").write_text("in the way")
    assert evaluate_assets(args) == 1
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["objects"] == ["synthetic-0003"]
    found = [(asset["method"], asset["uid"], asset["view"], asset["turned_deg"]) for asset in summary["assets"]]
    assert found == [
        ("model", "synthetic-0003", "random_04", 90.0),
        ("other", "synthetic-0003", "random_04", 0.0),
    ]
    assert "Difference to the first row" in (tmp_path / "out" / "evaluation.md").read_text()
    assert any("Left out, synthetic-0000" in note and "cannot be written" in note for note in summary["notes"])
    args = replace(args, model=(base,))
    (tmp_path / "out" / "runs" / base.name / "synthetic-0003" / "mesh.glb").unlink()
    (tmp_path / "out" / "runs" / base.name / "synthetic-0003" / "mesh.glb").mkdir()
    with pytest.raises(
        UserError,
        match=r"nothing to measure: the distillation of every object failed, for example: .*cannot be written",
    ):
        evaluate_assets(args)


@pytest.mark.usefixtures("quick")
def test_the_four_settings_of_fig_8_are_four_rows(box_shards: Path, base: Path, tmp_path: Path) -> None:
    channels = shutil.copytree(base, tmp_path / "channels")
    model = load_model(base, "cpu")
    start_channel_concat(model.unet)
    save_model(model, channels)
    args = AssetEvaluationArgs(
        str(box_shards),
        model=(base,),
        channels_model=channels,
        supervision_weight=500.0,
        split="all",
        max_objects=2,
        out=tmp_path / "out",
        device="cpu",
    )
    assert evaluate_assets(args) == 0
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    titles = ["neither (model)", "L2 loss (model)", "channels (channels)", "channels and L2 loss (channels)"]
    assert [method["title"] for method in summary["methods"]] == titles
    found = {}
    for asset in summary["assets"]:
        config = json.loads((Path(asset["run"]) / "config.json").read_text())
        found[asset["method"], asset["uid"]] = (Path(config["model"]), config["settings"]["reference_weight"])
    uids = ("synthetic-0000", "synthetic-0003")
    rows = [("model", base, 0), ("model.l2", base, 500), ("channels", channels, 0), ("channels.l2", channels, 500)]
    assert found == {(key, uid): (model, weight) for key, model, weight in rows for uid in uids}
    for name in ("silhouette_iou", "psnr", "depth_ratio"):
        column = summary["methods"][3]["metrics"][name]
        assert column["interval"][0] <= column["mean"] <= column["interval"][1]
    assert (
        "L2 loss between the image and the rendered reference view (weight 500)"
        in (tmp_path / "out" / "evaluation.md").read_text()
    ), "the note on the settings"
    with pytest.raises(UserError, match="was trained with --reference-mode channels; give --model the model without"):
        evaluate_assets(replace(args, model=(channels,), channels_model=base))
    with pytest.raises(UserError, match="exactly one --model"):
        evaluate_assets(replace(args, compare_reference="both"))


@pytest.mark.usefixtures("quick")
def test_the_l2_loss_of_absolute_labels_is_at_the_view_of_the_image(
    box_shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[tuple[float, float]] = []

    def refuse(_: Any, __: Any, inputs: Any) -> None:
        planned.extend((each.elevation_deg, each.loss_azimuth_deg) for each in inputs)
        raise UserError("enough")

    monkeypatch.setattr("distill.evaluate.distill_objects.plan_jobs", refuse)
    absolute = shutil.copytree(base, tmp_path / "absolute")
    spec = json.loads((absolute / "model.json").read_text())
    (absolute / "model.json").write_text(json.dumps({**spec, "cameras": "absolute"}))
    shards = ShardSet(box_shards)
    for model in (base, absolute):
        options = SharedOptions(model, reference_weight=1.0)
        with pytest.raises(UserError, match="enough"):
            distill_all(
                ObjectDistillation(options, model, 0, "cpu"),
                shards,
                {"synthetic-0000": (0, 0)},
                {"synthetic-0000": 5},
                images={"synthetic-0000": tmp_path},
                out=tmp_path,
            )
    assert planned == [(30.0, 0.0), (30.0, 112.5)]
