"""Compiling Blender's kernels in advance, with a stand-in for NVIDIA's compiler."""

from pathlib import Path

import pytest

from dataset.errors import UserError
from render.gpu_kernels import build, kernel_folder, main, ptxas_for

zstandard = pytest.importorskip("zstandard", reason="installed with bpy, on Python 3.11 only")

COMPILER = """#!/bin/sh
case "$*" in *sm_99*) echo "unsupported" >&2; exit 1;; esac
while [ "$1" != -o ]; do shift; done
{ echo "compiled"; cat "$3"; } > "$2"
"""


@pytest.fixture
def ptxas(tmp_path: Path) -> Path:
    path = tmp_path / "ptxas"
    path.write_text(COMPILER)
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "kernel_compute_75.ptx.zst").write_bytes(zstandard.ZstdCompressor().compress(b".target sm_75\n"))
    return folder


def test_the_kernels_are_written_beside_the_ptx(folder: Path, ptxas: Path) -> None:
    path = build("sm_90", folder, ptxas)
    assert path == folder / "kernel_sm_90.cubin.zst"
    with path.open("rb") as file:
        assert zstandard.ZstdDecompressor().stream_reader(file).read() == b"compiled\n.target sm_75\n"
    assert sorted(each.name for each in folder.iterdir()) == ["kernel_compute_75.ptx.zst", path.name]


def test_existing_kernels_are_kept(folder: Path, ptxas: Path) -> None:
    (folder / "kernel_sm_90.cubin.zst").write_bytes(b"before")
    assert build("sm_90", folder, ptxas).read_bytes() == b"before"


def test_an_error_of_the_compiler_is_shown(folder: Path, ptxas: Path) -> None:
    with pytest.raises(UserError, match="sm_99: unsupported"):
        build("sm_99", folder, ptxas)
    assert len(list(folder.iterdir())) == 1


def test_without_ptx_the_file_is_named(tmp_path: Path, ptxas: Path) -> None:
    with pytest.raises(UserError, match=r"kernel_compute_75\.ptx\.zst is missing"):
        build("sm_90", tmp_path, ptxas)


@pytest.mark.parametrize("name", ["sm_70", "90", "sm_9", "../sm_90", ""])
def test_other_architectures_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="sm_75 or later"):
        main([name])


def test_blender_and_the_compilers_are_found() -> None:
    pytest.importorskip("bpy")
    assert (kernel_folder() / "kernel_compute_75.ptx.zst").is_file()
    pytest.importorskip("triton")
    assert ptxas_for("sm_90").name == "ptxas"
    assert ptxas_for("sm_100").name == "ptxas-blackwell"
    assert ptxas_for("sm_90").is_file()
