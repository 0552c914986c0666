"""VAE and image encoder of a model, without the UNet, for encoding images."""

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
    """VAE and image encoder on one device, which run with the precision used in training.

    The precision is bf16 autocast on a GPU and float32 on a CPU.
    """

    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    device: torch.device

    @torch.no_grad()
    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode n images [n, 3, H, W] in [0, 1]. Return the means and log variances of the VAE's posteriors.

        Both are [n, c, h, w], with c latent channels. The means are not multiplied by the model's latent scale.
        """
        with mixed_precision(self.device):
            return posterior(self.vae, images, self.spec.image_size)

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return the image encoder's embeddings [n, d] of images [n, 3, h, w] in [0, 1] on white."""
        with mixed_precision(self.device):
            embeddings: Tensor = self.image_encoder(images)
        return embeddings


def load_encoder(folder: Path, device: torch.device) -> Encoder:
    """Load the VAE and the image encoder of a model folder in float32.

    If the folder contains no image encoder, the paper's is used. For example, a converted MVDream has none.

    Raises:
        UserError: The VAE is missing, VAE or image encoder is damaged, or the paper's encoder cannot be downloaded.
    """
    spec = read_spec(folder)
    image_encoder = read_image_encoder(folder)
    if image_encoder is None:
        paper = PAPER.tower
        if not isinstance(paper, OpenClipEncoder):
            raise UserError(
                f"the model folder {folder} contains no image encoder (image_tower/ is missing); give a model folder "
                "that contains an image encoder"
            )
        logger.info("%s has no image encoder; using the paper's, %s/%s", folder, paper.architecture, paper.pretrained)
        image_encoder = fetch_image_encoder(paper)
    vae = load_vae(folder / "vae")
    for part in (vae, image_encoder):
        nn.Module.to(part.requires_grad_(False).eval(), device)
    return Encoder(vae, image_encoder, spec, device)
