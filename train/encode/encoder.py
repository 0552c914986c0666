"""VAE and image encoder of a model, without the UNet, for encoding images."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.config.presets import PAPER
from train.device import mixed_precision
from train.layers.compile import can_compile, compile_modules
from train.model.image_encoder import ImageEncoder, OpenClipEncoder, fetch_image_encoder
from train.model.multiview import ModelSpec, load_vae, posterior, read_image_encoder, read_spec

logger = logging.getLogger(__name__)

CompileEncoder = Literal["auto", "on", "off"]
MIN_COMPILED_VIEWS: Final = 16_384  # compiling takes as long as encoding a third of these views without compiled code


@dataclass(frozen=True)
class Encoder:
    """VAE and image encoder on one device, which run with the precision used in training.

    The precision is bf16 autocast on a GPU and float32 on a CPU. `compiled_batch` is the number of images per call for
    which the VAE's encoder is compiled (`speed_up`); other numbers are encoded without the compiled code. None: the VAE
    is not compiled.
    """

    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    device: torch.device
    compiled_batch: int | None = None

    @torch.no_grad()
    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode n images [n, 3, H, W] in [0, 1]. Return the means and log variances of the VAE's posteriors.

        Both are [n, c, h, w], with c latent channels. The means are not multiplied by the model's latent scale.
        """
        compiled = self.compiled_batch in (None, len(images))
        stance = nullcontext() if compiled else torch.compiler.set_stance("force_eager")
        with mixed_precision(self.device), stance:
            return posterior(self.vae, images, self.spec.image_size)

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return the image encoder's embeddings [n, d] of images [n, 3, h, w] in [0, 1] on white."""
        with mixed_precision(self.device):
            embeddings: Tensor = self.image_encoder(images)
        return embeddings


def speed_up(encoder: Encoder, batch_size: int, views: int, compile: CompileEncoder = "auto") -> Encoder:
    """Prepare an encoder on a GPU for encoding many images. On a CPU, return `encoder` unchanged.

    The weights that autocast would convert at every call are converted once, which does not change the embeddings. The
    VAE's encoder becomes channels last and is compiled, which rounds differently and is worth its time for larger sets.

    Args:
        encoder: VAE and image encoder, which are changed in place.
        batch_size: Number of images per call.
        views: Number of images to encode.
        compile: Whether to compile the VAE's encoder. auto: for MIN_COMPILED_VIEWS or more images.
    """
    if encoder.device.type != "cuda":
        return encoder
    convert_for_autocast(encoder.image_encoder, torch.bfloat16)
    encoder.vae.to(memory_format=torch.channels_last)
    if compile == "off" or (compile == "auto" and views < MIN_COMPILED_VIEWS):
        return encoder
    if not can_compile():
        logger.warning(
            "the package triton is not installed; the VAE is not compiled and encodes at a third of the speed"
        )
        return encoder
    compile_modules([encoder.vae.encoder])  # type: ignore[list-item]
    return replace(encoder, compiled_batch=batch_size)


def convert_for_autocast(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert, in place, the weights that autocast to `dtype` would convert at every call. Outputs do not change.

    These are the weights of linear layers, convolutions and attention. Norms and embeddings stay in float32.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


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
