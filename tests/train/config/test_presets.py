"""The paper's numbers, and schedules as pure functions."""

from dataclasses import replace

import pytest

from dataset.errors import UserError
from train.config.presets import EMBEDDED, PAPER, TINY
from train.config.schedules import Schedule, learning_rate, notices, objects_per_micro_batch, override, warmup_of


def test_paper_stage_1_is_appendix_b() -> None:
    stage = PAPER.stage1
    assert (stage.steps, stage.objects, stage.accumulation, stage.peak_lr) == (50_000, 768, 4, 1e-4)
    assert (PAPER.betas, PAPER.weight_decay) == ((0.9, 0.999), 1e-2)
    assert objects_per_micro_batch(stage, world=8) == 768 // (8 * 4)
    assert learning_rate(stage, 0) == pytest.approx(1e-4 / 10_000)
    assert learning_rate(stage, 4_999) == pytest.approx(0.5e-4)
    assert learning_rate(stage, 9_999) == learning_rate(stage, 10_000) == learning_rate(stage, 49_999) == 1e-4
    assert notices(stage) == ()


def test_paper_stage_2_peaks_after_the_cut_warm_up_and_falls_to_zero() -> None:
    stage = PAPER.stage2
    assert (stage.steps, stage.objects, stage.accumulation) == (5_000, 128, 1)
    assert warmup_of(stage) == 500
    assert len(notices(stage)) == 1
    assert "10000" in notices(stage)[0]
    rates = [learning_rate(stage, step) for step in range(stage.steps)]
    assert max(rates) == rates[499] == rates[500] == 5e-5
    assert rates[500 + 2250] == pytest.approx(2.5e-5)
    assert 0 < rates[-1] < 2e-8
    assert learning_rate(stage, stage.steps) == 0


def test_branch_and_drop_chances_are_the_papers() -> None:
    assert (PAPER.single_view_chance, PAPER.drop_chance, PAPER.num_views, PAPER.guidance_scale) == (0.3, 0.1, 4, 10.0)


def test_presets_differ_in_size_not_in_method() -> None:
    assert (TINY.betas, TINY.weight_decay, TINY.drop_chance) == (PAPER.betas, PAPER.weight_decay, PAPER.drop_chance)


def test_a_rate_without_warm_up_starts_at_its_peak() -> None:
    stage = Schedule(steps=4, objects=1, accumulation=1, peak_lr=1.0, decay="linear", warmup_steps=0)
    assert [learning_rate(stage, step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_a_batch_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(UserError, match="does not divide"):
        objects_per_micro_batch(PAPER.stage1, world=7)


def test_override_changes_what_is_given_and_checks_it() -> None:
    assert override(PAPER.stage1, steps=10) == replace(PAPER.stage1, steps=10)
    assert override(PAPER.stage1) == PAPER.stage1
    with pytest.raises(UserError, match="steps is 0"):
        override(PAPER.stage1, steps=0)
    assert override(PAPER.stage2, objects=8) == replace(PAPER.stage2, objects=8)
    for rate in (0.0, -1e-4, float("inf"), float("nan")):
        with pytest.raises(UserError, match="--lr is"):
            replace(PAPER.stage1, peak_lr=rate)


def test_a_preset_keeps_what_is_not_replaced() -> None:
    changed = replace(PAPER, min_snr_gamma=5.0, archive_every=100)
    assert (changed.min_snr_gamma, changed.archive_every) == (5.0, 100)
    assert replace(changed, min_snr_gamma=None, archive_every=None) == PAPER


def test_options_that_mean_nothing_are_errors() -> None:
    for gamma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="--min-snr-gamma"):
            replace(PAPER, min_snr_gamma=gamma)
    for cap in (1.0, 0.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="--velocity-cap"):
            replace(PAPER, velocity_cap=cap)
    with pytest.raises(UserError, match="both weight the loss by timestep; use only one"):
        replace(PAPER, min_snr_gamma=5.0, velocity_cap=20.0)
    for decay in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="--average-decay"):
            replace(PAPER, average_decay=decay)
    with pytest.raises(UserError, match="--keep-every is 0"):
        replace(PAPER, archive_every=0)
    with pytest.raises(UserError, match="--log-every is -1"):
        replace(PAPER, log_every=-1)
    for chance in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="--reference-drop-chance"):
            replace(PAPER, reference_drop_chance=chance)


def test_only_the_presets_trained_from_scratch_drop_the_reference() -> None:
    assert [each.reference_drop_chance for each in (PAPER, TINY, EMBEDDED)] == [0, 0.3, 0.3]
