"""The evaluation end to end on a toy model and toy shards: its numbers against naive ones, resuming, refusals."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.errors import UserError
from dataset.format.schema import VIEWS_PER_SET
from dataset.images.psnr import psnr_db
from dataset.reading.shard_set import ShardSet
from tests.support.browser import CHROMIUM, browser
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, micro_model
from train.evaluate import score
from train.evaluate.__main__ import parse_args
from train.evaluate.baselines import open_gallery
from train.evaluate.evaluate import NovelViewArgs, evaluate_novel_views
from train.evaluate.novel_views import embed, read_evaluation_object, read_ring, to_arrays
from train.evaluate.perceptual import lpips
from train.evaluate.protocol import training_notes
from train.evaluate.results import Method, Record, open_record
from train.evaluate.selection import name_models, open_images, part_of, select_objects, spread_evenly
from train.evaluate.tables import METRICS, kind_of, summarize, tables
from train.model.multiview import MultiViewModel, save_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]
HELD_OUT = "synthetic-0003"  # the validation split of six
METHODS = ("model.alone", "model.reference", "nearest-training-object", "mean-picture", "autoencoder")


def _args(base: Path, shards: Path, out: Path, **options: Any) -> NovelViewArgs:
    settings: dict[str, Any] = {"split": "validation", "ddim_steps": 2, "num_seeds": 2, "device": "cpu", **options}
    return NovelViewArgs((base,), str(shards), out, **settings)


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(base: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole evaluation of the one held-out object and another one."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate_novel_views(_args(base, shards, out))
    return out


def test_every_number_is_the_mean_of_what_is_in_the_lines(done: Path) -> None:
    summary, lines = json.loads((done / "evaluation.json").read_text()), _lines(done)
    assert [method["key"] for method in summary["methods"]] == list(METHODS)
    assert summary["objects"] == [HELD_OUT]
    assert len(lines) == 2 + 2 + 3
    for method in summary["methods"]:
        own = [line for line in lines if line["method"] == method["key"]]
        assert sorted(line["seed"] for line in own) == list(range(method["seeds"]))
        for name, column in method["metrics"].items():
            assert all(len(line["scores"][name]) == VIEWS_PER_SET for line in own)
            numbers = [v for line in own for v in line["scores"][name] if v is not None]
            assert column["mean"] == pytest.approx(np.mean(numbers))
            assert column["interval"] == [None, None]  # of one object there is none
        assert {m.name for m in METRICS} - method["metrics"].keys() == {"lpips", "squeezenet"}


def test_baselines_against_what_the_shards_hold(done: Path, shards: Path) -> None:
    whole = ShardSet(shards)
    truth = read_evaluation_object(whole, (0, 3))
    others = [place for place in spread_evenly(whole, 6) if place != (0, 3)]
    rings = [read_ring(whole, place, 32) for place in others]
    mean = np.mean(rings, 0)
    lines = {line["method"]: line["scores"] for line in _lines(done) if line["seed"] == 0}
    assert lines["mean-picture"]["psnr"] == pytest.approx(
        [psnr_db(a, b) for a, b in zip(mean, truth.ring_on_white, strict=True)], abs=1e-3
    )
    found = [[psnr_db(a, b) for a, b in zip(ring, truth.ring_on_white, strict=True)] for ring in rings]
    assert any(lines["nearest-training-object"]["psnr"] == pytest.approx(psnr, abs=1e-3) for psnr in found)


def test_tables_and_page_show_every_method_and_ring(done: Path) -> None:
    markdown, page = (done / "evaluation.md").read_text(), (done / "evaluation.html").read_text()
    for title in ("model, embedding alone", "model, with the reference", "nearest training object"):
        assert f"| {title} |" in markdown
        assert title in page
    assert page.count("data:image/webp;base64,") == 1 + 1 + 7  # reference, truth, rings
    assert "LPIPS is left out" in markdown
    assert "config.json does not exist" in markdown
    assert "nan" not in markdown.lower().replace("names", "")


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in")
def test_the_page_in_a_browser_fetches_nothing_and_shows_its_images(done: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.open(done / "evaluation.html")
        load = "(image) => { image.loading = 'eager'; return image.decode(); }"  # those out of sight too
        page.value(f"Promise.all([...document.images].map({load})).then(() => 0)")
        assert page.value("[...document.images].every((image) => image.naturalHeight === 32)")
        assert page.value("document.documentElement.scrollWidth <= innerWidth")  # a wide table scrolls by itself
        page.open(done / "evaluation.html", width=390, height=800)
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
        assert all(url.startswith(("file:", "data:image/webp;base64,")) for url in page.requests)


def test_interrupted_and_repeated_is_the_same(
    done: Path, base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, out = Record.add, tmp_path / "out"

    def killed(self: Record, key: Any, scores: Any) -> None:
        if len(self.scores) == 3:
            raise KeyboardInterrupt
        plain(self, key, scores)

    monkeypatch.setattr(Record, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_novel_views(_args(base, shards, out))
    assert len(_lines(out)) == 3
    with (out / "results.jsonl").open("a") as file:
        file.write('{"method": "model.alone", "uid')  # a kill in the middle of a line
    monkeypatch.setattr(Record, "add", plain)
    evaluate_novel_views(_args(base, shards, out))
    for name in ("results.jsonl", "evaluation.json", "evaluation.md", "evaluation.html"):
        assert (out / name).read_bytes() == (done / name).read_bytes(), name


def test_what_is_measured_is_not_measured_again_and_seeds_may_come_to_it(
    done: Path, base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    evaluate_novel_views(replace(_args(base, shards, out), num_seeds=3, compare_reference="without", baselines=False))
    lines = _lines(out)
    assert lines[:7] == _lines(done)
    assert [(line["method"], line["seed"]) for line in lines[7:]] == [("model.alone", 2)]
    assert len({json.dumps(line["scores"]) for line in lines if line["method"] == "model.alone"}) == 3

    def unwanted(*_: Any) -> None:
        raise AssertionError("nothing is left to draw")

    monkeypatch.setattr(score, "load_model", unwanted)
    evaluate_novel_views(_args(base, shards, out, num_seeds=1))
    assert json.loads((out / "evaluation.json").read_text())["methods"][0]["seeds"] == 1


def test_another_evaluation_in_the_same_folder_is_refused(done: Path, base: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    with pytest.raises(UserError, match=r"model\.alone\.steps was 2, is now 3\n[\s\S]*--out"):
        evaluate_novel_views(_args(base, shards, out, ddim_steps=3))
    other = tmp_path / "other" / "model"
    save_model(micro_model(5), other)
    with pytest.raises(UserError, match=r"model\.alone\.sha256 was"):
        evaluate_novel_views(_args(other, shards, out))
    (out / "results.jsonl").write_text('{"method": 3}\n')
    with pytest.raises(UserError, match=r"results.jsonl: line 1 is not a valid result"):
        evaluate_novel_views(_args(base, shards, out))


def test_what_cannot_be_measured_is_named(base: Path, shards: Path, latents: Path, tmp_path: Path) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(UserError, match=match):
            evaluate_novel_views(replace(_args(base, shards, tmp_path / "out"), **options))

    refused("none of its 6 objects is in the test split", split="test")
    refused("a latent set, but the evaluation compares images", shards=str(latents))
    refused("no shard set at", shards=str(tmp_path / "none"))
    refused(r"model\.json is missing", model=(tmp_path,))
    refused("give each model once", model=(base, base))
    refused("--model is empty", model=())
    refused("--num-seeds is 0", num_seeds=0)
    refused("--max-objects is -1", max_objects=-1)
    refused("--guidance-scale is nan", guidance_scale=math.nan)
    refused("number of DDIM steps is 0", ddim_steps=0)
    alone = make_shard_set(tmp_path / "alone", 1, 8)  # synthetic-0000 is for training: nothing held out
    refused("none of its 1 objects is in the validation split", shards=str(alone))
    assert not (tmp_path / "out").exists()


def test_a_set_without_training_objects_has_no_baselines(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.data.splits.VALIDATION_SHARE", 0.94)
    with pytest.raises(UserError, match=r"no object of the training split.*--training-shards"):
        evaluate_novel_views(_args(base, shards, tmp_path / "out"))


def test_dry_run_says_what_and_writes_nothing(
    base: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_novel_views(_args(base, shards, tmp_path / "out", dry_run=True))
    printed = capsys.readouterr().out
    assert "1 of 6 objects (validation), 5 methods, 7 rings" in printed
    assert "would measure: model, with the reference" in printed
    assert not (tmp_path / "out").exists()


def test_objects_are_of_the_split_and_spread(shards: Path) -> None:
    whole = open_images(str(shards))
    assert select_objects(whole, "validation", None) == [(0, 3)]
    assert [whole.uid(*place) for place in select_objects(whole, "all", 3)] == [f"synthetic-{i:04d}" for i in (0, 2, 4)]
    assert len(select_objects(whole, "all", 100)) == 6
    assert HELD_OUT not in part_of(whole, "train").uids()


def test_names_tell_models_apart() -> None:
    assert name_models([Path("data/a/stage1"), Path("data/a/model")]) == ["stage1", "model"]
    assert name_models([Path("data/a/model"), Path("data/b/model")]) == ["a/model", "b/model"]


def test_the_nearest_object_is_the_nearest_of_others(
    shards: Path, model: MultiViewModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cache = ShardSet(shards), tmp_path / "gallery.safetensors"
    gallery = open_gallery(whole, model, 32, "tower", cache)
    for i in range(4):
        truth = read_evaluation_object(whole, (0, i))
        own = embed(model, to_arrays(truth.reference_rgb[None]))[0]
        assert gallery.nearest(own, "another") == (0, i)  # its own view is among those of the set
        assert gallery.nearest(own, truth.uid) != (0, i)
    monkeypatch.setattr("train.evaluate.baselines._compute", lambda *_: pytest.fail("it is kept"))
    again = open_gallery(whole, model, 32, "tower", cache)
    assert np.array_equal(again.mean, gallery.mean)
    np.testing.assert_array_equal(again.embeddings, gallery.embeddings)
    monkeypatch.undo()
    assert not np.array_equal(open_gallery(part_of(whole, "train"), model, 32, "tower", cache).mean, gallery.mean)


def test_whether_a_model_saw_the_objects(tmp_path: Path) -> None:
    def notes(split: Any = "test", objects: int = 100, **recipe: Any) -> str:
        config = {
            "base": None,
            "data": {"objects": objects},
            "recipe": {"validation": "auto", "test_share": 0.05, **recipe},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        return " ".join(training_notes("m", tmp_path, split))

    assert (
        notes()
        == notes(test_share=0.1)
        == notes("validation", test_share=0.0)
        == notes(objects=6, validation="on")
        == ""
    )
    assert "--test-share 0)" in notes(test_share=0.0)
    assert "6 objects" in notes(objects=6)
    assert notes("test", validation="off") == ""
    assert "--validation off" in notes("validation", validation="off")
    assert "may have been trained on" in notes("all")
    later = tmp_path / "later"
    later.mkdir()
    notes(test_share=0.0)
    own = {"base": str(tmp_path), "data": {"objects": 100}, "recipe": {"validation": "auto", "test_share": 0.05}}
    (later / "config.json").write_text(json.dumps(own))
    assert [str(tmp_path) in note for note in training_notes("m", later, "test")] == [True]  # stage 1 saw them
    (later / "config.json").unlink()
    assert "does not exist" in next(iter(training_notes("m", later, "test")))


def test_summary_of_several_objects_and_seeds(tmp_path: Path) -> None:
    """Two methods, three objects, two seeds: means, paired differences and kinds by hand."""
    methods = [Method("a", "a", {}, 2), Method("b", "b", {})]
    record = open_record(tmp_path, {}, methods)
    uids = ["procedural-cat-000001", "procedural-mug-000002", "other-3"]
    for i, uid in enumerate(uids):
        for seed in range(2):
            record.add(("a", uid, seed), {"psnr": [10.0 * i + seed] * 16, "front_back_pixels": [1.0, math.nan]})
        record.add(("b", uid, 0), {"psnr": [10.0 * i + 3] * 16, "front_back_pixels": [math.nan, math.nan]})
    assert open_record(tmp_path, {}, methods).scores.keys() == record.scores.keys()
    first, second = summarize(record, methods, uids)
    assert first["metrics"]["psnr"]["mean"] == 10.5
    assert first["metrics"]["psnr"]["by_seed"] == [10.0, 11.0]
    assert second["metrics"]["psnr"]["difference"] == 2.5
    assert second["metrics"]["psnr"]["difference_interval"] == (2.5, 2.5)
    assert second["metrics"]["psnr"]["by_kind"] == {"cat": 3.0, "mug": 13.0, "other": 23.0}
    assert "front_back_pixels" not in second["metrics"]
    results, differences, kinds = tables([first, second], "3 objects")
    assert kinds.rows == (("a", "100.0", "100.0"), ("b", "–", "–"))
    assert differences.rows[0][1] == "2.50 [2.50, 2.50]"
    assert results.rows[1][results.head.index("front/back confused %, pixels\N{NO-BREAK SPACE}↓")] == "–"
    assert kind_of("folder-cat") == "other"


def test_lpips_where_it_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is none of the requirements: a stand-in with its interface."""

    class Network(torch.nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            assert float(first.min()) == -1.0
            return (first - second).square().mean((1, 2, 3), keepdim=True)

    def made(net: str, verbose: bool) -> Network:
        assert net == "vgg"
        return Network()

    monkeypatch.setattr(lpips.importlib, "import_module", lambda name: SimpleNamespace(LPIPS=made))
    distance, note = lpips.load_perceptual(CPU)
    assert distance is not None
    assert "VGG" in note
    black = np.zeros((2, 8, 8, 3), np.float32)
    assert distance(black, black + np.float32(0.5)).tolist() == [1.0, 1.0]

    def offline(net: str, verbose: bool) -> Network:
        raise OSError("no route to host")

    monkeypatch.setattr(lpips.importlib, "import_module", lambda name: SimpleNamespace(LPIPS=offline))
    assert lpips.load_perceptual(CPU) == (
        None,
        "LPIPS is left out: VGG's weights cannot be downloaded (no route to host).",
    )


def test_renamed_flags_keep_working(capsys: pytest.CaptureFixture[str]) -> None:
    old = parse_args(["--seeds", "3", "--objects=7", "--steps", "5", "--reference", "with"])
    assert (old.num_seeds, old.max_objects, old.ddim_steps, old.compare_reference) == (3, 7, 5, "with")
    assert "--steps is now --ddim-steps" in capsys.readouterr().err
    new = ["--num-seeds", "3", "--max-objects", "7", "--ddim-steps", "5", "--compare-reference", "with"]
    assert parse_args(new) == old
    assert capsys.readouterr().err == ""
