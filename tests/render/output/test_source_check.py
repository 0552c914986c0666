"""A file that is replaced after it was rendered is noticed when the run resumes."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.format.manifest import Asset
from render.output import source_check
from render.output.source_check import check_files_unchanged
from render.sources.model_file import file_sha256, object_sha256
from tests.support.staged_output import FAILED, REQUEST, UIDS, new_output, result

LIBRARY = "mtllib m.mtl\n"


@pytest.fixture
def root(tmp_path):
    """Write a source folder of five files; c is an OBJ with a material file."""
    folder = tmp_path / "source"
    for uid in UIDS:
        (folder / uid).mkdir(parents=True)
        (folder / uid / "m.obj").write_text(LIBRARY if uid == "c" else f"o {uid}")
    (folder / "c/m.mtl").write_text("Kd 1 0 0")
    return folder


def claim(output):
    output.claim(REQUEST, lambda: (Asset(uid, "test", file=f"{uid}/m.obj") for uid in UIDS))


def rendered(root, url, digest=object_sha256):
    """Write a set with one finished shard, one partly staged shard and one that is not started."""
    output = new_output(url)
    with output.locked():
        claim(output)
        results = {}
        for uid in "abc":
            made = result(output, uid)
            path = (root / uid / "m.obj").resolve()
            results[uid] = replace(made, outcome=replace(made.outcome, asset_sha256=digest(path, root)))
        output.finish_shard(0, [results["a"], results["b"]])
        output.stage([results["c"]])
    return output


def replaced(path: Path, same_size=True):
    """Replace a file by one of the same size and modification time, as `cp -p` of another version would."""
    data, status = path.read_bytes(), path.stat()
    time.sleep(0.02)
    new = path.with_suffix(".new")
    new.write_bytes(data[::-1] if same_size else data + b"x")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(new, path)


def test_nothing_is_hashed_while_nothing_changed(root, tmp_path, monkeypatch):
    output = rendered(root, tmp_path / "set")
    monkeypatch.setattr(source_check, "object_sha256", None)
    check_files_unchanged(output, root)


@pytest.mark.parametrize(("changed", "uid"), [("a/m.obj", "a"), ("c/m.obj", "c"), ("c/m.mtl", "c")])
def test_a_replaced_file_of_the_same_size_is_named(root, tmp_path, changed, uid):
    output = rendered(root, tmp_path / "set")
    replaced(root / changed)
    with pytest.raises(UserError, match=rf"{uid}/m\.obj was replaced after object \d \({uid}\) was rendered"):
        check_files_unchanged(output, root)


@pytest.mark.parametrize("uid", [*sorted(FAILED), "d"])
def test_files_of_failed_and_of_waiting_objects_may_be_repaired(root, tmp_path, uid):
    output = rendered(root, tmp_path / "set")
    replaced(root / uid / "m.obj")
    check_files_unchanged(output, root)


def test_touched_and_copied_files_with_the_same_contents_resume(root, tmp_path):
    output = rendered(root, tmp_path / "set")
    for path in root.rglob("*.*"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    check_files_unchanged(output, root)


def test_sets_of_earlier_versions_resume(root, tmp_path):
    output = rendered(root, tmp_path / "set", digest=lambda path, _: file_sha256(path))
    (root / "c/m.obj").touch()
    check_files_unchanged(output, root)
    replaced(root / "a/m.obj")
    with pytest.raises(UserError, match="replaced"):
        check_files_unchanged(output, root)


def test_a_set_in_memory_is_checked_too(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = rendered(root, "memory://source-check-test")
    check_files_unchanged(output, root)
    replaced(root / "a/m.obj")
    with pytest.raises(UserError, match="replaced"):
        check_files_unchanged(output, root)
    output.fs.rm(output.root, recursive=True)
