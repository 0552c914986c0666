"""Compiled code is kept in the user's cache folder, unless the environment names other folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.compile_cache import CUDA, CUDA_SIZE, INDUCTOR, OPTIX, TRITON, gpu_kernel_folders, keep_compiled_code
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.delenv(INDUCTOR, raising=False)
    for name in (TRITON, CUDA, CUDA_SIZE, OPTIX):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


def test_folders_are_in_the_users_cache_and_not_made(tmp_path: Path):
    keep_compiled_code()
    folder = tmp_path / "cache" / "isotropic3d" / "compiled"
    assert (os.environ[INDUCTOR], os.environ[TRITON]) == (str(folder / "inductor"), str(folder / "triton"))
    assert not folder.exists()


def test_folders_of_the_environment_stay(environment: pytest.MonkeyPatch):
    environment.setenv(INDUCTOR, "/elsewhere")
    keep_compiled_code()
    assert os.environ[INDUCTOR] == "/elsewhere"
    assert os.environ[TRITON].endswith("triton")


def test_without_xdg_the_cache_is_in_the_home_folder(environment: pytest.MonkeyPatch, tmp_path: Path):
    environment.delenv("XDG_CACHE_HOME")
    environment.setenv("HOME", str(tmp_path))
    keep_compiled_code()
    assert os.environ[INDUCTOR] == str(tmp_path / ".cache" / "isotropic3d" / "compiled" / "inductor")


def test_nothing_is_set_if_the_cache_cannot_be_written(environment: pytest.MonkeyPatch):
    environment.setattr(os, "access", lambda *_: False)
    keep_compiled_code()
    assert INDUCTOR not in os.environ
    assert TRITON not in os.environ


def test_kernels_of_a_gpu_are_kept_beside_unless_the_environment_says_where(
    environment: pytest.MonkeyPatch, tmp_path: Path
):
    folder = tmp_path / "cache" / "isotropic3d" / "compiled"
    environment.setenv(OPTIX, "/elsewhere")
    assert gpu_kernel_folders() == {CUDA: str(folder / "cuda"), CUDA_SIZE: str(4 * 2**30), OPTIX: "/elsewhere"}
    environment.setattr(os, "access", lambda *_: False)
    assert gpu_kernel_folders() == {}


@pytest.mark.parametrize("package", ["distill", "train"])
def test_packages_set_the_folders_before_torch_is_imported(package: str, tmp_path: Path):
    code = f"import sys, os, {package}; print('torch' in sys.modules, os.environ['{INDUCTOR}'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", str(tmp_path / "cache" / "isotropic3d" / "compiled" / "inductor")]
