"""`python -m distill.evaluate.photos` end to end on toy images: what the judge sees, the results, and resuming."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch import nn

from dataset.errors import UserError
from distill.config import DistillArgs
from distill.evaluate.photos import evaluate, views
from distill.evaluate.photos.class_bank import FittedRules
from distill.evaluate.photos.config import PhotoEvaluationArgs
from distill.evaluate.photos.evaluate import evaluate_photos
from distill.evaluate.photos.images import LabelledImage
from distill.evaluate.photos.judge import Judge
from distill.evaluate.photos.report import ImageResult, Naming, _tables
from distill.evaluate.photos.rules import TITLES
from distill.evaluate.photos.views import read_strip
from distill.mesh import export
from distill.output import results
from distill.runs.plan import plan_command
from distill.runs.sequential import RunOutcome
from tests.support.distill_micro import SETTINGS, draw
from tests.support.known_table import table_of_white
from train.model.multiview import load_model
from train.model.recognition.table import CORRECTION, write_known

pytestmark = [pytest.mark.usefixtures("one_thread", "coarse_metrics")]


@pytest.fixture
def args(box_shards: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoEvaluationArgs:
    """Two images of known kinds, one of a kind without renders, and a judge that sees 4 x 4 pixels."""
    monkeypatch.setattr("distill.runs.plan.PRESETS", {"tiny": SETTINGS})
    monkeypatch.setattr(results, "VIEW_RESOLUTION", 16)
    monkeypatch.setattr(export, "PRESETS", {"tiny": export.MeshSettings(resolution=24, faces=300, texture_size=64)})
    monkeypatch.setattr(evaluate, "load_judge", lambda _, __, device: Judge(nn.Flatten(), 4, device))
    photos = tmp_path / "photos"
    for name, color in (("a", (200, 30, 30)), ("b", (30, 30, 200)), ("c", (0, 0, 0))):
        draw(photos / f"{name}.png", color)
    rows = ["file,label,known,style", "a.png,ball,yes,photo", "b.png,box,yes,drawing", "c.png,bee,yes,photo"]
    (photos / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "kinds.csv").write_text(
        "uid,label\n" + "".join(f"synthetic-{i:04d},{'box' if i % 2 else 'ball'}\n" for i in range(6))
    )
    (tmp_path / "weights").write_bytes(b"in a test")
    return PhotoEvaluationArgs(
        photos,
        (str(box_shards),),
        (tmp_path / "kinds.csv",),
        base,
        ddim_steps=2,
        judge_weights=tmp_path / "weights",
        out=tmp_path / "out",
        device="cpu",
    )


def summary_of(args: PhotoEvaluationArgs) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((args.out / "evaluation.json").read_text())
    return summary


def test_samples_only(args, capsys):
    status, text = evaluate_photos(replace(args, samples_only=True))
    assert status == 0
    assert "four sampled views | 2 |" in text
    assert "asset" not in text
    summary = summary_of(args)
    assert [(each["file"], each["label"]) for each in summary["images"]] == [("b.png", "box"), ("a.png", "ball")]
    assert summary["left_out"] == {"c": "bee"}
    assert not (args.out / "runs").exists()
    for each in summary["images"]:
        assert read_strip(args.out / each["strips"]["samples"]).shape[0] == 4
        assert each["named"]["samples"]["rank"] in (1, 2)
        assert sorted(each["named"]["samples"]["top3"]) == ["ball", "box"]
    right = sum(each["named"]["input"]["rank"] == 1 for each in summary["images"])
    assert summary["rates"]["input"][summary["rule"]]["top1"] == right
    assert (
        "Left out, since no rendered object is of their kind: c.png (bee)" in (args.out / "evaluation.md").read_text()
    )


def test_the_judge_sees_pixels_only(args, monkeypatch):
    """With exchanged labels, it names the same."""
    evaluate_photos(replace(args, samples_only=True))
    before = {each["file"]: each["named"]["samples"]["top3"] for each in summary_of(args)["images"]}
    table = args.images / "labels.csv"
    table.write_text(table.read_text().replace("ball", "x").replace("box", "ball").replace("x,yes", "box,yes"))
    evaluate_photos(replace(args, samples_only=True))
    after = {each["file"]: each["named"]["samples"]["top3"] for each in summary_of(args)["images"]}
    assert after == before


def test_samples_are_those_of_train_sample_and_are_kept(args, monkeypatch, tmp_path):
    from train import sample

    evaluate_photos(replace(args, samples_only=True, files=("a*",)))
    (strip,) = (args.out / "samples").glob("a-seed-0-*.png")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(sample, "save_sheet", lambda images, _: seen.append(images))
    sample.run(sample.SampleArgs(args.images / "a.png", args.model, tmp_path / "s.png", ddim_steps=2, device="cpu"))
    expected = np.rint(seen[0].clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255)
    assert np.array_equal(read_strip(strip), expected[1:])
    assert np.array_equal(read_strip(args.out / "input" / "a-seed-0.png")[0], expected[0])
    monkeypatch.setattr(evaluate, "load_run_model", lambda *_: pytest.fail("the views exist"))
    evaluate_photos(replace(args, samples_only=True, files=("a*",)))
    with pytest.raises(pytest.fail.Exception):
        evaluate_photos(replace(args, samples_only=True, files=("a*",), ddim_steps=3))


@pytest.mark.integration
def test_samples_are_conditioned_on_the_corrected_embedding(
    args: PhotoEvaluationArgs, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        views, "sample_views", lambda model, tokens, *_, **__: seen.append(tokens) or torch.rand(1, 4, 3, 32, 32)
    )
    with table_of_white(base) as known:
        for limits in ((-1.0, -1.0), (1.5, 2.0)):
            write_known(replace(known, render_similarity=limits), base)
            evaluate_photos(replace(args, samples_only=True))
    white = load_model(base, torch.device("cpu")).embed_image(torch.ones(1, 3, 32, 32))
    half = len(seen) // 2
    assert half > 0
    for plain, corrected in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(corrected, plain + CORRECTION * (white - plain), atol=1e-2, rtol=0)
        assert not torch.allclose(corrected, plain)


def test_assets_are_distilled_named_and_resumed(args, monkeypatch):
    (args.out / "runs").mkdir(parents=True)
    (args.out / "runs" / "b-seed-0").write_text("in the way")
    status, text = evaluate_photos(args)
    assert status == 1
    assert "asset, four sides | 2 |" in text
    bad, good = summary_of(args)["images"]
    assert (args.out / "runs" / "a-seed-0" / "done.json").is_file()
    assert read_strip(args.out / good["strips"]["asset"]).shape[0] == 4
    assert "cannot be written" in bad["failure"]
    assert "asset" not in bad["named"]
    rates = summary_of(args)["rates"]["asset"]
    assert all(rate["top3"] == 1 and rate["images"] == 2 for rate in rates.values())  # the failure counts as wrong
    assert "b.png counts as wrong" in (args.out / "evaluation.md").read_text()
    (args.out / "runs" / "b-seed-0").unlink()
    monkeypatch.setattr("distill.evaluate.photos.views._rendered", lambda *_: np.zeros((4, 8, 8, 3), np.uint8))
    assert evaluate_photos(args)[0] == 0
    assert summary_of(args)["images"][1]["strips"] == good["strips"]
    assert read_strip(args.out / good["strips"]["asset"]).any()  # not rendered again
    page = (args.out / "evaluation.html").read_text()
    assert page.count("<img ") == 6
    with Image.open(args.out / "sheet.jpg") as sheet:
        assert sheet.height == 20 + 2 * 102


def test_workers_share_the_distillations(args, monkeypatch):
    """Each run is given to the workers; a stopped one ends the command, and a failed one counts as wrong."""
    given: list[tuple[str, int | None, list[str]]] = []

    def on_workers(jobs, device, workers, address):
        given.append((device, workers, [job.name for job in jobs]))
        return iter([RunOutcome(job.name, status, reason="in a test") for job in jobs])

    monkeypatch.setattr("distill.runs.ray_workers.on_workers", on_workers)
    status = "failed"
    assert evaluate_photos(replace(args, workers=2))[0] == 1
    assert given == [("cpu", 2, ["b-seed-0", "a-seed-0"])]
    assert [each["failure"] for each in summary_of(args)["images"]] == ["in a test"] * 2
    status = "stopped"
    with pytest.raises(KeyboardInterrupt):
        evaluate_photos(replace(args, workers=2))


def test_runs_are_those_of_python_m_distill(args, monkeypatch):
    """The same folders and requests, so that runs of one command are finished for the other."""
    planned = []
    monkeypatch.setattr(evaluate, "run_sequentially", lambda jobs, *_: planned.extend(jobs) or iter([]))
    monkeypatch.setattr("distill.evaluate.photos.views._rendered", lambda *_: np.zeros((4, 8, 8, 3), np.uint8))
    evaluate_photos(args)
    files = tuple(args.images / name for name in ("b.png", "a.png"))
    jobs, _ = plan_command(DistillArgs(files, args.model, args.out / "runs"))
    assert [(job.out, job.request) for job in planned] == [(job.out, job.request) for job in jobs]


def test_a_limit_takes_the_first_images(args):
    status, text = evaluate_photos(replace(args, samples_only=True, max_images=1))
    assert (status, "four sampled views | 1 |" in text) == (0, True)
    assert [each["file"] for each in summary_of(args)["images"]] == ["b.png"]


def named(rank: int, asset_rank: int | None) -> ImageResult:
    ranks = {"input": rank, "samples": 2, **({} if asset_rank is None else {"asset": asset_rank})}
    namings = {(stage, rule): Naming(("a", "b", "c"), each) for stage, each in ranks.items() for rule in TITLES}
    return ImageResult(LabelledImage(Path("a.png"), "a", "photo"), {}, namings)


def test_rates_are_those_of_all_images_and_of_those_named_right() -> None:
    """Of four images, the input of three is named right, and the asset of two of these; one has no asset."""
    results = [named(1, 1), named(1, 1), named(1, None), named(4, 1)]
    rules = FittedRules({}, dict.fromkeys(TITLES, 0.5), dict.fromkeys(TITLES, 0.7), 0, "means")
    everything, nameable, by_style, *_ = _tables(results, rules, ["input", "samples", "asset"], {"a": 10})
    shares = [[cell.split(" ")[0] for cell in row[1:]] for row in everything.rows]
    assert shares == [["4", "75.0", "75.0"], ["4", "0.0", "100.0"], ["4", "75.0", "75.0"]]
    assert everything.rows[0][2] == "75.0 [30.1, 95.4]"
    assert [[cell.split(" ")[0] for cell in row[1:]] for row in nameable.rows] == [
        ["3", "0.0", "100.0"],
        ["3", "66.7", "66.7"],
    ]
    assert by_style.rows[2][1:] == everything.rows[2][1:]
    assert "named right" not in "".join(
        table.title for table in _tables([named(2, 1)], rules, ["input", "samples"], {"a": 10})
    )


def test_kinds_with_few_objects_are_left_out_of_a_second_table() -> None:
    rare = replace(named(1, 1), image=LabelledImage(Path("b.png"), "b", "photo"))
    rules = FittedRules({}, dict.fromkeys(TITLES, 0.5), dict.fromkeys(TITLES, 0.7), 0, "means")
    everything, common, *_ = _tables([named(4, 3), rare], rules, ["asset"], {"a": 10, "b": 9})
    assert everything.rows[0][2].startswith("50.0")
    assert common.title == "Kinds with enough objects"
    assert common.note.endswith("fewer than 10 objects in the shard sets: b (9).")
    assert common.rows[0][1:] == ("1", "0.0 [0.0, 79.3]", "100.0 [20.7, 100.0]")
    assert "Kinds with enough objects" not in [
        table.title for table in _tables([named(4, 3), rare], rules, ["asset"], {"a": 10, "b": 10})
    ]


def test_parts_make_the_views_and_the_whole_command_reports(args, monkeypatch):
    parts = [replace(args, samples_only=True, part=f"{i}/2") for i in (1, 2)]
    assert evaluate_photos(parts[1]) == (0, "part 2/2: 1 of 1 images are done")
    assert [path.name for path in (args.out / "input").iterdir()] == ["a-seed-0.png"]
    assert evaluate_photos(replace(parts[0], part="3/3")) == (0, "part 3/3 has no image")
    evaluate_photos(parts[0])
    assert not (args.out / "evaluation.json").exists()
    monkeypatch.setattr(evaluate, "load_run_model", lambda *_: pytest.fail("the views exist"))
    evaluate_photos(replace(args, samples_only=True))
    assert len(summary_of(args)["images"]) == 2


def test_an_invalid_part_is_refused(args):
    with pytest.raises(UserError, match="--part 3/2 is not I/N"):
        evaluate_photos(replace(args, samples_only=True, part="3/2"))


def test_a_dry_run_lists_the_images(args):
    status, text = evaluate_photos(replace(args, dry_run=True, files=("b*",)))
    assert (status, text.splitlines()[-1]) == (0, "1 images; the judge knows 2 kinds")
    assert not args.out.exists()


def test_images_of_unknown_kinds_only_are_refused(args):
    with pytest.raises(UserError, match="knows none of the kinds of the 1 images, such as bee"):
        evaluate_photos(replace(args, files=("c*",)))


@pytest.mark.parametrize("change", [{"max_images": 0}, {"views_per_object": 17}, {"ddim_steps": 0}, {"shards": ()}])
def test_invalid_options_are_refused(args, change):
    with pytest.raises(UserError):
        evaluate_photos(replace(args, **change))


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(PhotoEvaluationArgs, args=["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{option.replace('_', '-')}" in shown for option in PhotoEvaluationArgs.__dataclass_fields__)
