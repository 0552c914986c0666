"""List the objects of a source: the folder itself if it has a camera file, else each of its subfolders."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from dataset.format.manifest import Asset, escape_name
from dataset.format.uids import safe_uids
from dataset.importing.folder import CAMERAS, folder_files, read_folder
from dataset.importing.images import stored_size
from dataset.importing.nerf import TRANSFORMS, nerf_files, read_nerf
from dataset.importing.settings import LARGEST_SIDE, SMALLEST_SIDE, ImportSettings, SourceLayout
from dataset.importing.source_view import SourceView

SOURCE_NAME: Final = "import"  # `source` of the objects and of set.json


@dataclass(frozen=True)
class SourceObject:
    """An object to import, with its folder. `name` is the name of the folder."""

    uid: str
    folder: Path
    name: str

    def asset(self, settings: ImportSettings) -> Asset:
        """Return the object's row of the manifest."""
        name = escape_name(self.name)
        return Asset(self.uid, SOURCE_NAME, settings.license, settings.creator, title=name, file=name)


def camera_files(folder: Path, layout: SourceLayout) -> list[Path]:
    """Return the camera files of an object's folder; empty if there are none."""
    return nerf_files(folder) if layout == "nerf" else folder_files(folder)


def read_views(folder: Path, settings: ImportSettings) -> list[SourceView]:
    """Read the views of an object. No image is read.

    Raises:
        CameraFileError: A camera file is missing or invalid.
    """
    return read_nerf(folder) if settings.layout == "nerf" else read_folder(folder, settings)


def list_objects(source: Path, layout: SourceLayout) -> list[SourceObject]:
    """Return the objects of a source, sorted by the names of their folders.

    Subfolders without camera file are objects too: their import fails. Those whose names begin with "." are ignored.

    Raises:
        UserError: The source is not a folder, or neither it nor a subfolder has a camera file.
    """
    name = TRANSFORMS if layout == "nerf" else CAMERAS
    try:
        if not source.is_dir():
            raise UserError(f"{source} is not a folder; give a folder with {name}, or a folder of such folders")
        if camera_files(source, layout):
            folders = [source.resolve()]
        else:
            folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}; check the path and permissions") from error
    if not any(camera_files(folder, layout) for folder in folders):
        raise UserError(
            f"neither {source} nor a folder in it has a file {name}; give a folder in the layout {layout} "
            "(docs/dataset.md), or the other layout"
        )
    names = [folder.name or "object" for folder in folders]
    uids = safe_uids(names, names)
    return [SourceObject(uid, folder, name) for uid, folder, name in zip(uids, folders, names, strict=True)]


def fingerprint(objects: Sequence[SourceObject], layout: SourceLayout) -> str:
    """Return one sha256 of the names of all objects and of their camera files. Images are not read.

    Raises:
        UserError: A camera file cannot be read.
    """
    digest = hashlib.sha256()
    for item in objects:
        digest.update(f"{item.uid}\n".encode())
        for path in camera_files(item.folder, layout):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, which is read in parts.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and permissions") from error


def first_resolution(objects: Sequence[SourceObject], settings: ImportSettings) -> int:
    """Return the longer side, in pixels, of the first image of the first object that can be read.

    Raises:
        UserError: No object can be read (the message is that of the first object), or the images are too large.
    """
    first: UserError | None = None
    for item in objects:
        try:
            view = read_views(item.folder, settings)[0]
            side = max(stored_size(view.path, view.place))
        except UserError as error:
            first = first or error
            continue
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise UserError(
                f"{view.path} has {side} pixels on its longer side, but a set must have {SMALLEST_SIDE} to "
                f"{LARGEST_SIDE}; give --resolution to reduce the images"
            )
        return side
    raise UserError(f"no object can be imported; the first error is: {first}")
