"""Convert an LDM checkpoint to a model folder of diffusers parts."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro
from torch import nn

from dataset.errors import UserError
from train.convert.checkpoint_file import Notes, read_noted
from train.convert.hub import PUBLISHED, hub_name, published_file
from train.convert.key_names import (
    IMAGE_ENCODER_PREFIX,
    LDM_UNET_PREFIX,
    VAE_PREFIX,
    require_same,
)
from train.convert.ldm_parts import State, convert_unet, convert_vae, find_unet, vae_widths
from train.model.image_encoder import (
    ImageEncoder,
    SmallEncoder,
    build_image_encoder,
    image_encoder_from_state,
    save_image_encoder,
)
from train.model.multiview import CameraConvention, ModelSpec, write_spec

CONVERTER_VERSION: Final = 1  # raise it when the same file would become another model
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
    """Camera labels the weights expect. auto: what is known of the file; else a checkpoint with an image encoder is
    Isotropic3D's, whose weights convert degrees to radians twice, and all others do not."""
    image_size: int | None = None
    """Pixels a side that the model was trained at. Default: what is known of the file, else 256."""
    image_tower: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """open_clip architecture of the checkpoint's image encoder. Default: what is known of the file, else ViT-H-14."""


def convert(args: Convert) -> None:
    """Read, convert and write part by part, so that at most one float32 part is in memory beside the mapped file."""
    _check_out_folder(args.out_folder)
    repo = hub_name(args.checkpoint)
    path = args.checkpoint if repo is None else published_file(_published(repo))
    state, notes = read_noted(path)
    where = str(path)
    notes = _resolve(args, notes, repo)
    unet_state = find_unet(state, where)
    image_encoder_state = {name: tensor for name, tensor in state.items() if name.startswith(IMAGE_ENCODER_PREFIX)}
    vae_state = {name: tensor for name, tensor in state.items() if name.startswith(VAE_PREFIX)}
    cameras = notes.cameras or _guess_cameras(bool(image_encoder_state))
    factor = 2 ** (len(vae_widths(vae_state)) - 1) if vae_state else 8
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
    if image_encoder_state:
        image_encoder = _convert_image_encoder(image_encoder_state, notes.image_tower, where)
        save_image_encoder(image_encoder, args.out_folder / "image_tower")
        print(f"image encoder: {_millions(image_encoder)}")
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


def _convert_image_encoder(state: State, kind: str | SmallEncoder, where: str) -> ImageEncoder:
    visual = {name.removeprefix(IMAGE_ENCODER_PREFIX): tensor for name, tensor in state.items()}
    if isinstance(kind, str):
        return image_encoder_from_state(kind, visual, where)
    image_encoder = build_image_encoder(kind)
    require_same(visual, image_encoder.visual.state_dict(), f"{where}: image encoder")
    image_encoder.visual.load_state_dict({name: tensor.float() for name, tensor in visual.items()})
    return image_encoder


def _say_left_out(state: State) -> None:
    """Count the tensors that no part takes: the noise schedule, a text encoder, averaged weights."""
    rest = Counter(
        name.split(".")[0]
        for name in state
        if not name.startswith((VAE_PREFIX, IMAGE_ENCODER_PREFIX, LDM_UNET_PREFIX)) and name != "scale_factor"
    )
    if rest and any(name.startswith(LDM_UNET_PREFIX) for name in state):
        shown = ", ".join(f"{count} of {name}" for name, count in rest.most_common(4))
        print(f"left out: {rest.total()} tensors ({shown}{', ...' if len(rest) > 4 else ''})")


def _check_out_folder(folder: Path) -> None:
    if (folder / "checkpoints").exists() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: a training run or a file; give a folder of its own for the converted model")


def _guess_cameras(has_image_encoder: bool) -> CameraConvention:
    chosen: CameraConvention = "released_isotropic3d" if has_image_encoder else "relative"
    reason = (
        "has an image encoder: Isotropic3D's release"
        if has_image_encoder
        else "has no image encoder: not Isotropic3D's release"
    )
    print(f"camera labels: {chosen} (the checkpoint {reason}; --cameras overrides)")
    return chosen


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters"
