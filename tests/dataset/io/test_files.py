"""`exists` says no only where nothing is; `write_file_atomic` replaces a local file in one step."""

import os

import fsspec
import pytest

from dataset.errors import UserError
from dataset.io.files import exists, url_to_fs, write_file_atomic


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
