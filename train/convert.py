"""An LDM checkpoint (MVDream's sd-v2.1-base-4view.pt, isotropic3d.ckpt) -> a model folder of diffusers parts.

    python -m train.convert CHECKPOINT OUT_FOLDER [--head-width 64]

Widths and depths are read from the tensors' shapes; only the width of an attention head leaves no trace in them.
MVDream adds `camera_embed` to the time embedding exactly as diffusers adds a projected class embedding; that renamed,
diffusers' own key conversion applies. Every load is strict, in both directions.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dataset.errors import UserError, run_cli
from train.image_tower import save_tower, tower_from_state
from train.model import CAMERA_NUMBERS, CameraConvention, ModelSpec, UNetShape, build_unet, write_spec

State = Mapping[str, Tensor]

UNET_MARK: Final = "input_blocks.0.0.weight"  # what stands before it is the UNet's prefix
LDM_UNET_PREFIX: Final = "model.diffusion_model."
VAE_PREFIX: Final = "first_stage_model."
TOWER_PREFIX: Final = "cond_stage_model.model.visual."
LATENT_SCALE: Final = 0.18215  # Stable Diffusion's
GUIDANCE_SCALE: Final = 10.0  # paper, App. B


@dataclass(frozen=True)
class Convert:
    """Convert an LDM checkpoint into a model folder: unet/, and vae/ and image_tower/ where the checkpoint has them."""

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """.ckpt or .pt (read without running pickled code) or .safetensors."""
    out_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT_FOLDER")]
    """Where to write unet/, vae/, image_tower/ and model.json."""
    head_width: int = 64
    """Channels of an attention head (Stable Diffusion 2.1: 64)."""
    cameras: Literal["auto", "relative", "released_isotropic3d"] = "auto"
    """Camera labels the weights expect. auto: the published Isotropic3D weights (a checkpoint with an image tower)
    convert degrees to radians twice, all others do not."""
    image_size: int = 256
    """Pixels a side that the model was trained at."""
    image_tower: Annotated[str, tyro.conf.arg(metavar="NAME")] = "ViT-H-14"
    """open_clip architecture of the checkpoint's image tower."""


def convert(args: Convert) -> None:
    """Read, convert and write part by part, so that at most one float32 part is in memory beside the mapped file."""
    _check_out_folder(args.out_folder)
    state = read_checkpoint(args.checkpoint)
    where = str(args.checkpoint)
    unet_state = find_unet(state, where)
    has_tower = any(name.startswith(TOWER_PREFIX) for name in state)
    cameras = _choose_cameras(args.cameras, has_tower)
    vae_state = {name: tensor for name, tensor in state.items() if name.startswith(VAE_PREFIX)}
    factor = 2 ** (len(_vae_widths(vae_state)) - 1) if vae_state else 8
    latent_size = args.image_size // factor
    unet = convert_unet(unet_state, args.head_width, latent_size, where)
    unet.save_pretrained(args.out_folder / "unet")  # type: ignore[operator]
    print(f"unet: {_millions(unet)}")
    del unet
    scale = LATENT_SCALE
    if vae_state:
        scale = float(state["scale_factor"]) if "scale_factor" in state else LATENT_SCALE
        vae = convert_vae(vae_state, args.image_size, scale, where)
        vae.save_pretrained(args.out_folder / "vae")  # type: ignore[operator]
        print(f"vae: {_millions(vae)}")
    if has_tower:
        visual = {name.removeprefix(TOWER_PREFIX): state[name] for name in state if name.startswith(TOWER_PREFIX)}
        tower = tower_from_state(args.image_tower, visual, where)
        save_tower(tower, args.out_folder / "image_tower")
        print(f"image tower: {args.image_tower}, {_millions(tower)}")
    write_spec(ModelSpec(args.image_size, latent_size, scale, cameras, GUIDANCE_SCALE), args.out_folder)
    print(f"wrote {args.out_folder}")


def _check_out_folder(folder: Path) -> None:
    if (folder / "checkpoints").exists() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: a training run or a file; give a folder of its own for the converted model")


