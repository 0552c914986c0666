"""A training option is one field of the recipe: the command line, config.json and the resume check follow from it."""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_cli import resolved
from train.__main__ import parse
from train.config.presets import FREE, PRESETS, Recipe
from train.loop.run_config import CONFIG_FILE, write_or_check_config


@dataclass(frozen=True)
class Extended(Recipe):
    """The recipe with two more options."""

    dropout: float = 0.25
    """Fraction of activations to drop."""
    print_every: int = field(default=3, metadata=FREE)
    """Steps between prints."""


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, recipe in list(PRESETS.items()):
        values: dict[str, Any] = {each.name: getattr(recipe, each.name) for each in fields(recipe)}
        monkeypatch.setitem(PRESETS, name, Extended(**values))
    return make_shard_set(tmp_path / "set", 3, 32)


def test_a_new_field_is_an_option_in_the_help_with_its_docstring_and_default(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["stage1", "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "--dropout FLOAT Fraction of activations to drop. (default: 0.25)" in shown
    assert "--print-every INT Steps between prints. (default: 3)" in shown


def test_a_new_field_is_saved_and_checked_when_a_run_resumes(shards: Path, tmp_path: Path) -> None:
    def run(*options: str) -> None:
        write_or_check_config(
            resolved("stage1", "--out", str(tmp_path / "run"), "--shards", str(shards), *options), ShardSet(shards)
        )

    run("--dropout", "0.5")
    saved = json.loads((tmp_path / "run" / CONFIG_FILE).read_text())["recipe"]
    assert (saved["dropout"], saved["print_every"]) == (0.5, 3)
    run("--dropout", "0.5", "--print-every", "9")  # marked as free to change
    with pytest.raises(UserError, match=r"recipe\.dropout was 0\.5, is now 0\.25"):
        run()


def test_names_in_config_json_are_those_of_earlier_runs() -> None:
    names = [each.name for each in fields(replace(PRESETS["tiny"]))]
    assert names == [
        *("name", "image_size", "tower", "guidance_scale", "stage1", "stage2", "unet", "autoencoder"),
        *("tower_training", "num_views", "single_view_chance", "drop_chance", "betas", "weight_decay", "clip_norm"),
        *("min_snr_gamma", "velocity_cap", "average_decay", "activation_checkpointing", "cameras", "reference"),
        *(
            "reference_drop_chance",
            "embedding_noise",
            "validation",
            "test_share",
            "items_per_object",
            "sample_posterior",
            "readers",
            "max_damaged_share",
        ),
        *("checkpoint_every", "keep_checkpoints", "archive_every", "picture_every", "validate_every", "log_every"),
        "stop_at_bad_loss",
    ]
