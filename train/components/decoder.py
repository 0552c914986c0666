"""Train the decoder of a trained autoencoder further, while the encoder stays fixed.

The diffusion model depends only on the encoder, so this training can run at the same time as the diffusion model's, on
another GPU. The loss is the mean absolute error of the colors plus a multiple of their mean squared error.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from dataset.errors import UserError
from dataset.images.psnr import psnr_of_mse_db
from dataset.reading.damage import Damage
from dataset.reading.shard_set import ShardSet
from train.components.autoencoder import compile_on_gpu, to_pixels
from train.components.component import SETTINGS_FILE, is_trained, is_whole, optimize, write_part
from train.config.presets import AutoencoderRecipe
from train.data.random_views import read_random_views
from train.model.multiview import load_vae

logger = logging.getLogger(__name__)

_SQUARED_WEIGHT: Final = 4.0  # of the mean squared error; the mean absolute error has weight 1


def train_decoder(
    vae: Any,
    shards: ShardSet,
    recipe: AutoencoderRecipe,
    image_size: int,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> None:
    """Train the decoder of `vae` in place; the encoder does not change. On a GPU, training uses bfloat16 autocast.

    Args:
        vae: diffusers' AutoencoderKL.
        shards: Images to train on.
        recipe: Settings; `decoder_schedule` is used.
        image_size: Height and width in pixels to which the images are resized.
        seed: Seed of the object order, the choice of views and the noise.
        device: Device to train on.
        damage: Record of corrupt objects, which are replaced by other objects. None: a corrupt object is an error.

    Raises:
        ValueError: The recipe has no `decoder_schedule`.
        UserError: A gradient is not finite.
    """
    schedule = recipe.decoder_schedule
    if schedule is None:
        raise ValueError("the recipe has no decoder_schedule")
    vae.to(device).requires_grad_(False)
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    compile_on_gpu(vae, device)
    noise = torch.Generator(device).manual_seed(seed)
    batches = read_random_views(
        shards, seed + 1, schedule.steps, objects=schedule.objects, views=1, damage=damage, device=device
    )

    def loss_of_step(_: int) -> tuple[Tensor, dict[str, float]]:
        pixels = to_pixels(next(batches).to(device).images, image_size)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                posterior = vae.encode(pixels).latent_dist
            shift = torch.randn(posterior.mean.shape, generator=noise, device=device)
            decoded = vae.decode(posterior.mean + posterior.std * shift).sample.float()
        mse = functional.mse_loss(decoded, pixels)
        loss = functional.l1_loss(decoded, pixels) + _SQUARED_WEIGHT * mse
        return loss, {"loss": float(loss.detach()), "PSNR": psnr_of_mse_db(float(mse.detach()) / 4)}

    optimize("decoder", trained, schedule, loss_of_step)
    vae.to(memory_format=torch.contiguous_format)


def ensure_decoder(
    folder: Path,
    vae_folder: Path,
    shards: ShardSet,
    recipe: AutoencoderRecipe,
    image_size: int,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> nn.Module:
    """Load the autoencoder in `folder`. If the folder does not exist, train the decoder and write the folder.

    Args:
        folder: Folder of the autoencoder with the decoder that was trained further.
        vae_folder: Folder of the autoencoder to start from.
        shards, recipe, image_size, seed, device, damage: See `train_decoder`.

    Raises:
        UserError: There is no finished autoencoder in `vae_folder`, or `folder` contains no finished component or a
            component that was trained with other settings.
        ValueError: The recipe has no `decoder_schedule`.
    """
    if not is_whole(vae_folder):
        raise UserError(f"{vae_folder} contains no trained autoencoder; run --part autoencoder first")
    start = (vae_folder / SETTINGS_FILE).read_text()
    settings = {"recipe": asdict(recipe), "image_size": image_size, "seed": seed, "start": start}
    if is_trained(folder, settings):
        logger.info("decoder: %s is already trained", folder)
        return load_vae(folder)
    vae = load_vae(vae_folder)
    train_decoder(vae, shards, recipe, image_size, seed=seed, device=device, damage=damage)
    write_part(folder, settings, vae.save_pretrained)  # type: ignore[arg-type]
    return load_vae(folder)
