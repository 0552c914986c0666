"""The scores of the texture benchmark, and its summary."""

import argparse
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks.distill.texture_phase import VARIANTS, _limited, _part, fit_views, nothing, phase, scores_of, summarize
from dataset.errors import UserError
from dataset.reading.rendered_object import read_object
from dataset.reading.shard_set import ShardSet
from distill.evaluate.score import RenderedAsset
from tests.support.make_shards import make_shard_set


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_shard_set(folder, 1)
    return read_object(ShardSet(folder), (0, 0))


def test_the_true_views_have_the_best_scores_and_flat_ones_no_edges(truth):
    alpha = (truth.images[..., 3] / 255).astype(np.float32)
    scores = scores_of(RenderedAsset(truth.on_white, alpha), truth, 1)
    assert scores["laplacian_correlation"] == pytest.approx(1)
    assert scores["edge_energy"] == pytest.approx(1)
    assert scores["color_error"] == scores["silhouette_iou"] - 1 == 0
    darker = scores_of(RenderedAsset(0.5 * truth.on_white, alpha), truth, 1)
    assert darker["laplacian_correlation"] == pytest.approx(1)
    assert darker["edge_energy"] == pytest.approx(0.25)
    flat = scores_of(RenderedAsset(np.full_like(truth.on_white, 0.5), alpha), truth, 1)
    assert (flat["edge_energy"], flat["laplacian_correlation"]) == (0, 0)
    assert flat["color_error"] > 0.01


def test_a_limit_of_rounds_shortens_every_variant():
    assert _limited(nothing, 1) is nothing
    for name, variant in VARIANTS.items():
        short = _limited(variant, 1)
        if isinstance(short, partial) and short.func is phase:
            assert (short.args[0].rounds, short.args[0].steps, short.args[0].iterations) == (1, 1, 1), name
        elif isinstance(short, partial):
            assert short.func is fit_views
            assert short.keywords["iterations"] == 1
        assert _limited(variant, None) is variant


def test_the_summary_takes_the_objects_with_most_results(tmp_path):
    for uid, names in {"a": ("none", "sync"), "b": ("none", "sync"), "c": ("none",)}.items():
        (tmp_path / uid).mkdir()
        for name in names:
            value = {"none": 1.0, "sync": 3.0}[name] + (uid == "b")
            (tmp_path / uid / f"{name}.json").write_text(json.dumps({"psnr": value}))
        for name in (*names, "true"):
            Image.new("RGB", (8, 32)).save(tmp_path / uid / f"{name}.png")
    assert summarize(tmp_path, ["none", "sync", "rounds"]) == {"none": {"psnr": 1.5}, "sync": {"psnr": 3.5}}
    assert json.loads((tmp_path / "summary.json").read_text())["objects"] == ["a", "b"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (24, 14 + 64)


def test_a_summary_without_results_and_other_parts_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no results of objects"):
        summarize(tmp_path / "missing", ["none"])
    assert _part("1/2") == (1, 2)
    for text in ("2/2", "1", "a/2"):
        with pytest.raises(argparse.ArgumentTypeError):
            _part(text)
