"""Find weights on the Hugging Face Hub by name: official checkpoints and model folders.

The names `pkunliu/Isotropic3D` and `MVDream/MVDream` mean the official checkpoints; `hf:OWNER/NAME` means a model
folder. Files in the Hub's local cache are used without network access; other files are downloaded into the cache.
"""

import json
import logging
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from train.model.multiview import SPEC_FILE, CameraConvention

logger = logging.getLogger(__name__)

_HUB: Final = "hf:"
_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NEAR: Final = 0.8  # similarity (of 1) from which a name is taken for a mistyped one
_MODEL_FILES: Final = ("*.json", "*.safetensors")  # never a pickle


@dataclass(frozen=True)
class Published:
    """File name of an official checkpoint in LDM layout, and the model settings that are missing from the file."""

    file: str
    cameras: (
        CameraConvention  # Isotropic3D's released code converts degrees to radians twice, and its weights expect that
    )
    has_image_encoder: bool
    head_width: int = 64
    image_size: int = 256
    image_tower: str = "ViT-H-14"


PUBLISHED: Final[dict[str, Published]] = {
    "MVDream/MVDream": Published("sd-v2.1-base-4view.pt", "relative", has_image_encoder=False),
    "pkunliu/Isotropic3D": Published("isotropic3d.ckpt", "released_isotropic3d", has_image_encoder=True),
}


def hub_name(model: Path) -> str | None:
    """Return the name OWNER/NAME of the Hub repository that `model` means, or None if `model` is a path.

    With the prefix `hf:`, `model` means a repository. Without the prefix, `model` means a repository only if it is a
    name in `PUBLISHED` and no such file or folder exists. A misspelled path therefore causes no network access.

    Raises:
        UserError: The text after `hf:` is not of the form OWNER/NAME.
    """
    text = model.as_posix()
    if text.startswith(_HUB):
        name = text.removeprefix(_HUB)
        if not _REPO.fullmatch(name):
            raise UserError(f"{text}: not the name of a Hub repository; write hf:OWNER/NAME")
        return name
    return text if text in PUBLISHED and not model.exists() else None


def nearest_name(text: str) -> str | None:
    """Return the name in `PUBLISHED` that `text` probably misspells, or None if no name is similar.

    If `text` contains no slash, it is compared with the part of each name after the slash.
    """
    text = text.removeprefix(_HUB).casefold()
    names = {name.casefold(): name for name in PUBLISHED}
    if "/" not in text:
        names = {name.partition("/")[2]: names[name] for name in names}
    nearest = get_close_matches(text, names, n=1, cutoff=_NEAR)
    return names[nearest[0]] if nearest else None


def diffusers_class(folder: Path) -> str | None:
    """Return the name of the pipeline class of a plain diffusers folder.

    Returns None for a model folder of this project and for a folder that contains no diffusers pipeline.
    """
    index = folder / "model_index.json"
    if (folder / SPEC_FILE).is_file() or not index.is_file():
        return None
    try:
        return str(json.loads(index.read_text())["_class_name"])
    except (ValueError, TypeError, KeyError):
        return "an unknown pipeline"


def not_multi_view(name: str, pipeline: str) -> str:
    """Return the error message for a plain diffusers folder that was given as a model.

    Args:
        name: The folder or repository that was given.
        pipeline: Name of the folder's pipeline class.
    """
    return (
        f"{name} is a plain diffusers folder ({pipeline}), not a multi-view model ({SPEC_FILE} is missing); give a "
        f"finished training run, a folder written by `python -m train.export`, or one of {', '.join(PUBLISHED)}"
    )


def published_file(repo: str) -> Path:
    """Return the local path of the official checkpoint of `repo`, which must be a name in `PUBLISHED`.

    The file is downloaded unless it is in the Hub's local cache.

    Raises:
        UserError: The file is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    name = PUBLISHED[repo].file
    cached = try_to_load_from_cache(repo, name)
    if isinstance(cached, str):
        logger.info("%s: using %s from the Hub's cache (%s)", repo, name, cached)
        return Path(cached)
    logger.info("%s: %s is not in the Hub's cache; downloading several GB", repo, name)
    try:
        return Path(hf_hub_download(repo, name))
    except (OSError, ValueError) as error:
        raise UserError(_unreachable(repo, f"{repo} {name}", error)) from error


def model_snapshot(repo: str) -> Path:
    """Return the local copy of a model folder that `python -m train.export push` uploaded to the repository `repo`.

    Only JSON and safetensors files are downloaded.

    Raises:
        UserError: The repository cannot be downloaded, or does not contain a model folder.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(_MODEL_FILES)))
    except (OSError, ValueError) as error:
        raise UserError(_unreachable(repo, repo, error)) from error
    if (pipeline := diffusers_class(folder)) is not None:
        raise UserError(not_multi_view(repo, pipeline))
    if not (folder / SPEC_FILE).is_file():
        raise UserError(
            f"{repo}: not a model folder ({SPEC_FILE} is missing); give a repository written by `python -m "
            f"train.export push`, or one of {', '.join(PUBLISHED)}"
        )
    return folder


def _unreachable(repo: str, download: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    nearest = None if repo in PUBLISHED else nearest_name(repo)
    return (
        f"{repo}: not in the Hub's cache, and the download failed ({reason}); connect to the network, or run `hf "
        f"download {download}` on a connected machine that shares the cache"
        + (f"; did you mean {nearest}?" if nearest else "")
    )
