"""Exports resume, refuse other folders, and leave nothing half-written."""

import json
import sys
from typing import get_args, get_type_hints

import pytest

from dataset.__main__ import ExportCommand, main
from dataset.errors import UserError
from dataset.export import export_set as module
from dataset.export.export_set import LAYOUTS, export_set
from dataset.format.shards import write_index, write_shard
from dataset.io.files import url_to_fs
from dataset.reading.filters import Filters
from tests.support.make_shards import make_sample, make_shard_set

NERF = LAYOUTS["nerf"]


def test_a_repeated_export_writes_only_what_is_missing(shards, tmp_path):
    out = tmp_path / "out"
    assert export_set(str(shards), out, NERF) == (6, 6)
    kept = out / "synthetic-0000" / "transforms.json"
    before = kept.stat().st_mtime_ns
    (out / "synthetic-0003" / "transforms.json").unlink()
    (out / "synthetic-0003").rename(tmp_path / "away")
    assert export_set(str(shards), out, NERF) == (6, 1)
    assert kept.stat().st_mtime_ns == before
    assert (out / "synthetic-0003" / "transforms.json").is_file()


def test_an_interrupted_export_leaves_no_half_written_object(shards, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, calls = module._write_folder, []

    def failing(folder, files):
        calls.append(folder)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(folder, files)

    monkeypatch.setattr(module, "_write_folder", failing)
    with pytest.raises(KeyboardInterrupt):
        export_set(str(shards), out, LAYOUTS["zero123"], workers=1)
    assert not (out / "valid_paths.json").exists()
    (out / ".synthetic-0004.0123abcd.tmp").mkdir()  # as a killed process leaves it
    monkeypatch.undo()
    result = export_set(str(shards), out, LAYOUTS["zero123"])
    assert result.objects == 6
    assert result.written < 6
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["export.json", "valid_paths.json", *(f"synthetic-{i:04d}" for i in range(6))]
    )
    assert len(json.loads((out / "valid_paths.json").read_text())) == 6


def test_both_folders_of_an_object_count(shards, tmp_path):
    out = tmp_path / "out"
    export_set(str(shards), out, LAYOUTS["syncdreamer"])
    (out / "input" / "synthetic-0002").rename(tmp_path / "away")
    assert export_set(str(shards), out, LAYOUTS["syncdreamer"]) == (6, 1)
    assert (out / "input" / "synthetic-0002" / "meta.pkl").is_file()


def test_another_export_or_other_files_are_refused(shards, tmp_path):
    out = tmp_path / "out"
    export_set(str(shards), out, NERF)
    with pytest.raises(UserError, match="layout was 'nerf', is now 'colmap'"):
        export_set(str(shards), out, LAYOUTS["colmap"])
    with pytest.raises(UserError, match="set was"):
        export_set(str(shards), out, NERF, filters=Filters(licences=("CC0-1.0",)))
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(it contains notes.txt\)"):
        export_set(str(shards), other, NERF)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_filters_select_objects(shards, tmp_path):
    result = export_set(str(shards), tmp_path / "out", NERF, filters=Filters(licences=("CC0-1.0",)))
    assert 0 < result.objects < 6
    with pytest.raises(UserError, match="--workers is 0"):
        export_set(str(shards), tmp_path / "none", NERF, workers=0)


def test_a_full_disk_is_one_clear_error(shards, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; check the free disk space"):
        export_set(str(shards), tmp_path / "out", NERF, workers=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["export.json"]


def test_command_line(shards, tmp_path, monkeypatch, capsys):
    arguments = ["dataset", "export", str(shards), str(tmp_path / "out"), "--layout", "syncdreamer"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    printed = capsys.readouterr().out
    assert "6 objects in the layout syncdreamer, 6 of them new" in printed
    assert "note: this layout contains pickles" in printed


def test_the_command_offers_exactly_the_layouts():
    (choices,) = [get_args(hint) for name, hint in get_type_hints(ExportCommand).items() if name == "layout"]
    assert set(choices) == set(LAYOUTS)


def test_orthographic_views_are_refused(tmp_path):
    folder = make_shard_set(tmp_path / "set", 1, 8)
    fs, root = url_to_fs(folder)
    members = make_sample("synthetic-0000", 0, 8, passes=("mask",))
    about = members["synthetic-0000.meta.json"].replace(b'"perspective"', b'"orthographic"')
    write_shard(fs, root, "shard-000000", [("synthetic-0000", {**members, "synthetic-0000.meta.json": about})])
    write_index(fs, root, num_shards=1, objects_per_shard=4)
    with pytest.raises(UserError, match=r"has orthographic cameras .* which the layout nerf cannot describe"):
        export_set(str(folder), tmp_path / "out", LAYOUTS["nerf"])
