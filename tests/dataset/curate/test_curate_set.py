"""`python -m dataset curate` on synthetic sets: the tables, resuming, damage, and what other commands make of them."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dataset.curate.curate_set
from dataset.check.verify import verify
from dataset.copy.copy_set import copy_sets
from dataset.curate.curate_set import Curated, curate_set
from dataset.curate.score_object import score_object
from dataset.errors import UserError
from dataset.format import scores as score_format
from dataset.format.latents import LATENTS_FILE
from dataset.format.schema import ALL_VIEWS, View, meta_name, parse_meta
from dataset.format.scores import ObjectScores, dump_scores, parse_scores, scores_file
from dataset.format.shards import read_stats
from dataset.images.prepare import encode_webp
from dataset.io.files import url_to_fs
from dataset.reading.filters import Filters, select
from dataset.reading.scores import SetScores
from dataset.reading.shard_set import ShardSet
from tests.support.make_outcomes import make_set
from tests.support.make_shards import make_sample
from tests.support.paths import ROOT

SAME = {3: 1, 5: 1, 6: 0}  # objects with the images of an earlier one


def some_alike(uid: str, i: int, resolution: int) -> dict[str, bytes]:
    return make_sample(uid, SAME.get(i, i), resolution)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven objects in shards of 2; number 2 failed, three repeat the images of others."""
    folder = tmp_path_factory.mktemp("plain") / "set"
    return Path(make_set(folder, "o", 7, 32, gone={2: "failed"}, sample=some_alike))


@pytest.fixture(scope="module")
def curated(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("curated") / "set"))
    assert curate_set(str(folder), workers=1) == Curated(6, scored=6, duplicates=3, clusters=2)
    return folder


