"""`exists` says no only where nothing is; `write_file_atomic` replaces a local file in one step."""

import os

import fsspec
import pytest

from dataset.errors import UserError
from dataset.io.files import atomic_file, exists, json_bytes, url_to_fs, write_file_atomic


def test_files_and_folders_are_there_and_others_not(tmp_path):
    fs, root = url_to_fs(tmp_path)
    (tmp_path / "file").touch()
    assert exists(fs, root)
    assert exists(fs, f"{root}/file")
    assert not exists(fs, f"{root}/other")
    assert not exists(fs, f"{root}/file/below")
    assert not exists(fs, f"{root}/nul\0")


@pytest.mark.parametrize(
    ("raised", "seen"), [(PermissionError(13, "Permission denied"), UserError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_what_keeps_it_from_looking_is_no_answer(tmp_path, monkeypatch, raised, seen):
    fs, root = url_to_fs(tmp_path)

    def refuse(path, **_):
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert not fs.exists(root)  # so that the line below means something
        with pytest.raises(seen):
            exists(fs, root)


def test_other_file_systems_answer_themselves():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/set/file", b"")
    assert exists(fs, "/set/file")
    assert not exists(fs, "/set/other")


def test_a_local_file_is_replaced_and_its_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for data in (b"one", b"two"):
        write_file_atomic(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot write"):
        write_file_atomic(path / "inside", b"three")


def test_a_file_keeps_its_bytes_until_the_new_ones_are_complete(tmp_path):
    fs, root = url_to_fs(tmp_path)
    write_file_atomic(tmp_path / "file", b"old")

    def stop_halfway():
        with atomic_file(fs, f"{root}/file") as writer:
            writer.write(b"ne")
            writer.file.flush()
            assert (tmp_path / "file").read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_bytes_are_on_the_disk_before_the_rename_and_the_rename_before_the_end(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def record_fsync(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def record_replace(source, target):
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_file_atomic(tmp_path / "file", b"data")
    assert done == [(tmp_path / "file").stat().st_ino, "replace", tmp_path.stat().st_ino]


def test_json_contains_no_nan():
    assert json_bytes({"b": 1, "a": [0.5]}) == b'{"a":[0.5],"b":1}\n'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            json_bytes({"loss": value})
