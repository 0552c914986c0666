"""Shares of GPUs that the workers of a rendering reserve."""

import pytest

from render.driver import gpu_share


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("workers", "gpus", "share"),
    [(1, 1, 1), (2, 2, 1), (1, 8, 1), (8, 1, 1 / 8), (3, 2, 1 / 2), (9, 8, 1 / 2), (4, 0, 1)],
)
def test_workers_share_the_gpus_of_this_machine(workers: int, gpus: int, share: float) -> None:
    assert gpu_share("gpu", workers, gpus) == pytest.approx(share)


def test_workers_of_a_cluster_do_not_share_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert gpu_share("gpu", 64, 8) == 1


def test_workers_on_cpus_reserve_no_gpu() -> None:
    assert gpu_share("cpu", 4, 1) == 0
