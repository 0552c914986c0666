"""The number of GPUs of this machine that a process may use."""

from pathlib import Path

import pytest

from render.workers import resources


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [(None, 2), ("1", 1), ("0,1", 2), ("GPU-1, GPU-2", 2), ("", 0), ("-1", 0), ("0,1,2,3", 2)],
)
def test_hidden_gpus_do_not_count(
    visible: str | None, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(resources, "_NVIDIA_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources.machine_size().gpus == gpus
