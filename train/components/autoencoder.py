"""Train a small autoencoder (diffusers' AutoencoderKL), for presets that train from scratch.

The loss is the mean absolute error of the colors plus a small KL term. After training, the standard deviation s of the
latents is measured, and 1 / s is stored as diffusers' `scaling_factor`, so the diffusion model sees latents of unit
variance.
"""

import logging
from contextlib import nullcontext
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
from train.components.component import is_trained, optimize, seeded, write_part
from train.config.presets import AutoencoderRecipe
from train.data.random_views import load_random_views, read_random_views
from train.layers.compile import can_compile, compile_modules
from train.model.image_encoder import resize
from train.model.multiview import load_vae

logger = logging.getLogger(__name__)

_MEASURED_VIEWS: Final = 64  # views used to measure the scale of the latents
_NORM_GROUPS: Final = 16


def build_autoencoder(recipe: AutoencoderRecipe, image_size: int) -> nn.Module:
    """Build diffusers' AutoencoderKL with random weights.

    Args:
        recipe: Sizes of the network.
        image_size: Height and width of the images in pixels.

    Raises:
        UserError: `image_size` cannot be halved once for each level after the first.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(recipe.widths)
    if image_size % 2 ** (levels - 1):
        raise UserError(
            f"images of {image_size} pixels cannot be halved {levels - 1} times, as an autoencoder of {levels} levels "
            f"does; set the preset's `image_size` to a multiple of {2 ** (levels - 1)}"
        )
    vae: nn.Module = AutoencoderKL(
        sample_size=image_size,
        latent_channels=recipe.latent_channels,
        block_out_channels=recipe.widths,
        layers_per_block=recipe.blocks_per_level,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=_NORM_GROUPS,
    )
    return vae


def autoencoder_loss(vae: Any, pixels: Tensor, kl_weight: float, noise: torch.Generator) -> tuple[Tensor, float]:
    """Return the training loss (a scalar tensor) and the mean squared error of the reconstructed images.

    Args:
        vae: diffusers' AutoencoderKL.
        pixels: Images [n, 3, h, w] in [-1, 1].
        kl_weight: Weight of the KL divergence in the loss. The mean absolute error of the colors has weight 1.
        noise: Random generator with which latents are sampled from the posterior.
    """
    posterior = vae.encode(pixels).latent_dist
    sample = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise).to(pixels)
    decoded = vae.decode(sample).sample
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    mse = float(functional.mse_loss(decoded.detach(), pixels))
    return functional.l1_loss(decoded, pixels) + kl_weight * kl, mse


@torch.no_grad()
def measure_latent_scale(vae: Any, pixels: Tensor) -> float:
    """Return 1 / s, where s is the standard deviation of the latents that `vae` computes from images.

    Args:
        vae: diffusers' AutoencoderKL.
        pixels: Images [n, 3, h, w] in [-1, 1].
    """
    latents = vae.encode(pixels).latent_dist.mean
    return float(1 / latents.std())


def train_autoencoder(
    shards: ShardSet,
    recipe: AutoencoderRecipe,
    image_size: int,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> nn.Module:
    """Train an autoencoder from scratch and store the measured `scaling_factor` in the autoencoder's config.

    On a GPU, the training uses bfloat16 autocast.

    Args:
        shards: Images to train on.
        recipe: Sizes of the network and settings of the training.
        image_size: Height and width in pixels to which the images are resized.
        seed: Seed of the initial weights, the object order, the choice of views and the noise.
        device: Device to train on.
        damage: Record of corrupt objects, which are replaced by other objects. None: a corrupt object is an error.
    """
    with seeded(seed):
        vae = build_autoencoder(recipe, image_size).to(device)
    compiled = compile_on_gpu(vae, device)
    noise = torch.Generator().manual_seed(seed)
    objects = recipe.schedule.objects

    steps = recipe.schedule.steps
    batches = read_random_views(shards, seed, steps, objects=objects, views=1, damage=damage, device=device)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        views = next(batches)
        pixels = to_pixels(views.to(device).images, image_size)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, mse = autoencoder_loss(vae, pixels, recipe.kl_weight, noise)
        return loss, {
            "loss": float(loss.detach()),
            "PSNR": psnr_of_mse_db(mse / 4),
        }  # [-1, 1] is twice as wide as [0, 1]

    optimize("autoencoder", vae.parameters(), recipe.schedule, loss_of_step)
    views = load_random_views(shards, seed, 0, objects=_MEASURED_VIEWS, views=1, damage=damage)
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        scale = measure_latent_scale(vae, to_pixels(views.to(device).images, image_size))
    vae.to(memory_format=torch.contiguous_format)
    vae.register_to_config(scaling_factor=scale)  # type: ignore[operator]
    return vae.eval()


def ensure_autoencoder(
    folder: Path,
    shards: ShardSet,
    recipe: AutoencoderRecipe,
    image_size: int,
    *,
    seed: int,
    device: torch.device,
    damage: Damage | None = None,
) -> nn.Module:
    """Load the autoencoder in `folder`. If the folder does not exist, train the autoencoder and write the folder.

    The arguments after `folder` have the same meaning as in `train_autoencoder`.

    Raises:
        UserError: `folder` contains no finished autoencoder, or an autoencoder that was trained with other settings.
    """
    sizes = {name: value for name, value in asdict(recipe).items() if name != "decoder_schedule"}
    settings = {"recipe": sizes, "image_size": image_size, "seed": seed}
    if is_trained(folder, settings):
        logger.info("autoencoder: %s is already trained", folder)
        return load_vae(folder)
    vae = train_autoencoder(shards, recipe, image_size, seed=seed, device=device, damage=damage)
    write_part(folder, settings, vae.save_pretrained)  # type: ignore[arg-type]
    return load_vae(folder)


def compile_on_gpu(vae: Any, device: torch.device) -> bool:
    """On a GPU, make the autoencoder channels last and compile encoder and decoder. Return whether it is compiled.

    Args:
        vae: diffusers' AutoencoderKL.
        device: Device of `vae`. On a CPU, nothing changes.
    """
    if device.type != "cuda":
        return False
    vae.to(memory_format=torch.channels_last)
    if not can_compile():
        logger.info("the package triton is not installed; training the autoencoder without compiling")
        return False
    compile_modules([vae.encoder, vae.decoder])
    return True


def to_pixels(views: Tensor, image_size: int) -> Tensor:
    """Resize views [b, v, 3, h, w] in [0, 1] to [(b v), 3, image_size, image_size] in [-1, 1]."""
    return resize(views.flatten(0, 1), image_size).clamp(0, 1) * 2 - 1
