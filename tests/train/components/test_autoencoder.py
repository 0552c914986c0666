"""The small autoencoder: shapes, loss, and that training reconstructs views and measures its scale."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.errors import UserError
from dataset.images.psnr import psnr_of_mse_db
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU
from train.components.autoencoder import (
    autoencoder_loss,
    build_autoencoder,
    ensure_autoencoder,
    measure_latent_scale,
    train_autoencoder,
)
from train.config.presets import TINY, AutoencoderRecipe
from train.config.schedules import Schedule
from train.data.random_views import load_random_views


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(make_shard_set(tmp_path_factory.mktemp("set"), 6, 16))


def _recipe(steps: int) -> AutoencoderRecipe:
    schedule = Schedule(steps=steps, objects=6, accumulation=1, peak_lr=5e-3, decay="linear", warmup_steps=5)
    return AutoencoderRecipe(latent_channels=4, widths=(16, 16), blocks_per_level=1, kl_weight=1e-4, schedule=schedule)


def test_tiny_halves_64_pixels_twice() -> None:
    assert TINY.autoencoder is not None
    assert TINY.unet is not None
    vae: Any = build_autoencoder(TINY.autoencoder, TINY.image_size)
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
    assert latents.shape == (1, TINY.unet.latent_channels, TINY.unet.latent_size, TINY.unet.latent_size)
    with pytest.raises(UserError, match="halved"):
        build_autoencoder(TINY.autoencoder, 63)


def test_loss_is_absolute_error_plus_weighted_kl() -> None:
    vae: Any = build_autoencoder(_recipe(1), 16)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    kl = float(
        torch.distributions.kl_divergence(
            torch.distributions.Normal(posterior.mean, posterior.std), torch.distributions.Normal(0.0, 1.0)
        ).mean()
    )
    losses = []
    for weight in (0.0, 2.0):
        loss, _ = autoencoder_loss(vae, pixels, weight, torch.Generator().manual_seed(3))
        losses.append(float(loss.detach()))
    assert losses[1] - losses[0] == pytest.approx(2 * kl, rel=1e-3)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    assert losses[0] == pytest.approx(float((decoded - pixels).abs().mean()), rel=1e-4)


@pytest.mark.integration
def test_training_reconstructs_and_scales_latents_to_unit_deviation(shards: ShardSet) -> None:
    vae: Any = train_autoencoder(shards, _recipe(150), 16, seed=0, device=CPU)
    pictures = load_random_views(shards, 9, 0, objects=6, views=8).images
    pixels = pictures.flatten(0, 1) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
        decoded = vae.decode(latents).sample
    blank = psnr_of_mse_db(float((pixels - pixels.mean()).square().mean()) / 4)
    assert psnr_of_mse_db(float((decoded - pixels).square().mean()) / 4) > blank + 3
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.2)
    assert measure_latent_scale(vae, pixels) == pytest.approx(float(1 / latents.std()))


def test_the_same_seed_trains_the_same_weights_and_the_folder_keeps_them(shards: ShardSet, tmp_path: Path) -> None:
    first: Any = train_autoencoder(shards, _recipe(2), 16, seed=0, device=CPU)
    kept: Any = ensure_autoencoder(tmp_path / "vae", shards, _recipe(2), 16, seed=0, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), kept.parameters(), strict=True))
    assert kept.config.scaling_factor == first.config.scaling_factor
    with pytest.raises(UserError, match="other settings"):
        ensure_autoencoder(tmp_path / "vae", shards, replace(_recipe(2), kl_weight=1.0), 16, seed=0, device=CPU)


def test_psnr_of_known_errors() -> None:
    assert psnr_of_mse_db(0.01) == pytest.approx(20)
    assert psnr_of_mse_db(1.0) == pytest.approx(0)
