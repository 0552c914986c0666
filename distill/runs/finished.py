"""The marker file of a finished run, `done.json`.

The marker is the last file that a run writes. It contains the hash of the run's request, the number of faces of the
mesh and the formats of the mesh files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from dataset.io.files import write_json_atomic
from dataset.io.resume import differences
from distill.config import REFERENCE_KEY, DistillRequest
from distill.mesh.export import Format
from distill.sds.schedule import WITHOUT_EFFECT

CONFIG: Final = "config.json"
DONE: Final = "done.json"
RESULTS: Final = ("field.safetensors", "views.png", "turntable.mp4", "mesh.glb")


def write_marker(folder: Path, request: DistillRequest, faces: int, formats: Sequence[Format]) -> None:
    """Mark a run as finished.

    Args:
        folder: The run folder.
        request: The request of the run.
        faces: Number of faces of the mesh.
        formats: Formats in which the mesh was written.
    """
    marker = {"request_sha256": request.sha256, "faces": faces, "formats": list(formats)}
    write_json_atomic(LocalFileSystem(), str((folder / DONE).absolute()), marker)


def remove_marker(folder: Path) -> None:
    """Remove the marker from the run folder `folder`, so that the run no longer counts as finished."""
    (folder / DONE).unlink(missing_ok=True)


def finished_faces(folder: Path, request: DistillRequest, formats: Sequence[Format]) -> int | None:
    """Return the number of faces of a finished run's mesh, or None if the run is not finished.

    A run is finished if all its result files exist, and its marker has the hash of `request` and at least the formats
    in `formats`.

    Args:
        folder: The run folder.
        request: The request of the run.
        formats: Formats in which the mesh is needed.
    """
    if not all((folder / name).is_file() for name in (CONFIG, *RESULTS)):
        return None
    try:
        marker = _marker_of(folder, request)
        faces, written = int(marker["faces"]), {"glb", *marker["formats"]}
    except (ValueError, KeyError, TypeError):  # damaged or from an unfinished run; the run writes it again
        return None
    return faces if marker["request_sha256"] == request.sha256 and set(formats) <= written else None


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
