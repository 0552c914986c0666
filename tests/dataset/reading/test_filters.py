"""Filters: excluded objects and reasons, the resulting set, and splits by uid hash."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import UserError
from dataset.format.manifest import UNKNOWN
from dataset.format.outcomes import OUTCOMES_FOLDER, dump_outcomes, read_outcomes
from dataset.format.shards import read_stats, shard_name
from dataset.io.files import url_to_fs
from dataset.reading.epoch_order import Order
from dataset.reading.filters import FilterResult, Filters, read_uids, select, split_of
from dataset.reading.shard_set import ShardSet
from tests.support import make_shards
from tests.support.make_shards import make_shard_set
from tests.support.outcome_flags import write_flags

PARTS = ("train", "validation", "test")
FLAGS = {1: ("clipped",), 4: ("clipped", "near-black"), 5: ("near-black",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten objects in shards of 4, 4 and 2; licenses alternate, three objects have flags."""
    made = make_shard_set(tmp_path_factory.mktemp("selection"), 10, resolution=8)
    write_flags(made, FLAGS)
    return made


def numbers(shards: ShardSet) -> list[int]:
    return [int(uid.removeprefix("synthetic-")) for uid in shards.uids()]


def selected(folder: Path, filters: Filters) -> tuple[FilterResult, list[int]]:
    selection = select(folder, filters)
    return selection, numbers(ShardSet(folder, kept=selection.kept))


def test_no_filter_keeps_every_object(folder: Path) -> None:
    selection, kept = selected(folder, Filters())
    assert (kept, len(selection), selection.objects, selection.dropped) == (list(range(10)), 10, 10, Counter())


def test_flags_and_licences_leave_out_what_has_them_and_count_an_object_once(folder: Path) -> None:
    selection, kept = selected(folder, Filters(without_flags=("clipped", "near-black")))
    assert kept == [0, 2, 3, 6, 7, 8, 9]
    assert selection.dropped == {"flag clipped": 2, "flag near-black": 1}
    selection, kept = selected(folder, Filters(without_flags=("near-black",), licences=("CC0-1.0",)))
    assert kept == [0, 2, 6, 8]
    assert selection.dropped == {"license CC-BY-4.0": 5, "flag near-black": 1}
    assert str(selection).splitlines() == [
        f"{folder}: 4 of 10 objects kept",
        "         5 left out: license CC-BY-4.0",
        "         1 left out: flag near-black",
    ]


def test_coverage_is_the_mean_over_all_views_that_the_metadata_name(folder: Path) -> None:
    shards = ShardSet(folder)
    pictures = [("fixed", i) for i in range(16)] + [("random", i) for i in range(16)]
    coverages = [shards.views(shard, i, pictures)[..., 3].mean() / 255 for shard, i in all_places(shards)]  # type: ignore[arg-type]
    low, high = sorted(coverages)[3] - 1e-6, sorted(coverages)[7] + 1e-6
    selection, kept = selected(folder, Filters(min_coverage=low, max_coverage=high))
    assert kept == [i for i, coverage in enumerate(coverages) if low <= coverage <= high]
    assert len(kept) == 5
    assert list(selection.dropped.values()) == [2, 3] or list(selection.dropped.values()) == [3, 2]


def all_places(shards: ShardSet) -> list[tuple[int, int]]:
    return [(shard, i) for shard, samples in enumerate(shards.samples_per_shard) for i in range(samples)]


def test_a_list_of_uids_may_name_others_and_they_are_counted(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "uids.txt"
    path.write_text("# chosen\nsynthetic-0009\n\nelsewhere\n  synthetic-0003 \nalso-elsewhere\n")
    selection, kept = selected(folder, Filters(uids=path))
    assert (kept, selection.missing_uids) == ([3, 9], 2)
    assert "2 uids of the list are in no shard" in str(selection)
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="contains no uids"):
        select(folder, Filters(uids=path))
    path.write_text("a.b\n")
    with pytest.raises(UserError, match="is invalid; use 1 to 128"):
        read_uids(path)
    with pytest.raises(UserError, match="one uid per line"):
        read_uids(tmp_path / "none.txt")


def test_parts_are_disjoint_complete_of_the_size_asked_for_and_independent_of_the_set(folder: Path) -> None:
    uids = [f"object-{i}" for i in range(20_000)]
    parts = Counter(split_of(uid, 0.1, 0.05) for uid in uids)
    assert parts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert parts["test"] / 20_000 == pytest.approx(0.05, abs=0.008)
    pinned = {2: "test", 4: "validation", 7: "validation"}  # a change would show training its validation objects
    assert [split_of(f"object-{i}", 0.1, 0.05) for i in range(12)] == [pinned.get(i, "train") for i in range(12)]
    for uid in uids:  # a larger share takes from training and leaves the other part alone
        before = split_of(uid, 0.1, 0.05)
        assert (split_of(uid, 0.3, 0.05) == "test") == (before == "test")
        assert (split_of(uid, 0.1, 0.3) == "validation") == (before == "validation")
    kept = [selected(folder, Filters(split=part, validation_share=0.3, test_share=0.35))[1] for part in PARTS]
    assert sorted(i for objects in kept for i in objects) == list(range(10))
    for part, objects in zip(PARTS, kept, strict=True):
        assert all(split_of(f"synthetic-{i:04d}", 0.3, 0.35) == part for i in objects)


