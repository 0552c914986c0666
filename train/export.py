"""Export a model folder to other formats, or upload it to the Hub.

    python -m train.export MODEL OUT_FOLDER --format diffusers
    python -m train.export MODEL OUT.ckpt --format ldm
    python -m train.export push MODEL OWNER/NAME

--format diffusers writes a folder with `unet/ vae/ scheduler/ image_encoder/ model_index.json` and `model.json`, which
is a model folder of this project too. --format ldm writes one flat state dict with the keys of Isotropic3D's release
(`model.diffusion_model.*`, `first_stage_model.*`, `cond_stage_model.model.visual.*`); settings that the tensors do not
contain are stored in the file's metadata, which other programs ignore.
"""

import json
import logging
import os
import re
import shutil
import sys
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
from dataset.io.lock import locked_file
from dataset.io.scratch import remove_stale_folders, scratch_folder
from train.convert.checkpoint_file import NOTES, Notes
from train.convert.key_names import IMAGE_ENCODER_PREFIX, LDM_UNET_PREFIX, VAE_PREFIX, ldm_unet_state, ldm_vae_state
from train.convert.model_card import card_of, centering_note
from train.convert.resolve import model_folder
from train.model.clip_vision import save_clip_vision
from train.model.ddim import ddim_scheduler
from train.model.image_encoder import ImageEncoder, OpenClipEncoder, save_image_encoder
from train.model.multiview import ModelSpec, load_vae, read_image_encoder, read_spec, write_spec
from train.model.recognition.table import copy_known
from train.model.reference import reads_reference
from train.model.timm_encoder import TimmEncoder
from train.model.unet import UNetShape, load_unet

logger = logging.getLogger(__name__)

LDM_ENDINGS: Final = (".ckpt", ".pt", ".safetensors")
LDM_NORM_GROUPS: Final = 32  # openaimodel.py's GroupNorm32, the first stage's Normalize


@dataclass(frozen=True)
class ExportArgs:
    """Write a model in the format of another program.

    The command `python -m train.export push MODEL OWNER/NAME` uploads a model to the Hugging Face Hub.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Model folder (a finished training run), checkpoint file, or Hub name."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Path to write, which must not exist. With --format diffusers: a folder. With ldm: a file ending in .ckpt, .pt or
    .safetensors."""
    format: Literal["diffusers", "ldm"] = "diffusers"
    """Output format. diffusers: a folder that the classes of diffusers load. ldm: one file that Isotropic3D's code
    loads."""


@dataclass(frozen=True)
class PushArgs:
    """Upload a model to the Hugging Face Hub as a diffusers folder with a model card.

    The token of `hf auth login` or of the environment variable HF_TOKEN is used.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Model folder (a finished training run), checkpoint file, or Hub name."""
    repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub, created if it does not exist."""
    private: bool = True
    """Create a private repository; --no-private creates a public one."""


class HubApi(Protocol):
    """Protocol with the methods of `huggingface_hub.HfApi` that `push` uses."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any: ...


@dataclass(frozen=True)
class ModelParts:
    """The parts of a model folder.

    A converted MVDream has no image encoder. If the converted checkpoint contained only a UNet, the folder has no VAE
    either.
    """

    spec: ModelSpec
    unet: nn.Module
    vae: nn.Module | None
    image_encoder: ImageEncoder | None


def export(args: ExportArgs) -> None:
    """Write a model in another format.

    Raises:
        UserError: The output exists, has the wrong suffix or is being written by another process, or the model cannot
            be read or exported.
    """
    _check_is_new(args.out)
    if args.format == "ldm" and args.out.suffix not in LDM_ENDINGS:
        raise UserError(f"{args.out}: --format ldm writes one file, whose name must end in {', '.join(LDM_ENDINGS)}")
    folder = model_folder(args.model)
    with locked_file(args.out, "export"):
        _check_is_new(args.out)
        for path in args.out.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(args.out.stem)}\.\d+\.tmp{re.escape(args.out.suffix)}", path.name):
                _remove(path)  # left by a process that was killed
        parts = read_parts(folder)
        temporary = args.out.with_name(f".{args.out.stem}.{os.getpid()}.tmp{args.out.suffix}")
        try:
            if args.format == "diffusers":
                write_diffusers(parts, temporary)
                copy_known(folder, temporary)
            else:
                write_ldm(parts, temporary)
            os.replace(temporary, args.out)
        finally:
            _remove(temporary)
    print(f"wrote {args.out}")


def _check_is_new(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out}: already exists; remove this file or folder, or give another OUT")


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def read_parts(folder: Path) -> ModelParts:
    """Load the parts of a model folder, and log which parts are missing."""
    spec = read_spec(folder)
    vae = load_vae(folder / "vae") if (folder / "vae").is_dir() else None
    parts = ModelParts(spec, load_unet(folder / "unet"), vae, read_image_encoder(folder))
    for name, part in (("VAE", parts.vae), ("image encoder", parts.image_encoder)):
        if part is None:
            logger.info("note: %s has no %s, so the output has none either", folder, name)
    if parts.image_encoder is not None and parts.image_encoder.object_fill is not None:
        logger.info("note: %s", centering_note(parts.image_encoder.object_fill))
    return parts


