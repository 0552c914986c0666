"""Write the inputs of a rehearsal: a checkpoint with random weights in LDM layout, and a set of synthetic objects.

    python -m benchmarks.rehearsal.inputs checkpoint OUT.pt --size paper
    python -m benchmarks.rehearsal.inputs objects OUT_FOLDER --size paper

The checkpoint has the keys of MVDream's file and, like Isotropic3D's release, an image encoder, because MVDream's would
have to be downloaded. The objects are boxes and ellipsoids that numpy ray-casts, without Blender.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.rehearsal.plan import SIZES
from dataset.errors import run_cli
from train.config.unet_shapes import SD21_UNET
from train.convert.convert import LATENT_SCALE
from train.device import pick_device
from train.export import ModelParts, ldm_state
from train.model.image_encoder import OpenClipEncoder, build_image_encoder
from train.model.multiview import ModelSpec
from train.model.noise_schedule import noise_schedule
from train.model.unet import UNetShape, build_unet

OBJECTS_PER_SHARD: Final = 4


@dataclass(frozen=True)
class CheckpointShape:
    """Sizes of the networks in a checkpoint. The VAE halves height and width after each level but the last."""

    unet: UNetShape
    vae_widths: tuple[int, ...]
    vae_blocks_per_level: int
    image_encoder: str  # open_clip's name


SHAPES: Final = {
    "paper": CheckpointShape(SD21_UNET, (128, 256, 512, 512), 2, "ViT-H-14"),
    "toy": CheckpointShape(
        UNetShape(4, 8, (32, 64), (True, True), 1, head_width=16, token_width=256),
        (32, 32, 32, 32),
        1,
        "ViT-S-32-alt",  # the smallest of open_clip
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the input that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearsal.inputs", description=__doc__)
    parser.add_argument("kind", choices=("checkpoint", "objects"), help="the input to write")
    parser.add_argument("out", type=Path, help="file or folder to write")
    parser.add_argument("--size", choices=sorted(SIZES), default="paper", help="size of networks and images")
    parser.add_argument("--device", default="auto", help="device on which random weights are drawn")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.kind == "checkpoint":
        torch.save(random_checkpoint(SHAPES[options.size], pick_device(options.device)), options.out)
    else:
        from tests.support.make_shards import make_shard_set

        size = SIZES[options.size]
        make_shard_set(options.out, size.objects, size.image_size, OBJECTS_PER_SHARD)
    print(f"wrote {options.out}")


def random_checkpoint(shape: CheckpointShape, device: torch.device) -> dict[str, Tensor]:
    """Return a state dict in LDM layout with random weights, in float32 on the CPU.

    Besides the networks, it contains tensors that the conversion skips, as the official files do: noise schedule and
    text encoder.

    Args:
        shape: Sizes of the networks.
        device: Device on which the weights are drawn; a GPU is much faster.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    levels = len(shape.vae_widths)
    with torch.device(device):
        unet = build_unet(shape.unet)
        vae: Any = AutoencoderKL(
            block_out_channels=shape.vae_widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=shape.vae_blocks_per_level,
            latent_channels=shape.unet.latent_channels,
        )
        image_encoder = build_image_encoder(OpenClipEncoder(shape.image_encoder, None))
    image_size = shape.unet.latent_size * 2 ** (levels - 1)
    spec = ModelSpec(image_size, shape.unet.latent_size, LATENT_SCALE, "relative", 10.0)
    alphas = noise_schedule()
    return {
        "betas": 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]]),
        "alphas_cumprod": alphas,
        "cond_stage_model.model.positional_embedding": torch.zeros(77, shape.unet.token_width),
        **ldm_state(ModelParts(spec, unet, vae, image_encoder)),
    }


if __name__ == "__main__":
    run_cli(main)
