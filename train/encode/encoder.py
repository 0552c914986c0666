"""The frozen parts of a model by themselves: what `train.encode` runs, and a fingerprint of the model."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.config.presets import PAPER
from train.device import mixed_precision
from train.model.image_encoder import ImageEncoder, OpenClipEncoder, fetch_image_encoder
from train.model.multiview import ModelSpec, load_vae, posterior, read_image_encoder, read_spec


@dataclass(frozen=True)
class Encoder:
    """The frozen parts on their device, run in the precision that training runs them in."""

    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    device: torch.device

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [n, c, h, w] each of pictures [n, 3, h, w] in [0, 1], as `MultiViewModel.posterior`."""
        with mixed_precision(self.device):
            return posterior(self.vae, pictures, self.spec.image_size)

    @torch.no_grad()
    def embeddings(self, pictures: Tensor) -> Tensor:
        """[n, d] of pictures [n, 3, h, w] in [0, 1], as `MultiViewModel.embed_image`."""
        with mixed_precision(self.device):
            embeddings: Tensor = self.image_encoder(pictures)
        return embeddings


def load_encoder(folder: Path, device: torch.device) -> Encoder:
    """VAE and image encoder of a model folder, float32. The paper's tower where a converted MVDream has none."""
    spec = read_spec(folder)
    image_encoder = read_image_encoder(folder)
    if image_encoder is None:
        paper = PAPER.tower
        if not isinstance(paper, OpenClipEncoder):
            raise UserError(f"{folder}: holds no image_tower/; give a model folder that holds one")
        print(f"note: {folder} holds no image_tower/; the paper's is taken: {paper.architecture}/{paper.pretrained}")
        image_encoder = fetch_image_encoder(paper)
    vae = load_vae(folder / "vae")
    for part in (vae, image_encoder):
        nn.Module.to(part.requires_grad_(False).eval(), device)
    return Encoder(vae, image_encoder, spec, device)
