"""A shard set under construction, with made-up samples: no Blender, no Ray."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.outcome import Outcome
from dataset.schema import member_names
from dataset.shards import shard_name
from render.job import pack
from render.output import Output

UIDS = ["a", "b", "c", "d", "e"]
REQUEST = {"seed": 0, "settings": {"resolution": 32}, "source": "folder:x"}
FAILED = {"b", "e"}


def new_output(folder, uids=UIDS, per_shard=2):
    return Output(str(folder), uids, per_shard)


def stage(output, uid, failed=FAILED):
    position = UIDS.index(uid)
    row = Outcome(uid, position, shard_name(output.shard_of(position)), "ok", seconds=1.5)
    if uid in failed:
        output.stage(replace(row, status="failed", stage="import", error_class="X", message="no"), b"")
    else:
        output.stage(row, pack({name: f"{name} {uid}".encode() for name in member_names(uid)}))


def complete(output, order, failed=FAILED):
    """Stage in this order, finishing each shard when its last object is in, as the driver does."""
    with output.locked():
        output.claim(REQUEST)
        for uid in order:
            stage(output, uid, failed)
            shard = output.shard_of(UIDS.index(uid))
            if all(output.staged(p) for p in output.positions(shard)):
                output.finish_shard(shard)
        output.finish()


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_the_order_of_results_changes_no_byte(tmp_path):
    complete(new_output(tmp_path / "0"), UIDS)
    reference = contents(tmp_path / "0")
    assert {"shard-000002.tar", "index.json", "set.json", "outcomes/shard-000002.parquet"} <= set(reference)
    assert not any(name.startswith(".staging") for name in reference)
    for i, order in enumerate(list(itertools.permutations(UIDS))[7::31], start=1):
        complete(new_output(tmp_path / str(i)), order)
        assert contents(tmp_path / str(i)) == reference


def test_outcomes_hold_every_object_failed_ones_too(tmp_path):
    output = new_output(tmp_path)
    complete(output, UIDS)
    rows = output.outcomes()
    assert [row.uid for row in rows] == UIDS
    assert {row.uid for row in rows if row.status == "failed"} == FAILED


def test_staged_results_survive_and_half_staged_ones_do_not_count(tmp_path):
    output = new_output(tmp_path)
    with output.locked():
        output.claim(REQUEST)
        stage(output, "a")
        stage(output, "b")
        stage(output, "c")
        (output.staging / "c.tar").unlink()
    again = new_output(tmp_path)
    assert again.staged(0).uid == "a"
    assert again.staged(1).status == "failed"
    assert again.staged(2) is None
    assert again.staged(3) is None


def test_killed_after_the_shard_before_its_table_rewrites_the_same(tmp_path):
    complete(new_output(tmp_path / "whole"), UIDS)
    output = new_output(tmp_path / "killed")
    with output.locked():
        output.claim(REQUEST)
        stage(output, "a")
        stage(output, "b")
        staged = contents(output.staging)
        output.finish_shard(0)
        (tmp_path / "killed/outcomes/shard-000000.parquet").unlink()
        for name, data in staged.items():
            (output.staging / name).write_bytes(data)
    again = new_output(tmp_path / "killed")
    assert again.finished_shards() == set()
    with again.locked():
        again.claim(REQUEST)
        again.finish_shard(0)
    complete(again, UIDS[2:])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_retrying_failures_ends_as_if_they_had_never_failed(tmp_path):
    complete(new_output(tmp_path / "never"), UIDS, failed=set())
    output = new_output(tmp_path / "set")
    complete(output, UIDS)
    with output.locked():
        output.claim(REQUEST)
        assert output.reopen_failed() == 2
        assert output.finished_shards() == {1}
        assert not (tmp_path / "set/index.json").exists()
    complete(output, ["b", "e"], failed=set())
    assert contents(tmp_path / "set") == contents(tmp_path / "never")


def test_other_settings_are_refused_by_name(tmp_path):
    with new_output(tmp_path).locked():
        new_output(tmp_path).claim(REQUEST)
        new_output(tmp_path).claim({**REQUEST, "source": "folder:../x"})
        with pytest.raises(UserError, match="seed was 0, is 1"):
            new_output(tmp_path).claim({**REQUEST, "seed": 1})
        with pytest.raises(UserError, match=r"held 5 objects, now 4, the first difference is object 3"):
            new_output(tmp_path, ["a", "b", "c", "e"]).claim(REQUEST)
        with pytest.raises(UserError, match="objects_per_shard was 2, is 3"):
            new_output(tmp_path, per_shard=3).claim(REQUEST)
        (tmp_path / "set.json").write_text("{")
        with pytest.raises(UserError, match="damaged"):
            new_output(tmp_path).claim(REQUEST)


def test_two_writers_are_refused(tmp_path):
    first, second = new_output(tmp_path).locked(), new_output(tmp_path).locked()
    with first, pytest.raises(UserError, match="another rendering"), second:
        pass
    with new_output(tmp_path).locked():
        pass


def test_a_set_in_memory_is_the_same_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = new_output("memory://render-output-test")
    complete(output, UIDS)
    complete(new_output(tmp_path / "local"), UIDS)
    for name, data in contents(tmp_path / "local").items():
        assert output.fs.cat_file(f"{output.root}/{name}") == data
    output.fs.rm(output.root, recursive=True)


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"), new_output(tmp_path / "file" / "set").locked():
        pass
