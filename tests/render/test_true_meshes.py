"""True meshes for the evaluation: procedural ones built again, files copied if they are still the same."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import trimesh

from dataset.errors import UserError
from dataset.format.manifest import Asset, write_manifest
from dataset.reading.shard_set import ShardSet
from render.true_meshes import TrueMeshes, run
from tests.support.make_shards import make_shard_set


def as_if_of(folder: Path, *assets: Asset) -> None:
    """Give a set a manifest of these objects' rows."""
    buffer = io.BytesIO()
    write_manifest(buffer, assets)
    (folder / "manifest.parquet").write_bytes(buffer.getvalue())


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shard_set(tmp_path / "set", 3, 8)


def test_procedural_objects_are_built_again(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")
    rows = [Asset(f"synthetic-{i:04d}", "procedural", procedural_index=i) for i in range(3)]
    as_if_of(shards, *rows)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "synthetic-0002.glb").write_bytes(b"left alone")
    run(TrueMeshes(str(shards), tmp_path / "out", split="all"))
    for uid in ("synthetic-0000", "synthetic-0001"):
        assert len(trimesh.load_scene(tmp_path / "out" / f"{uid}.glb").to_mesh().faces) > 100
    assert (tmp_path / "out" / "synthetic-0002.glb").read_bytes() == b"left alone"


def test_files_are_copied_if_they_are_what_was_rendered(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, source = ShardSet(shards), tmp_path / "source"
    source.mkdir()
    (source / "a.glb").write_bytes(f"{0}/synthetic-0000".encode())  # what the made-up set says of it
    assert whole.meta(0, 0).asset_sha256
    (source / "b.glb").write_bytes(b"another")
    as_if_of(
        shards,
        Asset("synthetic-0000", "folder", file="a.glb"),
        Asset("synthetic-0001", "folder", file="b.glb"),
        Asset("synthetic-0002", "folder", file="c.fbx"),
    )
    args = TrueMeshes(str(shards), tmp_path / "out", split="all", folder=source)
    run(args)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["synthetic-0000.glb"]
    printed = capsys.readouterr().out
    assert "1 of 3 meshes" in printed
    assert "1 left out: no longer the file that was rendered" in printed
    assert "1 left out: not a GLB file" in printed
    run(replace(args, folder=None, out=tmp_path / "none"))
    assert "2 left out: from a folder, but --folder is not set" in capsys.readouterr().out
    as_if_of(shards, *(Asset(f"synthetic-{i:04d}", "objaverse", objaverse_path="x") for i in range(3)))
    run(replace(args, out=tmp_path / "none"))
    assert "3 left out: neither procedural nor from a folder" in capsys.readouterr().out


def test_a_split_without_objects_is_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 3 objects is in the test split"):
        run(TrueMeshes(str(shards), tmp_path / "out"))
    assert json.loads((shards / "set.json").read_text())["objects"] == 3
