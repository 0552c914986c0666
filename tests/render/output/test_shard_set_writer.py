"""A shard set under construction, with made-up samples: no Blender, no Ray."""

import errno
import itertools
import tarfile

import pytest

from dataset.errors import UserError
from dataset.format.shards import read_stats
from tests.support.staged_output import (
    FAILED,
    HASHES,
    REQUEST,
    UIDS,
    claim,
    complete,
    contents,
    new_output,
    result,
    stage,
)


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
    rows = list(output.outcomes())
    assert [row.uid for row in rows] == UIDS
    assert {row.uid for row in rows if row.status == "failed"} == FAILED


def test_staged_results_survive_and_half_staged_ones_do_not_count(tmp_path):
    output = new_output(tmp_path)
    with output.locked():
        claim(output)
        stage(output, "b")
        stage(output, "c")
        (next((output.folder / "shard-000001").iterdir()).rename(output.folder / "shard-000001" / "x.tmp"))
    again = new_output(tmp_path)
    assert again.missing(0) == [0]
    assert again.missing(1) == [2, 3]
    assert list((output.folder / "shard-000001").iterdir()) == []
    assert [r.outcome.status for r in again.staging.read("shard-000000")] == ["failed"]


@pytest.mark.parametrize("members", [0, 1])  # whole members before the cut; the first one holds the rows
def test_a_damaged_part_is_named(tmp_path, members):
    output = new_output(tmp_path)
    with output.locked():
        claim(output)
        stage(output, "a")
        part = next((output.folder / "shard-000000").iterdir())
        with tarfile.open(part) as tar:
            ends = [member.offset_data + (member.size + 511) // 512 * 512 for member in tar]
        part.write_bytes(part.read_bytes()[: ends[0] if members else 700])
        with pytest.raises(UserError, match=r"00000000-00000000\.part is damaged"):
            output.missing(0)


def test_a_batch_is_one_part_and_a_whole_shard_needs_none(tmp_path):
    complete(new_output(tmp_path / "single"), UIDS)
    output = new_output(tmp_path / "batch")
    with output.locked():
        claim(output)
        stage(output, "a", "b")
        assert len(list((output.folder / "shard-000000").iterdir())) == 1
        output.finish_shard(0)
        output.finish_shard(1, [result(output, "d"), result(output, "c")])
        stage(output, "e")
        output.finish_shard(2)
        output.finish()
    assert contents(tmp_path / "batch") == contents(tmp_path / "single")


def test_killed_after_the_shard_before_its_table_rewrites_the_same(tmp_path):
    complete(new_output(tmp_path / "whole"), UIDS)
    output = new_output(tmp_path / "killed")
    with output.locked():
        claim(output)
        stage(output, "a")
        stage(output, "b")
        staged = contents(output.folder / "shard-000000")
        output.finish_shard(0)
        (tmp_path / "killed/outcomes/shard-000000.parquet").unlink()
        (output.folder / "shard-000000").mkdir()
        for name, data in staged.items():
            (output.folder / "shard-000000" / name).write_bytes(data)
    again = new_output(tmp_path / "killed")
    assert again.finished_shards() == set()
    with again.locked():
        claim(again)
        again.finish_shard(0)
    complete(again, UIDS[2:])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_full_disk_while_a_shard_is_written_costs_nothing(tmp_path, monkeypatch):
    complete(new_output(tmp_path / "whole"), UIDS)
    output = new_output(tmp_path / "full")
    with output.locked():
        claim(output)
        stage(output, "a")
        stage(output, "b")
        with monkeypatch.context() as patch:
            patch.setattr("dataset.io.files.open", FullDisk, raising=False)
            with pytest.raises(UserError, match=r"cannot write .*shard-000000\.tar: No space left"):
                output.finish_shard(0)
        assert not list((tmp_path / "full").glob("shard*"))
    again = new_output(tmp_path / "full")
    with again.locked():
        claim(again)
        assert again.missing(0) == []
        again.finish_shard(0)
    complete(again, UIDS[2:])
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


class FullDisk:
    """A file on a disk that holds three writes."""

    def __init__(self, path, mode):
        self.file, self.writes = open(path, mode), 0  # noqa: SIM115

    def write(self, data):
        self.writes += 1
        if self.writes > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def close(self):
        self.file.close()


@pytest.mark.parametrize("skip", [True, False])
def test_of_duplicates_the_first_of_the_manifest_stays(tmp_path, skip):
    """c's file equals a's, and d's equals b's, which failed: all the same, whoever came first."""
    hashes = {**HASHES, "c": HASHES["a"], "d": HASHES["b"]}
    for i, order in enumerate((UIDS, UIDS[::-1])):
        output = new_output(tmp_path / str(i))
        complete(output, order, skip_duplicates=skip, hashes=hashes)
        rows = {row.uid: row for row in output.outcomes()}
        assert [uid for uid in UIDS if "duplicate" in rows[uid].flags] == ["c", "d"]
        assert (rows["c"].status, rows["d"].status) == (("skipped", "skipped") if skip else ("ok", "ok"))
        samples = [
            s.uid for name in ("shard-000000", "shard-000001") for s in read_stats(output.fs, output.root, name).samples
        ]
        assert samples == (["a"] if skip else ["a", "c", "d"])
        before = contents(tmp_path / str(i))
        complete(output, [], skip_duplicates=skip, hashes=hashes)
        assert contents(tmp_path / str(i)) == before
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_retrying_failures_ends_as_if_they_had_never_failed(tmp_path):
    complete(new_output(tmp_path / "never"), UIDS, failed=set())
    output = new_output(tmp_path / "set")
    complete(output, UIDS)
    with output.locked():
        claim(output)
        assert output.reopen_failed() == 2
        assert output.finished_shards() == {1}
        assert not (tmp_path / "set/index.json").exists()
        assert output.missing(0) == [1]
    complete(output, ["b", "e"], failed=set())
    assert contents(tmp_path / "set") == contents(tmp_path / "never")


def test_retrying_failures_of_an_unfinished_shard(tmp_path):
    complete(new_output(tmp_path / "never"), UIDS, failed=set())
    output = new_output(tmp_path / "set")
    with output.locked():
        claim(output)
        stage(output, "e")
        output.staging.add("shard-000000", [result(output, "a"), result(output, "b")])
        assert output.reopen_failed() == 2
        assert output.missing(0) == [1]
        assert output.missing(2) == [4]
    complete(output, ["b", "c", "d", "e"], failed=set())
    assert contents(tmp_path / "set") == contents(tmp_path / "never")


def test_other_settings_are_refused_by_name(tmp_path):
    with new_output(tmp_path).locked():
        claim(new_output(tmp_path))
        claim(new_output(tmp_path), {**REQUEST, "source": "folder:../x"})
        with pytest.raises(UserError, match="seed was 0, is now 1"):
            claim(new_output(tmp_path), {**REQUEST, "seed": 1})
        with pytest.raises(UserError, match=r"the first is object 3: it was d, is now e"):
            claim(new_output(tmp_path), {**REQUEST, "fingerprint": "2"}, ["a", "b", "c", "e"])
        with pytest.raises(UserError, match=r"the first is object 4: it was e, is now absent"):
            claim(new_output(tmp_path), {**REQUEST, "fingerprint": "2"}, UIDS[:4])
        with pytest.raises(UserError, match="objects_per_shard was 2, is now 3"):
            claim(new_output(tmp_path, per_shard=3))
        (tmp_path / "set.json").write_text("{")
        with pytest.raises(UserError, match="damaged"):
            claim(new_output(tmp_path))


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