def _choose_cameras(asked: Literal["auto"] | CameraConvention, has_tower: bool) -> CameraConvention:
    if asked != "auto":
        return asked
    chosen: CameraConvention = "released_isotropic3d" if has_tower else "relative"
    reason = (
        "has an image tower: Isotropic3D's release" if has_tower else "has no image tower: not Isotropic3D's release"
    )
    print(f"camera labels: {chosen} (the checkpoint {reason}; --cameras overrides)")
    return chosen


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Flat name -> tensor of a checkpoint, memory-mapped where the format allows. Pickled code is never run."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; download the checkpoint first")
    loaded: Any
    if path.suffix == ".safetensors":
        try:
            loaded = load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: truncated or not a safetensors file ({error}); download it again") from error
    else:
        loaded = _read_pickle(path)
    nested = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(nested, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict; give an LDM checkpoint")
    return {name: value for name, value in nested.items() if isinstance(value, Tensor)}


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
            raise UserError(
                f"{path}: holds pickled Python objects beside its tensors, which could run code; "
                "save its state dict alone, or use a .safetensors file"
            ) from error
        raise UserError(f"{path}: truncated or not a PyTorch checkpoint; download it again") from error


def find_unet(state: State, where: str) -> dict[str, Tensor]:
    """The UNet's tensors with their prefix (`model.diffusion_model.`, or any, or none) cut off."""
    prefixes = [name.removesuffix(UNET_MARK) for name in state if name.endswith(UNET_MARK)]
    if not prefixes:
        raise UserError(f"{where}: no UNet in it (no {UNET_MARK}); give an LDM checkpoint such as MVDream's")
    prefix = LDM_UNET_PREFIX if LDM_UNET_PREFIX in prefixes else prefixes[0]
    parts = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "camera_embed.")
    names = [name for name in state if name.startswith(tuple(prefix + part for part in parts))]
    return {name.removeprefix(prefix): state[name] for name in names}


def unet_shape(state: State, head_width: int, latent_size: int, where: str) -> UNetShape:
    """Read the UNet's widths off its tensors (MVDream's key names)."""
    if "camera_embed.0.weight" not in state:
        raise UserError(f"{where}: a UNet without camera_embed; give a multi-view checkpoint such as MVDream's")
    try:
        ops = [int(name.split(".")[1]) for name in state if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name)]
        stride = min(ops)  # residual blocks and one downsampling a level
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
        raise UserError(f"{where}: its UNet is incomplete ({error}); download the checkpoint again") from error
    if proj.ndim != 2 or state["camera_embed.0.weight"].shape[1] != CAMERA_NUMBERS:
        raise UserError(f"{where}: not a Stable Diffusion 2.1 UNet with {CAMERA_NUMBERS} camera numbers")
    return shape


def rename_unet(state: State, shape: UNetShape) -> dict[str, Tensor]:
    """MVDream's UNet keys -> diffusers' (FrozenDict key names of UNet2DConditionModel)."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    ldm = {LDM_UNET_PREFIX + re.sub(r"^camera_embed\.", "label_emb.0.", name): tensor for name, tensor in state.items()}
    settings = {"layers_per_block": shape.blocks_per_level, "class_embed_type": "projection"}
    renamed: dict[str, Tensor] = convert_ldm_unet_checkpoint(ldm, settings)  # type: ignore[no-untyped-call]
    return renamed


def convert_unet(state: State, head_width: int, latent_size: int, where: str) -> nn.Module:
    """MVDream's UNet as diffusers', float32, all tensors accounted for."""
    shape = unet_shape(state, head_width, latent_size, where)
    renamed = rename_unet(state, shape)
    if len(renamed) != len(state):
        raise UserError(f"{where}: {len(state) - len(renamed)} of the UNet's {len(state)} tensors have no place in it")
    with torch.device("meta"):
        unet = build_unet(shape)
    return _fill(unet, renamed, f"{where}: UNet")


def convert_vae(state: State, image_size: int, latent_scale: float, where: str) -> nn.Module:
    """Stable Diffusion's first stage as diffusers' AutoencoderKL, float32."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = _vae_widths(state)
    blocks = re.compile(re.escape(VAE_PREFIX) + r"encoder\.down\.0\.block\.(\d+)\.")
    depth = len({match[1] for name in state if (match := blocks.match(name))})
    try:
        latent_channels = state[f"{VAE_PREFIX}post_quant_conv.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{where}: its first stage is incomplete ({error}); download the checkpoint again") from error
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
    blocks_of = {"down_block_types": widths, "up_block_types": widths}  # only their number is read
    renamed = convert_ldm_vae_checkpoint(dict(state), blocks_of)  # type: ignore[no-untyped-call]
    return _fill(vae, renamed, f"{where}: first stage")


def _vae_widths(state: State) -> tuple[int, ...]:
    name = VAE_PREFIX + "encoder.down.{}.block.0.conv2.weight"
    levels = sum(1 for level in range(16) if name.format(level) in state)
    if state and not levels:
        raise UserError("the checkpoint's first stage is incomplete; download the checkpoint again")
    return tuple(state[name.format(level)].shape[0] for level in range(levels))


def _fill(module: nn.Module, state: State, where: str) -> nn.Module:
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(f"{where} does not fit its own shape ({' '.join(str(error).split())[:200]})") from error
    return module


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters"


def main() -> None:
    """Command line."""
    convert(tyro.cli(Convert, prog="python -m train.convert"))


if __name__ == "__main__":
    run_cli(main)
