"""Fixtures of the tests of `train`."""

from pathlib import Path

import pytest

from tests.support.train_micro import micro_model
from train.model.multiview import save_model


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A saved model of random weights, which a test may change."""
    save_model(micro_model(), tmp_path / "model")
    return tmp_path / "model"
