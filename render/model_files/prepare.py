"""Check a model file of any format before Blender imports it."""

from pathlib import Path
from typing import Final

from render.model_files.errors import ModelError
from render.model_files.fbx import prepare_fbx
from render.model_files.gltf import prepare_gltf
from render.model_files.obj import prepare_obj
from render.model_files.ply import prepare_ply
from render.model_files.prepared import PreparedModel
from render.model_files.stl import prepare_stl

_HEAD: Final = 1024  # bytes
_LFS: Final = b"version https://git-lfs"
_PAGES: Final = (b"<!doctype html", b"<html")


def prepare_model(path: Path, root: Path, scratch: Path, animations: bool = True) -> PreparedModel:
    """Check a model file and return the file to import: itself, or a normalized copy in the folder `scratch`.

    Files that the model refers to are read only if they are inside the folder `root`; missing parts are flagged. Raises
    ModelError when the file cannot be used.
    """
    _check_content(path)
    match path.suffix.lower():
        case ".glb" | ".gltf":
            return prepare_gltf(path, root, scratch, animations)
        case ".ply":
            return prepare_ply(path, root, scratch)
        case ".obj":
            return prepare_obj(path, root, scratch)
        case ".fbx":
            return prepare_fbx(path, root, scratch)
        case ".stl":
            return prepare_stl(path, scratch)
    return PreparedModel(path)


def _check_content(path: Path) -> None:
    """Raise ModelError for an empty file, a Git LFS pointer or an HTML page."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ModelError(f"{path.name} is empty")
    if head.startswith(_LFS):
        raise ModelError(f"{path.name} is a Git LFS pointer, not the file itself; run `git lfs pull`")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise ModelError(f"{path.name} is an HTML page, not a model; download the file again")
