"""An LDM checkpoint (MVDream's sd-v2.1-base-4view.pt, isotropic3d.ckpt) -> a model folder of diffusers parts.

    python -m train.convert CHECKPOINT OUT_FOLDER [--head-width 64]

CHECKPOINT is a file or a published name (MVDream/MVDream, pkunliu/Isotropic3D). Widths and depths are read from the
tensors' shapes; the width of an attention head and the camera convention leave no trace in them: they come from the
command line, the published name, or the notes that `train.export` leaves in a file, in this order.
MVDream adds `camera_embed` to the time embedding exactly as diffusers adds a projected class embedding; that renamed,
diffusers' own key conversion applies. Every load is strict, in both directions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
import tyro
from torch import Tensor, nn

from dataset.errors import UserError, run_cli
from train.convert.checkpoint_file import Notes, read_noted
from train.convert.hub import PUBLISHED, hub_name, published_file
from train.convert.key_names import (
    LDM_UNET_PREFIX,
    TOWER_PREFIX,
    VAE_PREFIX,
    ldm_unet_state,
    ldm_vae_state,
    require_same,
    seems_to_be,
)
from train.model.image_encoder import ImageTower, SmallTower, build_tower, save_tower, tower_from_state
from train.model.multiview import CAMERA_NUMBERS, CameraConvention, ModelSpec, UNetShape, build_unet, write_spec

State = Mapping[str, Tensor]

CONVERTER_VERSION: Final = 1  # raise it when the same file would become another model
UNET_MARK: Final = "input_blocks.0.0.weight"  # what stands before it is the UNet's prefix
LATENT_SCALE: Final = 0.18215  # Stable Diffusion's


@dataclass(frozen=True)
class Convert:
    """Convert an LDM checkpoint into a model folder: unet/, and vae/ and image_tower/ where the checkpoint has them."""

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """.ckpt or .pt (read without running pickled code) or .safetensors; or MVDream/MVDream, pkunliu/Isotropic3D."""
    out_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT_FOLDER")]
    """Where to write unet/, vae/, image_tower/ and model.json."""
    head_width: int | None = None
    """Channels of an attention head. Default: what is known of the file, else Stable Diffusion 2.1's 64."""
    cameras: Literal["auto", "relative", "absolute", "released_isotropic3d"] = "auto"
    """Camera labels the weights expect. auto: what is known of the file; else a checkpoint with an image tower is
    Isotropic3D's, whose weights convert degrees to radians twice, and all others do not."""
    image_size: int | None = None
    """Pixels a side that the model was trained at. Default: what is known of the file, else 256."""
    image_tower: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """open_clip architecture of the checkpoint's image tower. Default: what is known of the file, else ViT-H-14."""


def convert(args: Convert) -> None:
    """Read, convert and write part by part, so that at most one float32 part is in memory beside the mapped file."""
    _check_out_folder(args.out_folder)
    repo = hub_name(args.checkpoint)
    path = args.checkpoint if repo is None else published_file(_published(repo))
    state, notes = read_noted(path)
    where = str(path)
    notes = _resolve(args, notes, repo)
    unet_state = find_unet(state, where)
    tower_state = {name: tensor for name, tensor in state.items() if name.startswith(TOWER_PREFIX)}
    vae_state = {name: tensor for name, tensor in state.items() if name.startswith(VAE_PREFIX)}
    cameras = notes.cameras or _guess_cameras(bool(tower_state))
    factor = 2 ** (len(_vae_widths(vae_state)) - 1) if vae_state else 8
    latent_size = notes.image_size // factor
    unet = convert_unet(unet_state, notes.head_width, latent_size, where, whole=state)
    unet.save_pretrained(args.out_folder / "unet")  # type: ignore[operator]
    print(f"unet: {_millions(unet)}")
    del unet
    scale = notes.latent_scale or LATENT_SCALE
    if vae_state:
        scale = float(state["scale_factor"]) if "scale_factor" in state else scale
        vae = convert_vae(vae_state, notes.image_size, scale, where, whole=state)
        vae.save_pretrained(args.out_folder / "vae")  # type: ignore[operator]
        print(f"vae: {_millions(vae)}")
    if tower_state:
        tower = _convert_tower(tower_state, notes.image_tower, where)
        save_tower(tower, args.out_folder / "image_tower")
        print(f"image tower: {_millions(tower)}")
    _say_left_out(state)
    write_spec(ModelSpec(notes.image_size, latent_size, scale, cameras, notes.guidance_scale), args.out_folder)
    print(f"wrote {args.out_folder}")


