"""Training on a latent set equals training on its images; other models are refused; means or posterior samples."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dataset.errors import UserError
from dataset.reading.damage import Damage
from dataset.reading.filters import Filters
from tests.support.train_micro import micro_model, micro_run
from train.__main__ import main
from train.loop import loop
from train.loop.logging import Meter
from train.loop.loop import train
from train.loop.loss import encode_views
from train.model.multiview import save_model
from train.model.reference import ReferenceMode

pytestmark = [pytest.mark.usefixtures("one_thread", "quick_samples"), pytest.mark.integration]


@pytest.mark.parametrize("trained", [(1, "attention"), (2, "attention"), (2, "channels")])
def test_training_on_latents_is_training_on_images(
    base: Path,
    tmp_path: Path,
    trained: tuple[int, ReferenceMode],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    losses, images = [], []
    for kind, fixture in (("pictures", "shards"), ("latents", "latents")):
        run = micro_run(request.getfixturevalue(fixture), tmp_path / kind, 4, stage=trained[0], base=base)
        losses.append(train(replace(run, recipe=replace(run.recipe, reference=trained[1]))))
        assert capsys.readouterr().err.count("latent set (has latents.json)") == (kind == "latents")
        assert json.loads((run.out / "config.json").read_text())["data"]["kind"] == kind
        with Image.open(run.out / "samples" / "step-000000004.png") as image:
            images.append(np.asarray(image.convert("RGB"), np.float32))
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[1] != losses[0]  # float16: another source, not the same one
    width = images[0].shape[1] * 5 // 9  # reference and truth: an untrained VAE's, so only the shape is alike
    assert images[0].shape == images[1].shape
    assert np.abs(images[0][:, width:] - images[1][:, width:]).mean() < 2  # the samples come from equal weights


def test_latents_need_the_model_that_made_them(latents: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a model trained from scratch cannot .*--init-from the model that encoded"):
        train(micro_run(latents, tmp_path / "nothing", 2))
    assert not (tmp_path / "nothing").exists()
    other = tmp_path / "other"
    save_model(micro_model(seed=1), other)
    with pytest.raises(UserError, match="encoded by another model"):
        train(micro_run(latents, tmp_path / "run", 2, base=other))


def test_a_drawn_posterior_is_an_option_that_changes_the_losses(latents: Path, base: Path, tmp_path: Path) -> None:
    run = micro_run(latents, tmp_path / "run", 2, base=base)
    mean = train(run)
    drawn = replace(run, out=tmp_path / "drawn", recipe=replace(run.recipe, sample_posterior=True))
    assert train(drawn) != mean
    assert not run.recipe.sample_posterior
    with pytest.raises(UserError, match=r"recipe\.sample_posterior was True, is now False"):
        train(replace(run, out=drawn.out))


def test_parts_are_not_trained_from_latents(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "image-encoder", "--out", str(tmp_path / "x"), "--shards", str(latents)])
    with pytest.raises(UserError, match="a component of the model cannot be trained from"):
        main()


@pytest.mark.gpu
@pytest.mark.parametrize("sampled", [False, True])
def test_on_a_gpu_latents_are_the_images_within_bfloat16_and_no_step_waits(
    shards: Path, latents: Path, tmp_path: Path, sampled: bool
) -> None:
    device, model = torch.device("cuda"), micro_model()
    for part in (model.unet, model.vae, model.image_encoder):
        nn.Module.to(part, device)
    model = replace(model, alphas_cumprod=model.alphas_cumprod.to(device))
    run = replace(micro_run(latents, tmp_path, 6, stage=2, base=tmp_path), device=device)
    run = replace(run, recipe=replace(run.recipe, sample_posterior=sampled))
    loaders = [loop._loader(run, loop.open_training_set(str(data), Filters()), model) for data in (shards, latents)]
    exact, stored = (encode_views(model, loader.load(0), "attention") for loader in loaders)
    for name in ("targets", "reference", "tokens"):
        expected, found = (getattr(encoded, name).float() for encoded in (exact, stored))
        assert float((found - expected).norm() / expected.norm()) < 0.02
    optimizer = torch.optim.AdamW(model.unet.parameters(), fused=True)
    setup, meter = loop.TrainingSetup(run, model, optimizer, None, loaders[1], None, Damage(6)), Meter()
    micro_batches = loop.noised_micro_batches(setup, 0, 5)
    for step in range(5):
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")  # the first ones load kernels
        try:
            loop._step(setup, meter, micro_batches, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(result.loss) for result in meter.read().results)
