"""Published weights by their Hub name: `pkunliu/Isotropic3D`, `MVDream/MVDream`, and `hf:OWNER/NAME` for model folders.

A file in the Hub's own cache is taken as it is, without a word to the network; what is not there is downloaded into it.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from train.model.multiview import SPEC_FILE, CameraConvention

_HUB: Final = "hf:"
_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MODEL_FILES: Final = ("*.json", "*.safetensors")  # never a pickle


@dataclass(frozen=True)
class Published:
    """An official checkpoint in LDM layout and what its tensors do not say."""

    file: str
    cameras: CameraConvention  # the released Isotropic3D code converts degrees to radians twice; its weights expect it
    has_image_encoder: bool
    head_width: int = 64
    image_size: int = 256
    image_tower: str = "ViT-H-14"


PUBLISHED: Final[dict[str, Published]] = {
    "MVDream/MVDream": Published("sd-v2.1-base-4view.pt", "relative", has_image_encoder=False),
    "pkunliu/Isotropic3D": Published("isotropic3d.ckpt", "released_isotropic3d", has_image_encoder=True),
}


def hub_name(model: Path) -> str | None:
    """The Hub repository that `model` names, None for a path.

    Only the published names are taken without `hf:`: a mistyped folder must not become a question to the network.
    What lies on this disk under the name comes first.
    """
    text = model.as_posix()
    if text.startswith(_HUB):
        name = text.removeprefix(_HUB)
        if not _REPO.fullmatch(name):
            raise UserError(f"{text}: not a Hub repository; write hf:OWNER/NAME")
        return name
    return text if text in PUBLISHED and not model.exists() else None


def published_file(repo: str) -> Path:
    """The official checkpoint of a repository in `PUBLISHED`: from the Hub's cache, else downloaded into it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    name = PUBLISHED[repo].file
    cached = try_to_load_from_cache(repo, name)
    if isinstance(cached, str):
        print(f"{repo}: {name} from the Hub's cache ({cached})", file=sys.stderr)
        return Path(cached)
    print(f"{repo}: {name} is not in the Hub's cache; downloading it (several GB)", file=sys.stderr)
    try:
        return Path(hf_hub_download(repo, name))
    except (OSError, ValueError) as error:
        raise UserError(_unreachable(repo, f"{repo} {name}", error)) from error


def model_snapshot(repo: str) -> Path:
    """A model folder that `python -m train.export push` wrote, from the Hub; JSON and safetensors alone."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(_MODEL_FILES)))
    except (OSError, ValueError) as error:
        raise UserError(_unreachable(repo, repo, error)) from error
    if not (folder / SPEC_FILE).is_file():
        raise UserError(
            f"{repo}: no model folder of this program ({SPEC_FILE} is missing); official: {', '.join(PUBLISHED)}"
        )
    return folder


def _unreachable(repo: str, download: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{repo}: not in the Hub's cache and not to be had ({reason}); connect once, or run `hf download {download}`"
