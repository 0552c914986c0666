"""Write objects of furniture libraries as OBJ, MTL and image files, with a manifest and labels."""

import csv
import io
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import Image

from dataset.errors import UserError, one_line
from examples.furniture.catalog import CatalogEntry, read_catalog, safe_path, skip_reason
from render.model_files.errors import ModelError
from render.model_files.image_header import check_image_size

logger = logging.getLogger(__name__)
SOURCE_NAME: Final = "sweethome3d-furniture"
PACKAGE_URL: Final = "http://www.sweethome3d.com/importModels.jsp"
MAX_MEMBER_BYTES: Final = 64 << 20
MAX_TOTAL_BYTES: Final = 4 << 30
MANIFEST_COLUMNS: Final = ("uid", "file", "source", "license", "author", "title", "url")
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".gif")
_KEPT: Final = (".obj", ".mtl", ".txt", ".html", *_IMAGES)
_PAGE: Final = re.compile(rb"https?://www\.blendswap\.com/blends/view/\d+")
_VECTOR: Final = re.compile(rb"(?m)^(vn?)[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[^\r\n]*")


@dataclass(frozen=True)
class Options:
    """Which objects are skipped, and how large the images of the others may be."""

    min_flatness: float = 0.04
    max_image_px: int = 512
    max_model_mb: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_flatness < 1:
            raise UserError(f"--min-flatness is {self.min_flatness}; choose a value from 0 to below 1")
        if self.max_image_px < 1:
            raise UserError(f"--max-image-px is {self.max_image_px}; choose a value of at least 1")
        if self.max_model_mb is not None and self.max_model_mb <= 0:
            raise UserError(f"--max-model-mb is {self.max_model_mb}; choose a positive number of megabytes")


@dataclass(frozen=True)
class Library:
    """An open `.sh3f` file."""

    source: str  # its name, for messages
    archive: zipfile.ZipFile
    members: dict[str, list[zipfile.ZipInfo]]  # folder: the files to keep in it and in its subfolders


@dataclass
class Result:
    """The objects that were written and those that were skipped."""

    rows: list[tuple[str, ...]] = field(default_factory=list)  # of the manifest, without uid
    labels: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # reason: names
    total_bytes: int = 0
    downscaled: int = 0


def convert_library(source: str, data: bytes, out: Path, options: Options, result: Result) -> None:
    """Write the usable objects of one furniture library to the folder `out`, and add them to `result`.

    Args:
        source: Name of the `.sh3f` file, for error messages.
        data: The bytes of this file.
        out: The output folder.
        options: Which objects are skipped and how the others are stored.
        result: Changed in place.

    Raises:
        UserError: The file is not a furniture library, is damaged, or has unsafe paths or sizes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            library = Library(source, archive, _members_by_folder(archive, source))
            for entry in read_catalog(archive, source):
                reason = skip_reason(entry, options.min_flatness) or _too_large(entry, library, options)
                if reason:
                    result.skipped.setdefault(reason, []).append(entry.name)
                else:
                    _write_object(library, entry, out, options, result)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"the library {source} is not a usable zip file ({one_line(error)}); download the package again"
        ) from error


def uids_of(files: Sequence[str]) -> list[str]:
    """Return a uid for each OBJ file, made from the path of its folder.

    If a folder contains several of the files, their uids also contain the file name.
    """
    folders = Counter(str(PurePosixPath(file).parent) for file in files)
    paths = [PurePosixPath(file) for file in files]
    names = [path.parent if folders[str(path.parent)] == 1 else path.with_suffix("") for path in paths]
    return [re.sub(r"[^A-Za-z0-9_-]", "_", f"furniture-{'-'.join(name.parts)}") for name in names]


def csv_bytes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Return a CSV table in UTF-8, with `columns` as its first line."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()


def rotate_obj(data: bytes, rotation: Sequence[float]) -> bytes:
    """Rotate the vertices and normals of an OBJ file. Return the bytes of the new file.

    `rotation` are the nine values of a 3x3 rotation matrix, row by row.
    """

    def rotated(match: re.Match[bytes]) -> bytes:
        x, y, z = (float(match[i]) for i in (2, 3, 4))
        values = (rotation[i] * x + rotation[i + 1] * y + rotation[i + 2] * z for i in (0, 3, 6))
        return match[1] + b" " + " ".join(f"{value:.7g}" for value in values).encode()

    return _VECTOR.sub(rotated, data)


def downscale_image(data: bytes, max_px: int, name: str) -> bytes:
    """Scale an encoded image down, so that its longer side has at most `max_px` pixels.

    Returns the image in the same file format. An image that is small enough is returned unchanged.

    `name` is the name of the image, for the error message. Raises UserError when the image cannot be decoded.
    """
    try:
        check_image_size(name, data)
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= max_px:
                return data
            kind = image.format
            small_image: Image.Image = image
            if image.mode not in ("L", "RGB", "RGBA", "LA"):
                small_image = image.convert("RGBA" if "transparency" in image.info else "RGB")
            small_image.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
            small = io.BytesIO()
            small_image.save(small, kind, **({"quality": 90} if kind == "JPEG" else {}))
    except (OSError, SyntaxError, ValueError, ModelError, Image.DecompressionBombError) as error:
        raise UserError(f"the image {name} cannot be read ({one_line(error)}); download the package again") from error
    return small.getvalue()


def _members_by_folder(archive: zipfile.ZipFile, source: str) -> dict[str, list[zipfile.ZipInfo]]:
    """Return the members to keep of each folder of the library."""
    members: dict[str, list[zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        path = PurePosixPath(safe_path(info.filename, source))
        if not info.is_dir() and path.suffix.lower() in _KEPT:
            for folder in path.parents:
                members.setdefault(str(folder), []).append(info)
    return members


def _too_large(entry: CatalogEntry, library: Library, options: Options) -> str:
    try:
        size = library.archive.getinfo(entry.model).file_size
    except KeyError as error:
        raise UserError(
            f"{library.source} has no file {entry.model}, which the catalog lists; download the package again"
        ) from error
    limit = options.max_model_mb
    return f"OBJ file larger than {limit:g} MB" if limit is not None and size > limit * 1e6 else ""


def _write_object(library: Library, entry: CatalogEntry, out: Path, options: Options, result: Result) -> None:
    url = PACKAGE_URL
    for info in library.members[str(PurePosixPath(entry.model).parent)]:
        data = _read(library, info)
        suffix = PurePosixPath(info.filename).suffix.lower()
        if suffix in _IMAGES:
            small = downscale_image(data, options.max_image_px, f"{library.source}: {info.filename}")
            result.downscaled += small is not data
            data = small
        elif info.filename == entry.model and entry.is_rotated:
            data = rotate_obj(data, entry.rotation)
        elif suffix in (".txt", ".html") and (page := _PAGE.search(data)):
            url = page[0].decode()
        result.total_bytes += len(data)
        if result.total_bytes > MAX_TOTAL_BYTES:
            raise UserError(
                f"the files of all libraries up to {library.source} have more than {MAX_TOTAL_BYTES:,} bytes; convert "
                "fewer libraries at a time"
            )
        path = out / info.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    result.rows.append((entry.model, SOURCE_NAME, entry.license, entry.author, entry.name, url))
    result.labels.append(entry.label)


def _read(library: Library, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_MEMBER_BYTES:
        raise UserError(
            f"{library.source}: the file {info.filename} has {info.file_size:,} bytes, more than the limit of "
            f"{MAX_MEMBER_BYTES:,}; give an unmodified library"
        )
    return library.archive.read(info)
