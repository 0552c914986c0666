"""The options of `python -m train`: defaults, values, old names."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from tests.support.train_cli import resolved
from tests.support.train_micro import micro_run
from train import __main__ as command_line
from train.config.presets import PAPER, PRESETS


def test_command_line_values_replace_the_presets() -> None:
    run = resolved(
        "stage1",
        *("--steps", "5", "--batch-size", "6", "--grad-accum-steps", "3"),
        *("--autoencoder-steps", "2", "--image-encoder-steps", "1"),
    )
    assert (run.schedule.steps, run.schedule.objects, run.schedule.accumulation) == (5, 6, 3)
    assert run.recipe.autoencoder is not None
    assert run.recipe.autoencoder.schedule.steps == 2
    second = resolved("stage2", "--preset", "paper", "--checkpoint-every", "9")
    assert (second.stage, second.schedule, second.recipe.checkpoint_every) == (2, PAPER.stage2, 9)
    for stage in ("stage1", "stage2"):
        run = resolved(stage, "--lr", "3e-4", "--compile", "blocks")
        assert run.compile == "blocks"
        assert run.schedule == replace(
            PRESETS["tiny"].stage1 if run.stage == 1 else PRESETS["tiny"].stage2, peak_lr=3e-4
        )
    assert (second.compile, second.reference) == ("auto", "attention")
    ablations = [resolved("stage2", "--reference-mode", mode).reference for mode in ("none", "channels")]
    assert ablations == ["none", "channels"]
    assert resolved("stage1").reference == "none"
    assert (resolved("stage2").reference_drop_chance, second.reference_drop_chance) == (0.3, 0)
    assert resolved("stage2", "--reference-drop-chance", "0.5").recipe.reference_drop_chance == 0.5
    assert resolved("stage2", "--reference-mode", "none").reference_drop_chance == 0
    assert resolved("stage1").reference_drop_chance == 0
    with pytest.raises(UserError, match="--reference-drop-chance is 1"):
        resolved("stage2", "--reference-drop-chance", "1")
    with pytest.raises(UserError, match="--lr is -1"):
        resolved("stage2", "--lr=-1.0")
    with pytest.raises(UserError, match="uses a pretrained autoencoder and image encoder; drop --autoencoder-steps"):
        resolved("stage1", "--preset", "paper", "--image-encoder-steps", "1")
    with pytest.raises(UserError, match="--sample-every is 0"):
        resolved("stage1", "--sample-every", "0")


@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_without_options_a_run_is_its_preset(preset: str) -> None:
    for stage in ("stage1", "stage2"):
        assert resolved(stage, f"--preset={preset}").recipe == PRESETS[preset]  # type: ignore[index]


def test_options_of_the_loop_reach_the_recipe_and_are_off_by_default() -> None:
    plain = resolved("stage1").recipe
    assert (plain.min_snr_gamma, plain.average_decay, plain.activation_checkpointing) == (None, None, False)
    assert (plain.archive_every, plain.stop_at_bad_loss, plain.validation) == (None, False, "auto")
    run = resolved(
        "stage1",
        *("--min-snr-gamma", "5", "--average-decay", "0.999", "--activation-checkpointing", "--keep-every", "10"),
        *("--fail-on-nan", "--validation", "on", "--validate-every", "7", "--log-every", "3", "--wandb", "views"),
    )
    expected = replace(
        plain,
        min_snr_gamma=5.0,
        average_decay=0.999,
        activation_checkpointing=True,
        archive_every=10,
        stop_at_bad_loss=True,
        validation="on",
        validate_every=7,
        log_every=3,
    )
    assert (run.recipe, run.wandb) == (expected, "views")


def test_renamed_options_keep_working_and_are_not_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    new = resolved(
        "stage2",
        *("--grad-accum-steps", "2", "--keep-every", "4", "--sample-every", "5", "--repeats-per-object", "3"),
        *("--licenses", "CC0-1.0", "--max-corrupt-fraction", "0.1", "--num-workers", "7", "--fail-on-nan"),
        *("--reference-mode", "none"),
    )
    assert capsys.readouterr().err == ""
    old = resolved(
        "stage2",
        *("--accumulation", "2", "--archive-every", "4", "--picture-every", "5", "--items-per-object", "3"),
        *("--licences", "CC0-1.0", "--max-damaged-share", "0.1", "--readers", "7", "--stop-at-bad-loss"),
        *("--reference", "none"),
    )
    assert old == new
    assert capsys.readouterr().err.count("is now") == 9
    with pytest.raises(SystemExit):
        resolved("stage2", "--help")
    shown = capsys.readouterr().out.replace(",", " ").split()
    assert not set(command_line.RENAMED) & set(shown)
    of_stage1 = {"--image-encoder-steps"}
    assert {name for name in command_line.RENAMED.values() if "--no-" not in name} - of_stage1 <= set(shown)
    with pytest.raises(SystemExit):
        resolved("stage1", "--help")
    assert of_stage1 <= set(capsys.readouterr().out.replace(",", " ").split())


def test_the_old_names_of_image_encoder_still_work(capsys: pytest.CaptureFixture[str]) -> None:
    new = command_line.parse(["image-encoder", "--out", "x"])
    assert command_line.parse(["tower", "--out", "x"]) == new
    assert "`tower` is now `image-encoder`" in capsys.readouterr().err
    stage1 = command_line.parse(["stage1", "--out", "x", "--image-encoder-steps", "3"])
    assert command_line.parse(["stage1", "--out", "x", "--tower-steps", "3"]) == stage1
    assert "--tower-steps is now --image-encoder-steps" in capsys.readouterr().err


def test_a_warm_up_that_was_cut_is_told_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = micro_run(shards, tmp_path / "run", 1)
    monkeypatch.setattr(command_line, "resolve", lambda args: run)
    args = command_line.parse(["stage1", "--out", str(run.out)])
    assert isinstance(args, command_line.Stage1)
    command_line.run_stage(args)
    assert capsys.readouterr().err.count("does not fit into 1 steps; using 0") == 1
