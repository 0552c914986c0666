"""Turn the value of MODEL= (a folder, a checkpoint file or a name on the Hub) into a model folder.

A checkpoint in LDM layout is converted once, into a subfolder of `data/converted/` whose name contains a hash of the
checkpoint and of the conversion options. Later calls use this subfolder.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from dataset.errors import UserError
from train.convert.convert import CONVERTER_VERSION, ConvertArgs, convert
from train.convert.hub import (
    PUBLISHED,
    diffusers_class,
    hub_name,
    model_snapshot,
    nearest_name,
    not_multi_view,
    published_file,
)
from train.model.multiview import SPEC_FILE

logger = logging.getLogger(__name__)

CONVERTED: Final = Path("data/converted")
SOURCE_FILE: Final = "source.json"  # in a converted folder: names the file it was converted from


def model_folder(model: Path, cache: Path = CONVERTED) -> Path:
    """Return the model folder that `model` means, after a download or a conversion if necessary.

    Args:
        model: A folder, a checkpoint file or a name on the Hub. A folder is returned unchanged, as is a path that does
            not exist.
        cache: Folder in which converted checkpoints are kept.

    Raises:
        UserError: The model cannot be downloaded or converted, the folder is a plain diffusers pipeline, or `model` is
            a misspelled name of an official checkpoint.
    """
    repo = hub_name(model)
    if repo is None:
        if model.is_file():
            return _converted(model, str(model), ConvertArgs(model, cache), cache)
        _check_folder(model)
        return model
    if repo not in PUBLISHED:
        return model_snapshot(repo)
    published = PUBLISHED[repo]
    file = published_file(repo)
    args = ConvertArgs(
        file,
        cache,
        head_width=published.head_width,
        cameras=published.cameras,
        image_size=published.image_size,
        image_tower=published.image_tower,
    )
    folder = _converted(file, repo, args, cache)
    if published.has_image_encoder and not (folder / "image_tower").is_dir():
        raise UserError(
            f"{file}: not the checkpoint of {repo}, because the file has no image encoder; remove the file from the "
            "Hub's cache and repeat the command"
        )
    return folder


def _check_folder(model: Path) -> None:
    """Raise UserError when `model` is a misspelled name of an official checkpoint or a plain diffusers folder."""
    if not model.exists():
        if (nearest := nearest_name(model.as_posix())) is not None:
            raise UserError(f"{model}: no such file or folder; did you mean {nearest}?")
    elif (pipeline := diffusers_class(model)) is not None:
        raise UserError(not_multi_view(str(model), pipeline))


def _converted(file: Path, name: str, args: ConvertArgs, cache: Path) -> Path:
    source = _source(file, args)
    key = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"{file.stem}-{key}"
    if (folder / SPEC_FILE).is_file():
        logger.info("%s was converted earlier; using %s", name, folder)
        return folder
    logger.info("converting %s once; the result is kept in %s", name, folder)
    temporary = cache / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with redirect_stdout(sys.stderr):  # stdout is reserved for the result of the command that uses the model
            convert(replace(args, out_folder=temporary))
        (temporary / SOURCE_FILE).write_text(json.dumps({"name": name, **source}, indent=2) + "\n")
        if not (folder / SPEC_FILE).is_file():  # another process may have finished first
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _source(file: Path, args: ConvertArgs) -> dict[str, Any]:
    """Return the file's hash, the converter's version and the options, which determine the result of a conversion."""
    options = {name: value for name, value in asdict(args).items() if name not in ("checkpoint", "out_folder")}
    return {"sha256": file_sha256(file), "converter": CONVERTER_VERSION, "options": options}


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    A large file in the Hub's cache is not read, because its name is the SHA-256.
    """
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
