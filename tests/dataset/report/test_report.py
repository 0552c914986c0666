"""The report's page: what it counts, that it holds everything itself, and that nothing in it comes alive."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.curate.curate_set import curate_set
from dataset.errors import UserError
from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import Outcome, dump_outcomes, read_outcomes
from dataset.images.prepare import composite_white
from dataset.io.files import url_to_fs
from dataset.reading.scores import SetScores
from dataset.reading.shard_set import ShardSet
from dataset.report.collect import VIEW_SIDE, collect_report, encode_strip
from dataset.report.page import report_page, write_report
from tests.support.make_outcomes import make_set
from tests.support.make_shards import make_sample, make_shard_set, write_set_request
from tests.support.paths import ROOT
from tests.support.troubled_set import BAD, Tags, troubled_set


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_page(collect_report(troubled_set(tmp_path_factory.mktemp("report")), 1000))


def test_nothing_points_outside_the_page(html: str) -> None:
    tags = Tags(html)
    keys = ("src", "href", "srcset", "poster", "data", "action")
    assert not [(tag, a) for tag, a in tags.tags if a.keys() & set(keys)]
    assert not tags.named("link")
    policy = next(meta["content"] for meta in tags.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "*" not in policy
    assert not re.search(r"url\((?!data:)|@import|https?://", html.partition('id="strips"')[0])


def test_texts_from_files_stay_texts(html: str) -> None:
    tags = Tags(html)
    assert [a.get("type", "") for a in tags.named("script")] == ["text/plain", ""]  # the strips, report.js
    assert BAD not in html
    texts = "".join(text for _, text in tags.texts)
    for text in (f"died {BAD}", f"line one\n{BAD} & more", f"A & B by {BAD}'\""):
        assert text in texts
    assert all(set(a) <= {"title", "class"} for a in tags.named("p") if "id" not in a)  # no attribute was broken out of


def test_every_object_is_a_tile_with_what_filters_need(html: str) -> None:
    tiles = Tags(html).tiles
    assert [tile["data-uid"] for tile in tiles] == [*(f"synthetic-{i:04d}" for i in range(4)), "crash", "bad", "left"]
    assert [tile["data-status"] for tile in tiles] == ["ok"] * 4 + ["failed"] * 2 + ["skipped"]
    assert [tile["data-flags"] for tile in tiles] == ["", "clipped", "", "", "", "missing-texture", "too-large"]
    assert [tile["data-coverage"] == "" for tile in tiles] == [False] * 4 + [True] * 3
    assert {tile["data-license"] for tile in tiles} == {"CC0-1.0", "CC-BY-4.0"}
    assert tiles[1]["data-seconds"] == "3.000"


def test_failures_come_by_reason_with_all_that_is_known(html: str) -> None:
    failures = html.partition("<h2>Failures</h2>")[2].partition("<h2>Skipped</h2>")
    assert failures[0].count("<summary><b>1</b> worker: Crash</summary>") == 1
    assert failures[0].count("<summary><b>1</b> import: ValueError</summary>") == 1
    for fact in ("<dd>2</dd>", "<dd>11 (SIGSEGV)</dd>", "<dd>7.5</dd>", "Nothing on stderr.", "no mesh"):
        assert fact in failures[0]
    assert "too big" not in failures[0]
    assert "select: too-large" in failures[2]
    assert "too big" in failures[2]


def test_totals_are_the_sets(html: str) -> None:
    texts = "".join(text for _, text in Tags(html).texts)
    assert "of 7 requested" in texts
    assert "1 object took more than one attempt" in texts
    assert "1,067" in texts  # 4 ok objects in 1 + 3 + 1 + 1 + 7.5 + 0 seconds of work


def test_the_strips_are_the_fixed_views_on_white(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=96)
    report = collect_report(folder, 1000)
    lines = re.search(r'id="strips">([^<]*)</script>', report_page(report))
    assert lines is not None
    strips = [base64.b64decode(line) for line in lines[1].split("\n")]
    shards = ShardSet(folder)
    for sample, data in enumerate(strips):
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("WEBP", (16 * VIEW_SIDE, VIEW_SIDE))
            sheet = np.asarray(image.convert("RGB")).astype(float)
        for i, view in enumerate(shards.views(0, sample, [("fixed", i) for i in range(16)])):
            exact = Image.fromarray(np.rint(composite_white(view) * 255).astype(np.uint8))
            small = np.asarray(exact.resize((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS)).astype(float)
            assert np.abs(sheet[:, i * VIEW_SIDE : (i + 1) * VIEW_SIDE] - small).mean() < 6


def test_small_views_are_not_blown_up() -> None:
    with Image.open(io.BytesIO(encode_strip([np.zeros((8, 8, 4), np.uint8)] * 16))) as image:
        assert image.size == (128, 8)
        assert np.asarray(image.convert("RGB")).min() > 250  # transparent is white


def test_a_large_set_is_shown_in_part_and_says_so(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 9, resolution=8, objects_per_shard=4)
    rows = read_outcomes(*url_to_fs(folder))
    lost = Outcome("lost", 9, "shard-000002", "failed", "import", "E", "why")
    fs, root = url_to_fs(folder)
    write_set_request(fs, root, [*Manifest(fs, root).assets(), Asset("lost", "x")], objects_per_shard=4)
    (folder / "outcomes/shard-000002.parquet").write_bytes(dump_outcomes([rows[8], lost]))
    report = collect_report(folder, 3)
    assert [tile.row.position for tile in report.tiles] == [0, 3, 6]
    assert [row.uid for row in report.failed] == ["lost"]
    assert report.about.outcomes.statuses == {"ok": 9, "failed": 1}
    html = report_page(report)
    assert "3 of 10 objects are shown, spread evenly over the set; every failed one is listed above" in html
    assert "Coverage, of the 3 objects shown" in html
    assert "are shown" not in report_page(collect_report(folder, 10))


def test_scores_are_shown_if_there_are_any(tmp_path: Path) -> None:
    folder = troubled_set(tmp_path)
    without = report_page(collect_report(folder, 1000))
    assert "data-texture" not in without
    assert "least texture first" not in without
    curate_set(str(folder), workers=1)
    report = collect_report(folder, 2)  # the distributions are those of the whole set
    assert report.scores is not None
    assert [len(values) for values in report.scores.values.values()] == [4] * 5
    tiles = Tags(report_page(collect_report(folder, 1000))).tiles
    rows = SetScores(folder).shard(0)
    assert [tile["data-uid"] for tile in tiles if tile["data-texture"]] == list(rows)
    for tile, row in zip(tiles, rows.values(), strict=False):
        assert float(tile["data-texture"]) == pytest.approx(row.texture, rel=1e-4)
        assert float(tile["data-views"]) == row.distinct_views
    assert all(tile["data-cluster"] == "" for tile in tiles)
    html = report_page(collect_report(folder, 1000))
    for text in ("Distinct views", "least texture first", f"texture {rows['synthetic-0000'].texture:.3f}, contrast "):
        assert text in html


def test_passes_are_shown_if_there_are_any(html: str, tmp_path: Path) -> None:
    assert "<h2>Passes</h2>" not in html
    folder = make_shard_set(tmp_path / "set", 2, passes=("depth", "normal"))
    write_report(folder, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Passes</h2>" in text
    encoded = re.search(r'alt="passes of some objects" src="data:image/webp;base64,([^"]+)"', text)
    assert encoded is not None
    with Image.open(io.BytesIO(base64.b64decode(encoded[1]))) as image:
        assert image.size == (3 * (112 + 2) + 2, 2 * (112 + 14 + 2) + 2)


def test_near_duplicates_are_labeled_and_numbered(tmp_path: Path) -> None:
    def same(uid: str, i: int, resolution: int) -> dict[str, bytes]:
        return make_sample(uid, i % 2, resolution)

    folder = make_set(tmp_path / "set", "o", 5, 32, sample=same)
    curate_set(folder, workers=1)
    html = report_page(collect_report(folder, 1000))
    tiles = Tags(html).tiles
    assert [tile["data-cluster"] for tile in tiles] == ["0", "1", "0", "1", "0"]
    assert [tile["data-flags"] for tile in tiles] == [
        *("", "clipped", "near-duplicate", "clipped near-duplicate", "near-duplicate")
    ]
    assert '<button type="button" data-flag="near-duplicate">' in html


def test_many_failures_and_skips_stay_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset.report.collect.MAX_SKIPPED", 2)
    monkeypatch.setattr("dataset.report.page._DETAILED", 1)
    folder = make_shard_set(tmp_path, 1, resolution=8, objects_per_shard=8)
    (row,) = read_outcomes(*url_to_fs(folder))
    failed = [Outcome(f"f{i}", i, row.shard, "failed", "import", "E", stderr_tail=f"err{i}") for i in (1, 2, 3)]
    skipped = [Outcome(f"s{i}", i, row.shard, "skipped", "select", flags=("duplicate",)) for i in (4, 5, 6, 7)]
    fs, root = url_to_fs(folder)
    more = [Asset(row.uid, "x") for row in (*failed, *skipped)]
    write_set_request(fs, root, [*Manifest(fs, root).assets(), *more], objects_per_shard=8)
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([row, *failed, *skipped]))
    html = report_page(collect_report(folder, 1))
    assert all(f"<code>f{i}</code>" in html for i in (1, 2, 3))
    assert ("err1" in html, "err2" in html) == (True, False)
    assert "The 2 below are listed without details" in html
    assert "<code>s5</code>" in html
    assert "<code>s6</code>" not in html
    assert "and 2 more" in html


def test_the_page_is_the_same_every_time_and_remote_sets_work(tmp_path: Path) -> None:
    make_shard_set("memory://report/set", 3, resolution=8, objects_per_shard=2)
    write_report("memory://report/set", tmp_path / "one.html")
    write_report("memory://report/set", tmp_path / "deep" / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "deep" / "two.html").read_bytes()
    assert len(Tags((tmp_path / "one.html").read_text()).tiles) == 3


def test_empty_sets_bad_numbers_and_unwritable_outputs(tmp_path: Path) -> None:
    empty = make_shard_set(tmp_path / "set", 0)
    assert "No object failed." in report_page(collect_report(empty, 10))
    with pytest.raises(UserError, match="--max-objects is 0"):
        collect_report(empty, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(empty, tmp_path / "file" / "x.html")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dataset", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.integration
def test_the_four_commands(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path / "set", 2, resolution=8)
    sound = run("verify", str(folder))
    assert (sound.returncode, sound.stdout) == (0, f"{folder} is sound: 2 objects, 64 views in 1 shards\n")
    assert "CC-BY-4.0" in run("info", str(folder), "--quick").stdout
    assert run("preview", str(folder)).returncode == 0
    assert (folder / "preview.png").exists()
    report = run("report", str(folder), "--max-objects", "1")
    assert (report.returncode, report.stdout) == (0, f"{folder}/report.html: 1 of 2 objects, 0 failed\n")
    assert run("verify", str(folder)).returncode == 0  # neither file is a stranger in the set
    (folder / "outcomes/shard-000000.parquet").unlink()
    for command in ("info", "report"):
        assert run(command, str(folder)).returncode == 2
    (folder / "shard-000000.tar").unlink()
    damaged = run("verify", str(folder))
    assert damaged.returncode == 1
    assert "shard-000000.tar: missing" in damaged.stdout


def test_command_lines_explain_themselves_and_bad_input(tmp_path: Path) -> None:
    assert "{verify,info,preview,report,curate,copy,export,import}" in run("--help").stdout
    absent = run("info", str(tmp_path / "absent"))
    assert absent.returncode == 2
    assert absent.stderr.startswith("error: there is no shard set at")
    assert absent.stderr.count("\n") == 1
