"""Compute hashes of a VAE and an image encoder. Training compares these hashes with those in a latent set."""

import hashlib
from typing import Any, Protocol

from torch import nn

from train.model.image_encoder import ImageEncoder
from train.model.multiview import ModelSpec


class FrozenParts(Protocol):
    """Protocol of the parts of a model that training does not change. `MultiViewModel` and `Encoder` satisfy it."""

    @property
    def vae(self) -> nn.Module:
        """The VAE, which encodes images to latents."""

    @property
    def image_encoder(self) -> ImageEncoder:
        """The image encoder, which computes embeddings of images."""

    @property
    def spec(self) -> ModelSpec:
        """The settings of the model that are not part of the weights."""


def weights_sha256(part: nn.Module) -> str:
    """Return a SHA-256 of the names, shapes and float32 values of all tensors in the state dict of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().reshape(-1))
    return digest.hexdigest()


def model_settings(model: FrozenParts) -> dict[str, Any]:
    """Return the entries of `latents.json` by which a latent set identifies the model that encoded the latents.

    Another model can be trained on the latent set only if this function returns the same entries for that model.
    """
    return {
        "latent_scale": model.spec.latent_scale,
        "image_size": model.spec.image_size,
        "vae_sha256": weights_sha256(model.vae),
        "image_tower_sha256": image_encoder_sha256(model.image_encoder),
    }


def image_encoder_sha256(image_encoder: ImageEncoder) -> str:
    """Return a SHA-256 of the weights, and of the settings that are not visible in the weights.

    The settings are `object_fill` unless None, `resize_mode` unless "antialiased", and `num_colors` unless 0.
    """
    digest = weights_sha256(image_encoder)
    if image_encoder.object_fill is not None:
        digest = hashlib.sha256(f"{digest} {image_encoder.object_fill}".encode()).hexdigest()
    if image_encoder.resize_mode != "antialiased":
        digest = hashlib.sha256(f"{digest} {image_encoder.resize_mode}".encode()).hexdigest()
    if image_encoder.num_colors:
        digest = hashlib.sha256(f"{digest} {image_encoder.num_colors} colors".encode()).hexdigest()
    return digest
