import errno
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset

from dataset.errors import UserError
from dataset.format.schema import member_names
from dataset.format.shards import read_index, read_stats, remove_temporaries, shard_name, write_index, write_shard
from dataset.io.files import url_to_fs, write_bytes_atomic, write_json_atomic
from tests.support.make_shards import make_shard_set

Sample = tuple[str, dict[str, bytes]]


def fake_samples(*uids: str) -> list[Sample]:
    """Samples with valid names and arbitrary bytes; the writer does not check the contents."""
    return [(uid, {name: f"{name}!".encode() * (i + 1) for i, name in enumerate(member_names(uid))}) for uid in uids]


# webdataset leaves its file to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 3, resolution=16)
    reader = webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False)
    samples = list(reader)
    assert [sample["__key__"] for sample in samples] == ["synthetic-0000", "synthetic-0001", "synthetic-0002"]
    views = [f"{view_set}_{i:02d}.webp" for view_set in ("fixed", "random") for i in range(16)]
    for sample in samples:
        assert [key for key in sample if not key.startswith("__")] == ["meta.json", *views]
        assert json.loads(sample["meta.json"])["uid"] == sample["__key__"]


def test_a_shard_is_plain_ustar_with_nothing_of_the_machine_in_it(tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path)
    write_shard(fs, root, "shard-000000", fake_samples("b", "a"))
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == member_names("b") + member_names("a")
    assert {(m.mtime, m.mode, m.uid, m.gid, m.uname, m.gname, m.type) for m in members} == {
        (0, 0o644, 0, 0, "", "", tarfile.REGTYPE)
    }
    assert (tmp_path / "shard-000000.tar").read_bytes()[257:263] == b"ustar\0"


def test_rewriting_gives_the_same_bytes_in_any_member_order(tmp_path: Path) -> None:
    for folder, backwards in (("one", False), ("two", True)):
        fs, root = url_to_fs(tmp_path / folder)
        samples = [(uid, dict(reversed(m.items())) if backwards else m) for uid, m in fake_samples("a", "b")]
        write_shard(fs, root, "shard-000000", samples)
        write_index(fs, root, num_shards=1, objects_per_shard=2)
    for name in ("shard-000000.tar", "shard-000000.json", "index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_statistics_locate_every_member_and_survive_the_round_trip(tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path)
    long = "u" * 128  # member names beyond USTAR's 100 characters
    samples = fake_samples("a", long)
    stats = write_shard(fs, root, "shard-000003", samples)
    data = (tmp_path / "shard-000003.tar").read_bytes()
    assert (stats.bytes, stats.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) % tarfile.RECORDSIZE == 0
    for entry, (uid, members) in zip(stats.samples, samples, strict=True):
        assert entry.uid == uid
        for suffix, place in entry.members.items():
            expected = members[f"{uid}.{suffix}"]
            assert data[place.offset : place.offset + place.size] == expected
            assert place.crc32 == zlib.crc32(expected)
    assert read_stats(fs, root, "shard-000003") == stats
    with tarfile.open(tmp_path / "shard-000003.tar") as tar:
        assert tar.getnames() == member_names("a") + member_names(long)


def test_a_shard_without_samples_is_a_valid_tar(tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path)
    assert write_shard(fs, root, "shard-000000", []).samples == ()
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert tar.getnames() == []
    assert write_index(fs, root, num_shards=1, objects_per_shard=4).objects == 0


def test_wrong_members_and_repeated_uids_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path)
    (uid, members), *_ = fake_samples("a")
    incomplete = {name: data for name, data in members.items() if "random_07" not in name}
    foreign = {**members, "a.extra.txt": b""}
    cases: list[list[Sample]] = [[(uid, incomplete)], [(uid, foreign)], [(uid, members), (uid, members)]]
    for samples, word in zip(cases, ("random_07", "extra", "two objects"), strict=True):
        with pytest.raises(UserError, match=word):
            write_shard(fs, root, "shard-000000", samples)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_leaves_no_file_and_keeps_its_own_error(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield from fake_samples("a")
        raise OSError("the source broke")

    fs, root = url_to_fs(tmp_path)
    with pytest.raises(OSError, match="the source broke"):
        write_shard(fs, root, "shard-000000", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_path_and_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fs, root = url_to_fs(tmp_path)
    write_bytes_atomic(fs, f"{root}/x", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"x: No space left"):
        write_bytes_atomic(fs, f"{root}/x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_path_that_cannot_be_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fs, root = url_to_fs(tmp_path / "file" / "set")
    with pytest.raises(UserError, match="cannot write"):
        write_json_atomic(fs, f"{root}/set.json", {})


def test_leftovers_of_killed_writers_are_swept(tmp_path: Path) -> None:
    (tmp_path / "outcomes").mkdir()
    for name in ("shard-000000.tar.0a1b2c3d.tmp", "outcomes/shard-000000.parquet.ffffffff.tmp", "index.json"):
        (tmp_path / name).write_text("")
    remove_temporaries(*url_to_fs(tmp_path))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["index.json", "outcomes"]


def test_the_index_counts_what_the_shards_hold(tmp_path: Path) -> None:
    folder = make_shard_set(tmp_path, 5, resolution=8, objects_per_shard=2)
    index = read_index(folder)
    assert [shard.samples for shard in index.shards] == [2, 2, 1]
    assert (index.objects, index.views, index.objects_per_shard) == (5, 160, 2)
    assert index.bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    raw = json.loads((folder / "index.json").read_text())
    assert raw["totals"] == {"objects": 5, "views": 160, "bytes": index.bytes}


def test_a_missing_set_an_unfinished_set_and_a_broken_index_read_differently(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no shard set at .*make render"):
        read_index(tmp_path / "nothing")
    fs, root = url_to_fs(tmp_path)
    write_json_atomic(fs, f"{root}/set.json", {})
    with pytest.raises(UserError, match="unfinished"):
        read_index(tmp_path)
    for text, word in (("{", "JSON"), ("{}", "not a valid index"), ('{"schema_version": 99}', "version 99")):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(UserError, match=word):
            read_index(tmp_path)


def test_an_index_needs_every_shard(tmp_path: Path) -> None:
    fs, root = url_to_fs(tmp_path)
    write_shard(fs, root, shard_name(0), fake_samples("a"))
    with pytest.raises(UserError, match="shard-000001"):
        write_index(fs, root, num_shards=2, objects_per_shard=1)
    assert not (tmp_path / "index.json").exists()


def test_unknown_protocols_are_explained() -> None:
    with pytest.raises(UserError, match="nosuch://x"):
        url_to_fs("nosuch://x")


def test_writing_to_a_remote_file_system_goes_through_a_temporary_key() -> None:
    fs, root = url_to_fs("memory://remote-write/set")
    moves: list[tuple[str, str]] = []
    original = fs.mv

    def watched(source: str, target: str) -> Any:
        moves.append((source, target))
        return original(source, target)

    fs.mv = watched
    try:
        write_shard(fs, root, "shard-000000", fake_samples("a"))
    finally:
        del fs.mv
    assert [target for _, target in moves] == [f"{root}/shard-000000.tar", f"{root}/shard-000000.json"]
    assert all(source.endswith(".tmp") for source, _ in moves)
    assert sorted(fs.find(root)) == [f"{root}/shard-000000.json", f"{root}/shard-000000.tar"]
