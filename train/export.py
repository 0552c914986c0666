"""A model folder in other programs' formats, and onto the Hub.

    python -m train.export MODEL OUT_FOLDER --format diffusers
    python -m train.export MODEL OUT.ckpt --format ldm
    python -m train.export push MODEL OWNER/NAME

diffusers: `unet/ vae/ scheduler/ image_encoder/ model_index.json`, safetensors, and `model.json`, so that the folder is
a model folder here too. ldm: the key layout of Isotropic3D's release (`model.diffusion_model.*`, `first_stage_model.*`,
`cond_stage_model.model.visual.*`), flat. What tensors do not say goes into notes that other programs do not read.
"""

import json
import os
import shutil
import sys
import tempfile
from collections import OrderedDict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn

from dataset.errors import UserError, run_cli
from train.convert.checkpoint_file import NOTES, Notes
from train.convert.key_names import IMAGE_ENCODER_PREFIX, LDM_UNET_PREFIX, VAE_PREFIX, ldm_unet_state, ldm_vae_state
from train.convert.model_card import card_of, centering_note
from train.convert.resolve import model_folder
from train.model.clip_vision import save_clip_vision
from train.model.ddim import ddim_scheduler
from train.model.image_encoder import ImageEncoder, OpenClipEncoder
from train.model.multiview import ModelSpec, load_vae, read_image_encoder, read_spec, write_spec
from train.model.reference import reads_reference
from train.model.unet import UNetShape, load_unet

LDM_ENDINGS: Final = (".ckpt", ".pt", ".safetensors")
LDM_NORM_GROUPS: Final = 32  # openaimodel.py's GroupNorm32, the first stage's Normalize


@dataclass(frozen=True)
class Export:
    """Write a model in another program's format. `push MODEL OWNER/NAME` uploads it to the Hub instead."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Model folder (a finished training run), checkpoint file, or Hub name."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """diffusers: a new folder. ldm: a new file ending in .ckpt, .pt or .safetensors."""
    format: Literal["diffusers", "ldm"] = "diffusers"
    """diffusers: safetensors folders that its own classes open. ldm: one file as Isotropic3D's code loads it."""


@dataclass(frozen=True)
class Push:
    """Upload a model as a diffusers folder with a model card. The token is the one of `hf auth login` or HF_TOKEN."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Model folder (a finished training run), checkpoint file, or Hub name."""
    repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub; made if it is not there."""
    private: bool = True
    """A repository made now is private; --no-private makes it public."""


class HubApi(Protocol):
    """What `push` needs of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any: ...


@dataclass(frozen=True)
class ModelParts:
    """A model folder's parts; a base such as MVDream's has no image encoder, a bare UNet has no VAE either."""

    spec: ModelSpec
    unet: nn.Module
    vae: nn.Module | None
    image_encoder: ImageEncoder | None


def export(args: Export) -> None:
    """The command."""
    if args.out.exists():
        raise UserError(f"{args.out}: exists already; remove it, or give another")
    if args.format == "ldm" and args.out.suffix not in LDM_ENDINGS:
        raise UserError(f"{args.out}: an LDM checkpoint is one file; let it end in one of {', '.join(LDM_ENDINGS)}")
    parts = read_parts(model_folder(args.model))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_name(f".{args.out.stem}.{os.getpid()}.tmp{args.out.suffix}")
    try:
        if args.format == "diffusers":
            write_diffusers(parts, temporary)
        else:
            write_ldm(parts, temporary)
        os.replace(temporary, args.out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
    print(f"wrote {args.out}")


def read_parts(folder: Path) -> ModelParts:
    """Read a model folder, and say which parts it lacks."""
    spec = read_spec(folder)
    vae = load_vae(folder / "vae") if (folder / "vae").is_dir() else None
    parts = ModelParts(spec, load_unet(folder / "unet"), vae, read_image_encoder(folder))
    for name, part in (("VAE", parts.vae), ("image encoder", parts.image_encoder)):
        if part is None:
            print(f"note: {folder} has no {name}; neither has what is written")
    if parts.image_encoder is not None and parts.image_encoder.object_fill is not None:
        print(f"note: {centering_note(parts.image_encoder.object_fill)}")
    return parts


def write_diffusers(parts: ModelParts, folder: Path) -> None:
    """The folder described at the top of this module; `model.json` comes last."""
    folder.mkdir(parents=True)
    parts.unet.save_pretrained(folder / "unet")  # type: ignore[operator]
    ddim_scheduler(1, torch.device("cpu")).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "DiffusionPipeline",
        "_diffusers_version": version("diffusers"),
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    if parts.vae is not None:
        parts.vae.save_pretrained(folder / "vae")  # type: ignore[operator]
        index["vae"] = ["diffusers", "AutoencoderKL"]
    if parts.image_encoder is not None:
        save_clip_vision(parts.image_encoder, folder / "image_encoder")
        index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    write_spec(parts.spec, folder)


def write_ldm(parts: ModelParts, path: Path) -> None:
    """One flat state dict; for .ckpt and .pt torch's zip of tensors, which `weights_only=True` reads."""
    state = ldm_state(parts)
    notes = json.dumps(asdict(ldm_notes(parts)))
    if parts.spec.cameras != "released_isotropic3d":
        print(
            "note: these weights expect true camera angles; Isotropic3D's released code converts degrees to radians "
            "twice (get_camera_cond, create_camera_to_world_matrix): take one of the two out when it loads this file"
        )
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={NOTES: notes, "format": "pt"})
        return
    flat = OrderedDict(state)
    flat._metadata = {NOTES: notes}  # type: ignore[attr-defined]  # where torch keeps versions; load_state_dict skips it
    torch.save(flat, path)


