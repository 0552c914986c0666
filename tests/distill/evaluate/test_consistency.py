"""Consistency by reconstruct and rerender: views of one thing agree, a mixture of two does not; the command's rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.images.psnr import psnr_db
from dataset.reading.rendered_object import read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate import consistency, metrics
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.consistency import FIT, rerendered
from distill.evaluate.evaluate import evaluate_assets
from distill.mesh import export
from distill.output import results
from tests.support.distill_micro import SETTINGS
from tests.support.make_shards import make_shard_set

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of a few steps, and short distillations."""
    monkeypatch.setattr(consistency, "_FIT_STEPS", 60)
    monkeypatch.setattr(consistency, "_RAYS_PER_STEP", 512)
    monkeypatch.setattr(consistency, "FIT", replace(FIT, march=replace(FIT.march, samples_per_ray=64)))
    monkeypatch.setattr("distill.runs.plan.PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(results, "VIEW_RESOLUTION", 16)
    monkeypatch.setattr(export, "PRESETS", {"tiny": export.MeshSettings(resolution=24, faces=300, texture_size=64)})
    monkeypatch.setattr(metrics, "_CELLS_PER_VOXEL", 1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects of 16 pixels."""
    return make_shard_set(tmp_path_factory.mktemp("data") / "set", 2, 16)


def test_views_of_one_object_agree_and_those_of_two_do_not(shards: Path) -> None:
    first, second = (read_object(ShardSet(shards), (0, i)) for i in range(2))
    ring = first.on_white[:16]
    mixed = ring.copy()
    mixed[1::2] = second.on_white[1:16:2]
    mirrored = ring.copy()
    mirrored[1::2] = ring[1::2, :, ::-1, ::-1]  # other colors in every second view
    agree, two, colors = (
        np.mean([psnr_db(a, b) for a, b in zip(rerendered(views, first), views, strict=True)])
        for views in (ring, mixed, mirrored)
    )
    assert agree > 18
    assert two < agree - 2
    assert colors < agree - 2


def test_the_command_measures_it_once_and_shows_its_images(
    shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = AssetEvaluationArgs(
        str(shards),
        model=(base,),
        split="all",
        max_objects=1,
        out=tmp_path / "out",
        device="cpu",
        consistency=True,
        ddim_steps=2,
    )
    assert evaluate_assets(args) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["method"] for line in lines] == ["model", "truth-rerendered", "model-rerendered"]
    true, sampled = (float(np.mean(line["scores"]["rerendered_psnr"])) for line in lines[1:])
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    means = [row["metrics"]["rerendered_psnr"]["mean"] for row in summary["consistency"]]
    assert means == pytest.approx([true, sampled])
    page, markdown = ((tmp_path / "out" / f"evaluation.{kind}").read_text() for kind in ("html", "md"))
    assert page.count("data:image/webp;base64,") == 1 + 1 + 2 + 2 + 1
    assert f"| true views | {true:.2f} " in markdown
    assert "plain L2" in markdown
    before = (tmp_path / "out" / "evaluation.html").read_bytes()
    monkeypatch.setattr(consistency, "rerendered", lambda *_: pytest.fail("it is measured already"))
    monkeypatch.setattr(consistency, "load_model", lambda *_: pytest.fail("the model is not needed"))
    assert evaluate_assets(args) == 0
    assert (tmp_path / "out" / "evaluation.html").read_bytes() == before


def test_it_is_of_a_models_views(tmp_path: Path) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(UserError, match=match):
            evaluate_assets(replace(AssetEvaluationArgs(run=(tmp_path,), uid=("a",), out=tmp_path / "out"), **options))

    refused("give --model", consistency=True)
    refused("number of DDIM steps is 0", ddim_steps=0)
