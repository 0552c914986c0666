"""Make the mesh of a finished run again from its field, with another face budget, texture size or more formats."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError, one_line
from dataset.io.files import write_json_atomic
from distill.config import DistillRequest
from distill.mesh.export import FORMATS, Format, MeshSettings
from distill.nerf.field import load_field
from distill.output.results import replace_mesh
from distill.runs.finished import CONFIG, FIELD, FinishedRun, write_marker

logger = logging.getLogger(__name__)


def make_mesh_again(
    folder: Path,
    request: DistillRequest,
    run: FinishedRun,
    settings: MeshSettings,
    formats: Sequence[Format],
    *,
    config: Mapping[str, Any],
    device: torch.device,
) -> int:
    """Replace the mesh files of a finished run. No step is repeated, and the model is not needed.

    The formats that the run has already are written again too, so that all files show the same mesh. If this is
    interrupted, the next start of the run repeats it.

    Args:
        folder: The run folder.
        request: The request of the run.
        run: What the folder says about the present mesh.
        settings: Settings of the new mesh.
        formats: Formats in which the mesh is needed.
        config: Entries of config.json to replace, besides the statistics of the mesh.
        device: Device of the field.

    Returns:
        The number of faces of the new mesh.

    Raises:
        UserError: the field of the run is gone or damaged, or its config.json or metrics.json is damaged.
    """
    if not run.has_field:
        raise UserError(
            f"it is finished, but {FIELD}, from which its mesh would be made again, is gone; put this file back, or "
            "remove mesh.glb too, to run it again"
        )
    logger.info("%s is finished; only its mesh is made again", folder)
    stored = _stored_config(folder / CONFIG)
    kinds = tuple(kind for kind in FORMATS if kind in {*run.formats, *formats})
    field = load_field(folder / FIELD, device)
    write_marker(folder, request, run.faces, kinds, None)
    report = replace_mesh(field, folder, settings, kinds)
    stored.pop("mesh_settings", None)
    values = {**stored, **config, "mesh": {**asdict(report), "formats": kinds}}
    write_json_atomic(LocalFileSystem(), str((folder / CONFIG).absolute()), values)
    write_marker(folder, request, report.faces, kinds, settings)
    return report.faces


def _stored_config(path: Path) -> dict[str, Any]:
    """Return the content of a run's config.json. Raises UserError when it is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({one_line(error)}); restore it, or remove mesh.glb to run the image again"
        ) from error
    return stored
