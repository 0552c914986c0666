"""config.json of runs that were started before the image encoder had its newest settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import micro_run
from train.loop.run_config import CONFIG_FILE, write_or_check_config
from train.model.timm_encoder import TimmEncoder


def test_a_run_from_before_pretrained_encoders_resumes(shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, tmp_path / "run", 6)
    write_or_check_config(run, ShardSet(shards))
    path = run.out / CONFIG_FILE
    saved = json.loads(path.read_text())
    for name in (
        "pretrained",
        "augmented",
        "feature_weight",
        "pretrained_lr_factor",
        "kind_weight",
        "drawings",
        "drawing_weight",
    ):
        del saved["recipe"]["tower_training"][name]
    del saved["recipe"]["autoencoder"]["decoder_schedule"]
    path.write_text(json.dumps(saved))
    write_or_check_config(run, ShardSet(shards))
    assert run.recipe.tower_training is not None
    augmented = replace(run.recipe, tower_training=replace(run.recipe.tower_training, augmented=True))
    with pytest.raises(UserError, match=r"tower_training\.augmented was False, is now True"):
        write_or_check_config(replace(run, recipe=augmented), ShardSet(shards))


def test_a_run_from_before_color_grids_resumes(shards: Path, tmp_path: Path) -> None:
    run = micro_run(shards, tmp_path / "run", 6)
    run = replace(run, recipe=replace(run.recipe, tower=TimmEncoder("test_efficientnet", 32, 32)))
    write_or_check_config(run, ShardSet(shards))
    path = run.out / CONFIG_FILE
    saved = json.loads(path.read_text())
    del saved["recipe"]["tower"]["color_grid"]
    path.write_text(json.dumps(saved))
    write_or_check_config(run, ShardSet(shards))
    colored = replace(run.recipe, tower=TimmEncoder("test_efficientnet", 32, 32, color_grid=2))
    with pytest.raises(UserError, match=r"tower\.color_grid was None, is now 2"):
        write_or_check_config(replace(run, recipe=colored), ShardSet(shards))