def ldm_state(parts: ModelParts) -> dict[str, Tensor]:
    """The model's float32 tensors under the names of Isotropic3D's release."""
    if reads_reference(parts.unet):
        raise UserError("the UNet reads a channel-concatenated reference: the official code has no such model")
    for name, part in (("UNet", parts.unet), ("VAE", parts.vae)):
        if part is not None and part.config.norm_num_groups != LDM_NORM_GROUPS:  # type: ignore[union-attr]
            raise UserError(
                f"the {name} normalises in {part.config.norm_num_groups} groups, the official code always in "  # type: ignore[union-attr]
                f"{LDM_NORM_GROUPS}: it would compute something else; export it as diffusers"
            )
    state = {
        LDM_UNET_PREFIX + name: tensor
        for name, tensor in ldm_unet_state(parts.unet.state_dict(), shape_of(parts.unet)).items()
    }
    if parts.vae is not None:
        levels = len(parts.vae.config.block_out_channels)  # type: ignore[union-attr, arg-type]
        state |= {VAE_PREFIX + name: t for name, t in ldm_vae_state(parts.vae.state_dict(), levels).items()}
    if parts.image_encoder is not None:
        state |= {
            IMAGE_ENCODER_PREFIX + name: tensor for name, tensor in parts.image_encoder.visual.state_dict().items()
        }
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}


def ldm_notes(parts: ModelParts) -> Notes:
    """What `train.convert` needs beside the tensors to read the file back."""
    spec, image_encoder = parts.spec, parts.image_encoder
    kind = Notes.image_tower if image_encoder is None else image_encoder.spec
    return Notes(
        cameras=spec.cameras,
        head_width=shape_of(parts.unet).head_width,
        image_size=spec.image_size,
        image_tower=kind.architecture if isinstance(kind, OpenClipEncoder) else kind,
        latent_scale=spec.latent_scale,
        guidance_scale=spec.guidance_scale,
    )


def shape_of(unet: nn.Module) -> UNetShape:
    """The shape that `build_unet` would make this UNet from."""
    config: Any = unet.config
    widths = tuple(int(width) for width in config.block_out_channels)
    heads = config.attention_head_dim  # diffusers' historical name for the number of heads
    return UNetShape(
        latent_channels=int(config.out_channels),
        latent_size=int(config.sample_size),
        widths=widths,
        attention=tuple(kind.startswith("CrossAttn") for kind in config.down_block_types),
        blocks_per_level=int(config.layers_per_block),
        head_width=widths[0] // int(heads if isinstance(heads, int) else heads[0]),
        token_width=int(config.cross_attention_dim),
        norm_groups=int(config.norm_num_groups),
    )


def push(args: Push, api: HubApi) -> None:
    """Upload MODEL as a diffusers folder with its card."""
    if args.repo.count("/") != 1 or not all(args.repo.split("/")):
        raise UserError(f"{args.repo}: not a Hub repository; write OWNER/NAME")
    folder = model_folder(args.model)
    parts = read_parts(folder)
    card = card_of(folder, parts.spec, args.repo, parts.image_encoder.object_fill if parts.image_encoder else None)
    with tempfile.TemporaryDirectory(prefix="isotropic3d-push-") as temporary:
        upload = Path(temporary) / "model"
        write_diffusers(parts, upload)
        (upload / "README.md").write_text(card)
        try:
            api.create_repo(args.repo, private=args.private, exist_ok=True)
            api.upload_folder(repo_id=args.repo, folder_path=upload, commit_message="Model, exported as diffusers")
        except OSError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{args.repo}: the Hub did not take it ({reason}); the same command tries again") from error
    print(f"pushed to https://huggingface.co/{args.repo}; use it as MODEL=hf:{args.repo}")


def hub_api() -> HubApi:
    """The Hub with the token of the environment or of `hf auth login`."""
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError("no Hub token: run `hf auth login`, or set HF_TOKEN; it is never given on the command line")
    api: HubApi = HfApi(token=token)
    return api


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["push"]:
        push(tyro.cli(Push, prog="python -m train.export push", args=sys.argv[2:]), hub_api())
    else:
        export(tyro.cli(Export, prog="python -m train.export"))


if __name__ == "__main__":
    run_cli(main)
