"""The environment of Blender processes: fixed hashes, and folders for the kernels of a GPU."""

from pathlib import Path

import pytest

from dataset.compile_cache import CUDA, CUDA_SIZE, OPTIX
from render.workers.blender_process import environment


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (CUDA, CUDA_SIZE, OPTIX):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "isotropic3d" / "compiled"


def test_a_cpu_needs_no_folders(cache: Path) -> None:
    assert environment(3, "cpu") == {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "3"}
    assert not cache.exists()


@pytest.mark.parametrize("device", ["gpu", "auto"])
def test_kernels_of_a_gpu_have_folders_that_exist(cache: Path, device: str) -> None:
    values = environment(1, device)  # type: ignore[arg-type]
    assert (values[CUDA], values[OPTIX]) == (str(cache / "cuda"), str(cache / "optix"))
    assert (cache / "cuda").is_dir()
    assert (cache / "optix").is_dir()


def test_a_folder_that_cannot_be_made_is_left_to_the_driver(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache.parent).mkdir()
    (cache.parent / "file").write_text("")
    monkeypatch.setenv(CUDA, str(cache.parent / "file" / "cuda"))
    assert environment(1, "gpu")[CUDA].endswith("file/cuda")
