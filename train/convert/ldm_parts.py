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
    """Return the UNet's tensors by name. The names' common prefix, such as `model.diffusion_model.`, is removed.

    Args:
        state: All tensors of a checkpoint file by name.
        where: Path of the checkpoint file, for error messages.

    Raises:
        UserError: The state dict contains no UNet.
    """
    prefixes = [name.removesuffix(UNET_MARK) for name in state if name.endswith(UNET_MARK)]
    if not prefixes:
        raise UserError(
            f"{where}: no UNet found (no tensor is named {UNET_MARK}); give an LDM checkpoint, such as MVDream's. "
            f"The file seems to be {seems_to_be(list(state))}"
        )
    prefix = LDM_UNET_PREFIX if LDM_UNET_PREFIX in prefixes else prefixes[0]
    parts = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "camera_embed.")
    names = [name for name in state if name.startswith(prefix or parts)]
    return {name.removeprefix(prefix): state[name] for name in names}


def unet_shape(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> UNetShape:
    """Infer the sizes of a UNet with MVDream's parameter names from the shapes of the parameters.

    Args:
        state: The UNet's parameters by MVDream's names.
        head_width: Channels per attention head.
        latent_size: Height and width of the latents.
        where: Path of the checkpoint file, for error messages.
        whole: All keys of the checkpoint file. Error messages guess from them what the file is. None: the keys of
            `state`.

    Raises:
        UserError: The UNet is incomplete or does not have MVDream's architecture.
    """
    if "camera_embed.0.weight" not in state:
        raise UserError(
            f"{where}: the UNet has no input for cameras (no tensor is named camera_embed.0.weight); give a multi-view "
            "checkpoint, such as MVDream's. "
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
        raise UserError(
            f"{where}: the UNet is incomplete ({type(error).__name__}: {error}); download the checkpoint again"
        ) from error
    if proj.ndim != 2 or state["camera_embed.0.weight"].shape[1] != CAMERA_NUMBERS:
        raise UserError(
            f"{where}: not a Stable Diffusion 2.1 UNet with {CAMERA_NUMBERS} camera values; give a multi-view "
            "checkpoint, such as MVDream's"
        )
    return shape


def rename_unet(state: State, shape: UNetShape) -> dict[str, Tensor]:
    """Return the parameters of MVDream's UNet with the names of diffusers' UNet2DConditionModel.

    Args:
        state: Parameters by MVDream's names, each of any shape.
        shape: Sizes of the UNet.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    ldm = {LDM_UNET_PREFIX + re.sub(r"^camera_embed\.", "label_emb.0.", name): tensor for name, tensor in state.items()}
    settings = {"layers_per_block": shape.blocks_per_level, "class_embed_type": "projection"}
    renamed: dict[str, Tensor] = convert_ldm_unet_checkpoint(ldm, settings)  # type: ignore[no-untyped-call]
    return renamed


def convert_unet(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
    """Convert MVDream's UNet to a diffusers UNet2DConditionModel in float32. For the arguments, see `unet_shape`.

    Raises:
        UserError: The UNet is incomplete, has unexpected tensors, or has another architecture.
    """
    shape = unet_shape(state, head_width, latent_size, where, whole)
    with torch.device("meta"):
        unet = build_unet(shape)
    require_same(state, ldm_unet_state(unet.state_dict(), shape), f"{where}: UNet", whole)
    return _fill(unet, rename_unet(state, shape), f"{where}: UNet")


def convert_vae(
    state: State, image_size: int, latent_scale: float, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
    """Convert Stable Diffusion's first stage (VAE) to a diffusers AutoencoderKL in float32.

    Args:
        state: The VAE's tensors by LDM's names, with the prefix `first_stage_model.`.
        image_size: Height and width of the training images in pixels, stored in the VAE's config.
        latent_scale: Factor that scales latents to unit variance, stored in the VAE's config.
        where: Path of the checkpoint file, for error messages.
        whole: All keys of the checkpoint file. Error messages guess from them what the file is. None: the keys of
            `state`.

    Raises:
        UserError: The first stage is incomplete or has unexpected tensors.
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
            f"{where}: the first stage (VAE) is incomplete (there is no tensor {error}); download the checkpoint again"
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
    """Return the number of channels at each level of the VAE in an LDM checkpoint.

    `state` contains the VAE's tensors by LDM's names, with the prefix `first_stage_model.`. If `state` is empty, the
    returned tuple is empty. Raises UserError when `state` contains tensors, but not those of the VAE's encoder.
    """
    name = VAE_PREFIX + "encoder.down.{}.block.0.conv2.weight"
    levels = sum(1 for level in range(16) if name.format(level) in state)
    if state and not levels:
        raise UserError(
            f"the first stage (VAE) of the checkpoint is incomplete ({name.format(0)} is missing); download the "
            "checkpoint again"
        )
    return tuple(state[name.format(level)].shape[0] for level in range(levels))


def _fill(module: nn.Module, state: State, where: str) -> nn.Module:
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{where}: the converted parameters do not fit the diffusers module "
            f"({' '.join(str(error).split())[:200]}); download the checkpoint again"
        ) from error
    return module
