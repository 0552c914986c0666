"""Hashes of the frozen parts of a model, to check that latents are used with the model that encoded them."""

import hashlib
from typing import Any, Protocol

from torch import nn

from train.model.image_encoder import ImageEncoder
from train.model.multiview import ModelSpec


class FrozenParts(Protocol):
    """Protocol of `MultiViewModel` and `Encoder`: the parts of a model that training does not change."""

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""

    @property
    def image_encoder(self) -> ImageEncoder:
        """The image encoder."""

    @property
    def spec(self) -> ModelSpec:
        """Settings that are not part of the weights."""


def weights_sha256(part: nn.Module) -> str:
    """Hash the names, shapes and float32 values of a module's parameters, independent of file names and formats."""
    digest = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().reshape(-1))
    return digest.hexdigest()


def model_settings(model: FrozenParts) -> dict[str, Any]:
    """Return the entries of `latents.json` that identify the model. Training requires a model with the same entries."""
    return {
        "latent_scale": model.spec.latent_scale,
        "image_size": model.spec.image_size,
        "vae_sha256": weights_sha256(model.vae),
        "image_tower_sha256": _image_encoder_sha256(model.image_encoder),
    }


def _image_encoder_sha256(image_encoder: ImageEncoder) -> str:
    """Hash the weights, `object_fill` unless it is None, and `resize_mode` unless it is "antialiased"."""
    digest = weights_sha256(image_encoder)
    if image_encoder.object_fill is not None:
        digest = hashlib.sha256(f"{digest} {image_encoder.object_fill}".encode()).hexdigest()
    if image_encoder.resize_mode != "antialiased":
        digest = hashlib.sha256(f"{digest} {image_encoder.resize_mode}".encode()).hexdigest()
    return digest
