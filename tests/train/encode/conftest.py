"""A small set of images and a micro model to encode them with."""

from pathlib import Path

import pytest

from tests.support.make_shards import make_shard_set
from tests.support.train_micro import micro_model
from train.model.multiview import save_model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_set(tmp_path_factory.mktemp("images") / "set", 5, 32, objects_per_shard=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "micro"
    save_model(micro_model(), folder, ("vae", "image_tower"))
    return folder