def write_diffusers(parts: ModelParts, folder: Path) -> None:
    """Write the parts of a model to a new folder that diffusers can load. `model.json` is written last."""
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
    if parts.image_encoder is not None and isinstance(parts.image_encoder.spec, TimmEncoder):
        save_image_encoder(parts.image_encoder, folder / "image_tower")
        logger.info(
            "note: neither diffusers nor transformers can load the image encoder %s; it is written to image_tower/, "
            "which only this project reads",
            parts.image_encoder.spec.architecture,
        )
    elif parts.image_encoder is not None:
        save_clip_vision(parts.image_encoder, folder / "image_encoder")
        index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    write_spec(parts.spec, folder)


def write_ldm(parts: ModelParts, path: Path) -> None:
    """Write the parts of a model as one flat state dict with the keys of Isotropic3D's release.

    The suffix of `path` determines the file format. .safetensors: a safetensors file. .ckpt or .pt: a torch file that
    `torch.load(weights_only=True)` can read.
    """
    state = ldm_state(parts)
    notes = json.dumps(asdict(ldm_notes(parts)))
    if parts.spec.cameras != "released_isotropic3d":
        logger.warning(
            "these weights expect true camera angles, but Isotropic3D's released code converts degrees to "
            "radians twice (get_camera_cond, create_camera_to_world_matrix); remove one of the two conversions "
            "before using this file with that code"
        )
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={NOTES: notes, "format": "pt"})
        return
    flat = OrderedDict(state)
    flat._metadata = {NOTES: notes}  # type: ignore[attr-defined]  # where torch stores versions; load_state_dict ignores it
    torch.save(flat, path)


def ldm_state(parts: ModelParts) -> dict[str, Tensor]:
    """Return the model's tensors in float32 by the names that Isotropic3D's release uses.

    Raises:
        UserError: The code of the release does not support the architecture of the model.
    """
    if reads_reference(parts.unet):
        raise UserError(
            "--format ldm: the UNet reads the reference image as input channels, which the official code of "
            "Isotropic3D does not support; use --format diffusers"
        )
    for name, part in (("UNet", parts.unet), ("VAE", parts.vae)):
        if part is not None and part.config.norm_num_groups != LDM_NORM_GROUPS:  # type: ignore[union-attr]
            raise UserError(
                f"--format ldm: the {name} normalizes in {part.config.norm_num_groups} groups, but the official "  # type: ignore[union-attr]
                f"code of Isotropic3D always in {LDM_NORM_GROUPS}; use --format diffusers"
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
    """Return the settings that `train.convert` needs and that the exported tensors do not contain."""
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
    """Return the sizes of a UNet. From these sizes, `build_unet` builds a UNet of the same architecture."""
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


def push(args: PushArgs, api: HubApi) -> None:
    """Upload a model to the Hugging Face Hub as a diffusers folder with a model card.

    Args:
        args: Options of the command.
        api: API of the Hub, from `hub_api`.

    Raises:
        UserError: The repository name is malformed, the model cannot be read, or the upload failed.
    """
    if args.repo.count("/") != 1 or not all(args.repo.split("/")):
        raise UserError(f"{args.repo}: not the name of a Hub repository; write OWNER/NAME")
    folder = model_folder(args.model)
    parts = read_parts(folder)
    card = card_of(folder, parts.spec, args.repo, parts.image_encoder.object_fill if parts.image_encoder else None)
    remove_stale_folders()
    with scratch_folder() as temporary:
        upload = temporary / "model"
        write_diffusers(parts, upload)
        copy_known(folder, upload)
        (upload / "README.md").write_text(card)
        try:
            api.create_repo(args.repo, private=args.private, exist_ok=True)
            api.upload_folder(repo_id=args.repo, folder_path=upload, commit_message="Model, exported as diffusers")
        except OSError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{args.repo}: the upload failed ({reason}); repeat the command to try again") from error
    print(f"pushed to https://huggingface.co/{args.repo}; use it as MODEL=hf:{args.repo}")


def hub_api() -> HubApi:
    """Return the API of the Hugging Face Hub with the token of HF_TOKEN or of `hf auth login`.

    Raises:
        UserError: There is no token.
    """
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError(
            "no token for the Hugging Face Hub; run `hf auth login`, or set the environment variable HF_TOKEN"
        )
    api: HubApi = HfApi(token=token)
    return api


def main() -> None:
    """Run `python -m train.export` with the arguments of the command line."""
    if sys.argv[1:2] == ["push"]:
        push(tyro.cli(PushArgs, prog="python -m train.export push", args=sys.argv[2:]), hub_api())
    else:
        export(tyro.cli(ExportArgs, prog="python -m train.export"))


if __name__ == "__main__":
    run_cli(main)