def test_a_filtered_set_behaves_as_a_smaller_set(folder: Path) -> None:
    whole = ShardSet(folder)
    selection = select(folder, Filters(without_flags=("clipped",)))
    shards = ShardSet(folder, kept=selection.kept)
    assert (len(shards), shards.samples_per_shard) == (8, (3, 3, 2))
    order = Order(shards.samples_per_shard, 3)
    seen = [shards.uid(*order.item(i)[1:]) for i in range(8)]
    assert sorted(seen) == [f"synthetic-{i:04d}" for i in (0, 2, 3, 5, 6, 7, 8, 9)]
    assert shards.uid(1, 0) == whole.uid(1, 1)
    assert shards.meta(1, 0) == whole.meta(1, 1)
    np.testing.assert_array_equal(shards.views(1, 0, [("random", 2)]), whole.views(1, 1, [("random", 2)]))
    np.testing.assert_array_equal(shards.angles_deg(1, 0, [("random", 2)]), whole.angles_deg(1, 1, [("random", 2)]))


def test_an_empty_shard_of_a_selection_is_no_trouble(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "uids.txt"
    path.write_text("synthetic-0001\nsynthetic-0008\n")
    shards = ShardSet(folder, kept=select(folder, Filters(uids=path)).kept)
    order = Order(shards.samples_per_shard, 0, items_per_object=2)
    assert {shards.uid(*order.item(i)[1:]) for i in range(4)} == {"synthetic-0001", "synthetic-0008"}


def test_failed_objects_do_not_shift_the_numbers(tmp_path: Path) -> None:
    """The rows of a shard include objects without a sample."""
    folder = make_shard_set(tmp_path, 5, resolution=8)
    stats = json.loads((folder / "shard-000001.json").read_text())
    assert [sample["uid"] for sample in stats["samples"]] == ["synthetic-0004"]
    drop_sample(folder, 1)
    selection, kept = selected(folder, Filters(licences=("CC0-1.0",)))
    assert kept == [0, 2, 4]
    assert selection.objects == 4


def drop_sample(folder: Path, number: int) -> None:
    """Mark an object of the first shard as failed."""
    from dataset.format.outcomes import Outcome
    from dataset.format.shards import write_index, write_shard
    from tests.support.make_shards import make_sample

    fs, root = url_to_fs(folder)
    rows = [row for row in read_outcomes(fs, root) if row.shard == shard_name(0)]
    uids = [row.uid for row in rows if row.position != number]
    write_shard(fs, root, shard_name(0), [(uid, make_sample(uid, int(uid[-4:]), 8)) for uid in uids])
    rows[number] = Outcome(rows[number].uid, number, shard_name(0), "failed", "render")
    (folder / OUTCOMES_FOLDER / "shard-000000.parquet").write_bytes(dump_outcomes(rows))
    write_index(fs, root, num_shards=2, objects_per_shard=4)


def test_damaged_metadata_is_counted_where_coverage_is_asked_for(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=8)
    place = read_stats(*url_to_fs(folder), "shard-000000").samples[1].members["meta.json"]
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[place.offset + 5] ^= 1
    (folder / "shard-000000.tar").write_bytes(bytes(data))
    selection, kept = selected(folder, Filters(min_coverage=1e-6))
    assert kept == [0, 2]
    assert selection.dropped == {"metadata damaged, coverage unknown": 1}


def test_impossible_filters_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown quality flag blurred; choose from empty, empty-views, clipped"):
        Filters(without_flags=("blurred",))
    with pytest.raises(UserError, match=r"the coverage range is 0\.5 to 0\.1"):
        Filters(min_coverage=0.5, max_coverage=0.1)
    with pytest.raises(UserError, match="each share must be at least 0 and their sum below 1"):
        Filters(validation_share=0.5, test_share=0.5)
    with pytest.raises(UserError, match="each share must be at least 0 and their sum below 1"):
        Filters(validation_share=float("nan"))
    with pytest.raises(UserError, match="each share must be at least 0 and their sum below 1"):
        Filters(test_share=float("nan"))
    with pytest.raises(UserError, match=r"no object has the license CC-BY; choose from CC0-1\.0, CC-BY-4\.0"):
        select(folder, Filters(licences=("CC-BY",)))
    with pytest.raises(UserError, match=r"(?s)no objects pass.*10 left out: coverage below 0\.9"):
        select(folder, Filters(min_coverage=0.9))
    with pytest.raises(UserError, match="no shard set at"):
        select(tmp_path / "nowhere", Filters())
    with pytest.raises(UserError, match="has 3 shards but the selection has 1"):
        ShardSet(folder, kept=(np.zeros(1, np.int32),))


def test_objects_without_a_license_are_selected_as_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_shards._asset
    monkeypatch.setattr(
        make_shards, "_asset", lambda uid, i: replace(whole(uid, i), license="" if i == 1 else "CC0-1.0")
    )
    make_shard_set(tmp_path / "set", 3, 16)
    selection = select(tmp_path / "set", Filters(licences=(UNKNOWN,)))
    assert [part.tolist() for part in selection.kept] == [[1]]
    assert selection.licenses == {"CC0-1.0": 2, UNKNOWN: 1}
