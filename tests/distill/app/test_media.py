"""Copies of the files of runs that the page shows."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from distill.app.library import read_state
from distill.app.media import result_files, thumbnails
from tests.support.toy_run import finished, under_way


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("media")
    under_way(out / "part", finished(out / "done"))
    for name in ("mesh.obj", "mesh.mtl", "mesh.png"):
        (out / "done" / name).write_text(name)
    return out


def test_results_are_copied(out: Path, tmp_path: Path) -> None:
    files = result_files(read_state("done", out / "done", None), tmp_path)
    assert files is not None
    assert Path(files.model).read_bytes() == (out / "done" / "mesh.glb").read_bytes()
    assert Path(files.model).is_relative_to(tmp_path)
    assert files.obj is not None
    with zipfile.ZipFile(files.obj) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            name: name for name in ("mesh.obj", "mesh.mtl", "mesh.png")
        }
    assert files.ply is None
    assert files.usdz is None
    (out / "done" / "mesh.usdz").write_text("usdz")
    files = result_files(read_state("done", out / "done", None), tmp_path)
    assert files is not None
    assert files.usdz is not None
    assert Path(files.usdz).read_text() == "usdz"


def test_an_unfinished_run_has_no_results(out: Path, tmp_path: Path) -> None:
    assert result_files(read_state("part", out / "part", None), tmp_path) is None


def test_links_are_not_followed(out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.ply").write_text("secret")
    link = out / "done" / "mesh.ply"
    link.symlink_to(tmp_path / "secret.ply")
    files = result_files(read_state("done", out / "done", None), tmp_path / "cache")
    link.unlink()
    assert files is not None
    assert files.ply is None


def test_every_run_has_a_thumbnail(out: Path, tmp_path: Path) -> None:
    states = [read_state(name, out / name, None) for name in ("done", "part", "new")]
    shown = thumbnails(states, tmp_path)
    assert [caption for _, caption in shown] == ["done: finished", "part: stopped", "new: stopped"]
    for path, _ in shown:
        with Image.open(path) as image:
            assert image.size in ((16, 16), (64, 64))
