"""The marker file of a finished run, `done.json`.

The marker is the last file that a run writes. It contains the hash of the run's request, the number of faces of the
mesh, the formats of the mesh files, and the mesh settings that can be chosen: the face budget and the texture size.
The mesh settings are not part of the request, so a finished run can get another mesh (`distill.runs.remesh`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.io.files import write_json_atomic
from dataset.io.resume import differences
from distill.config import REFERENCE_KEY, DistillRequest
from distill.mesh.export import PRESETS, Format, MeshSettings
from distill.sds.schedule import WITHOUT_EFFECT

CONFIG: Final = "config.json"
DONE: Final = "done.json"
FIELD: Final = "field.safetensors"
RESULTS: Final = (FIELD, "views.png", "turntable.mp4", "mesh.glb")


@dataclass(frozen=True)
class FinishedRun:
    """What the folder of a finished run says about its mesh."""

    faces: int
    formats: tuple[Format, ...]
    mesh: Mapping[str, int] | None
    """The mesh settings, as returned by `chosen`. None if the mesh was being made again when this was interrupted."""
    has_field: bool
    """Whether the folder contains the field, from which another mesh can be made."""

    def has_mesh(self, settings: MeshSettings, formats: Sequence[Format]) -> bool:
        """Return whether the mesh has the given settings, and was written in all of the given formats."""
        return self.mesh == chosen(settings) and set(formats) <= set(self.formats)


def chosen(settings: MeshSettings) -> dict[str, int]:
    """Return the mesh settings that the user can choose, by name. The preset determines the others."""
    return {"faces": settings.faces, "texture_size": settings.texture_size}


def write_marker(
    folder: Path, request: DistillRequest, faces: int, formats: Sequence[Format], settings: MeshSettings | None
) -> None:
    """Mark a run as finished.

    Args:
        folder: The run folder.
        request: The request of the run.
        faces: Number of faces of the mesh.
        formats: Formats in which the mesh was written.
        settings: Settings of the mesh; None if its files are about to be replaced.
    """
    mesh = None if settings is None else chosen(settings)
    marker = {"request_sha256": request.sha256, "faces": faces, "formats": list(formats), "mesh": mesh}
    write_json_atomic(LocalFileSystem(), str((folder / DONE).absolute()), marker)


def remove_marker(folder: Path) -> None:
    """Remove the marker from the run folder `folder`, so that the run no longer counts as finished."""
    (folder / DONE).unlink(missing_ok=True)


def finished_run(folder: Path, request: DistillRequest) -> FinishedRun | None:
    """Return what a finished run says about its mesh, or None if the run is not finished.

    A run is finished if its marker has the hash of `request`, and all its result files exist except perhaps the field.

    Args:
        folder: The run folder.
        request: The request of the run.
    """
    if not all((folder / name).is_file() for name in (CONFIG, *RESULTS) if name != FIELD):
        return None
    try:
        marker = _marker_of(folder, request)
        run = FinishedRun(
            faces=int(marker["faces"]),
            formats=tuple(dict.fromkeys(("glb", *marker["formats"]))),
            mesh=marker.get("mesh", chosen(PRESETS[request.preset])),  # older runs could not choose
            has_field=(folder / FIELD).is_file(),
        )
    except (ValueError, KeyError, TypeError):  # damaged or from an unfinished run; the run writes it again
        return None
    return run if marker["request_sha256"] == request.sha256 else None


def _marker_of(folder: Path, request: DistillRequest) -> dict[str, Any]:
    """Read the marker. Older run folders have no marker; derive it from the entry `mesh` of their config.json."""
    if (folder / DONE).is_file():
        return dict(json.loads((folder / DONE).read_text()))
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    new = request.as_json()
    old = {name: config[name] for name in (*new, REFERENCE_KEY) if name in config}
    return {
        "request_sha256": None if differences(old, new, WITHOUT_EFFECT) else request.sha256,
        "faces": config["mesh"]["faces"],
        "formats": config["mesh"].get("formats", ()),
    }
