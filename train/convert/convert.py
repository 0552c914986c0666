"""Convert a checkpoint in LDM layout (latent-diffusion, as MVDream's) to a model folder in diffusers format."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro
from torch import nn

from dataset.errors import UserError
from dataset.io.options import HiddenDefault
from train.convert.checkpoint_file import Notes, read_with_notes
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
    TrainedEncoder,
    build_image_encoder,
    image_encoder_from_state,
    save_image_encoder,
)
from train.model.multiview import CameraConvention, ModelSpec, write_spec

logger = logging.getLogger(__name__)

CONVERTER_VERSION: Final = 2  # increase when the same file would be converted differently
LATENT_SCALE: Final = 0.18215  # Stable Diffusion's


@dataclass(frozen=True)
class ConvertArgs:
    """Convert a checkpoint in LDM layout, such as MVDream's or Isotropic3D's, to a model folder.

    The folder contains unet/ and model.json, and vae/ and image_tower/ if the checkpoint has these parts.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """.ckpt, .pt (read without running pickled code) or .safetensors file; or MVDream/MVDream, pkunliu/Isotropic3D."""
    out_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT_FOLDER")]
    """Folder to write unet/, vae/, image_tower/ and model.json to."""
    head_width: HiddenDefault[int | None] = None
    """Number of channels per attention head. Default: the number stored in the file or known for the published
    checkpoint, otherwise 64 as in Stable Diffusion 2.1."""
    cameras: Literal["auto", "relative", "absolute", "released_isotropic3d"] = "auto"
    """Camera labels that the weights expect. auto: the labels stored in the file or known for the published checkpoint.
    If unknown, auto means released_isotropic3d (degrees converted to radians twice) for a checkpoint with an image
    encoder, and relative for one without."""
    image_size: HiddenDefault[int | None] = None
    """Image size in pixels used in training. Default: the size stored in the file or known for the published
    checkpoint, otherwise 256."""
    image_tower: HiddenDefault[Annotated[str | None, tyro.conf.arg(name="image-encoder", metavar="NAME")]] = None
    """open_clip architecture of the image encoder. Default: the one stored in the file or known for the published
    checkpoint, otherwise ViT-H-14."""


def convert(args: ConvertArgs) -> None:
    """Convert an LDM checkpoint to a model folder.

    UNet, VAE and image encoder are converted one after another, so at most one of them is in memory in float32.

    Raises:
        UserError: The checkpoint cannot be read or converted, or the output folder is a file or a training run.
    """
    _check_out_folder(args.out_folder)
    repo = hub_name(args.checkpoint)
    path = args.checkpoint if repo is None else published_file(_published(repo))
    state, notes = read_with_notes(path)
    where = str(path)
    notes = _resolve(args, notes, repo)
    unet_state = find_unet(state, where)
    image_encoder_state = {name: tensor for name, tensor in state.items() if name.startswith(IMAGE_ENCODER_PREFIX)}
    vae_state = {name: tensor for name, tensor in state.items() if name.startswith(VAE_PREFIX)}
    cameras = notes.cameras or _guess_cameras(bool(image_encoder_state))
    downscale = 2 ** (len(vae_widths(vae_state)) - 1) if vae_state else 8
    latent_size = notes.image_size // downscale
    unet = convert_unet(unet_state, notes.head_width, latent_size, where, whole=state)
    unet.save_pretrained(args.out_folder / "unet")  # type: ignore[operator]
    logger.info("unet: %s", _millions(unet))
    del unet
    scale = notes.latent_scale or LATENT_SCALE
    if vae_state:
        scale = float(state["scale_factor"]) if "scale_factor" in state else scale
        vae = convert_vae(vae_state, notes.image_size, scale, where, whole=state)
        vae.save_pretrained(args.out_folder / "vae")  # type: ignore[operator]
        logger.info("vae: %s", _millions(vae))
    if image_encoder_state:
        image_encoder = _convert_image_encoder(image_encoder_state, notes.image_tower, where)
        if cameras == "released_isotropic3d":  # the weights of the release, or trained from them
            image_encoder.resize_mode = "released_isotropic3d"
        save_image_encoder(image_encoder, args.out_folder / "image_tower")
        logger.info("image encoder: %s", _millions(image_encoder))
    _log_skipped(state)
    write_spec(ModelSpec(notes.image_size, latent_size, scale, cameras, notes.guidance_scale), args.out_folder)
    print(f"wrote {args.out_folder}")


def _published(repo: str) -> str:
    if repo not in PUBLISHED:
        raise UserError(
            f"{repo} is not one of the official checkpoints, which can be converted by name; give "
            f"{' or '.join(sorted(PUBLISHED))}, or the path of a checkpoint file"
        )
    return repo


def _resolve(args: ConvertArgs, notes: Notes, repo: str | None) -> Notes:
    """Return the settings for the conversion.

    Settings of the command line override those known for the official checkpoint `repo`, which override the notes of
    the file.
    """
    if repo is not None:
        published = PUBLISHED[repo]
        notes = Notes(published.cameras, published.head_width, published.image_size, published.image_tower)
    if args.cameras != "auto":
        notes = replace(notes, cameras=args.cameras)
    elif notes.cameras is not None:
        source = "the file" if repo is None else repo
        logger.info("camera labels: %s (according to %s; override with --cameras)", notes.cameras, source)
    return replace(
        notes,
        head_width=args.head_width or notes.head_width,
        image_size=args.image_size or notes.image_size,
        image_tower=args.image_tower or notes.image_tower,
    )


def _convert_image_encoder(state: State, kind: str | TrainedEncoder, where: str) -> ImageEncoder:
    visual = {name.removeprefix(IMAGE_ENCODER_PREFIX): tensor for name, tensor in state.items()}
    if isinstance(kind, str):
        return image_encoder_from_state(kind, visual, where)
    image_encoder = build_image_encoder(kind)
    require_same(visual, image_encoder.visual.state_dict(), f"{where}: image encoder")
    image_encoder.visual.load_state_dict({name: tensor.float() for name, tensor in visual.items()})
    return image_encoder


def _log_skipped(state: State) -> None:
    """Log how many tensors of the checkpoint are not converted, such as a noise schedule or a text encoder."""
    rest = Counter(
        name.split(".")[0]
        for name in state
        if not name.startswith((VAE_PREFIX, IMAGE_ENCODER_PREFIX, LDM_UNET_PREFIX)) and name != "scale_factor"
    )
    if rest and any(name.startswith(LDM_UNET_PREFIX) for name in state):
        shown = ", ".join(f"{count} of {name}" for name, count in rest.most_common(4))
        more = ", ..." if len(rest) > 4 else ""
        logger.info("skipped %d tensors (%s%s)", rest.total(), shown, more)


def _check_out_folder(folder: Path) -> None:
    if (folder / "checkpoints").exists() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"OUT_FOLDER {folder} is a training run or a file; give a new folder for the converted model")


def _guess_cameras(has_image_encoder: bool) -> CameraConvention:
    chosen: CameraConvention = "released_isotropic3d" if has_image_encoder else "relative"
    reason = (
        "has an image encoder, like Isotropic3D's release"
        if has_image_encoder
        else "has no image encoder, unlike Isotropic3D's release"
    )
    logger.info("camera labels: %s, because the checkpoint %s; override with --cameras", chosen, reason)
    return chosen


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters"
