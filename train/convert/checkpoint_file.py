"""Read a checkpoint file without running pickled code: its tensors, and the settings that `train.export` adds."""

import json
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from dataset.errors import UserError
from train.model.image_encoder import SmallEncoder, TrainedEncoder
from train.model.multiview import CameraConvention
from train.model.timm_encoder import TimmEncoder

NOTES: Final = "isotropic3d"  # key of the notes in torch's version metadata or in safetensors' metadata
HEAD_WIDTH: Final = 64
IMAGE_SIZE: Final = 256
IMAGE_ENCODER: Final = "ViT-H-14"
GUIDANCE_SCALE: Final = 10.0  # paper, App. B


@dataclass(frozen=True)
class Notes:
    """Model settings that cannot be read from tensors. `train.export` stores them in the metadata of a checkpoint file.

    `image_tower` is the name of the image encoder's open_clip architecture, or the settings of an image encoder that
    this project trained. A value of None means that the setting is unknown. Exported files contain the field names, so
    do not rename fields.
    """

    cameras: CameraConvention | None = None
    head_width: int = HEAD_WIDTH
    image_size: int = IMAGE_SIZE
    image_tower: str | TrainedEncoder = IMAGE_ENCODER
    latent_scale: float | None = None
    guidance_scale: float = GUIDANCE_SCALE


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file by name, memory-mapped if the format allows. Pickled code is never run.

    Raises:
        UserError: For the same reasons as in `read_with_notes`.
    """
    return read_with_notes(path)[0]


def read_with_notes(path: Path) -> tuple[dict[str, Tensor], Notes]:
    """Return the tensors of a checkpoint file by name, and the notes that `train.export` stored in the file.

    Raises:
        UserError: The file is missing, damaged or not a state dict, or contains pickled objects other than tensors.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a downloaded checkpoint file")
    loaded: Any
    notes: Any = None
    if path.suffix == ".safetensors":
        try:
            loaded = load_file(path)
            with safe_open(path, "pt") as file:
                notes = (file.metadata() or {}).get(NOTES)
        except SafetensorError as error:
            raise UserError(
                f"{path}: truncated or not a safetensors file ({error}); download the file again"
            ) from error
    else:
        loaded = _read_pickle(path)
        versions = getattr(loaded, "_metadata", None)  # an OrderedDict's attribute, torch's own versions
        notes = versions.get(NOTES) if isinstance(versions, dict) else None
    nested = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(nested, dict):
        raise UserError(
            f"{path}: contains a Python object of type {type(loaded).__name__}, not a state dict; give a checkpoint in "
            "LDM layout, such as MVDream's"
        )
    state = {name: value for name, value in nested.items() if isinstance(value, Tensor)}
    return state, Notes() if notes is None else parse_notes(notes, str(path))


def parse_notes(text: Any, where: str) -> Notes:
    """Parse the notes of a checkpoint file from JSON.

    Args:
        text: JSON object with the fields of `Notes`; `image_tower` is a string, or an object with the fields of
            `SmallEncoder` or `TimmEncoder`.
        where: Path of the checkpoint file, for error messages.

    Raises:
        UserError: The notes are damaged.
    """
    try:
        values = json.loads(text)
        if isinstance(encoder := values["image_tower"], dict):
            values["image_tower"] = TimmEncoder(**encoder) if "architecture" in encoder else SmallEncoder(**encoder)
        notes = Notes(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{where}: the entry `{NOTES}` of the file's metadata is damaged ({error}); export the model again with "
            "`python -m train.export`"
        ) from error
    if notes.cameras not in get_args(CameraConvention):
        raise UserError(
            f"{where}: the file's metadata names the unknown camera convention {notes.cameras!r}, not one of "
            f"{', '.join(get_args(CameraConvention))}; export the model again with `python -m train.export`"
        )
    return notes


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
            raise UserError(
                f"{path}: contains pickled Python objects other than tensors, which could run code; save only the "
                "state dict, or give a .safetensors file"
            ) from error
        raise UserError(f"{path}: truncated or not a PyTorch checkpoint; download the file again") from error
