"""VAE and image encoder of a model, without the UNet, for encoding images."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from dataset.format.latents import Embedded
from dataset.format.schema import ALL_VIEWS, VIEWS_PER_SET
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
    which the VAE's encoder is compiled (`speed_up`), and `compiled_embedded` the same for the image encoder; other
    numbers are encoded without the compiled code. None: the network is not compiled.
    """

    vae: nn.Module
    image_encoder: ImageEncoder
    spec: ModelSpec
    device: torch.device
    compiled_batch: int | None = None
    compiled_embedded: int | None = None

    @torch.no_grad()
    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode n images [n, 3, H, W] in [0, 1]. Return the means and log variances of the VAE's posteriors.

        Both are [n, c, h, w], with c latent channels. The means are not multiplied by the model's latent scale.
        """
        with mixed_precision(self.device), _compiled_for(self.compiled_batch, len(images)):
            return posterior(self.vae, images, self.spec.image_size)

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return the image encoder's embeddings [n, d] of images [n, 3, h, w] in [0, 1] on white."""
        with mixed_precision(self.device), _compiled_for(self.compiled_embedded, len(images)):
            embeddings: Tensor = self.image_encoder(images)
        return embeddings


def _compiled_for(compiled_batch: int | None, count: int) -> AbstractContextManager[Any]:
    """Inside the block, compiled code runs only for `compiled_batch` images per call."""
    if compiled_batch in (None, count):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def full_batch(batch_size: int, views: int) -> int:
    """Return the number of images per call in most calls.

    Args:
        batch_size: Number of views encoded at once.
        views: Number of images of each object, 32 or those whose embedding is stored.
    """
    return min(batch_size, objects_per_batch(batch_size) * views)


def objects_per_batch(batch_size: int) -> int:
    """Return the number of objects that are encoded together. A batch of less than 32 views is a part of an object."""
    return max(1, batch_size // len(ALL_VIEWS))


def speed_up(
    encoder: Encoder, batch_size: int, views: int, compile: CompileEncoder = "auto", embedded: Embedded = "all"
) -> Encoder:
    """Prepare an encoder on a GPU for encoding many images. On a CPU, return `encoder` unchanged.

    The weights that autocast would convert at every call are converted once, which does not change the embeddings. The
    VAE's encoder becomes channels last. The VAE's encoder and the blocks of an image encoder of open_clip are compiled,
    which rounds differently and is worth its time for larger sets.

    Args:
        encoder: VAE and image encoder, which are changed in place.
        batch_size: Number of views encoded at once.
        views: Number of images to encode.
        compile: Whether to compile the networks. auto: for MIN_COMPILED_VIEWS or more images.
        embedded: Views whose embedding is stored.
    """
    if encoder.device.type != "cuda":
        return encoder
    convert_for_autocast(encoder.image_encoder, torch.bfloat16)
    encoder.vae.to(memory_format=torch.channels_last)
    if compile == "off" or (compile == "auto" and views < MIN_COMPILED_VIEWS):
        return encoder
    if not can_compile():
        logger.warning(
            "the package triton is not installed; VAE and image encoder are not compiled, so encoding takes longer"
        )
        return encoder
    blocks = transformer_blocks(encoder.image_encoder)
    compile_modules([encoder.vae.encoder, *blocks])  # type: ignore[list-item]
    of_embedded = len(ALL_VIEWS) if embedded == "all" else VIEWS_PER_SET
    return replace(
        encoder,
        compiled_batch=full_batch(batch_size, len(ALL_VIEWS)),
        compiled_embedded=full_batch(batch_size, of_embedded) if blocks else None,
    )


def transformer_blocks(image_encoder: nn.Module) -> list[nn.Module]:
    """Return the residual blocks of an image encoder of open_clip, which share their code; no blocks of other ones."""
    from open_clip.transformer import ResidualAttentionBlock

    return [module for module in image_encoder.modules() if isinstance(module, ResidualAttentionBlock)]


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
