"""Convert the UNet and VAE tensors of an LDM checkpoint to diffusers modules."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from dataset.errors import UserError
from train.convert.key_names import (
    LDM_UNET_PREFIX,
    VAE_PREFIX,
    ldm_unet_state,
    ldm_vae_state,
    require_same,
    seems_to_be,
)
from train.model.unet import CAMERA_NUMBERS, UNetShape, build_unet

State = Mapping[str, Tensor]
UNET_MARK: Final = "input_blocks.0.0.weight"  # the text before it is the prefix of the UNet's keys


def find_unet(state: State, where: str) -> dict[str, Tensor]:
    """Return the UNet's tensors, without the prefix of their names (`model.diffusion_model.` or another, if any).

    Raises:
        UserError: the state dict contains no UNet.
    """
    prefixes = [name.removesuffix(UNET_MARK) for name in state if name.endswith(UNET_MARK)]
    if not prefixes:
        raise UserError(
            f"{where}: no UNet found ({UNET_MARK} is missing); give an LDM checkpoint such as MVDream's. "
            f"The file seems to be {seems_to_be(list(state))}"
        )
    prefix = LDM_UNET_PREFIX if LDM_UNET_PREFIX in prefixes else prefixes[0]
    parts = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "camera_embed.")
    names = [name for name in state if name.startswith(prefix or parts)]
    return {name.removeprefix(prefix): state[name] for name in names}


def unet_shape(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> UNetShape:
    """Infer the UNet's sizes from the shapes of its tensors, which have MVDream's names.

    Args:
        state: The UNet's tensors.
        head_width: Channels per attention head.
        latent_size: Height and width of the latents.
        where: File name for error messages.
        whole: All keys of the file, to describe it in error messages.

    Raises:
        UserError: the UNet is incomplete or not MVDream's architecture.
    """
    if "camera_embed.0.weight" not in state:
        raise UserError(
            f"{where}: the UNet has no camera_embed; give a multi-view checkpoint such as MVDream's. "
            f"The file seems to be {seems_to_be(list(state if whole is None else whole))}"
        )
    try:
        ops = [int(name.split(".")[1]) for name in state if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name)]
        stride = min(ops)  # residual blocks and one downsampling per level
        first = [1 + stride * level for level in range(len(ops) + 1)]
        proj = next(state[name] for name in state if name.endswith(".1.proj_in.weight"))
        token_width = next(t.shape[1] for name, t in state.items() if name.endswith("attn2.to_k.weight"))
        shape = UNetShape(
            latent_channels=state["input_blocks.0.0.weight"].shape[1],
            latent_size=latent_size,
            widths=tuple(state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in first),
            attention=tuple(f"input_blocks.{i}.1.proj_in.weight" in state for i in first),
            blocks_per_level=stride - 1,
            head_width=head_width,
            token_width=token_width,
        )
    except (KeyError, ValueError, StopIteration) as error:
        raise UserError(f"{where}: the UNet is incomplete ({error}); download the checkpoint again") from error
    if proj.ndim != 2 or state["camera_embed.0.weight"].shape[1] != CAMERA_NUMBERS:
        raise UserError(
            f"{where}: not a Stable Diffusion 2.1 UNet with {CAMERA_NUMBERS} camera values; give MVDream's checkpoint"
        )
    return shape


def rename_unet(state: State, shape: UNetShape) -> dict[str, Tensor]:
    """Rename MVDream's UNet parameters to those of diffusers' UNet2DConditionModel."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    ldm = {LDM_UNET_PREFIX + re.sub(r"^camera_embed\.", "label_emb.0.", name): tensor for name, tensor in state.items()}
    settings = {"layers_per_block": shape.blocks_per_level, "class_embed_type": "projection"}
    renamed: dict[str, Tensor] = convert_ldm_unet_checkpoint(ldm, settings)  # type: ignore[no-untyped-call]
    return renamed


def convert_unet(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
    """Convert MVDream's UNet to diffusers in float32; see `unet_shape` for the arguments.

    Raises:
        UserError: the UNet is incomplete, has unexpected tensors, or is of another architecture.
    """
    shape = unet_shape(state, head_width, latent_size, where, whole)
    with torch.device("meta"):
        unet = build_unet(shape)
    require_same(state, ldm_unet_state(unet.state_dict(), shape), f"{where}: UNet", whole)
    return _fill(unet, rename_unet(state, shape), f"{where}: UNet")


def convert_vae(
    state: State, image_size: int, latent_scale: float, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
    """Convert Stable Diffusion's first stage to diffusers' AutoencoderKL in float32.

    Raises:
        UserError: the first stage is incomplete or has unexpected tensors.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = vae_widths(state)
    blocks = re.compile(re.escape(VAE_PREFIX) + r"encoder\.down\.0\.block\.(\d+)\.")
    depth = len({match[1] for name in state if (match := blocks.match(name))})
    try:
        latent_channels = state[f"{VAE_PREFIX}post_quant_conv.weight"].shape[0]
    except KeyError as error:
        raise UserError(
            f"{where}: the first stage (VAE) is incomplete ({error}); download the checkpoint again"
        ) from error
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            layers_per_block=depth,
            latent_channels=latent_channels,
            sample_size=image_size,
            scaling_factor=latent_scale,
        )
    expected = {VAE_PREFIX + name: shape for name, shape in ldm_vae_state(vae.state_dict(), len(widths)).items()}
    require_same(state, expected, f"{where}: first stage", whole)
    blocks_of = {"down_block_types": widths, "up_block_types": widths}  # diffusers only uses their number
    renamed = convert_ldm_vae_checkpoint(dict(state), blocks_of)  # type: ignore[no-untyped-call]
    return _fill(vae, renamed, f"{where}: first stage")


def vae_widths(state: State) -> tuple[int, ...]:
    """Return the number of channels of each level of the VAE of an LDM checkpoint; empty if it has no VAE.

    Raises UserError when the VAE is incomplete.
    """
    name = VAE_PREFIX + "encoder.down.{}.block.0.conv2.weight"
    levels = sum(1 for level in range(16) if name.format(level) in state)
    if state and not levels:
        raise UserError("the checkpoint's first stage (VAE) is incomplete; download the checkpoint again")
    return tuple(state[name.format(level)].shape[0] for level in range(levels))


def _fill(module: nn.Module, state: State, where: str) -> nn.Module:
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{where}: the converted parameters do not match ({' '.join(str(error).split())[:200]}); download "
            "the checkpoint again"
        ) from error
    return module
