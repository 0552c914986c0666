"""Train or load the parts of the bundled model that are not diffusion models, and encode the set with them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dataset.errors import UserError
from dataset.reading.damage import Damage
from dataset.reading.shard_set import ShardSet
from train.components.autoencoder import ensure_autoencoder
from train.components.decoder import ensure_decoder
from train.components.drawings import Drawings
from train.components.image_encoder import ensure_image_encoder
from train.config.presets import Recipe
from train.encode.encode_set import default_batch_size, encode, plan_format
from train.encode.encoder import Encoder
from train.model.image_encoder import ImageEncoder, OpenClipEncoder
from train.model.multiview import ModelSpec


def make_autoencoder(
    training_shards: ShardSet, folder: Path, recipe: Recipe, seed: int, device: torch.device
) -> nn.Module:
    """Load the autoencoder in the subfolder vae/ of `folder`, or train an autoencoder and write this subfolder.

    Args:
        training_shards: Images to train on.
        folder: Folder of stage 1.
        recipe: Recipe with the settings of the autoencoder.
        seed: Seed of the initial weights, the views and the noise.
        device: Device to train on.

    Raises:
        UserError: The recipe has no settings to train an autoencoder.
    """
    if recipe.autoencoder is None:
        raise UserError(
            f"the recipe {recipe.name} has no settings to train an autoencoder; pass the recipe that embedded_recipe() "
            "returns"
        )
    damage, size = Damage(len(training_shards), recipe.max_damaged_share), recipe.image_size
    return ensure_autoencoder(
        folder / "vae", training_shards, recipe.autoencoder, size, seed=seed, device=device, damage=damage
    )


def make_decoder(
    training_shards: ShardSet, folder: Path, recipe: Recipe, seed: int, device: torch.device
) -> nn.Module | None:
    """Load the autoencoder in the subfolder decoder/ of `folder`, or train its decoder and write this subfolder.

    The arguments are those of `make_autoencoder`. Returns None if the recipe does not train the decoder further.

    Raises:
        UserError: The autoencoder is not trained yet.
    """
    if recipe.autoencoder is None or recipe.autoencoder.decoder_schedule is None:
        return None
    damage, size = Damage(len(training_shards), recipe.max_damaged_share), recipe.image_size
    out, start = folder / "decoder", folder / "vae"
    return ensure_decoder(
        out, start, training_shards, recipe.autoencoder, size, seed=seed, device=device, damage=damage
    )


def make_image_encoder(
    training_shards: ShardSet,
    folder: Path,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    *,
    backbone: Path | None = None,
    labels: Mapping[str, str] | None = None,
    drawings: Drawings | None = None,
) -> ImageEncoder:
    """Load the image encoder in the subfolder image_tower/ of `folder`, or train one and write this subfolder.

    Args:
        training_shards: Images to train on.
        folder: Folder of stage 1.
        recipe: Recipe with the settings of the image encoder.
        seed: Seed of the initial weights and the views.
        device: Device to train on.
        backbone: File with pretrained weights. None: the installed package.
        labels: Kinds by uid, of objects whose uid does not contain the kind.
        drawings: Labelled drawings.

    Raises:
        UserError: The recipe has no settings to train an image encoder, or the pretrained weights cannot be loaded.
    """
    if recipe.tower_training is None or isinstance(recipe.tower, OpenClipEncoder):
        raise UserError(
            f"the recipe {recipe.name} has no settings to train an image encoder; pass the recipe that "
            "embedded_recipe() returns"
        )
    damage, target = Damage(len(training_shards), recipe.max_damaged_share), folder / "image_tower"
    return ensure_image_encoder(
        target,
        training_shards,
        recipe.tower,
        recipe.tower_training,
        seed=seed,
        device=device,
        cameras=recipe.cameras or "relative",
        damage=damage,
        backbone=backbone,
        labels=labels,
        drawings=drawings,
    )


def join_parts(vae: nn.Module, image_encoder: ImageEncoder, recipe: Recipe, device: torch.device) -> Encoder:
    """Freeze an autoencoder and an image encoder, and return both on the device.

    Raises:
        UserError: The recipe has no settings to train a UNet from scratch.
    """
    if recipe.unet is None:
        raise UserError(
            f"the recipe {recipe.name} has no settings to train a UNet from scratch; pass the recipe that "
            "embedded_recipe() returns"
        )
    scale = float(vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
    spec = ModelSpec(
        recipe.image_size, recipe.unet.latent_size, scale, recipe.cameras or "relative", recipe.guidance_scale
    )
    for part in (vae, image_encoder):
        nn.Module.to(part.requires_grad_(False).eval(), device)
    return Encoder(vae, image_encoder, spec, device)


def encode_all(shards: ShardSet, out: Path, encoder: Encoder) -> None:
    """Encode all views of all objects of a shard set, including the test objects, into the latent set `out`."""
    encode(
        shards,
        str(out),
        encoder,
        plan_format(encoder, shards, logvar=False, embedded="all"),
        batch_size=default_batch_size(encoder.device, encoder.spec.image_size, shards.index.objects_per_shard),
        num_workers=8,
    )
