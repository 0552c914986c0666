"""Copies of the files of runs, for the page to show."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from dataset.errors import UserError
from distill.app.guard import publish
from distill.app.library import WORDS, RunState

_OBJ_PARTS: Final = ("mesh.obj", "mesh.mtl", "mesh.png")
_PLACEHOLDER_SIDE: Final = 64  # pixels


@dataclass(frozen=True)
class ResultFiles:
    """Paths of published files of a finished run; None for files that the run does not have."""

    model: str
    video: str | None
    sheet: str | None
    obj: str | None
    """A ZIP file of the OBJ file, its material and its texture."""
    ply: str | None
    usdz: str | None


def result_files(run: RunState, cache: Path) -> ResultFiles | None:
    """Publish the results of a run, and return their paths, or None if the run has no results yet.

    Args:
        run: The run.
        cache: The folder from which files are served.

    Raises:
        UserError: a file cannot be copied.
    """
    if run.status != "finished" or run.stored is None:
        return None
    folder = run.folder
    return ResultFiles(
        str(publish(folder / "mesh.glb", cache)),
        _published(folder / "turntable.mp4", cache),
        _published(folder / "views.png", cache),
        _obj_archive(folder, cache),
        _published(folder / "mesh.ply", cache),
        _published(folder / "mesh.usdz", cache),
    )


def thumbnails(runs: Sequence[RunState], cache: Path) -> list[tuple[str, str]]:
    """Return an image file and a caption for each run. A run without an image yet gets a gray square."""
    return [(_thumbnail(run, cache), f"{run.name}: {WORDS[run.status].lower()}") for run in runs]


def _thumbnail(run: RunState, cache: Path) -> str:
    try:
        return str(publish(run.folder / "input.png", cache))
    except UserError:
        path = cache / "runs" / "placeholder.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (_PLACEHOLDER_SIDE, _PLACEHOLDER_SIDE), (229, 231, 235)).save(path)
        return str(path)


def _published(path: Path, cache: Path) -> str | None:
    return str(publish(path, cache)) if path.is_file() and not path.is_symlink() else None


def _obj_archive(folder: Path, cache: Path) -> str | None:
    """Return the path of a ZIP file of the OBJ file and the files to which it refers."""
    parts = [folder / name for name in _OBJ_PARTS]
    if not all(part.is_file() and not part.is_symlink() for part in parts):
        return None
    first = publish(parts[0], cache)
    archive = first.with_name("mesh-obj.zip")
    if not archive.is_file():
        temporary = first.with_name(".mesh-obj.zip")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
            for part in parts:
                file.write(part, part.name)
        temporary.replace(archive)
    return str(archive)