def _published(repo: str) -> str:
    if repo not in PUBLISHED:
        raise UserError(f"{repo}: not an official checkpoint ({sorted(PUBLISHED)}); other models need no conversion")
    return repo


def _resolve(args: Convert, notes: Notes, repo: str | None) -> Notes:
    """The command line over the published name over the file's own notes."""
    if repo is not None:
        about = PUBLISHED[repo]
        notes = Notes(about.cameras, about.head_width, about.image_size, about.image_tower)
    if args.cameras != "auto":
        notes = replace(notes, cameras=args.cameras)
    elif notes.cameras is not None:
        print(f"camera labels: {notes.cameras} (known of {repo or 'this file'}; --cameras overrides)")
    return replace(
        notes,
        head_width=args.head_width or notes.head_width,
        image_size=args.image_size or notes.image_size,
        image_tower=args.image_tower or notes.image_tower,
    )


def _convert_tower(state: State, kind: str | SmallTower, where: str) -> ImageTower:
    visual = {name.removeprefix(TOWER_PREFIX): tensor for name, tensor in state.items()}
    if isinstance(kind, str):
        return tower_from_state(kind, visual, where)
    tower = build_tower(kind)
    require_same(visual, tower.visual.state_dict(), f"{where}: image tower")
    tower.visual.load_state_dict({name: tensor.float() for name, tensor in visual.items()})
    return tower


def _say_left_out(state: State) -> None:
    """Count the tensors that no part takes: the noise schedule, a text encoder, averaged weights."""
    rest = Counter(
        name.split(".")[0]
        for name in state
        if not name.startswith((VAE_PREFIX, TOWER_PREFIX, LDM_UNET_PREFIX)) and name != "scale_factor"
    )
    if rest and any(name.startswith(LDM_UNET_PREFIX) for name in state):
        shown = ", ".join(f"{count} of {name}" for name, count in rest.most_common(4))
        print(f"left out: {rest.total()} tensors ({shown}{', ...' if len(rest) > 4 else ''})")


def _check_out_folder(folder: Path) -> None:
    if (folder / "checkpoints").exists() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: a training run or a file; give a folder of its own for the converted model")


def _guess_cameras(has_tower: bool) -> CameraConvention:
    chosen: CameraConvention = "released_isotropic3d" if has_tower else "relative"
    reason = (
        "has an image tower: Isotropic3D's release" if has_tower else "has no image tower: not Isotropic3D's release"
    )
    print(f"camera labels: {chosen} (the checkpoint {reason}; --cameras overrides)")
    return chosen


def find_unet(state: State, where: str) -> dict[str, Tensor]:
    """The UNet's tensors with their prefix (`model.diffusion_model.`, or any, or none) cut off."""
    prefixes = [name.removesuffix(UNET_MARK) for name in state if name.endswith(UNET_MARK)]
    if not prefixes:
        raise UserError(
            f"{where}: no UNet in it (no {UNET_MARK}); give an LDM checkpoint such as MVDream's. "
            f"The file seems to be {seems_to_be(list(state))}"
        )
    prefix = LDM_UNET_PREFIX if LDM_UNET_PREFIX in prefixes else prefixes[0]
    parts = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "camera_embed.")
    names = [name for name in state if name.startswith(prefix or parts)]
    return {name.removeprefix(prefix): state[name] for name in names}


def unet_shape(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> UNetShape:
    """Read the UNet's widths off its tensors (MVDream's key names). `whole`: the file's keys, to say what it is."""
    if "camera_embed.0.weight" not in state:
        raise UserError(
            f"{where}: a UNet without camera_embed; give a multi-view checkpoint such as MVDream's. "
            f"The file seems to be {seems_to_be(list(state if whole is None else whole))}"
        )
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


def convert_unet(
    state: State, head_width: int, latent_size: int, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
    """MVDream's UNet as diffusers', float32, all tensors accounted for. `whole`: the file's keys, to say what it is."""
    shape = unet_shape(state, head_width, latent_size, where, whole)
    with torch.device("meta"):
        unet = build_unet(shape)
    require_same(state, ldm_unet_state(unet.state_dict(), shape), f"{where}: UNet", whole)
    return _fill(unet, rename_unet(state, shape), f"{where}: UNet")


def convert_vae(
    state: State, image_size: int, latent_scale: float, where: str, whole: Iterable[str] | None = None
) -> nn.Module:
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
    expected = {VAE_PREFIX + name: shape for name, shape in ldm_vae_state(vae.state_dict(), len(widths)).items()}
    require_same(state, expected, f"{where}: first stage", whole)
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
