"""Reject OBJ files that refer to existing files outside of their folder, before Blender imports them.

Blender's importer opens any path of `mtllib` and of the `map_` statements. A path that leads out of the folder is an
error if a file exists there. Otherwise it is ignored, because it refers to the author's disk.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from render.model_files.errors import ModelError, UnsafeReference

_LIBRARY: Final = re.compile(rb"mtllib[ \t]+([^\r\n]+)")
_IMAGE: Final = re.compile(rb"(?im)^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^\r\n]+)")
_MOST_WORDS: Final = 64


def check_obj(path: Path) -> None:
    """Raise UnsafeReference when the .obj file or one of its material files refers to a file outside of its folder."""
    folder = path.parent.resolve()
    libraries = {path.with_suffix(".mtl").name}  # Blender's default
    for names in _statements(_LIBRARY, path):
        libraries |= set(names)
    for name in sorted(libraries):
        check_inside_folder(folder, name, path.name)
        library = folder / _slashed(name)
        if _is_file(library):
            for names in _statements(_IMAGE, library):
                for image in names:
                    check_inside_folder(folder, image, library.name)


def check_inside_folder(folder: Path, name: str, where: str) -> None:
    """Raise UnsafeReference when `name`, as a path or relative to `folder`, exists outside of `folder`.

    Raises ModelError when it is neither a file nor a folder.
    """
    for path in (folder / _slashed(name), folder / _slashed(name).lstrip("/")):
        try:
            inside = path.resolve().is_relative_to(folder)
            if not inside and path.exists():
                raise UnsafeReference(f"{where} refers to {name!r}, outside of its folder")
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise ModelError(f"{where} refers to {name!r}, which is not a file")
        except OSError:  # too long or not readable: Blender could not open it either
            continue


def _statements(pattern: re.Pattern[bytes], path: Path) -> Iterator[list[str]]:
    """Yield, per statement of a file, every suffix that could be the file name, since options may precede it."""
    text = path.read_bytes().replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    for match in pattern.finditer(text):
        rest = match[1].decode("utf-8", "surrogateescape").replace("\0", "").strip()
        words = rest.split()
        if len(words) > _MOST_WORDS:
            raise ModelError(f"{path.name} has a file name of {len(words)} words; the limit is {_MOST_WORDS}")
        ends = [rest, *(" ".join(words[i:]) for i in range(len(words)))]
        yield [end.strip("\"'") for end in {*ends, *words}]


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False
