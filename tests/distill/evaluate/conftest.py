"""Fixtures of the tests of `distill.evaluate`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.evaluate import metrics
from tests.support.make_shards import make_shard_set


@pytest.fixture(scope="module")
def coarse_metrics() -> Iterator[None]:
    """Metrics with fewer points, cells and samples of the occupancy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "POINTS", 3000)
        patch.setattr(metrics, "_CELLS_PER_VOXEL", 1)
        patch.setattr("distill.evaluate.score._OCCUPANCY_SAMPLES", 4)
        yield


@pytest.fixture(scope="module")
def box_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six made-up objects of 24 pixels."""
    return make_shard_set(tmp_path_factory.mktemp("data") / "set", 6, 24)
