"""Write the results of a distillation: field, sheet of views, turntable video, mesh and metrics."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dataset.errors import UserError, one_line
from distill.mesh import export
from distill.nerf.field import Field
from distill.output.preview import PREVIEW_ELEVATION_DEG, ViewRenderer, view_distance, view_renderer
from distill.output.summary import RunSeconds, mesh_metrics, metrics, write_metrics
from distill.output.turntable import write_turntable, write_views
from distill.sds.checkpoint import Distillation
from distill.sds.loss_log import LOSSES, METRICS, read_losses
from distill.sds.schedule import DistillSettings

VIEW_RESOLUTION: Final = 128  # smallest edge in pixels of the images in the video and the sheet of views


def write_results(
    state: Distillation,
    settings: DistillSettings,
    mesh_settings: export.MeshSettings,
    out: Path,
    *,
    kinds: Sequence[export.Format] = ("glb",),
    warnings: Sequence[str] = (),
    texture_s: float | None = None,
) -> export.MeshReport:
    """Write all results of a distillation into its run folder.

    Args:
        state: The final state of the distillation.
        settings: Settings of the distillation.
        mesh_settings: Settings of the mesh.
        out: The run folder.
        kinds: Formats of the mesh files to write.
        warnings: Sentences about the input image, to be stored in metrics.json.
        texture_s: Duration of the texture phase in seconds; None without this phase.

    Returns:
        Statistics of the mesh.

    Raises:
        UserError: the field is empty or contains NaN. All results except the mesh are written nevertheless.
    """
    started = time.perf_counter()
    field = state.field.eval()
    field.save(out / "field.safetensors")
    render = view_renderer(field, state.occupancy, settings, max(VIEW_RESOLUTION, settings.fine_resolution))
    distance = view_distance(settings)
    write_views(
        lambda c2w: render(c2w).panels, out / "views.png", distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG
    )
    coverage = _write_video(render, out / "turntable.mp4", distance)
    losses = read_losses(out / LOSSES)
    distill_s = losses.rows[-1]["seconds"] if losses.rows else 0.0
    durations = RunSeconds(distill_s, time.perf_counter() - started, texture=texture_s)
    stored = {"warnings": list(warnings)} if warnings else {}
    write_metrics(out / METRICS, stored | metrics(state, settings, losses, coverage, durations=durations))
    report = _write_mesh(field, out, mesh_settings, kinds)
    durations = replace(durations, mesh=report.seconds)
    values = metrics(state, settings, losses, coverage, report=report, durations=durations)
    write_metrics(out / METRICS, stored | values)
    return report


def replace_mesh(
    field: Field, out: Path, mesh_settings: export.MeshSettings, kinds: Sequence[export.Format]
) -> export.MeshReport:
    """Write the mesh files of a finished distillation again, and store the statistics of the mesh in metrics.json.

    Args:
        field: The final field.
        out: The run folder.
        mesh_settings: Settings of the mesh.
        kinds: Formats of the mesh files to write.

    Returns:
        Statistics of the mesh.

    Raises:
        UserError: the field is empty or contains NaN, or metrics.json is damaged.
    """
    report = _write_mesh(field, out, mesh_settings, kinds)
    path = out / METRICS
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["mesh"] = mesh_metrics(report)
            values["took"]["seconds"]["mesh"] = round(report.seconds, 2)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({one_line(error)}); remove it, and repeat the command") from error
        write_metrics(path, values)
    return report


def _write_mesh(
    field: Field, out: Path, settings: export.MeshSettings, kinds: Sequence[export.Format]
) -> export.MeshReport:
    with torch.no_grad():
        return export.export_mesh(
            field.density,
            field.albedo,
            field.radius,
            out / "mesh.glb",
            settings,
            kinds=kinds,
            device=field.grid.table.device,
        )


def _write_video(render: ViewRenderer, path: Path, distance: float) -> list[float]:
    """Write a turntable video that shows colors, normals and textureless renders side by side.

    Returns:
        The mean opacity of each frame.
    """
    coverage: list[float] = []

    def panels(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
        images = render(c2w)
        coverage.extend(images.alpha.mean((1, 2)).tolist())
        return np.concatenate(images.panels, 2)

    write_turntable(panels, path, distance=distance, elevation_deg=PREVIEW_ELEVATION_DEG)
    return coverage
