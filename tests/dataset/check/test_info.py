import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.check.info import format_info, info
from dataset.check.statistics import Distribution
from dataset.errors import UserError
from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import Outcome, dump_outcomes, read_outcomes
from dataset.format.shards import shard_name
from dataset.io.files import url_to_fs
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set, write_set_request


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("info"), 5, resolution=32, objects_per_shard=2)


def add_rows(folder: Path, *more: Outcome, license: str = "unknown") -> None:
    """Append objects without samples to a set of one shard."""
    fs, root = url_to_fs(folder)
    assets = [*Manifest(fs, root).assets(), *(Asset(row.uid, "more", license) for row in more)]
    write_set_request(fs, root, assets, objects_per_shard=4)
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([*read_outcomes(fs, root), *more]))


def test_info_counts_what_is_there(folder: Path) -> None:
    about = info(folder)
    assert about.images is not None
    shards = ShardSet(folder)
    assert (len(about.index.shards), about.index.objects, about.index.views, about.requested) == (3, 5, 160, 5)
    assert about.index.bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert about.licenses == {"CC0-1.0": 3, "CC-BY-4.0": 2}
    assert about.sources == {"synthetic": 5}
    assert about.images.resolutions == {"32x32": 5}
    assert about.images.hdris == {"none.exr": 5}
    assert about.outcomes.statuses == {"ok": 5}
    touching, alphas = 0, []
    for place in shards.objects(0):
        for view_set in ("fixed", "random"):
            alpha = shards.views(*place, [(view_set, i) for i in range(16)])[..., 3]
            border = [alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]]
            touching += int(np.any([edge.any(1) for edge in border], 0).sum())
            alphas.append(alpha.mean() / 255)
    assert about.images.clipped_views == touching
    assert about.images.mean_coverage == pytest.approx(np.mean(alphas), abs=1e-4)


def test_quick_leaves_out_what_the_metadata_say_and_reads_no_shard(folder: Path, tmp_path: Path) -> None:
    full = info(folder)
    for path in folder.glob("*.tar"):
        path.rename(tmp_path / path.name)
    try:
        quick = info(folder, quick=True)
    finally:
        for path in tmp_path.glob("*.tar"):
            path.rename(folder / path.name)
    assert quick.images is None
    assert (quick.licenses, quick.sources, quick.outcomes) == (full.licenses, full.sources, full.outcomes)
    assert "coverage" not in format_info(quick)
    assert "coverage" in format_info(full)


def test_outcomes_are_summed_up(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 2, resolution=8)
    lost = Outcome("a", 2, "shard-000000", "failed", "import", "ValueError", "bad", seconds=4.0, peak_rss_mb=9.0)
    left = Outcome("b", 3, "shard-000000", "skipped", "select", flags=("licence-excluded",))
    add_rows(folder, replace(lost, attempts=2, flags=("missing-texture",)), left, license="CC-BY-NC-4.0")
    about = info(folder)
    outcomes = about.outcomes
    assert outcomes.statuses == {"ok": 2, "failed": 1, "skipped": 1}
    assert outcomes.failures == {"import: ValueError": 1}
    assert outcomes.skips == {"select: licence-excluded": 1}
    assert outcomes.flags == {"missing-texture": 1, "licence-excluded": 1}
    assert outcomes.attempts == {1: 2, 2: 1}
    assert (outcomes.seconds.largest, outcomes.seconds.largest_uid) == (4.0, "a")
    assert outcomes.seconds.percentile(50) == 1.0
    assert outcomes.objects_per_hour == 2 * 3600 / 6
    assert "CC-BY-NC-4.0" not in about.licenses  # licences of what is in the shards
    text = format_info(about)
    assert "2 of 4 requested objects" in text
    assert "2 ok, 1 failed, 1 skipped" in text
    assert "1  import: ValueError" in text
    assert "1  select: licence-excluded" in text
    assert "median 1.0, 95th percentile 3.7, most 4.0 (a)" in text


def test_long_tables_say_that_they_are_cut(folder: Path) -> None:
    about = info(folder)
    about.sources.update({f"object-{i}": 1 for i in range(24)})
    assert "... and 15 more" in format_info(about)


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 0)
    text = format_info(info(folder))
    assert "0 of 0 requested objects" in text
    assert "not measured" in text


@pytest.mark.parametrize("lost", ["row", "sample", "both"])
def test_an_object_that_is_nowhere_or_somewhere_only_is_an_error(tmp_path: Path, lost: str) -> None:
    folder = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2)
    rows = read_outcomes(*url_to_fs(folder))
    table = folder / "outcomes/shard-000001.parquet"
    if lost == "row":
        table.write_bytes(dump_outcomes(rows[2:3]))
        expected = "synthetic-0003: is in the manifest but has no outcome row"
    elif lost == "sample":
        table.write_bytes(dump_outcomes([rows[2], replace(rows[3], status="failed")]))
        expected = "synthetic-0003: its sample has no outcome row with status ok"
    else:
        fs, root = url_to_fs(folder)
        assets = list(Manifest(fs, root).assets())
        write_set_request(fs, root, [*assets, Asset("forgotten", "x")], objects_per_shard=2)
        expected = "forgotten: is in the manifest but has no outcome row"
    for quick in (True, False):
        with pytest.raises(UserError, match=expected) as caught:
            info(folder, quick=quick)
        assert "outcomes/shard-00000" in str(caught.value)
        assert f"verify {folder}` lists all differences" in str(caught.value)


def test_totals_that_disagree_and_missing_tables_are_errors(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2)
    asked = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**asked, "objects": 7}))
    with pytest.raises(UserError, match=r"contains 5 objects, but set\.json says 7"):
        info(folder)
    (folder / "set.json").write_text(json.dumps(asked))
    (folder / "outcomes/shard-000002.parquet").unlink()
    with pytest.raises(UserError, match=r"shard-000002\.parquet is missing; repeat"):
        info(folder)


def test_a_damaged_manifest_is_explained_whatever_byte_it_is(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=8)
    path = folder / "manifest.parquet"
    good = path.read_bytes()
    for offset in range(0, len(good), 29):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 0xFF]) + good[offset + 1 :])
        with pytest.raises(UserError, match=r"manifest\.parquet is damaged or was replaced"):
            info(folder, quick=True)


def test_many_differences_name_the_first_and_count_the_rest(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 6, resolution=8, objects_per_shard=6)
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([]))
    with pytest.raises(UserError, match=r"synthetic-0000.*synthetic-0001.*synthetic-0002.*and 9 more"):
        info(folder)


def test_a_remote_set_is_summed_up_too() -> None:
    make_shard_set("memory://info/set", 3, resolution=8, objects_per_shard=2)
    about = info("memory://info/set")
    assert (about.requested, about.outcomes.statuses["ok"]) == (3, 3)


def test_one_shard_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_shard_set(tmp_path, 6, resolution=8, objects_per_shard=1)
    touched: list[str] = []
    from dataset.reading import reconcile

    original = reconcile.read_table
    monkeypatch.setattr(reconcile, "read_table", lambda *at: touched.append(at[2]) or original(*at))
    for number, part in enumerate(reconcile.slices(folder)):
        assert len(part.rows) == len(part.assets) == len(part.uids) == 1
        assert touched == [shard_name(i) for i in range(number + 1)]


def test_percentiles_of_what_was_measured() -> None:
    measured = Distribution()
    assert measured.percentile(50) == 0
    for i in range(101):
        measured.add(f"u{i}", float(i))
    assert (measured.percentile(50), measured.percentile(95)) == (50, 95)
    assert measured.largest_uid == "u100"
