"""The UNet of the multi-view model: diffusers' `UNet2DConditionModel` with a camera MLP and joint attention.

Axis letters as in `train.model.multiview`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dataset.errors import UserError
from train.model.attention import JointAttention

CAMERA_NUMBERS: Final = 16


@dataclass(frozen=True)
class UNetShape:
    """Sizes of the UNet.

    `widths` (numbers of channels) and `attention` (whether the level has transformer blocks) have an entry per level,
    from the finest to the coarsest. Every group of a group norm should contain several channels: the time and camera
    embedding is added per channel, and a group norm over a single channel would remove the embedding.
    """

    latent_channels: int
    latent_size: int
    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks_per_level: int
    head_width: int
    token_width: int
    norm_groups: int = 32


def build_unet(shape: UNetShape) -> nn.Module:
    """Build diffusers' UNet2DConditionModel with a camera MLP, random weights and joint attention.

    Raises UserError when a level's number of channels is not divisible by the number of channels per attention head.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    for width in shape.widths:
        if width % shape.head_width:
            raise UserError(
                f"the UNet's level of {width} channels is not divisible by the head width {shape.head_width}; give "
                f"another --head-width, which must divide {', '.join(map(str, shape.widths))}"
            )
    unet: nn.Module = UNet2DConditionModel(
        sample_size=shape.latent_size,
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        block_out_channels=shape.widths,
        layers_per_block=shape.blocks_per_level,
        down_block_types=tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in shape.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(shape.attention)),
        # diffusers' name is historical: the value is the number of heads of each level
        attention_head_dim=tuple(width // shape.head_width for width in shape.widths),
        cross_attention_dim=shape.token_width,
        norm_num_groups=shape.norm_groups,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=CAMERA_NUMBERS,
    )
    return join_frames(unet)


def join_frames(unet: nn.Module) -> nn.Module:
    """Set the UNet's attention processors to `JointAttention`, and return the UNet.

    A saved UNet does not contain its attention processors, so they must be set after loading.
    """
    unet.set_attn_processor(JointAttention())  # type: ignore[operator]
    return unet


def widen_conv_in(unet: nn.Module, channels: int) -> nn.Module:
    """Increase the number of the UNet's input channels to `channels`, in place, and return the UNet.

    The new channels come last, and their weights are zero, so the output does not depend on the new channels until
    training changes these weights. Raises UserError when the UNet has more than `channels` input channels already.
    """
    settings: Any = unet.config
    before = unet.conv_in
    if not isinstance(before, nn.Conv2d) or channels < before.in_channels:
        raise UserError(
            f"a UNet with {settings.in_channels} input channels cannot be widened to {channels}; give at least "
            f"{settings.in_channels} channels"
        )
    with torch.device(before.weight.device):
        after = nn.Conv2d(channels, before.out_channels, before.kernel_size, before.stride, before.padding)  # type: ignore[arg-type]
    after.to(before.weight.dtype)
    with torch.no_grad():
        after.weight.zero_()
        after.weight[:, : before.in_channels] = before.weight
        if after.bias is not None and before.bias is not None:
            after.bias.copy_(before.bias)
    unet.conv_in = after
    unet.register_to_config(in_channels=channels)  # type: ignore[operator]
    return unet


def run_unet(
    unet: nn.Module, latents: Tensor, timesteps: Tensor, cameras: Tensor, context: Tensor, *, num_frames: int
) -> Tensor:
    """Return the noise [(b f), c, h, w], in float32, that a UNet predicts from noisy latents.

    Args:
        unet: UNet with joint attention.
        latents: Noisy latents [(b f), c, h, w] of b objects with f frames each.
        timesteps: Timesteps [(b f)].
        cameras: Camera labels [(b f), 16].
        context: Conditioning tokens [(b f), l, d] for cross-attention: l tokens of width d per frame.
        num_frames: Frames per object, f.
    """
    dtype = next(unet.parameters()).dtype
    prediction: Tensor = unet(
        latents.to(dtype),
        timesteps,
        encoder_hidden_states=context.to(dtype),
        class_labels=cameras.to(dtype),
        cross_attention_kwargs={"num_frames": num_frames},
        return_dict=False,
    )[0]
    return prediction.float()


def load_unet(folder: Path) -> nn.Module:
    """Load a UNet from a diffusers folder, in float32, with joint attention.

    Raises UserError when the folder cannot be read or the UNet has no camera MLP.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = load_pretrained(UNet2DConditionModel, folder)
    settings: Any = unet.config
    if settings.class_embed_type != "projection" or settings.projection_class_embeddings_input_dim != CAMERA_NUMBERS:
        raise UserError(
            f"{folder}: the UNet has no input for the {CAMERA_NUMBERS} camera values; give a multi-view model, such as "
            "a converted MVDream"
        )
    return join_frames(unet)


def load_pretrained(kind: Any, folder: Path) -> nn.Module:
    """Load a module from a diffusers folder, in float32, without network access.

    Args:
        kind: The diffusers class of the module, such as UNet2DConditionModel.
        folder: Folder with config.json and the weights.

    Raises:
        UserError: The folder cannot be read, or parameters are missing.
    """
    try:
        part, info = kind.from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder}: cannot be read as {kind.__name__} ({reason}); train or convert the model again"
        ) from error
    if missing := info["missing_keys"]:  # diffusers would leave these parameters uninitialized
        raise UserError(
            f"{folder}: incomplete {kind.__name__}: {len(missing)} parameters are missing, such as "
            f"{sorted(missing)[0]}; copy, train or convert the model again"
        )
    module: nn.Module = part
    return module
