"""Steps of stage 2 without the reference's latent: the choice of steps, their loss, resume, and the validation."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dataset.errors import UserError
from dataset.reading.shard_set import ShardSet
from tests.support.train_micro import MICRO, micro_model, micro_run
from train.data.loader import BatchLoader
from train.data.sampling import StepKey, draw_branch, draw_reference_drop
from train.loop import loop
from train.loop.loop import train
from train.loop.run_config import CONFIG_FILE, TrainingRun, log_notices, write_or_check_config
from train.loop.validation import validate
from train.model.multiview import MultiViewModel, save_model
from train.model.reference import ReferenceMode, prepare_for_reference

pytestmark = pytest.mark.usefixtures("one_thread", "quick_samples")
CHANCE = 0.5


def _loader(shards: Path) -> BatchLoader:
    return BatchLoader(ShardSet(shards), 7, 3, 1, MICRO.num_views, 0.3, "relative")


def _run(
    shards: Path, out: Path, use: ReferenceMode, chance: float, *, steps: int = 6, base: Path | None = None
) -> TrainingRun:
    run = micro_run(shards, out, steps, stage=2, base=base)
    return replace(run, recipe=replace(run.recipe, reference=use, reference_drop_chance=chance))


def _widened(model: MultiViewModel) -> MultiViewModel:
    """A model that reads the reference as input channels, with weights of these channels that are not zero."""
    model = replace(model, unet=prepare_for_reference(micro_model().unet, "channels"))
    weight = model.unet.conv_in.weight
    with torch.no_grad():
        weight[:, weight.shape[1] // 2 :] = torch.randn(weight[:, weight.shape[1] // 2 :].shape)
    return model


def _loss(run: TrainingRun, model: MultiViewModel, step: int) -> float:
    loader = _loader(Path(run.shards))
    views, noise = loop.load_with_noise(run, model, loader, step)
    with torch.no_grad():
        return float(loop._loss(run, model, views, noise, StepKey(run.seed, step)))


def test_the_choice_depends_on_seed_and_step_and_not_on_the_branch() -> None:
    drawn = [draw_reference_drop(7, step, 0.3) for step in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.3, abs=0.03)
    assert drawn != [draw_reference_drop(8, step, 0.3) for step in range(4000)]
    single = [draw_branch(7, step, 0.3) == "single" for step in range(4000)]
    both = sum(a and b for a, b in zip(drawn, single, strict=True)) / len(drawn)
    assert both == pytest.approx(0.09, abs=0.02)
    assert not any(draw_reference_drop(7, step, 0.0) for step in range(100))


@pytest.mark.parametrize("use", ["attention", "channels"])
def test_a_dropped_step_is_the_model_without_the_reference(use: ReferenceMode, shards: Path, tmp_path: Path) -> None:
    plain = micro_model()
    model = plain if use == "attention" else _widened(plain)
    dropping, never, without = (_run(shards, tmp_path, *each) for each in ((use, CHANCE), (use, 0.0), ("none", CHANCE)))
    for step in range(8):
        loss = _loss(dropping, model, step)
        alone, given = _loss(without, plain, step), _loss(never, model, step)
        assert alone != pytest.approx(given, rel=1e-6)
        assert loss == (pytest.approx(alone, rel=1e-6) if dropping.drops_reference(step) else given)
    assert {dropping.drops_reference(step) for step in range(8)} == {False, True}
    assert not any(without.drops_reference(step) for step in range(8))


@pytest.mark.parametrize("use", ["attention", "channels"])
def test_a_stopped_run_repeats_the_choices(
    use: ReferenceMode, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(micro_model(), tmp_path / "base")
    whole, stopped = (_run(shards, tmp_path / name, use, CHANCE, base=tmp_path / "base") for name in ("whole", "again"))
    losses = train(whole)
    plain, done = loop.update, []

    def stop_in_step_3(*arguments: object) -> None:
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", stop_in_step_3)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    assert train(stopped) == losses[3:]
    weights = [load_file(run.out / "unet" / "diffusion_pytorch_model.safetensors") for run in (whole, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_from_before_the_option_resumes_without_dropping(shards: Path, tmp_path: Path) -> None:
    for stage in (1, 2):
        run = micro_run(shards, tmp_path / f"stage{stage}", 6, stage=stage)
        dropping = replace(run, recipe=replace(run.recipe, reference_drop_chance=0.3))
        write_or_check_config(run, ShardSet(shards))
        path = run.out / CONFIG_FILE
        saved = json.loads(path.read_text())
        del saved["recipe"]["reference_drop_chance"], saved["recipe"]["embedding_noise"]
        path.write_text(json.dumps(saved))
        write_or_check_config(run, ShardSet(shards))
        if stage == 1:  # does not use the reference
            write_or_check_config(dropping, ShardSet(shards))
            continue
        with pytest.raises(UserError, match=r"recipe\.reference_drop_chance was 0\.0, is now 0\.3"):
            write_or_check_config(dropping, ShardSet(shards))


def test_the_log_says_that_the_paper_does_not_drop(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for use, chance in (("attention", 0.0), ("none", 0.3)):
        log_notices(_run(shards, tmp_path, use, chance))  # type: ignore[arg-type]
    assert "reference" not in capsys.readouterr().err
    log_notices(_run(shards, tmp_path, "channels", 0.3))
    assert "30% of the steps leave out the latent of the reference image" in capsys.readouterr().err


def test_validation_without_the_reference_is_that_of_the_model_without_it(shards: Path) -> None:
    model, loader = micro_model(), _loader(shards)
    alone = validate(model, loader, "none")
    assert validate(model, loader, "attention", with_reference=False) == alone
    assert validate(model, loader, "attention") != alone
    widened = _widened(model)
    assert validate(widened, loader, "channels", with_reference=False) == pytest.approx(alone, rel=1e-5)
    assert validate(widened, loader, "channels") != pytest.approx(alone, rel=1e-5)


def test_validation_of_stage_2_reports_both(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(micro_model(), tmp_path / "base")
    for use, count in (("attention", 1), ("none", 0)):
        run = _run(shards, tmp_path / use, use, 0.0, steps=1, base=tmp_path / "base")  # type: ignore[arg-type]
        train(replace(run, recipe=replace(run.recipe, validation="on")))
        told = capsys.readouterr().err
        assert (told.count("validation  loss"), told.count("validation without reference  loss")) == (1, count)
