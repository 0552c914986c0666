"""Small checkpoints in the official key layouts: MVDream's UNet (golden), LDM's VAE, open_clip's image encoder."""

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.paths import GOLDEN_FOLDER
from train.components.component import seeded
from train.convert.key_names import IMAGE_ENCODER_PREFIX, VAE_PREFIX
from train.convert.ldm_parts import find_unet
from train.model.image_encoder import OpenClipEncoder, build_image_encoder

GOLDEN = GOLDEN_FOLDER / "mvdream_unet_micro.safetensors"
HEAD_WIDTH = 16  # of the golden UNet
IMAGE_SIZE = 32  # with the first stage's two levels: latents of 16
TINY_IMAGE_ENCODER = "tiny-24"  # as wide as the golden UNet's context


def register_tiny_image_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a small architecture with open_clip."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, TINY_IMAGE_ENCODER, config)


def golden_unet() -> dict[str, Tensor]:
    """MVDream's own key names without prefix, float16 as stored."""
    return find_unet(load_file(GOLDEN), "golden")


def image_encoder_state() -> dict[str, Tensor]:
    """The tiny image encoder (`register_tiny_image_encoder` first), random weights."""
    with seeded(0):
        image_encoder = build_image_encoder(OpenClipEncoder(TINY_IMAGE_ENCODER, None))
    return {IMAGE_ENCODER_PREFIX + key: value for key, value in image_encoder.visual.state_dict().items()}


def release(image_encoder: bool = True) -> dict[str, Tensor]:
    """A flat state dict as in the official files, with tensors that we do not use."""
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in golden_unet().items()} | vae_state()
    text = {"cond_stage_model.model.positional_embedding": torch.zeros(8, 16)}
    return (
        {"betas": torch.linspace(0.001, 0.01, 1000)} | state | text | (image_encoder_state() if image_encoder else {})
    )


def hub_cache(root: Path, repo: str, file: str, state: dict[str, Tensor]) -> Path:
    """The file as huggingface_hub keeps it: blobs/HASH, a link in snapshots/REVISION/, and refs/main."""
    folder = root / f"models--{repo.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot, blob = folder / "snapshots" / revision, folder / "blobs" / ("ab" * 32)
    for made in (snapshot, blob.parent, folder / "refs"):
        made.mkdir(parents=True, exist_ok=True)
    torch.save(state, blob)
    (folder / "refs" / "main").write_text(revision)
    (snapshot / file).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return snapshot / file


def vae_state() -> dict[str, Tensor]:
    """A first stage of two levels in LDM's key names, all tensors random."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv_in": (32, 3, 3, 3),
        "encoder.down.0.downsample.conv": (32, 32, 3, 3),
        "encoder.conv_out": (8, 64, 3, 3),
        "quant_conv": (8, 8, 1, 1),
        "post_quant_conv": (4, 4, 1, 1),
        "decoder.conv_in": (64, 4, 3, 3),
        "decoder.up.1.upsample.conv": (64, 64, 3, 3),
        "decoder.conv_out": (3, 32, 3, 3),
    }
    norms = {"encoder.norm_out": 64, "decoder.norm_out": 32}

    def resnet(name: str, before: int, after: int) -> None:
        norms.update({f"{name}.norm1": before, f"{name}.norm2": after})
        shapes.update({f"{name}.conv1": (after, before, 3, 3), f"{name}.conv2": (after, after, 3, 3)})
        if before != after:
            shapes[f"{name}.nin_shortcut"] = (after, before, 1, 1)

    resnet("encoder.down.0.block.0", 32, 32)
    resnet("encoder.down.1.block.0", 32, 64)
    for side in ("encoder", "decoder"):
        for block in ("block_1", "block_2"):
            resnet(f"{side}.mid.{block}", 64, 64)
        norms[f"{side}.mid.attn_1.norm"] = 64
        shapes.update({f"{side}.mid.attn_1.{part}": (64, 64, 1, 1) for part in ("q", "k", "v", "proj_out")})
    for level, (before, after) in {1: (64, 64), 0: (64, 32)}.items():
        for number in range(2):
            resnet(f"decoder.up.{level}.block.{number}", before if number == 0 else after, after)
    g = torch.Generator().manual_seed(0)
    state = {f"{name}.weight": torch.randn(shape, generator=g) / 10 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0], generator=g) / 10 for name, shape in shapes.items()}
    state |= {
        f"{name}.{part}": torch.rand(width, generator=g) for name, width in norms.items() for part in ("weight", "bias")
    }
    return {VAE_PREFIX + name: tensor for name, tensor in state.items()}
