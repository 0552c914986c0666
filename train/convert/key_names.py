"""Rename parameters from diffusers to LDM (the layout of MVDream's and Isotropic3D's files), and compare key sets.

`diffusers.loaders.single_file_utils` only converts from LDM to diffusers; this module does the inverse. The tests check
that both conversions together change nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from torch import Tensor

from dataset.errors import UserError
from train.model.unet import UNetShape

LDM_UNET_PREFIX: Final = "model.diffusion_model."
VAE_PREFIX: Final = "first_stage_model."
IMAGE_ENCODER_PREFIX: Final = "cond_stage_model.model.visual."
_SHOWN: Final = 3  # names per error message

_UNET_ENDS: Final = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "camera_embed.0",  # MVDream's camera MLP
    "class_embedding.linear_2": "camera_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION: Final = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VAE_MATRIX: Final = re.compile(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$")

Shape = tuple[int, ...]


def ldm_unet_name(name: str, shape: UNetShape) -> str:
    """Return the name that MVDream gives to a diffusers UNet parameter, without the prefix `model.diffusion_model.`.

    Args:
        name: The parameter's name in diffusers' UNet2DConditionModel.
        shape: Sizes of the UNet, which determine the numbers in the name.

    Raises:
        UserError: MVDream's UNet has no such parameter.
    """
    for theirs, ours in _UNET_ENDS.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, number, rest = match.groups()
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(number)}.{_resnet(rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    if match is None:
        raise UserError(
            f"the UNet's parameter {name} has no counterpart in the LDM layout; export with --format diffusers"
        )
    side, block, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    stride = shape.blocks_per_level + 1
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * stride}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        after = 2 if shape.attention[::-1][block] else 1  # after the level's transformer, if there is one
        return f"output_blocks.{block * stride + stride - 1}.{after}.{rest}"
    place = (
        f"input_blocks.{1 + block * stride + number}" if side == "down" else f"output_blocks.{block * stride + number}"
    )
    return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    part, _, end = rest.rpartition(".")
    return f"{_UNET_RESNET[part]}.{end}"


def ldm_vae_name(name: str, levels: int) -> str:
    """Return the name that LDM gives to a diffusers VAE parameter, without the prefix `first_stage_model.`.

    Args:
        name: The parameter's name in diffusers' AutoencoderKL.
        levels: Number of resolutions of the VAE's decoder.
    """
    name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        return f"{match[1]}.mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    up = re.search(r"up_blocks\.(\d+)\.(resnets\.|upsamplers\.0\.)", name)
    if up is None:
        return name
    kind = "block." if up[2] == "resnets." else "upsample."
    level = levels - 1 - int(up[1])  # LDM counts the decoder's levels from fine to coarse
    return name.replace(up[0], f"up.{level}.{kind}")


def ldm_unet_state(state: Mapping[str, Tensor], shape: UNetShape) -> dict[str, Tensor]:
    """Return a diffusers UNet state dict with MVDream's names, without the prefix `model.diffusion_model.`.

    The tensors have any shape and are not copied. `shape` contains the sizes of the UNet.
    """
    return {ldm_unet_name(name, shape): tensor for name, tensor in state.items()}


def ldm_vae_state(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Return a diffusers VAE state dict with LDM's names, without the prefix `first_stage_model.`.

    Attention matrices [c, c] with c channels become 1x1 convolutions [c, c, 1, 1]. No tensor is copied.

    Args:
        state: Parameters by diffusers' names, each of any shape.
        levels: Number of resolutions of the VAE's decoder.
    """
    renamed = {ldm_vae_name(name, levels): tensor for name, tensor in state.items()}
    return {
        name: tensor[:, :, None, None] if _VAE_MATRIX.search(name) and tensor.ndim == 2 else tensor
        for name, tensor in renamed.items()
    }


def require_same(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, whole: Iterable[str] | None = None
) -> None:
    """Check that two state dicts have the same keys, and tensors of the same shapes.

    Args:
        actual: Tensors of any shape by key, from a checkpoint file.
        expected: Tensors by key that define which keys and shapes are expected.
        where: Path of the checkpoint file, for the error message.
        whole: All keys of the file, if `actual` contains only some of them. None: the keys of `actual`.

    Raises:
        UserError: Keys are missing or unexpected, or shapes differ. The message also guesses from all
            keys what the file is, for example another type of checkpoint.
    """
    missing = [name for name in expected if name not in actual]
    unexpected = [name for name in actual if name not in expected]
    other = [
        f"{name} is {list(actual[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in actual and actual[name].shape != expected[name].shape
    ]
    problems = [
        f"{what} {_few(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape:", other))
        if names
    ]
    if problems:
        raise UserError(
            f"{where} does not contain the expected tensors: {'; '.join(problems)}. Give a complete checkpoint in LDM "
            f"layout. The file seems to be {seems_to_be(list(whole) if whole is not None else list(actual))}"
        )


def _few(names: Sequence[str]) -> str:
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def seems_to_be(names: Sequence[str]) -> str:
    """Guess what a file is from the names of the file's tensors. Return a description for an error message."""
    for words, marks in _KINDS:
        if all(any(re.search(mark, name) for name in names) for mark in marks):
            return words
    if not names:
        return "empty (it contains no tensors)"
    return f"of an unknown kind (its first keys: {_few(sorted(names))})"


_KINDS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("a LoRA, not a complete model", (r"lora[_.]?(up|down|A|B)\b|lora_(up|down|A|B)",)),
    ("Zero123's checkpoint (cc_projection), a single-view model", (r"^cc_projection\.",)),
    (
        "an Isotropic3D-like checkpoint (multi-view UNet and image encoder)",
        (r"camera_embed\.0\.weight$", r"^cond_stage_model\.model\.visual\."),
    ),
    ("an MVDream-like checkpoint (multi-view UNet, no image encoder)", (r"camera_embed\.0\.weight$",)),
    (
        "a Stable Diffusion checkpoint (a single-view UNet, without camera_embed)",
        (r"(^|\.)input_blocks\.0\.0\.weight$",),
    ),
    (
        "a diffusers UNet; give its folder, not its file",
        (r"^down_blocks\.0\.", r"^(mid_block|conv_in)\.", r"^up_blocks\."),
    ),
    ("a checkpoint of a training run of this project; give the run's folder", (r"^(exp_avg|exp_avg_sq)\.",)),
    ("only a VAE", (r"^(first_stage_model\.)?encoder\.", r"^(first_stage_model\.)?decoder\.")),
    ("only a CLIP model (open_clip's names)", (r"(^|\.)transformer\.resblocks\.0\.",)),
    ("only a CLIP model (transformers' names)", (r"(^|\.)(vision|text)_model\.",)),
)
