"""Shares of GPUs that the workers of a rendering reserve."""

import pytest

from render.driver import gpu_share


@pytest.mark.parametrize(
    ("workers", "gpus", "share"),
    [(1, 1, 1), (2, 2, 1), (1, 8, 1), (8, 1, 1 / 8), (3, 2, 1 / 2), (9, 8, 1 / 2), (4, 0, 1 / 4)],
)
def test_all_workers_fit_on_the_gpus(workers: int, gpus: int, share: float) -> None:
    assert gpu_share(workers, gpus) == pytest.approx(share)
    per_gpu = int(1 / gpu_share(workers, gpus) + 1e-9)
    assert per_gpu * max(1, gpus) >= workers
