"""From what a person writes after MODEL= to a model folder: a folder, a checkpoint file, or a name on the Hub.

An LDM checkpoint is converted once, into `data/converted/`, under the hash of its bytes and of how it was converted;
the second start finds it there.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from train.convert.convert import CONVERTER_VERSION, Convert, convert
from train.convert.hub import PUBLISHED, hub_name, model_snapshot, published_file
from train.model.multiview import SPEC_FILE

CONVERTED: Final = Path("data/converted")
SOURCE_FILE: Final = "source.json"  # in a converted folder: which file it comes from


def model_folder(model: Path, cache: Path = CONVERTED) -> Path:
    """The model folder behind `model`. A path to nothing comes back as it is: its reader says what is wrong."""
    repo = hub_name(model)
    if repo is None:
        return _converted(model, str(model), Convert(model, cache), cache) if model.is_file() else model
    if repo not in PUBLISHED:
        return model_snapshot(repo)
    about = PUBLISHED[repo]
    file = published_file(repo)
    asked = Convert(
        file,
        cache,
        head_width=about.head_width,
        cameras=about.cameras,
        image_size=about.image_size,
        image_tower=about.image_tower,
    )
    folder = _converted(file, repo, asked, cache)
    if about.has_image_encoder and not (folder / "image_tower").is_dir():
        raise UserError(f"{file}: not {repo}'s checkpoint (it holds no image encoder); remove it from the Hub's cache")
    return folder


def _converted(file: Path, name: str, asked: Convert, cache: Path) -> Path:
    source = _source(file, asked)
    key = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"{file.stem}-{key}"
    if (folder / SPEC_FILE).is_file():
        print(f"{name}: converted earlier, {folder}", file=sys.stderr)
        return folder
    print(f"{name}: converting once, into {folder}", file=sys.stderr)
    temporary = cache / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with redirect_stdout(sys.stderr):  # what a command prints on stdout is its own result
            convert(replace(asked, out_folder=temporary))
        (temporary / SOURCE_FILE).write_text(json.dumps({"name": name, **source}, indent=2) + "\n")
        if not (folder / SPEC_FILE).is_file():  # another process may have been quicker
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _source(file: Path, asked: Convert) -> dict[str, Any]:
    """All that decides what the conversion gives."""
    options = {name: value for name, value in asdict(asked).items() if name not in ("checkpoint", "out_folder")}
    return {"sha256": file_sha256(file), "converter": CONVERTER_VERSION, "options": options}


def file_sha256(file: Path) -> str:
    """SHA-256 of a file. Large files of the Hub's cache have it for a name, so their gigabytes are not read again."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
