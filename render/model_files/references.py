"""Find the files that a model refers to. Files outside of the source folder are ignored."""

import os
from pathlib import Path
from typing import Final

_USUAL_FOLDERS: Final = (".", "textures", "../textures", "../images", "../materials/textures")


def find_file(name: str, folder: Path, root: Path) -> Path | None:
    """Return the path of a file that a model refers to, or None if the file is not found inside `root`.

    Backslashes count as slashes. A name in other upper or lower case is also found. If there is no file at the path
    `name`, its file name alone is searched for in the folder of the model and in folders where data sets usually keep
    images. This finds files whose path is from another computer.

    Args:
        name: Path of the file as the model states it, relative to `folder`.
        folder: Folder of the model file.
        root: Folder that must contain the file.
    """
    path = name.replace("\\", "/")
    last = path.rpartition("/")[2]
    for candidate in (path, path.lstrip("/"), *(f"{usual}/{last}" for usual in _USUAL_FOLDERS)):
        found = _find(candidate, folder, root)
        if found is not None:
            return found
    return None


def is_inside(path: Path, root: Path) -> bool:
    """Return whether `path` is certainly inside the folder `root`.

    `path` may contain `..` after a symbolic link. Some programs remove `..` before they follow the link, others
    afterwards. The path must be inside `root` in both cases.
    """
    try:
        places = (path.resolve(), Path(os.path.normpath(path)).resolve())
    except RuntimeError:  # a loop of links
        return False
    return all(place.is_relative_to(root) for place in places)


def _find(name: str, folder: Path, root: Path) -> Path | None:
    try:
        if not is_inside(folder / name, root):
            return None
        if (folder / name).is_file():
            return (folder / name).resolve()
        place = folder
        for part in Path(os.path.relpath(folder / name, folder)).parts:
            place = place / part if part == ".." or (place / part).exists() else _in_other_case(place, part)
            if not is_inside(place, root):
                return None
        return place.resolve() if place.is_file() else None
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a loop of links, too long, a NUL byte, unreadable
        return None


def _in_other_case(folder: Path, name: str) -> Path:
    matches = sorted(entry for entry in os.listdir(folder) if entry.casefold() == name.casefold())
    return folder / (matches[0] if matches else name)