@pytest.fixture
def own(curated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(curated, tmp_path / "own"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uids(folder: Path, where: str) -> list[str]:
    return ShardSet(folder, kept=select(folder, Filters(where=where)).kept).uids()


def damage(folder: Path, shard: str, sample: int, member: str) -> None:
    place = read_stats(*url_to_fs(folder), shard).samples[sample].members[member]
    data = bytearray((folder / f"{shard}.tar").read_bytes())
    data[place.offset + place.size // 2] ^= 1
    (folder / f"{shard}.tar").write_bytes(bytes(data))


def test_the_set_itself_stays_as_it_was_and_is_sound(plain: Path, curated: Path) -> None:
    before, after = contents(plain), contents(curated)
    added = {f"curation/shard-00000{i}.parquet" for i in range(4)} | {"curation/duplicates.parquet"}
    assert after.keys() - before.keys() == added
    assert {name: after[name] for name in before} == before
    assert verify(curated) == []


def test_rows_are_the_scores_of_the_objects(curated: Path) -> None:
    shards, scores = ShardSet(curated), SetScores(curated)
    for shard, samples in enumerate(shards.samples_per_shard):
        rows = scores.shard(shard)
        assert list(rows) == [shards.uid(shard, i) for i in range(samples)]
        for i, row in enumerate(rows.values()):
            expected = score_object(shards.meta(shard, i), shards.views(shard, i, ALL_VIEWS))
            assert row == replace(expected, appearance=row.appearance)
            np.testing.assert_allclose(row.appearance, expected.appearance, rtol=1e-6)
            views = [view for views in shards.meta(shard, i).views.values() for view in views]
            assert row.coverage == pytest.approx(np.mean([view.alpha_coverage for view in views]))
            assert (row.visible_views, row.empty) == (32, False)
    assert scores.clusters == {"o3": "o1", "o5": "o1", "o6": "o0"}
    table = pq.read_table(curated / "curation/shard-000000.parquet").to_pydict()
    assert table["uid"] == ["o0", "o1"]
    assert {"texture", "flatness", "flat", "empty"} <= table.keys()


def test_an_empty_and_a_flat_object_are_recognized() -> None:
    members = make_sample("x", 0, 32)
    meta = parse_meta(members[meta_name("x")], "x")
    images = np.zeros((32, 32, 32, 4), np.uint8)
    nothing = score_object(meta, images)
    assert (nothing.empty, nothing.flat, nothing.visible_views, nothing.distinct_views) == (True, False, 0, 0)
    views: list[View] = [view for name in ("fixed", "random") for view in meta.views[name]]  # type: ignore[index]
    for image, view in zip(images, views, strict=True):  # a wide sheet of one pixel's height, seen from above
        rows = max(1, round(20 * np.sin(np.deg2rad(abs(view.elevation_deg)))))
        image[16 - rows // 2 : 16 - rows // 2 + rows, 4:28] = 255
    assert score_object(meta, images).flat


def test_a_repeated_command_reads_no_tar_and_writes_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in own.glob("*.tar"):
        path.unlink()
    before = contents(own)
    monkeypatch.setattr(dataset.curate.curate_set, "write_bytes_atomic", None)
    assert curate_set(str(own), workers=1) == Curated(6, scored=0, duplicates=3, clusters=2)
    assert contents(own) == before


def test_an_interrupted_command_is_resumed(
    plain: Path, curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "set"))
    whole, calls = dataset.curate.curate_set.write_bytes_atomic, []

    def killed(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset.curate.curate_set, "write_bytes_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        curate_set(str(folder), workers=1)
    assert sorted(path.name for path in (folder / "curation").iterdir()) == [
        "shard-000000.parquet",
        "shard-000001.parquet",
    ]
    assert verify(folder) == []
    with pytest.raises(UserError, match=r"are missing or incomplete; run `python -m dataset curate"):
        select(folder, Filters(where="texture > 0"))
    (folder / "curation/shard-000002.parquet.0000aaaa.tmp").write_bytes(b"left by a killed command")
    monkeypatch.setattr(dataset.curate.curate_set, "write_bytes_atomic", whole)
    assert curate_set(str(folder), workers=1).scored == 3
    assert contents(folder) == contents(curated)


def test_another_version_or_other_images_are_scored_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(own)
    monkeypatch.setattr(score_format, "SCORING_VERSION", score_format.SCORING_VERSION + 1)
    with pytest.raises(UserError, match="are outdated; run `python -m dataset curate"):
        select(own, Filters(where="flat"))
    assert verify(own) == []  # old, but undamaged
    assert curate_set(str(own), workers=1).scored == 6
    monkeypatch.undo()
    path = own / "curation/shard-000001.parquet"
    path.write_bytes(dump_scores(parse_scores(before["curation/shard-000001.parquet"], "x").rows, "0" * 64))
    assert curate_set(str(own), workers=1).scored == 6  # of the other version
    path.write_bytes(dump_scores(parse_scores(before["curation/shard-000001.parquet"], "x").rows, "0" * 64))
    with pytest.raises(UserError, match="are outdated"):
        select(own, Filters(where="flat"))
    assert [problem.what for problem in verify(own)] == ["its scores are those of other images"]
    assert curate_set(str(own), workers=1).scored == 1
    assert contents(own) == before


def test_verify_names_damaged_and_foreign_tables(own: Path) -> None:
    tables, rows = own / "curation", parse_scores((own / scores_file("shard-000000")).read_bytes(), "x").rows
    shutil.copy(tables / "shard-000000.parquet", tables / "shard-000009.parquet")
    (tables / "shard-000001.parquet").write_bytes(b"PAR1")
    tar = read_stats(*url_to_fs(own), "shard-000000").sha256
    (tables / "shard-000000.parquet").write_bytes(dump_scores(rows[:1], tar))
    (tables / "shard-000002.parquet").unlink()
    (tables / "duplicates.parquet").write_bytes(b"")
    found = {problem.where: problem.what for problem in verify(own)}
    assert found.keys() == {"curation/duplicates.parquet", *(f"curation/shard-00000{i}.parquet" for i in (0, 1, 2, 9))}
    assert found["curation/shard-000000.parquet"] == "its objects differ from those in shard-000000.tar"
    assert found["curation/shard-000002.parquet"] == "missing score table"
    assert found["curation/shard-000009.parquet"] == "not listed in index.json"
    (tables / "shard-000009.parquet").unlink()
    assert curate_set(str(own), workers=1).scored == 5
    assert verify(own) == []


def test_a_damaged_object_is_named_and_the_others_have_scores(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "set"))
    tar = (folder / "shard-000002.tar").read_bytes()
    damage(folder, "shard-000002", 1, "random_07.webp")
    result = curate_set(str(folder), workers=1)
    assert (result.damaged, result.scored, result.duplicates) == (1, 6, 2)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("o5: ")
    assert "o5.random_07.webp is truncated or corrupt" in line
    assert "\n" not in line
    selection = select(folder, Filters(where="texture >= 0"))
    assert (len(selection), selection.dropped) == (5, {"images damaged, scores unknown": 1})
    (folder / "shard-000002.tar").write_bytes(tar)
    assert curate_set(str(folder), workers=1) == Curated(6, scored=2, duplicates=3, clusters=2)


def test_damaged_metadata_and_images_of_two_sizes_are_damage_too(tmp_path: Path) -> None:
    def odd(uid: str, i: int, resolution: int) -> dict[str, bytes]:
        members = make_sample(uid, i, resolution)
        if i == 0:
            members[f"{uid}.fixed_03.webp"] = encode_webp(np.zeros((4, 4, 4), np.uint8))
        return members

    folder = Path(make_set(tmp_path / "set", "o", 3, 8, per_shard=3, sample=odd))
    damage(folder, "shard-000000", 1, "meta.json")
    assert curate_set(str(folder), workers=1).damaged == 2
    rows = SetScores(folder).shard(0)
    assert [bool(row.damage) for row in rows.values()] == [True, True, False]


def test_expressions_select_by_scores(curated: Path) -> None:
    rows = {uid: row for shard in range(4) for uid, row in SetScores(curated).shard(shard).items()}
    limit = float(np.median([row.texture for row in rows.values()]))
    assert uids(curated, f"texture > {limit}") == [uid for uid, row in rows.items() if row.texture > limit]
    assert uids(curated, "not duplicate") == ["o0", "o1", "o4"]
    assert uids(curated, 'cluster == "o1"') == ["o1", "o3", "o5"]
    assert uids(curated, 'duplicate or "clipped" not in flags') == ["o0", "o3", "o4", "o5", "o6"]
    selection = select(curated, Filters(where="not duplicate", without_flags=("clipped",)))
    assert selection.dropped == {"flag clipped": 3, "not (not duplicate)": 1}
    assert len(selection) == 2
    with pytest.raises(UserError, match=r"(?s)no objects pass the filters.*6 left out: not \(texture > 1\)"):
        select(curated, Filters(where="texture > 1"))


def test_expressions_without_scores_need_none(plain: Path) -> None:
    assert uids(plain, 'license == "CC0-1.0" and seconds > 1') == ["o4", "o6"]
    with pytest.raises(
        UserError, match=r"scores of the set .* are missing or incomplete; run `python -m dataset curate"
    ):
        select(plain, Filters(where="flat"))


def test_a_copy_has_the_scores_of_its_objects(curated: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    copy_sets([str(curated)], str(out), filters=Filters(where='uid != "o1"'), objects_per_shard=4, workers=1)
    assert verify(out) == []
    scores = SetScores(out)
    assert scores.clusters == {"o5": "o3", "o6": "o0"}  # the first one of a cluster was not copied
    before = {uid: row for shard in range(4) for uid, row in SetScores(curated).shard(shard).items()}
    after = {uid: row for shard in range(2) for uid, row in scores.shard(shard).items()}
    assert after == {uid: before[uid] for uid in ("o0", "o3", "o4", "o5", "o6")}
    assert curate_set(str(out), workers=1).scored == 0
    shutil.rmtree(out / "curation")
    copy_sets([str(curated)], str(out), filters=Filters(where='uid != "o1"'), objects_per_shard=4, workers=1)
    assert SetScores(out).clusters == {"o5": "o3", "o6": "o0"}


def test_a_copy_without_scores_says_so(
    plain: Path, curated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    copy_sets([str(curated)], str(tmp_path / "small"), resolution=8, workers=1)
    other = make_set(tmp_path / "other", "p", 2, 32)
    copy_sets([str(curated), other], str(tmp_path / "both"), workers=1)
    copy_sets([str(plain)], str(tmp_path / "plain"), workers=1)
    notes = [record.getMessage() for record in caplog.records if "no scores were copied" in record.getMessage()]
    assert ["images were downscaled" in notes[0], "a source set has none" in notes[1]] == [True, True]
    assert len(notes) == 2
    assert not list(tmp_path.glob("*/curation"))


def test_sets_in_memory_are_curated_too(tmp_path: Path) -> None:
    make_set("memory://curate/set", "o", 5, 16, sample=some_alike)
    assert curate_set("memory://curate/set", workers=1).duplicates == 1
    assert verify("memory://curate/set") == []
    assert len(select("memory://curate/set", Filters(where="not duplicate"))) == 4


def test_impossible_sets_and_options_are_explained(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        curate_set(str(plain), workers=0)
    with pytest.raises(UserError, match="there is no shard set at"):
        curate_set(str(tmp_path / "nowhere"), workers=1)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "latents").mkdir()
    (tmp_path / "latents" / LATENTS_FILE).write_text("{}")
    with pytest.raises(UserError, match="is a latent set; curate the shard set"):
        curate_set(str(tmp_path / "latents"), workers=1)


def test_an_empty_set_has_empty_tables(tmp_path: Path) -> None:
    folder = Path(make_set(tmp_path / "set", "o", 2, 8, gone={0: "failed", 1: "skipped"}))
    assert curate_set(str(folder), workers=1) == Curated(0)
    assert verify(folder) == []


def test_a_table_with_numbers_that_are_not_finite_is_damaged() -> None:
    with pytest.raises(UserError, match="the score table x cannot be read"):
        parse_scores(dump_scores([ObjectScores("o", texture=float("nan"))], "0"), "x")


@pytest.mark.integration
def test_the_command(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "set"))
    line = [sys.executable, "-m", "dataset", "curate", str(folder), "--workers", "2"]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    expected = f"{folder}: 6 objects, 6 of them scored now; 0 empty, 0 flat, 3 near-duplicates in 2 clusters\n"
    assert (run.returncode, run.stdout) == (0, expected)
    damage(folder, "shard-000000", 0, "meta.json")
    shutil.rmtree(folder / "curation")
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "error: o0: " in run.stderr
    assert "1 damaged objects without scores" in run.stdout
