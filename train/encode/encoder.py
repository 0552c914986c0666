"""The frozen parts of a model, VAE and image encoder, without its UNet."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.config.presets import PAPER
from train.device import mixed_precision
from train.model.image_encoder import ImageEncoder, OpenClipEncoder, fetch_image_encoder
from train.model.multiview import ModelSpec, load_vae, posterior, read_image_encoder, read_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """VAE and image encoder on one device. They run with the precision used in training."""

    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    device: torch.device

    @torch.no_grad()
    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images [n, 3, h, w] in [0, 1]; return mean and log variance [n, c, h, w] as `posterior` does."""
        with mixed_precision(self.device):
            return posterior(self.vae, images, self.spec.image_size)

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return embeddings [n, d] of images [n, 3, h, w] in [0, 1]; see `MultiViewModel.embed_image`."""
        with mixed_precision(self.device):
            embeddings: Tensor = self.image_encoder(images)
        return embeddings


def load_encoder(folder: Path, device: torch.device) -> Encoder:
    """Load VAE and image encoder of a model folder in float32.

    If the folder has no image encoder, such as a converted MVDream, the paper's is used.

    Raises:
        UserError: a part is missing or damaged.
    """
    spec = read_spec(folder)
    image_encoder = read_image_encoder(folder)
    if image_encoder is None:
        paper = PAPER.tower
        if not isinstance(paper, OpenClipEncoder):
            raise UserError(f"{folder}: has no image_tower/; give a model that has an image encoder")
        logger.info("%s has no image encoder; using the paper's, %s/%s", folder, paper.architecture, paper.pretrained)
        image_encoder = fetch_image_encoder(paper)
    vae = load_vae(folder / "vae")
    for part in (vae, image_encoder):
        nn.Module.to(part.requires_grad_(False).eval(), device)
    return Encoder(vae, image_encoder, spec, device)
