"""`python -m distill.evaluate --run` end to end on toy runs: its numbers, resuming, refusals, the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import UserError
from distill.evaluate import evaluate
from distill.evaluate.config import AssetEvaluationArgs
from distill.evaluate.evaluate import evaluate_assets
from distill.evaluate.score import ASSET_METRICS
from tests.support.browser import CHROMIUM, browser
from tests.support.true_solids import box_mesh, finished, write_glb
from train.evaluate.results import Record

pytestmark = [pytest.mark.usefixtures("one_thread", "coarse_metrics"), pytest.mark.integration]
BOXES = ("synthetic-0000", "synthetic-0002", "synthetic-0004")
FILES = ("results.jsonl", "evaluation.json", "evaluation.md", "evaluation.html")


@pytest.fixture(scope="module")
def runs(box_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Distillations of three boxes: the meshes of the first two are the boxes, the third's is turned."""
    folder = tmp_path_factory.mktemp("runs")
    finished(folder / "a", box_shards, BOXES[0], "fixed_04", box_mesh(0, 90.0))
    finished(folder / "b", box_shards, BOXES[1], "random_03", box_mesh(2, 67.5))
    finished(folder / "c", box_shards, BOXES[2], "fixed_02", box_mesh(4, -45.0))
    return folder


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true meshes of the last two boxes."""
    folder = tmp_path_factory.mktemp("meshes")
    for number in (2, 4):
        write_glb(box_mesh(number), folder / f"{BOXES[number // 2]}.glb")
    return folder


@pytest.fixture(scope="module")
def run_args(box_shards: Path, runs: Path, meshes: Path) -> AssetEvaluationArgs:
    """All three, their views to be found."""
    return AssetEvaluationArgs(
        str(box_shards),
        tuple(runs / name for name in "abc"),
        BOXES,
        labels="relative",
        meshes=meshes,
        device="cpu",
    )


@pytest.fixture(scope="module")
def done(run_args: AssetEvaluationArgs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    assert evaluate_assets(replace(run_args, out=out)) == 0
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_assets_are_found_aligned_and_measured(done: Path) -> None:
    summary = json.loads((done / "evaluation.json").read_text())
    found = {asset["uid"]: asset for asset in summary["assets"]}
    assert [(found[uid]["view"], found[uid]["turned_deg"]) for uid in BOXES] == [
        ("fixed_04", 90.0),
        ("random_03", 67.5),
        ("fixed_02", 45.0),
    ]
    assert all(asset["scale"] == pytest.approx(1, abs=1e-5) for asset in found.values())
    assert "volume_iou" not in found[BOXES[0]]["scores"]  # its true mesh is not there
    good, turned = (found[uid]["scores"] for uid in BOXES[1:])
    assert good["volume_iou"] > 0.95
    assert good["chamfer"] < 0.03
    assert turned["volume_iou"] < 0.8
    assert turned["chamfer"] > good["chamfer"]
    counted = [sum(v is not None for v in line["scores"]["psnr"]) for line in lines(done)]
    assert counted == [15, 16, 15]


def test_every_mean_is_that_of_the_lines(done: Path) -> None:
    (method,) = json.loads((done / "evaluation.json").read_text())["methods"]
    for metric in ASSET_METRICS:
        column = method["metrics"].get(metric.name)
        values = [
            np.mean([v for v in line["scores"][metric.name] if v is not None])
            for line in lines(done)
            if any(v is not None for v in line["scores"].get(metric.name, ()))
        ]
        assert (column is None) == (not values)
        if column is not None:
            assert column["mean"] == pytest.approx(np.mean(values))
            assert column["objects"] == len(values)
            assert column["interval"][0] <= column["mean"] <= column["interval"][1]
    assert method["metrics"]["volume_iou"]["objects"] == 2


def test_tables_and_notes_say_what_is_counted(done: Path) -> None:
    markdown = (done / "evaluation.md").read_text()
    for text in (
        "silhouette IoU",
        "visual hull IoU",
        "| synthetic-0004 |",
        "2 of 3 objects have a true mesh",
        "all 16 fixed views for the 1 of 3 assets that were made from a random view",
        "the other 15 fixed views for the 2 that were made from a fixed view",
        "no ICP",
        "F-score at 0.02",
    ):
        assert text in markdown, text
    assert "nan" not in markdown.lower()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH to open the page in")
def test_the_page_shows_truth_asset_and_silhouettes(done: Path, tmp_path: Path) -> None:
    assert (done / "evaluation.html").read_text().count("data:image/webp;base64,") == 3 * (1 + 1 + 2)
    with browser(tmp_path) as page:
        for width in (1200, 390):
            page.open(done / "evaluation.html", width=width)
            load = "(image) => { image.loading = 'eager'; return image.decode(); }"  # those out of sight too
            page.value(f"Promise.all([...document.images].map({load})).then(() => 0)")
            assert page.value("[...document.images].every((image) => image.naturalHeight === 24)")
            assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
        assert all(url.startswith(("file:", "data:image/webp;base64,")) for url in page.requests)


def test_interrupted_and_repeated_is_the_same(
    run_args: AssetEvaluationArgs, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, out = Record.add, tmp_path / "out"

    def killed(self: Record, key: Any, scores: Any) -> None:
        if len(self.scores) == 1:
            raise KeyboardInterrupt
        plain(self, key, scores)

    monkeypatch.setattr(Record, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_assets(replace(run_args, out=out))
    with (out / "results.jsonl").open("a") as file:
        file.write('{"method": "runs", "uid')  # a kill in the middle of a line
    monkeypatch.setattr(Record, "add", plain)
    evaluate_assets(replace(run_args, out=out))
    for name in FILES:
        assert (out / name).read_bytes().replace(bytes(out), b"") == (done / name).read_bytes().replace(
            bytes(done), b""
        ), name


def test_only_what_is_new_or_another_is_measured(
    run_args: AssetEvaluationArgs, done: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, copies = tmp_path / "out", tmp_path / "runs"
    shutil.copytree(done, out)
    shutil.copytree(runs, copies)
    measured: list[str] = []
    monkeypatch.setattr(
        evaluate,
        "render_asset",
        lambda *given, render=evaluate.render_asset: measured.append(given[3].uid) or render(*given),
    )
    evaluate_assets(replace(run_args, out=out))
    assert measured == []
    write_glb(box_mesh(2), copies / "b" / "mesh.glb")
    evaluate_assets(replace(run_args, out=out, run=tuple(copies / name for name in "abc")))
    assert measured == [BOXES[1]]
    assert len(lines(out)) == 4
    evaluate_assets(replace(run_args, out=out, meshes=None))  # those with a true mesh are measured without it
    assert measured == [BOXES[1], *BOXES[1:]]
    measured.clear()
    evaluate_assets(replace(run_args, out=tmp_path / "one", run=run_args.run[:1], uid=BOXES[:1], meshes=None))
    assert "none were given (--meshes)" in (tmp_path / "one" / "evaluation.md").read_text()
    evaluate_assets(replace(run_args, out=tmp_path / "one", meshes=None))  # others may come to it
    assert measured == [*BOXES]


def test_a_table_is_the_same_as_the_options(
    run_args: AssetEvaluationArgs, done: Path, runs: Path, tmp_path: Path
) -> None:
    rows = [{"run": str(runs / name), "uid": uid} for name, uid in zip("abc", BOXES, strict=True)]
    (tmp_path / "t.json").write_text(json.dumps([{**rows[0], "view": "fixed_04"}, *rows[1:]]))
    shutil.copytree(done, tmp_path / "out")
    before = (tmp_path / "out" / "evaluation.md").read_text()
    evaluate_assets(replace(run_args, run=(), uid=(), table=tmp_path / "t.json", out=tmp_path / "out"))
    assert (tmp_path / "out" / "evaluation.md").read_text() == before


def test_what_cannot_be_measured_is_named(
    run_args: AssetEvaluationArgs, runs: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(UserError, match=match):
            evaluate_assets(replace(run_args, out=out, **options))

    refused(
        r"exactly one of --run \(with --uid\), --table and --model; the command has none of these options",
        run=(),
        uid=(),
    )
    refused("--run and --model", model=(base,))
    refused("--compare-reference applies only to distillations of this command", compare_reference="both")
    refused("--supervision-weight applies only to the comparison", supervision_weight=10.0)
    refused("--part shares the distillations", part="1/2")
    refused("--part 0/2 is not I/N", run=(), uid=(), model=(base,), part="0/2")
    refused("at most one --view", run=(), model=(base,))
    refused("leave out --uid", run=(), table=tmp_path / "none.csv")
    refused("none.csv cannot be read", run=(), uid=(), table=tmp_path / "none.csv")
    refused("--run has 3 values, --uid has 2 and --view has 0", uid=BOXES[:2])
    refused("no view 'fixed_99'", view=("fixed_99",) * 3)
    refused("synthetic-0000 is given for two runs", uid=(BOXES[0],) * 3)
    refused("has no object with the uid nobody", uid=("nobody", *BOXES[1:]))
    refused(
        "run .*a is not a view of the object synthetic-0003: .* is the most similar view",
        uid=("synthetic-0003", *BOXES[1:]),
    )
    refused(
        "is not fixed_05 of the object synthetic-0000.*fixed_04 is the most similar view",
        view=("fixed_05", "random_03", "fixed_02"),
    )
    refused("the model none of the run .* does not exist on this machine.*--labels", labels="auto")
    refused("no shard set at", shards=str(tmp_path / "none"))
    refused("is not a folder", meshes=tmp_path / "none")
    refused("contains no mesh of the evaluated objects, such as synthetic-0000.glb", meshes=runs)
    refused("--max-objects is 0", max_objects=0)
    refused("is not the folder of a finished distillation .missing files: config.json", run=(runs, *run_args.run[1:]))
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "mesh.glb").unlink(), "not the folder of a finished distillation .missing files: mesh.glb"),
        (lambda run: (run / "mesh.glb").write_bytes(b"in a test"), "mesh.glb is not a readable GLB"),
        (lambda run: (run / "field.safetensors").write_bytes(b"x"), "not a complete safetensors file"),
        (lambda run: (run / "input.png").write_bytes(b"x"), "input.png is not a readable image"),
        (lambda run: (run / "config.json").write_text("{}"), "does not belong to a finished run"),
        (lambda run: (run / "config.json").write_text("x"), "does not belong to a finished run"),
        (
            lambda run: (run / "config.json").write_text('{"mesh": {"faces": 1}}'),
            "lacks a setting that this version needs",
        ),
    ],
)
def test_a_damaged_run_is_named(
    run_args: AssetEvaluationArgs, runs: Path, tmp_path: Path, damage: Any, says: str
) -> None:
    shutil.copytree(runs / "a", tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(UserError, match=f"a.*{says}") as caught:
        evaluate_assets(replace(run_args, run=(tmp_path / "a",), uid=BOXES[:1], meshes=None, out=tmp_path / "out"))
    assert str(tmp_path / "a") in str(caught.value)


def test_a_mesh_of_another_object_is_refused(run_args: AssetEvaluationArgs, tmp_path: Path) -> None:
    write_glb(box_mesh(0, scale=0.5), tmp_path / f"{BOXES[0]}.glb")
    with pytest.raises(UserError, match=r"is not the mesh that synthetic-0000 was rendered from.*longest side is 2"):
        evaluate_assets(replace(run_args, run=run_args.run[:1], uid=BOXES[:1], meshes=tmp_path, out=tmp_path / "out"))


def test_another_elevation_is_noted(run_args: AssetEvaluationArgs, box_shards: Path, tmp_path: Path) -> None:
    finished(tmp_path / "a", box_shards, BOXES[0], "fixed_04", box_mesh(0, 90.0), elevation_deg=15.0)
    evaluate_assets(replace(run_args, run=(tmp_path / "a",), uid=BOXES[:1], meshes=None, out=tmp_path / "out"))
    assert (
        "with --elevation-deg 15, but the elevation of fixed_04 is 30.0"
        in (tmp_path / "out" / "evaluation.md").read_text()
    )


def test_absolute_labels_need_no_turn(run_args: AssetEvaluationArgs, tmp_path: Path) -> None:
    evaluate_assets(replace(run_args, labels="absolute", out=tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [asset["turned_deg"] for asset in summary["assets"]] == [0.0] * 3


def test_dry_run_says_what_and_writes_nothing(
    run_args: AssetEvaluationArgs, base: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    evaluate_assets(replace(run_args, out=out, dry_run=True))
    evaluate_assets(AssetEvaluationArgs(run_args.shards, model=(base,), split="validation", out=out, dry_run=True))
    printed = capsys.readouterr().out
    assert "3 objects of " in printed
    assert "would measure: synthetic-0004" in printed
    assert "1 object of " in printed
    assert not out.exists()
