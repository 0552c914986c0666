"""Find, open and hash an object's files: the model file and the files that it refers to.

References are found with patterns, without parsing the file. `render.model_files` validates the file before its import.
"""

import hashlib
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from dataset.errors import UserError
from dataset.io.files import json_bytes
from render.model_files.references import find_file

_IMAGE: Final = rb"\.(?:png|jpe?g|webp|bmp|tga|tiff?|exr|hdr|dds|psd|gif|jp2|ktx2)"
_URI: Final = re.compile(rb'"uri"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")')
_LIBRARY: Final = re.compile(rb"mtllib[ \t]+([^\r\n]+)")
_MAP: Final = re.compile(rb"(?im)^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^\r\n]+)")
_TEXTURE: Final = re.compile(rb"comment[ \t]+TextureFile[ \t]+([^\r\n]+)")
_IMAGE_SUFFIX: Final = re.compile(_IMAGE + rb"(?![\w.])", re.I)
_NO_NAME: Final = re.compile(rb"[\x00-\x1f\"*?<>|]")
_LONGEST_NAME: Final = 4096
_PLY_HEADER: Final = 1 << 20
_MOST_WORDS: Final = 64  # of a file name with spaces


class NameNotUtf8(UserError):
    """A file name is not valid UTF-8. Outcome tables store the name of this class as the error of an object."""


class SymlinkLoop(UserError):
    """A symbolic link leads to itself. Outcome tables store the name of this class as the error of an object."""


class NotRegularFile(UserError):
    """A path leads to a folder, a FIFO, a socket or a device instead of a regular file.

    Outcome tables store the name of this class as the error of an object.
    """


def locate(root: Path, name: str) -> Path:
    """Return the path of a file in the source folder, with symbolic links resolved. The file may be missing.

    Args:
        root: The source folder, without symbolic links in its path.
        name: Path of the file relative to `root`, as the manifest stores it.

    Raises UserError when the path leads out of `root`, is a symbolic link to itself, or is not valid UTF-8.
    """
    path = root / name
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise SymlinkLoop(f"{name!r} is a symbolic link that leads to itself; correct or remove the link") from error
    if not resolved.is_relative_to(root):
        raise UserError(f"{name!r} is outside of the source folder {root}; copy the file into this folder")
    if not resolved.exists() and re.search(r"\\x[0-9a-f]{2}", name):  # dataset.format.manifest.escape_name
        raise NameNotUtf8(f"the file name {name} is not valid UTF-8; rename the file or its folder")
    return resolved


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading in binary mode.

    Raises NotRegularFile when the path leads to something else. A FIFO does not block this function.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFile(f"{path.name} is a folder, FIFO, socket or device, not a regular file")
    return open(descriptor, "rb")


def object_sha256(path: Path, root: Path) -> str:
    """Return the sha256 of an object's contents. Two objects with the same sha256 are duplicates.

    If the model file refers to no other file, this is the sha256 of its bytes. Otherwise the sha256 also covers each
    referenced file that exists inside `root`.

    Args:
        path: The model file, without symbolic links in its path.
        root: The source folder, without symbolic links in its path.

    Raises OSError or NotRegularFile when the model file cannot be read.
    """
    own = file_sha256(path)
    others = {os.path.relpath(each, path.parent): file_sha256(each) for each in referenced_files(path, root)}
    return hashlib.sha256(json_bytes([own, sorted(others.items())])).hexdigest() if others else own


def file_sha256(path: Path) -> str:
    """Return the sha256 of the bytes of a regular file. Raises OSError or NotRegularFile when it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def referenced_files(path: Path, root: Path) -> list[Path]:
    """Return the sorted paths of the files that the model file `path` refers to. Files outside of `root` are left out.

    `path` and `root` must contain no symbolic links. The returned paths contain none.
    """
    find = {".glb": _gltf_names, ".gltf": _gltf_names, ".obj": _obj_names, ".fbx": _fbx_names, ".ply": _ply_names}
    names = find[path.suffix.lower()](path) if path.suffix.lower() in find else iter(())
    found = {file for name in names for file in _existing(path.parent, name, root)}
    if path.suffix.lower() == ".obj":
        found |= {file for each in found for file in _images_of_library(each, root)}
    return sorted(found - {path})


def _existing(folder: Path, name: str, root: Path) -> Iterator[Path]:
    """Yield the regular file inside `root` that the reference `name` leads to, if there is one."""
    found = find_file(name, folder, root)
    if found is not None:
        yield found


def _gltf_names(path: Path) -> Iterator[str]:
    with open_regular(path) as file:
        head = file.read(20)
        glb = head[:4] == b"glTF" and len(head) == 20
        text = file.read(struct.unpack_from("<I", head, 12)[0]) if glb else head + file.read()
    for match in _URI.finditer(text):
        if not match[1].startswith(b'"data:'):
            try:
                yield unquote(json.loads(match[1]))
            except ValueError:
                continue


def _obj_names(path: Path) -> Iterator[str]:
    yield path.with_suffix(".mtl").name  # the importer's default
    yield from _statements(_LIBRARY, path)


def _images_of_library(path: Path, root: Path) -> Iterator[Path]:
    """Yield the images that a material file refers to. Yields nothing if `path` is itself an image."""
    if not _is_image(path.name):
        for name in filter(_is_image, _statements(_MAP, path)):
            yield from _existing(path.parent, name, root)


def _is_image(name: str) -> bool:
    return _IMAGE_SUFFIX.search(os.fsencode(name)) is not None


def _fbx_names(path: Path) -> Iterator[str]:
    with open_regular(path) as file:
        data = file.read()
    for match in _IMAGE_SUFFIX.finditer(data):
        run = data[max(0, match.start() - _LONGEST_NAME) : match.end()]
        yield _NO_NAME.split(run)[-1].strip().decode("utf-8", "surrogateescape")


def _ply_names(path: Path) -> Iterator[str]:
    with open_regular(path) as file:
        header = file.read(_PLY_HEADER).partition(b"end_header")[0]
    yield from (_text(match[1]) for match in _TEXTURE.finditer(header))


def _statements(pattern: re.Pattern[bytes], path: Path) -> Iterator[str]:
    """Yield every possible file name in the matching statements of a file.

    Options may precede a name, which may contain spaces: each word is yielded, and the line from each word on.
    """
    with open_regular(path) as file:
        data = file.read().replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    for line in {match[1] for match in pattern.finditer(data)}:
        words = _text(line).split()[:_MOST_WORDS]
        yield from {_text(line), *words, *(" ".join(words[i:]) for i in range(len(words)))}


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape").replace("\0", "").strip().strip("\"'")
